/* The cache of token stores: finds, makes and mends them. */
#include "data/token_cache.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "tests/token_shop.h"

#include <dirent.h>
#include <unistd.h>

static void copy_file(const char *to, const char *from)
{
    struct gr_buffer bytes = {0};
    char piece[4096];
    FILE *file = fopen(from, "rb");
    size_t count;

    ASSERT(file != NULL);
    while ((count = fread(piece, 1, sizeof piece, file)) > 0)
        gr_buffer_add(&bytes, piece, count);
    fclose(file);
    gr_test_write_file(to, bytes.data, bytes.length);
    gr_buffer_release(&bytes);
}

/* Files in cache/tokens that end so. */
static int64_t count_files(const char *suffix)
{
    DIR *folder = opendir("cache/tokens");
    const struct dirent *entry;
    int64_t count = 0;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        size_t length = strlen(entry->d_name), tail = strlen(suffix);

        count += length > tail && strcmp(entry->d_name + length - tail, suffix) == 0;
    }
    if (folder != NULL)
        closedir(folder);
    return count;
}

/* The one store in the cache. */
static char *cached_path(struct token_shop *s, bool expect_there)
{
    struct gr_sources sources = {0};
    bool was_there = !expect_there;
    char *path = NULL;

    ASSERT_OK(gr_token_cache_prepare(&path, &was_there, &sources, &s->request, &s->files, "cache"));
    ASSERT(was_there == expect_there);
    ASSERT_INT(sources.count, 2);
    gr_sources_release(&sources);
    return path;
}

static void load_cached(struct token_shop *s)
{
    token_shop_forget(s);
    ASSERT_OK(gr_token_cache_load(&s->documents, &s->sources, &s->request, &s->files, "cache"));
    token_shop_assert_text(s);
}

TEST(token_cache_makes_a_store_once_for_each_request)
{
    struct token_shop s;

    token_shop_begin(&s);
    gr_free(cached_path(&s, false));
    gr_free(cached_path(&s, true));
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 1);
    s.f.options.loss_on = "all"; /* another request, another store */
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 2);
    gr_test_write_text(token_shop_paths[1], "{\"text\": \"other\"}\n"); /* other data */
    token_shop_reopen(&s, token_shop_paths);
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 3);
    ASSERT_INT(count_files(".json"), 3);
    token_shop_end(&s);
}

TEST(token_cache_knows_data_by_what_it_holds)
{
    static const char *const moved[] = {"elsewhere.jsonl", "more.jsonl"};
    struct token_shop s;

    token_shop_begin(&s);
    gr_free(cached_path(&s, false));
    copy_file(moved[0], token_shop_paths[0]);
    token_shop_reopen(&s, moved);
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 1);
    ASSERT_TEXT(s.sources.item[0].path, "elsewhere.jsonl");
    token_shop_end(&s);
}

TEST(token_cache_that_is_damaged_is_made_again)
{
    struct token_shop s;
    char *path;

    token_shop_begin(&s);
    path = cached_path(&s, false);
    gr_test_write_text(path, "cut"); /* another size than the record's */
    gr_free(path);
    path = cached_path(&s, false);
    ASSERT_INT(count_files(".h5"), 1);
    {
        FILE *file = fopen(path, "r+b"); /* the same size, another byte */

        fputc('x', file);
        fclose(file);
    }
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 1);
    gr_free(path);
    path = cached_path(&s, true);
    unlink(path); /* a record without its file */
    load_cached(&s);
    ASSERT_INT(count_files(".json"), 1);
    gr_free(path);
    token_shop_end(&s);
}

TEST(token_cache_takes_away_what_a_killed_process_left)
{
    struct token_shop s;
    char *path, *record, *orphan;

    token_shop_begin(&s);
    path = cached_path(&s, false);
    record = gr_format("%.*s.json", (int)(strlen("cache/tokens/") + 64), path);
    orphan = gr_format("%.*s-0123.h5", (int)(strlen("cache/tokens/") + 64), path);
    gr_test_write_text(orphan, "half a store");
    unlink(record);
    load_cached(&s);
    ASSERT_INT(count_files(".h5"), 1);
    ASSERT(access(orphan, F_OK) != 0);
    gr_free(path);
    gr_free(record);
    gr_free(orphan);
    token_shop_end(&s);
}

TEST(token_cache_that_cannot_be_written_does_not_stop_a_reading)
{
    struct gr_sources sources = {0};
    struct token_shop s;
    bool was_there;
    char *path = NULL;

    token_shop_begin(&s);
    gr_test_write_text("cache", "a file is in the way");
    load_cached(&s);
    ASSERT_INT(s.sources.count, 2);
    ASSERT_TEXT(s.sources.item[0].sha256, s.files.sha256[0]);
    ASSERT(gr_token_cache_prepare(&path, &was_there, &sources, &s.request, &s.files, "cache") ==
           GR_ERR_USAGE);
    ASSERT(path == NULL);
    gr_sources_release(&sources);
    token_shop_end(&s);
}

TEST(token_cache_keeps_nothing_of_bad_data)
{
    struct token_shop s;

    token_shop_begin(&s);
    gr_test_write_text(token_shop_paths[1], "{\"text\": \"a\"}\n{\"text\": \n");
    token_shop_reopen(&s, token_shop_paths);
    ASSERT_INT(gr_token_cache_load(&s.documents, &s.sources, &s.request, &s.files, "cache"),
               GR_ERR_DATA);
    ASSERT(strncmp(gr_error_message(), "more.jsonl:2: broken JSON", 25) == 0);
    ASSERT_INT(count_files(".h5"), 0);
    ASSERT_INT(count_files(".json"), 0);
    token_shop_end(&s);
}

TEST(token_cache_refuses_data_that_changes_while_it_is_read)
{
    struct token_shop s;

    token_shop_begin(&s);
    gr_test_write_text(token_shop_paths[1], "{\"text\": \"later\"}\n"); /* after it was hashed */
    ASSERT_INT(gr_token_cache_load(&s.documents, &s.sources, &s.request, &s.files, "cache"),
               GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "more.jsonl: the file changed while it was read");
    ASSERT_INT(count_files(".h5"), 0);
    token_shop_end(&s);
}
