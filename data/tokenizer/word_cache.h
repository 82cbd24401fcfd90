/* The words a thread has encoded lately, with their tokens: most words of a text have been met
 * before.  Bounded; when it is full it starts anew.  What it answers is what the model would say,
 * so tokens do not depend on it.  Used by bpe.c; one per thread that encodes. */
#ifndef GR_DATA_TOKENIZER_WORD_CACHE_H
#define GR_DATA_TOKENIZER_WORD_CACHE_H

#include <stdint.h>

enum { GR_WORD_CACHE_LONGEST = 255 }; /* bytes of a word that is kept */

/* A token of a word, with its bytes [begin, end) in the word. */
struct gr_word_token {
    int32_t id;
    int32_t begin, end;
};

/* A kept word: this header, then its tokens, then its bytes. */
struct gr_cached_word {
    int32_t length; /* bytes */
    int32_t count;  /* tokens */
    struct gr_word_token token[];
};

/*  slot   [ hash | place ] [ 0 | 0 ] [ hash | place ] ...      open addressing, half empty
 *                    |
 *  memory [ word ][ word ][ word ]...  up to `used`, then free                              */
struct gr_word_cache {
    struct gr_word_slot {
        uint32_t hash;
        uint32_t place; /* of the word, in units of memory, from 1; 0: free */
    } * slot;           /* NULL until the first word is kept */
    uint32_t *memory;
    int64_t used, count; /* units; words */
};

/* The word [bytes, bytes + length), 1 <= length <= GR_WORD_CACHE_LONGEST, or NULL; valid until the
 * next one is kept.  *hash goes on to gr_word_cache_keep. */
const struct gr_cached_word *gr_word_cache_find(const struct gr_word_cache *cache, uint32_t *hash,
                                                const char *bytes, int64_t length);
/* Keeps a word that was not found. */
void gr_word_cache_keep(struct gr_word_cache *cache, uint32_t hash, const char *bytes,
                        int64_t length, const struct gr_word_token *token, int64_t count);
void gr_word_cache_release(struct gr_word_cache *cache);

#endif
