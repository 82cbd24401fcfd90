/* What a tokenizer does with texts, for tests/tokenizer_compare.py: reads one JSON string per line,
 * writes per line {"ids", "begin", "end", "bare" (ids without specials), "text", "skipped" (both
 * decoded from ids, the latter without specials)} or {"error"}.
 * Usage: tokenizer_dump DIRECTORY [time] < texts > results
 * With `time` it writes the processor seconds that encoding took, nothing else. */
#include "data/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *numbers(const int64_t *values, int64_t count)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(values[i]));
    return list;
}

static json_t *ids(const struct gr_encoding *e)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < e->count; i++)
        json_array_append_new(list, json_integer((json_int_t)e->ids[i]));
    return list;
}

static gr_status dump(json_t *result, const struct gr_tokenizer *tokenizer, const char *text,
                      size_t length)
{
    struct gr_encoding full = {0}, bare = {0};
    struct gr_buffer decoded = {0}, skipped = {0};
    gr_status status;

    GR_TRY(gr_tokenizer_encode(tokenizer, &full, text, length, true));
    GR_TRY(gr_tokenizer_encode(tokenizer, &bare, text, length, false));
    GR_TRY(gr_tokenizer_decode(tokenizer, &decoded, full.ids, full.count, false));
    GR_TRY(gr_tokenizer_decode(tokenizer, &skipped, full.ids, full.count, true));
    json_object_set_new(result, "ids", ids(&full));
    json_object_set_new(result, "begin", numbers(full.begin, full.count));
    json_object_set_new(result, "end", numbers(full.end, full.count));
    json_object_set_new(result, "bare", ids(&bare));
    json_object_set_new(result, "text", json_stringn(decoded.data, decoded.length));
    json_object_set_new(result, "skipped", json_stringn(skipped.data, skipped.length));
out:
    gr_encoding_release(&full);
    gr_encoding_release(&bare);
    gr_buffer_release(&decoded);
    gr_buffer_release(&skipped);
    return status;
}

static gr_status encode(double *seconds, const struct gr_tokenizer *tokenizer, const char *text,
                        size_t length)
{
    struct gr_encoding encoding = {0};
    struct timespec begin, end;
    gr_status status;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    status = gr_tokenizer_encode(tokenizer, &encoding, text, length, true);
    gr_encoding_release(&encoding);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    *seconds += (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    return status;
}

static void write_result(const struct gr_tokenizer *tokenizer, const char *text, size_t length)
{
    json_t *result = json_object();

    if (dump(result, tokenizer, text, length) != GR_OK)
        json_object_set_new(result, "error", json_string(gr_error_message()));
    gr_error_clear();
    json_dumpf(result, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(result);
}

int main(int argc, char **argv)
{
    struct gr_tokenizer *tokenizer = NULL;
    bool timed = argc == 3 && strcmp(argv[2], "time") == 0;
    char *line = NULL;
    double seconds = 0;
    size_t capacity = 0;
    ssize_t length;
    gr_status status = GR_OK;

    if (argc != 2 + timed || gr_tokenizer_create(&tokenizer, argv[1]) != GR_OK) {
        fprintf(stderr, "%s\n", gr_error_message());
        return 1;
    }
    while (status == GR_OK && (length = getline(&line, &capacity, stdin)) > 0) {
        json_t *json = json_loadb(line, (size_t)length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        const char *text = json_string_value(json);

        if (timed)
            status = encode(&seconds, tokenizer, text, json_string_length(json));
        else
            write_result(tokenizer, text, json_string_length(json));
        json_decref(json);
    }
    if (timed)
        printf("%.6f\n", seconds);
    free(line);
    gr_tokenizer_destroy(tokenizer);
    return status == GR_OK ? 0 : 1;
}
