/* Encodes texts and says how long that took, without reading, loading and writing.
 *   bench_tokenize MODEL TEXTS IDS [THREADS]
 * MODEL: a directory with tokenizer.json.  TEXTS: a file of texts, each followed by a zero byte.
 * IDS: written, all as u32: of each text the number of its ids, and the ids.  Prints one JSON
 * object. bench/tokenize runs it against `tokenizers` and compares the ids. */
#include "data/file_map.h"
#include "data/threads.h"
#include "data/tokenizer/tokenizer.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct text {
    const char *bytes;
    size_t length;
    struct gr_encoding encoding;
};

struct work {
    const struct gr_tokenizer *tokenizer;
    struct text *text;
    int64_t count;
    _Atomic int64_t next;
    _Atomic int64_t cpu_ns; /* of all threads, while they encoded */
    _Atomic bool failed;
};

static int64_t thread_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* One thread's share: texts as they come. */
static void encode(void *context)
{
    struct work *w = context;
    int64_t begin = thread_cpu_ns(), i;

    while ((i = atomic_fetch_add(&w->next, 1)) < w->count) {
        struct text *text = &w->text[i];

        if (gr_tokenizer_encode(w->tokenizer, &text->encoding, text->bytes, text->length, true) !=
            GR_OK) {
            gr_print_error();
            atomic_store(&w->failed, true);
        }
    }
    atomic_fetch_add(&w->cpu_ns, thread_cpu_ns() - begin);
}

static void split(struct work *w, const struct gr_file_map *map)
{
    const char *at = (const char *)map->data, *end = at + map->identity.bytes;

    for (const char *c = at; c < end; c++)
        w->count += *c == '\0';
    w->text = GR_NEW_ARRAY(struct text, w->count + 1);
    for (int64_t i = 0; i < w->count; i++) {
        w->text[i] = (struct text){.bytes = at, .length = strlen(at)};
        at += w->text[i].length + 1;
    }
}

static gr_status write_ids(const struct work *w, const char *path, int64_t *tokens)
{
    FILE *file = fopen(path, "wb");
    bool is_written = file != NULL;

    for (int64_t i = 0; is_written && i < w->count; i++) {
        const struct gr_encoding *encoding = &w->text[i].encoding;
        uint32_t count = (uint32_t)encoding->count;

        is_written = fwrite(&count, sizeof count, 1, file) == 1 &&
                     fwrite(encoding->ids, sizeof *encoding->ids, count, file) == count;
        *tokens += count;
    }
    if (file != NULL && fclose(file) != 0)
        is_written = false;
    return is_written ? GR_OK
                      : gr_fail(GR_ERR_DATA, path, "is the disk full?", "cannot be written");
}

int main(int argc, char **argv)
{
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_file_map map = {0};
    struct work w = {0};
    int threads = argc > 4 ? atoi(argv[4]) : 1;
    int64_t tokens = 0, begin;
    gr_status status = GR_OK;

    if (argc < 4) {
        fputs("usage: bench_tokenize MODEL TEXTS IDS [THREADS]\n", stderr);
        return 2;
    }
    GR_TRY(gr_tokenizer_create(&tokenizer, argv[1]));
    GR_TRY(gr_file_map_open(&map, argv[2]));
    w.tokenizer = tokenizer;
    split(&w, &map);
    begin = gr_clock_ns();
    gr_run_threads(threads, encode, &w);
    printf("{\"seconds\": %.6f, ", (double)(gr_clock_ns() - begin) * 1e-9);
    GR_TRY(write_ids(&w, argv[3], &tokens));
    printf("\"cpu_seconds\": %.6f, \"texts\": %" PRId64 ", \"tokens\": %" PRId64 "}\n",
           (double)w.cpu_ns * 1e-9, w.count, tokens);
    if (w.failed)
        status = GR_ERR_DATA;
out:
    if (status != GR_OK)
        gr_print_error();
    for (int64_t i = 0; i < w.count; i++)
        gr_encoding_release(&w.text[i].encoding);
    gr_free(w.text);
    gr_file_map_close(&map);
    gr_tokenizer_destroy(tokenizer);
    return gr_status_exit_code(status);
}
