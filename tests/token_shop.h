/* Two data files of a data folder, and what a token store of them is made with. */
#ifndef GR_TESTS_TOKEN_SHOP_H
#define GR_TESTS_TOKEN_SHOP_H

#include "data/token_store.h"
#include "tests/data_folder.h"

struct token_shop {
    struct data_folder f;
    struct gr_token_request request;
    struct gr_data_files files;    /* data.jsonl, more.jsonl */
    struct gr_documents documents; /* read by the case */
    struct gr_sources sources;
};
extern const char *const token_shop_paths[2];

/* Enters a new folder and writes the files into it. */
void token_shop_begin(struct token_shop *s);
void token_shop_end(struct token_shop *s);
/* Looks at the files again, which the case has changed, under these names. */
void token_shop_reopen(struct token_shop *s, const char *const *paths);
void token_shop_forget(struct token_shop *s); /* what was read */
/* What was read is what the text files give without a store. */
void token_shop_assert_text(struct token_shop *s);

#endif
