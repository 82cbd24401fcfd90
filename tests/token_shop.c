/* See token_shop.h. */
#include "tests/token_shop.h"

#include "tests/files.h"
#include "tests/test.h"

const char *const token_shop_paths[2] = {"data.jsonl", "more.jsonl"};

static const char data[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
    " {\"role\": \"assistant\", \"content\": \"bc\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"nobody answers\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"d\"},"
    " {\"role\": \"assistant\", \"content\": \"e\"}], \"id\": 7}\n";

void token_shop_begin(struct token_shop *s)
{
    memset(s, 0, sizeof *s);
    data_folder_begin(&s->f);
    gr_test_write_text(token_shop_paths[0], data);
    gr_test_write_text(token_shop_paths[1], "{\"text\": \"more\"}\n");
    s->request = (struct gr_token_request){
        .tokenizer = s->f.tokenizer, .tokenizer_hash = "tokens", .options = &s->f.options};
    token_shop_reopen(s, token_shop_paths);
}

void token_shop_reopen(struct token_shop *s, const char *const *paths)
{
    gr_data_files_release(&s->files);
    ASSERT_OK(gr_data_files_open(&s->files, paths, 2, &(struct gr_hash_options){.threads = 1}));
}

void token_shop_forget(struct token_shop *s)
{
    gr_documents_release(&s->documents);
    gr_sources_release(&s->sources);
}

void token_shop_end(struct token_shop *s)
{
    token_shop_forget(s);
    gr_data_files_release(&s->files);
    data_folder_end(&s->f);
}

void token_shop_assert_text(struct token_shop *s)
{
    struct gr_documents *d = &s->documents, text = {0};

    ASSERT_OK(read_records(&text, s->f.tokenizer, token_shop_paths, 2, s->request.options));
    ASSERT_INT(d->count, text.count);
    ASSERT_INT(d->token_count, text.token_count);
    ASSERT_INT(d->supervised_count, text.supervised_count);
    ASSERT(memcmp(d->tokens, text.tokens, (size_t)d->token_count * sizeof *d->tokens) == 0);
    ASSERT(memcmp(d->labels, text.labels, (size_t)d->token_count) == 0);
    for (int64_t i = 0; i < d->count; i++) {
        ASSERT_INT(d->document[i].offset, text.document[i].offset);
        ASSERT_INT(d->document[i].length, text.document[i].length);
        ASSERT_INT(d->document[i].source, text.document[i].source);
        ASSERT(d->document[i].weight == 1.0f);
    }
    gr_documents_release(&text);
}
