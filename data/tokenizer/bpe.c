/* Byte pair encoding of a word in n log n: a heap of candidate merges over a linked list of
 * symbols.  Source of the rules: BPE of `tokenizers` (models/bpe/model.rs, word.rs).  See bpe.h;
 * the model is read in bpe_read.c. */
#include "data/tokenizer/bpe.h"

#include "data/tokenizer/encoding.h"
#include "kernels/base/alloc.h"

#include <string.h>

struct gr_symbol {
    int32_t id;
    int32_t begin, end;     /* bytes of the text; merged away: begin == end */
    int32_t previous, next; /* index of the neighbours, -1: none */
};

struct gr_candidate {
    uint64_t order;      /* rank << 32 | index of the left symbol: the lowest comes first */
    int32_t left, right; /* ids of the pair when it was found */
    int32_t merged;      /* id of what they make */
};

static const struct gr_merge *find_merge(const struct gr_bpe *bpe, int32_t left, int32_t right)
{
    const struct gr_merge *slot = gr_bpe_merge_slot(bpe, left, right);

    return slot->rank < 0 ? NULL : slot;
}

static void push(struct gr_bpe_work *work, struct gr_candidate candidate)
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

static struct gr_candidate pop(struct gr_bpe_work *work)
{
    struct gr_candidate top = work->heap[0], last = work->heap[--work->heap_count];
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

static void flush_unknown(struct gr_bpe_work *work, int32_t id, struct gr_source *unknown)
{
    if (unknown->begin < unknown->end)
        add_symbol(work, id, unknown->begin, unknown->end);
    *unknown = (struct gr_source){0, 0};
}

static bool add_bytes(const struct gr_bpe *bpe, struct gr_bpe_work *work,
                      const struct gr_text *text, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        if (bpe->byte_id[(unsigned char)text->bytes[i]] < 0)
            return false;
    }
    for (int64_t i = begin; i < end; i++)
        add_symbol(work, bpe->byte_id[(unsigned char)text->bytes[i]], i, i + 1);
    return true;
}

/* The characters of a piece as symbols.  An unknown run is held back until the next character that
 * has a token, over characters that fall back to bytes: so does `tokenizers`, order included. */
static void add_characters(const struct gr_bpe *bpe, struct gr_bpe_work *work,
                           const struct gr_text *text, struct gr_piece piece)
{
    struct gr_source unknown = {0, 0};
    int64_t end;

    work->symbol_count = 0;
    for (int64_t at = piece.begin; at < piece.end; at = end) {
        int32_t id;

        end = at + gr_char_bytes(text->bytes[at]);
        id = gr_vocab_id(&bpe->vocab, text->bytes + at, end - at);
        if (id >= 0) {
            flush_unknown(work, bpe->unknown_id, &unknown);
            add_symbol(work, id, at, end);
        } else if (bpe->byte_fallback && add_bytes(bpe, work, text, at, end)) {
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
        push(work,
             (struct gr_candidate){(uint64_t)merge->rank << 32 | (uint32_t)left,
                                   work->symbol[left].id, work->symbol[right].id, merge->merged});
}

/* The pair may have changed since it was found: it counts if it still makes the same token. */
static bool still_merges(const struct gr_bpe *bpe, struct gr_candidate candidate, int32_t left,
                         int32_t right)
{
    const struct gr_merge *merge;

    if (left == candidate.left && right == candidate.right)
        return true;
    merge = find_merge(bpe, left, right);
    return merge != NULL && merge->merged == candidate.merged;
}

static void merge_all(const struct gr_bpe *bpe, struct gr_bpe_work *work)
{
    struct gr_symbol *symbol = work->symbol;

    work->heap_count = 0;
    for (int32_t i = 0; i + 1 < (int32_t)work->symbol_count; i++)
        push_pair(bpe, work, i, i + 1);
    while (work->heap_count > 0) {
        struct gr_candidate top = pop(work);
        int32_t position = (int32_t)(uint32_t)top.order;
        struct gr_symbol *left = &symbol[position], *right;

        if (left->id < 0 || left->next < 0)
            continue;
        right = &symbol[left->next];
        if (!still_merges(bpe, top, left->id, right->id))
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

void gr_bpe_encode(const struct gr_bpe *bpe, struct gr_encoding *encoding, struct gr_bpe_work *work,
                   const struct gr_text *text, struct gr_piece piece)
{
    if (bpe->ignore_merges) {
        int32_t id = gr_vocab_id(&bpe->vocab, text->bytes + piece.begin, piece.end - piece.begin);

        if (id >= 0) {
            gr_encoding_add(encoding, id, gr_text_source(text, piece.begin, piece.end));
            return;
        }
    }
    add_characters(bpe, work, text, piece);
    merge_all(bpe, work);
    for (int32_t i = 0; i < (int32_t)work->symbol_count; i++) {
        const struct gr_symbol *symbol = &work->symbol[i];

        if (symbol->id >= 0)
            gr_encoding_add(encoding, symbol->id, gr_text_source(text, symbol->begin, symbol->end));
    }
}

void gr_bpe_work_release(struct gr_bpe_work *work)
{
    gr_free(work->symbol);
    gr_free(work->heap);
    memset(work, 0, sizeof *work);
}
