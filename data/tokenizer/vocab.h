/* A set of tokens: text to id and id to text.  The model has one, the added tokens another. */
#ifndef GR_DATA_TOKENIZER_VOCAB_H
#define GR_DATA_TOKENIZER_VOCAB_H

#include "kernels/base/buffer.h"

struct gr_vocab {
    struct gr_buffer texts; /* all token texts, one after another, each with a NUL behind it */
    struct gr_vocab_entry {
        int64_t offset; /* in texts */
        int32_t length; /* bytes */
        int32_t id;
    } * entry;
    int64_t count, capacity;
    struct gr_vocab_slot { /* hash table; the hash spares looking at most entries that differ */
        uint32_t hash;
        int32_t entry; /* + 1, 0: free */
    } * slot;
    int64_t slot_count; /* a power of two */
    int32_t *by_id;     /* entry + 1, 0: no token has the id */
    int64_t id_limit;   /* largest id + 1 */
    int64_t id_capacity;
};

enum { GR_VOCAB_ID_LIMIT = 1 << 24 }; /* ids are below: a guard against absurd files */

/* Text and id must be new, the id below GR_VOCAB_ID_LIMIT. */
void gr_vocab_add(struct gr_vocab *vocab, const char *text, int64_t length, int32_t id);
int32_t gr_vocab_id(const struct gr_vocab *vocab, const char *text, int64_t length); /* or -1 */
/* In the order of adding, from 0; -1 if no token has the id. */
int64_t gr_vocab_index(const struct gr_vocab *vocab, int64_t id);
/* NULL if no token has the id; valid until the next gr_vocab_add. */
const char *gr_vocab_text(const struct gr_vocab *vocab, int64_t id, int64_t *length);
void gr_vocab_release(struct gr_vocab *vocab);

#endif
