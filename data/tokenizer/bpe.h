/* The model: byte pair encoding.  A word starts as its characters; the pair whose merge has the
 * lowest rank, the leftmost of those, is merged until no pair has a merge. */
#ifndef GR_DATA_TOKENIZER_BPE_H
#define GR_DATA_TOKENIZER_BPE_H

#include "data/json.h"
#include "data/tokenizer/text.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/vocab.h"
#include "data/tokenizer/word_cache.h"

struct gr_bpe {
    struct gr_vocab vocab;
    struct gr_merge {
        uint64_t pair;   /* left id << 32 | right id */
        int32_t rank;    /* -1: the slot is free */
        int32_t merged;  /* id */
    } * merge;           /* hash table */
    int64_t merge_slots; /* a power of two */
    /* For each pair with a merge one bit, by hash: most pairs have none, and most of those are told
     * by bits that stay in the cache. */
    uint64_t *may_merge;
    int64_t may_merge_bits;  /* a power of two */
    int32_t byte_id[256];    /* of "<0x00>".., -1 if it is missing; used with byte_fallback */
    int32_t spelled_id[256]; /* of the character a byte is spelled as (bytelevel.h), or -1 */
    int64_t longest;         /* bytes of the longest token */
    int32_t unknown_id;      /* -1: characters without a token are dropped, as in `tokenizers` */
    bool fuse_unknown, byte_fallback, ignore_merges;
    bool spells; /* every byte has a spelled_id */
    /* Where no merge can reach over, a word ends: the model is asked for less at a time, and for
     * the same words more often.  Not with ignore_merges, which looks at words as they are. */
    bool cuts_words;
    bool cuts_at_marks;     /* before a run of U+2581 */
    uint64_t joins[128][2]; /* joins[a] bit b: a merge may join "..a" with "b.." (ASCII) */
};

/* U+2581, which SentencePiece writes for a space, starts at `bytes`. */
#define GR_WORD_MARK "\xE2\x96\x81"
enum { GR_WORD_MARK_BYTES = 3 };
static inline bool gr_is_word_mark(const char *bytes, int64_t length)
{
    return length >= GR_WORD_MARK_BYTES && bytes[0] == GR_WORD_MARK[0] &&
           bytes[1] == GR_WORD_MARK[1] && bytes[2] == GR_WORD_MARK[2];
}

/* Reads root["model"].  Errors: ERR_DATA naming the key. */
gr_status gr_bpe_read(struct gr_bpe *bpe, const struct gr_json *root);
void gr_bpe_release(struct gr_bpe *bpe);

/* Memory of one thread, kept from word to word and from text to text; zeroed when new. */
struct gr_bpe_work {
    struct gr_word_cache cache;
    struct gr_symbol *symbol;
    int64_t symbol_count, symbol_capacity;
    struct gr_merge_candidate *heap;
    int64_t heap_count, heap_capacity;
    struct gr_word_token *token; /* of the word at hand */
    int64_t token_capacity;
    struct gr_buffer spelled; /* the word at hand, as the vocabulary writes it */
};
void gr_bpe_work_release(struct gr_bpe_work *work);

/* Appends the tokens of one piece. */
void gr_bpe_encode(const struct gr_bpe *bpe, struct gr_encoding *encoding, struct gr_bpe_work *work,
                   const struct gr_text *text, struct gr_piece piece);

/* The first slot to look at for a pair in a table of `slots`, a power of two. */
static inline uint64_t gr_bpe_pair_place(uint64_t pair, int64_t slots)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15u;

    return (h ^ h >> 32) & ((uint64_t)slots - 1);
}
static inline uint64_t gr_bpe_pair(int32_t left, int32_t right)
{
    return (uint64_t)left << 32 | (uint32_t)right;
}

#endif
