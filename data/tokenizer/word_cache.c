/* Words and their tokens by hash.  See word_cache.h. */
#include "data/tokenizer/word_cache.h"

#include "kernels/base/alloc.h"

#include <string.h>

/* A word of six letters takes 32 bytes, so there is room for about as many words as slots are used
 * before both are full: some 60,000. */
enum { SLOTS = 1 << 17, UNITS = 1 << 19, UNIT = sizeof(uint32_t) };

static uint64_t load8(const char *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, 8);
    return word;
}

static uint32_t load4(const char *bytes)
{
    uint32_t word;

    memcpy(&word, bytes, 4);
    return word;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);

    return h ^ h >> 32;
}

/* Loads overlap where the length is no multiple of 8; every byte counts, and so does the length. */
static uint32_t hash_of(const char *bytes, int64_t length)
{
    uint64_t h = (uint64_t)length * 0xA0761D6478BD642Fu;
    const unsigned char *b = (const unsigned char *)bytes;

    if (length >= 8) {
        for (int64_t i = 0; i + 8 < length; i += 8)
            h = mix(h, load8(bytes + i));
        h = mix(h, load8(bytes + length - 8));
    } else if (length >= 4) {
        h = mix(h, (uint64_t)load4(bytes) << 32 | load4(bytes + length - 4));
    } else {
        h = mix(h, (uint64_t)b[0] << 16 | (uint64_t)b[length / 2] << 8 | b[length - 1]);
    }
    return (uint32_t)(h ^ h >> 17);
}

static int64_t units_of(int64_t length, int64_t count)
{
    int64_t bytes = (int64_t)sizeof(struct gr_cached_word) +
                    count * (int64_t)sizeof(struct gr_word_token) + length;

    return (bytes + UNIT - 1) / UNIT;
}

static const char *bytes_of(const struct gr_cached_word *word)
{
    return (const char *)&word->token[word->count];
}

static const struct gr_cached_word *word_at(const struct gr_word_cache *cache, uint32_t place)
{
    return (const struct gr_cached_word *)(const void *)(cache->memory + place - 1);
}

const struct gr_cached_word *gr_word_cache_find(const struct gr_word_cache *cache, uint32_t *hash,
                                                const char *bytes, int64_t length)
{
    const struct gr_word_slot *slot;

    *hash = hash_of(bytes, length);
    if (cache->slot == NULL)
        return NULL;
    for (uint32_t i = *hash % SLOTS; (slot = &cache->slot[i])->place != 0; i = (i + 1) % SLOTS) {
        const struct gr_cached_word *word = word_at(cache, slot->place);

        if (slot->hash == *hash && word->length == length &&
            memcmp(bytes_of(word), bytes, (size_t)length) == 0)
            return word;
    }
    return NULL;
}

void gr_word_cache_keep(struct gr_word_cache *cache, uint32_t hash, const char *bytes,
                        int64_t length, const struct gr_word_token *token, int64_t count)
{
    int64_t units = units_of(length, count);
    uint32_t i = hash % SLOTS;
    struct gr_cached_word *word;

    if (cache->slot == NULL) {
        cache->slot = GR_NEW_ARRAY(struct gr_word_slot, SLOTS);
        cache->memory = GR_NEW_ARRAY(uint32_t, UNITS);
    }
    if (cache->count == SLOTS / 2 || cache->used + units > UNITS) {
        memset(cache->slot, 0, SLOTS * sizeof *cache->slot);
        cache->used = cache->count = 0;
    }
    while (cache->slot[i].place != 0)
        i = (i + 1) % SLOTS;
    cache->slot[i] = (struct gr_word_slot){hash, (uint32_t)cache->used + 1};
    word = (struct gr_cached_word *)(void *)(cache->memory + cache->used);
    word->length = (int32_t)length;
    word->count = (int32_t)count;
    if (count > 0) /* a word may have no tokens at all */
        memcpy(word->token, token, (size_t)count * sizeof *token);
    memcpy(&word->token[count], bytes, (size_t)length);
    cache->used += units;
    cache->count++;
}

void gr_word_cache_release(struct gr_word_cache *cache)
{
    gr_free(cache->slot);
    gr_free(cache->memory);
    memset(cache, 0, sizeof *cache);
}
