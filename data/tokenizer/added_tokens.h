/* Added tokens: found in the text before anything else is done to it (or, those marked normalized,
 * after the normalizer), and never cut.  At each place the longest one counts. */
#ifndef GR_DATA_TOKENIZER_ADDED_TOKENS_H
#define GR_DATA_TOKENIZER_ADDED_TOKENS_H

#include "data/tokenizer/component.h"
#include "data/tokenizer/vocab.h"

struct gr_added_token {
    int32_t id;
    bool single_word; /* not between word characters */
    bool lstrip;      /* takes the whitespace before it along */
    bool rstrip;      /* and that behind it */
    bool normalized;  /* is looked for, normalized itself, in the normalized text */
    bool special;     /* may be left out when decoding */
};

/* The texts to look for, as a tree of bytes. */
struct gr_token_tree {
    struct gr_tree_node {
        unsigned char byte;
        int32_t child, sibling; /* 0: none */
        int32_t token;          /* index of the added token that ends here, -1: none */
    } * node;                   /* node 0 is the root */
    int32_t count, capacity;
    bool starts[256]; /* some text starts with the byte */
};

struct gr_added_tokens {
    struct gr_vocab vocab;
    struct gr_added_token *token;
    int64_t count;
    struct gr_token_tree plain, normalized;
};

/* root["added_tokens"].  Ids must be those that `tokenizers` would give.  Errors: ERR_DATA. */
gr_status gr_added_tokens_read(struct gr_added_tokens *added, const struct gr_json *root,
                               const struct gr_vocab *model, const struct gr_stage *normalizer);
void gr_added_tokens_release(struct gr_added_tokens *added);

/* Cuts the added tokens of one tree out of every piece that is still text. */
void gr_added_tokens_split(const struct gr_added_tokens *added, const struct gr_token_tree *tree,
                           struct gr_text *text);
/* The id belongs to an added token marked special. */
bool gr_added_tokens_is_special(const struct gr_added_tokens *added, int64_t id);

#endif
