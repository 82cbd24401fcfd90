/* Shuffling and best-fit packing.  See pack.h. */
#include "data/pack.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "kernels/base/status.h"

#include <string.h>

void gr_packs_init(struct gr_packs *packs, int64_t document_count)
{
    *packs = (struct gr_packs){.first = GR_NEW_ARRAY(int64_t, document_count + 1),
                               .member = GR_NEW_ARRAY(int64_t, document_count)};
}

void gr_packs_release(struct gr_packs *packs)
{
    gr_free(packs->first);
    gr_free(packs->member);
    memset(packs, 0, sizeof *packs);
}

/* The 64-bit draws of one epoch's shuffle.  Draw d is the words 2(d%2) (low half) and 2(d%2)+1
 * (high half) of block b = d/2 under the seed, whose counter is
 *   {low half of b, stream (SHUFFLE, 0, 0), high half of b, epoch}. */
struct draws {
    uint64_t seed;
    uint64_t used;
    uint32_t epoch;
};

static uint64_t next_draw(struct draws *draws)
{
    uint64_t block = draws->used / 2;
    struct gr_philox_block b =
        gr_philox(draws->seed, (uint32_t)block, gr_rng_stream(GR_RNG_SHUFFLE, 0, 0),
                  (uint32_t)(block >> 32), draws->epoch);
    int low = 2 * (int)(draws->used % 2);

    draws->used++;
    return (uint64_t)b.word[low + 1] << 32 | b.word[low];
}

/* A number in [0, bound), every one as likely as the other: draws at or above the largest multiple
 * of bound are thrown away. */
static int64_t draw_below(struct draws *draws, int64_t bound)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % (uint64_t)bound;
    uint64_t draw;

    do
        draw = next_draw(draws);
    while (draw >= limit);
    return (int64_t)(draw % (uint64_t)bound);
}

static void check_lengths(const struct gr_documents *documents, int64_t max_length)
{
    for (int64_t i = 0; i < documents->count; i++) {
        int64_t length = documents->document[i].length;

        GR_CHECK(length >= 1 && length <= max_length, "document %lld has %lld tokens of %lld",
                 (long long)i, (long long)length, (long long)max_length);
    }
}

/* member <- the epoch's order of the documents. */
static void set_order(int64_t *member, int64_t count, const struct gr_pack_options *options,
                      int64_t epoch)
{
    struct draws draws = {.seed = options->seed, .epoch = (uint32_t)epoch};

    for (int64_t i = 0; i < count; i++)
        member[i] = i;
    if (!options->shuffle)
        return;
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = draw_below(&draws, i + 1);
        int64_t document = member[i];

        member[i] = member[j];
        member[j] = document;
    }
}

/* A pack with room, as one number that sorts by free space, then by age.  Age is the pack's number
 * within its window. */
static uint64_t open_key(int64_t space, int age)
{
    return (uint64_t)space << 16 | (uint64_t)age;
}

/* The first of `count` ascending keys that is not below `key`. */
static int lower_bound(const uint64_t *keys, int count, uint64_t key)
{
    int low = 0;

    while (count > 0) {
        int half = count / 2;

        if (keys[low + half] < key) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

/* age_of[i] <- the pack, counted from the window's first, that document member[i] goes into;
 * returns the number of packs.  The packs are kept sorted: filling one moves its key down past
 * those with less space, which costs less than a tree would at this window size. */
static int best_fit(int *age_of, const int64_t *member, int count,
                    const struct gr_documents *documents, int64_t max_length)
{
    uint64_t open[GR_PACK_WINDOW];
    int packs = 0;

    for (int i = 0; i < count; i++) {
        int64_t length = documents->document[member[i]].length;
        int old = lower_bound(open, packs, open_key(length, 0));
        uint64_t key, filled;
        int new;

        if (old == packs) {
            open[packs] = open_key(max_length, packs);
            packs++;
        }
        key = open[old];
        filled = key - open_key(length, 0);
        new = lower_bound(open, old, filled);
        memmove(open + new + 1, open + new, (size_t)(old - new) * sizeof *open);
        open[new] = filled;
        age_of[i] = (int)(key & 0xFFFF);
    }
    return packs;
}

/* Sorts a window's documents by pack, keeping their order within a pack (a counting sort), and
 * notes where each pack begins. */
static void group_window(struct gr_packs *packs, int64_t begin, int count, const int *age_of,
                         int pack_count)
{
    int64_t *member = packs->member + begin;
    int64_t ordered[GR_PACK_WINDOW];
    int next[GR_PACK_WINDOW + 1] = {0};

    memcpy(ordered, member, (size_t)count * sizeof *ordered);
    for (int i = 0; i < count; i++)
        next[age_of[i] + 1]++;
    for (int p = 0; p < pack_count; p++) {
        next[p + 1] += next[p];
        packs->first[packs->count + p] = begin + next[p];
    }
    for (int i = 0; i < count; i++)
        member[next[age_of[i]]++] = ordered[i];
    packs->count += pack_count;
}

void gr_packs_fill(struct gr_packs *packs, const struct gr_documents *documents,
                   const struct gr_pack_options *options, int64_t epoch)
{
    int64_t count = documents->count;

    check_lengths(documents, options->max_length);
    packs->count = 0;
    set_order(packs->member, count, options, epoch);
    for (int64_t begin = 0; begin < count; begin += GR_PACK_WINDOW) {
        int age_of[GR_PACK_WINDOW];
        int window = (int)(count - begin < GR_PACK_WINDOW ? count - begin : GR_PACK_WINDOW);
        int pack_count = window;

        if (options->packing)
            pack_count =
                best_fit(age_of, packs->member + begin, window, documents, options->max_length);
        else
            for (int i = 0; i < window; i++)
                age_of[i] = i;
        group_window(packs, begin, window, age_of, pack_count);
    }
    packs->first[packs->count] = count;
}
