/* The model: byte pair encoding.  A word starts as its characters; the pair whose merge has the
 * lowest rank, the leftmost of those, is merged until no pair has a merge. */
#ifndef GR_DATA_TOKENIZER_BPE_H
#define GR_DATA_TOKENIZER_BPE_H

#include "data/json.h"
#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/vocab.h"

struct gr_bpe {
    struct gr_vocab vocab;
    struct gr_merge {
        uint64_t pair;    /* left id << 32 | right id */
        int32_t rank;     /* -1: the slot is free */
        int32_t merged;   /* id */
    } * merge;            /* hash table */
    int64_t merge_slots;  /* a power of two */
    int32_t byte_id[256]; /* of "<0x00>".., -1 if it is missing; used with byte_fallback */
    int32_t unknown_id;   /* -1: characters without a token are dropped, as in `tokenizers` */
    bool fuse_unknown, byte_fallback, ignore_merges;
};

/* Reads root["model"]. */
gr_status gr_bpe_read(struct gr_bpe *bpe, const struct gr_json *root);
void gr_bpe_release(struct gr_bpe *bpe);

/* Memory of one encoding, reused from word to word; zeroed when new. */
struct gr_bpe_work {
    struct gr_symbol *symbol;
    int64_t symbol_count, symbol_capacity;
    struct gr_candidate *heap;
    int64_t heap_count, heap_capacity;
};
void gr_bpe_work_release(struct gr_bpe_work *work);

/* Appends the tokens of one piece. */
void gr_bpe_encode(const struct gr_bpe *bpe, struct gr_encoding *encoding, struct gr_bpe_work *work,
                   const struct gr_text *text, struct gr_piece piece);

/* The slot of a pair, free or not. */
struct gr_merge *gr_bpe_merge_slot(const struct gr_bpe *bpe, int32_t left, int32_t right);

#endif
