/* Byte pair encoding: words from the cache; short ones by looking at all pairs for each merge; long
 * ones in n log n, with a heap of candidate merges over a linked list of symbols.  Source of the
 * rules: BPE of `tokenizers` (models/bpe/model.rs, word.rs).  See bpe.h; the model is read in
 * bpe_read.c. */
#include "data/tokenizer/bpe.h"

#include "data/tokenizer/bytelevel.h"
#include "data/tokenizer/encoding.h"
#include "kernels/base/alloc.h"

#include <string.h>

struct gr_symbol {
    int32_t id;
    int32_t begin, end;     /* bytes of the word; merged away: id -1 */
    int32_t previous, next; /* index of the neighbours, -1: none */
};

struct gr_merge_candidate {
    uint64_t order;      /* rank << 32 | index of the left symbol: the lowest comes first */
    int32_t left, right; /* ids of the pair when it was found */
    int32_t merged;      /* id of what they make */
};

static const struct gr_merge *find_merge(const struct gr_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = gr_bpe_pair(left, right);
    uint64_t bit = gr_bpe_pair_place(pair, bpe->may_merge_bits);

    if ((bpe->may_merge[bit / 64] >> bit % 64 & 1) == 0)
        return NULL;
    for (uint64_t i = gr_bpe_pair_place(pair, bpe->merge_slots); bpe->merge[i].rank >= 0;
         i = (i + 1) & ((uint64_t)bpe->merge_slots - 1)) {
        if (bpe->merge[i].pair == pair)
            return &bpe->merge[i];
    }
    return NULL;
}

static void push(struct gr_bpe_work *work, struct gr_merge_candidate candidate)
{
    int64_t i = work->heap_count++;

    if (work->heap_count > work->heap_capacity) {
        work->heap_capacity = work->heap_capacity == 0 ? 64 : work->heap_capacity * 2;
        work->heap = gr_realloc(work->heap, work->heap_capacity, sizeof *work->heap);
    }
    for (; i > 0 && candidate.order < work->heap[(i - 1) / 2].order; i = (i - 1) / 2)
        work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = candidate;
}

static struct gr_merge_candidate pop(struct gr_bpe_work *work)
{
    struct gr_merge_candidate top = work->heap[0], last = work->heap[--work->heap_count];
    int64_t count = work->heap_count, i = 0;

    for (int64_t child = 1; child < count; child = 2 * i + 1) {
        if (child + 1 < count && work->heap[child + 1].order < work->heap[child].order)
            child++;
        if (work->heap[child].order >= last.order)
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = last;
    return top;
}

static void add_symbol(struct gr_bpe_work *work, int32_t id, int64_t begin, int64_t end)
{
    int32_t index = (int32_t)work->symbol_count++;

    if (work->symbol_count > work->symbol_capacity) {
        work->symbol_capacity = work->symbol_capacity == 0 ? 64 : work->symbol_capacity * 2;
        work->symbol = gr_realloc(work->symbol, work->symbol_capacity, sizeof *work->symbol);
    }
    work->symbol[index] = (struct gr_symbol){id, (int32_t)begin, (int32_t)end, index - 1, -1};
    if (index > 0)
        work->symbol[index - 1].next = index;
}

/* The bytes at hand: a word, or a piece that is not cut into words. */
struct word {
    const char *bytes;
    int64_t length;
};

static void flush_unknown(struct gr_bpe_work *work, int32_t id, struct gr_origin *unknown)
{
    if (unknown->begin < unknown->end)
        add_symbol(work, id, unknown->begin, unknown->end);
    *unknown = (struct gr_origin){0, 0};
}

static bool add_bytes(const struct gr_bpe *bpe, struct gr_bpe_work *work, struct word word,
                      int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        if (bpe->byte_id[(unsigned char)word.bytes[i]] < 0)
            return false;
    }
    for (int64_t i = begin; i < end; i++)
        add_symbol(work, bpe->byte_id[(unsigned char)word.bytes[i]], i, i + 1);
    return true;
}

/* The characters of a word as symbols.  An unknown run is held back until the next character that
 * has a token, over characters that fall back to bytes: so does `tokenizers`, order included. */
static void add_characters(const struct gr_bpe *bpe, struct gr_bpe_work *work, struct word word)
{
    struct gr_origin unknown = {0, 0};
    int64_t end;

    for (int64_t at = 0; at < word.length; at = end) {
        int32_t id;

        end = at + gr_char_bytes(word.bytes[at]);
        id = gr_vocab_id(&bpe->vocab, word.bytes + at, end - at);
        if (id >= 0) {
            flush_unknown(work, bpe->unknown_id, &unknown);
            add_symbol(work, id, at, end);
        } else if (bpe->byte_fallback && add_bytes(bpe, work, word, at, end)) {
            continue;
        } else if (bpe->unknown_id >= 0) {
            if (!bpe->fuse_unknown || unknown.begin == unknown.end) {
                flush_unknown(work, bpe->unknown_id, &unknown);
                unknown.begin = (int32_t)at;
            }
            unknown.end = (int32_t)end;
        }
    }
    flush_unknown(work, bpe->unknown_id, &unknown);
}

static void push_pair(const struct gr_bpe *bpe, struct gr_bpe_work *work, int32_t left,
                      int32_t right)
{
    const struct gr_merge *merge;

    if (left < 0 || right < 0)
        return;
    merge = find_merge(bpe, work->symbol[left].id, work->symbol[right].id);
    if (merge != NULL)
        push(work, (struct gr_merge_candidate){(uint64_t)merge->rank << 32 | (uint32_t)left,
                                               work->symbol[left].id, work->symbol[right].id,
                                               merge->merged});
}

/* A candidate counts as long as its pair still stands there: symbols only grow, so a pair that has
 * changed cannot make the same token. */
static void merge_long(const struct gr_bpe *bpe, struct gr_bpe_work *work)
{
    struct gr_symbol *symbol = work->symbol;

    work->heap_count = 0;
    for (int32_t i = 0; i + 1 < (int32_t)work->symbol_count; i++)
        push_pair(bpe, work, i, i + 1);
    while (work->heap_count > 0) {
        struct gr_merge_candidate top = pop(work);
        int32_t position = (int32_t)(uint32_t)top.order;
        struct gr_symbol *left = &symbol[position], *right;

        if (left->id != top.left || left->next < 0)
            continue;
        right = &symbol[left->next];
        if (right->id != top.right)
            continue;
        left->id = top.merged;
        left->end = right->end;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0)
            symbol[left->next].previous = position;
        push_pair(bpe, work, left->previous, position);
        push_pair(bpe, work, position, left->next);
    }
}

enum { SHORT = 32 }; /* symbols; measured: a heap wins from about 40 */

/* What symbols i and i + 1 make; copies, because they are looked at again and again. */
struct short_pairs {
    int32_t rank[SHORT]; /* INT32_MAX: nothing */
    int32_t merged[SHORT];
};

static void find_pair(const struct gr_bpe *bpe, struct short_pairs *pairs,
                      const struct gr_symbol *symbol, int64_t i)
{
    const struct gr_merge *merge = find_merge(bpe, symbol[i].id, symbol[i + 1].id);

    pairs->rank[i] = merge == NULL ? INT32_MAX : merge->rank;
    pairs->merged[i] = merge == NULL ? -1 : merge->merged;
}

static void merge_short(const struct gr_bpe *bpe, struct gr_bpe_work *work)
{
    struct short_pairs pairs;
    struct gr_symbol *symbol = work->symbol;
    int64_t count = work->symbol_count;

    for (int64_t i = 0; i + 1 < count; i++)
        find_pair(bpe, &pairs, symbol, i);
    while (count > 1) {
        int64_t best = 0;

        for (int64_t i = 1; i + 1 < count; i++)
            best = pairs.rank[i] < pairs.rank[best] ? i : best;
        if (pairs.rank[best] == INT32_MAX)
            break;
        symbol[best].id = pairs.merged[best];
        symbol[best].end = symbol[best + 1].end;
        count--;
        for (int64_t i = best + 1; i < count; i++) {
            symbol[i] = symbol[i + 1];
            pairs.rank[i - 1] = pairs.rank[i];
            pairs.merged[i - 1] = pairs.merged[i];
        }
        if (best > 0)
            find_pair(bpe, &pairs, symbol, best - 1);
        if (best + 1 < count)
            find_pair(bpe, &pairs, symbol, best);
    }
    work->symbol_count = count;
}

/* The word as the vocabulary writes it. */
static struct word spell(struct gr_bpe_work *work, struct word word)
{
    gr_buffer_clear(&work->spelled);
    for (int64_t i = 0; i < word.length; i++) {
        char bytes[4];
        int64_t count = gr_char_write(bytes, gr_byte_level_char((unsigned char)word.bytes[i]));

        gr_buffer_add(&work->spelled, bytes, (size_t)count);
    }
    return (struct word){work->spelled.data, (int64_t)work->spelled.length};
}

/* The id of the word as a whole, -1 if it is no token. */
static int32_t whole_word(const struct gr_bpe *bpe, struct gr_bpe_work *work, struct word word,
                          bool spelled)
{
    if (word.length > bpe->longest)
        return -1;
    if (spelled)
        word = spell(work, word);
    return gr_vocab_id(&bpe->vocab, word.bytes, word.length);
}

/* work->token <- the tokens of a word; returns how many. */
static int64_t find_tokens(const struct gr_bpe *bpe, struct gr_bpe_work *work, struct word word,
                           bool spelled)
{
    int32_t whole = bpe->ignore_merges ? whole_word(bpe, work, word, spelled) : -1;
    int64_t count = 0;

    work->symbol_count = 0;
    if (whole >= 0)
        add_symbol(work, whole, 0, word.length);
    else if (!spelled)
        add_characters(bpe, work, word);
    for (int64_t i = 0; whole < 0 && spelled && i < word.length; i++)
        add_symbol(work, bpe->spelled_id[(unsigned char)word.bytes[i]], i, i + 1);
    if (work->symbol_count <= SHORT)
        merge_short(bpe, work);
    else
        merge_long(bpe, work);
    if (work->token_capacity < work->symbol_count) {
        work->token_capacity = work->symbol_capacity;
        work->token = gr_realloc(work->token, work->token_capacity, sizeof *work->token);
    }
    for (int64_t i = 0; i < work->symbol_count; i++) {
        const struct gr_symbol *symbol = &work->symbol[i];

        if (symbol->id >= 0)
            work->token[count++] = (struct gr_word_token){symbol->id, symbol->begin, symbol->end};
    }
    return count;
}

static void encode_word(const struct gr_bpe *bpe, struct gr_encoding *encoding,
                        struct gr_bpe_work *work, const struct gr_text *text, int64_t begin,
                        int64_t end)
{
    struct word word = {text->bytes + begin, end - begin};
    bool is_kept = word.length <= GR_WORD_CACHE_LONGEST;
    const struct gr_cached_word *known = NULL;
    const struct gr_word_token *token;
    uint32_t hash = 0;
    int64_t count;

    if (is_kept)
        known = gr_word_cache_find(&work->cache, &hash, word.bytes, word.length);
    if (known != NULL) {
        token = known->token;
        count = known->count;
    } else {
        count = find_tokens(bpe, work, word, text->spelled);
        token = work->token;
        if (is_kept)
            gr_word_cache_keep(&work->cache, hash, word.bytes, word.length, token, count);
    }
    gr_encoding_reserve(encoding, encoding->count + count);
    for (int64_t i = 0; i < count; i++)
        gr_encoding_put(encoding, token[i].id,
                        gr_text_source(text, begin + token[i].begin, begin + token[i].end));
}

/* No merge reaches over byte `at` of a word that starts at `begin` < at. */
static inline bool ends_word(const struct gr_bpe *bpe, const char *bytes, int64_t begin, int64_t at,
                             int64_t end)
{
    unsigned char a = (unsigned char)bytes[at - 1], b = (unsigned char)bytes[at];

    if ((a | b) < 128)
        return (bpe->joins[a][b / 64] >> b % 64 & 1) == 0;
    return bytes[at] == GR_WORD_MARK[0] && bpe->cuts_at_marks &&
           gr_is_word_mark(bytes + at, end - at) &&
           !(at - begin >= GR_WORD_MARK_BYTES &&
             gr_is_word_mark(bytes + at - GR_WORD_MARK_BYTES, GR_WORD_MARK_BYTES));
}

void gr_bpe_encode(const struct gr_bpe *bpe, struct gr_encoding *encoding, struct gr_bpe_work *work,
                   const struct gr_text *text, struct gr_piece piece)
{
    bool cuts = bpe->cuts_words && !text->spelled;
    int64_t end;

    for (int64_t at = piece.begin; at < piece.end; at = end) {
        end = cuts ? at + 1 : piece.end;
        while (end < piece.end && !ends_word(bpe, text->bytes, at, end, piece.end))
            end++;
        encode_word(bpe, encoding, work, text, at, end);
    }
}

void gr_bpe_work_release(struct gr_bpe_work *work)
{
    gr_word_cache_release(&work->cache);
    gr_buffer_release(&work->spelled);
    gr_free(work->symbol);
    gr_free(work->heap);
    gr_free(work->token);
    memset(work, 0, sizeof *work);
}
