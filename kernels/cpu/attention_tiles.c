/* What both directions of attention share: the workspace, the cutting of rows into tiles, and the
 * packed keys and values.  Tiles and blocks are counted from a document's first row, so bits depend
 * on the document alone. */
#include "kernels/cpu/attention.h"

static void layout(struct gr_attention_memory *memory, struct gr_arena *arena, int threads,
                   int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim)
{
    int64_t floats = (int64_t)sizeof(float);

    memory->tile = gr_arena_take(arena, n * (int64_t)sizeof(struct gr_attention_tile));
    memory->document = gr_arena_take(arena, n * (int64_t)sizeof(struct gr_attention_tile));
    memory->lse = gr_arena_take(arena, n * heads * floats);
    memory->delta = gr_arena_take(arena, n * heads * floats);
    memory->scores = gr_arena_take(arena, 2 * threads * GR_SCORE_ROWS * GR_TILE_ROWS * floats);
    memory->sums = gr_arena_take(arena, threads * GR_TILE_ROWS * head_dim * floats);
    memory->dk = gr_arena_take(arena, n * heads * head_dim * floats);
    memory->dv = gr_arena_take(arena, n * heads * head_dim * floats);
    for (int i = 0; i < GR_PACKED_COUNT; i++)
        memory->packed[i] = gr_arena_take(arena, kv_heads * gr_packed_words(n, head_dim) * floats);
    memory->room = gr_arena_take(arena, threads * gr_gemm_room_words() * floats);
}

int64_t GR_CPU(attention_workspace_bytes)(struct gr_device *dev, const struct gr_attention *a)
{
    struct gr_arena measure = {.name = "workspace"};
    struct gr_attention_memory memory;

    layout(&memory, &measure, dev->threads, a->q.dim[0], a->q.dim[1], a->k.dim[1], a->q.dim[2]);
    return measure.used;
}

static void add_tiles(struct gr_attention_memory *memory, int64_t begin, int64_t end, bool is_doc)
{
    for (int64_t row = begin; row < end; row += GR_TILE_ROWS)
        memory->tile[memory->tiles++] =
            (struct gr_attention_tile){.begin = (int32_t)row,
                                       .end = (int32_t)gr_smaller(end, row + GR_TILE_ROWS),
                                       .doc_begin = (int32_t)begin,
                                       .doc_end = (int32_t)(is_doc ? end : begin)};
}

/* The longest first, to within a factor of two: a thread that takes one last holds up the others.
 */
static void list_documents(struct gr_attention_memory *memory, const struct gr_attention *a)
{
    const int32_t *doc = a->docs.data;
    int64_t n = a->q.dim[0];

    memory->documents = 0;
    for (int64_t most = n, least = n / 2 + 1; most > 0; most = least - 1, least = least / 2)
        for (int64_t d = 0; d < a->docs.dim[0]; d++) {
            int32_t begin = doc[d * a->docs.stride], end = doc[d * a->docs.stride + 1];

            if (least <= end - begin && end - begin <= most)
                memory->document[memory->documents++] =
                    (struct gr_attention_tile){begin, end, begin, end};
        }
}

bool GR_CPU(attention_cut)(struct gr_attention_memory *memory, struct gr_device *dev,
                           const char *op, const struct gr_attention *a)
{
    const int32_t *doc = a->docs.data;
    int64_t n = a->q.dim[0], end = 0;
    struct gr_arena arena = {
        .name = "workspace", .base = dev->workspace, .capacity = dev->workspace_bytes};

    layout(memory, &arena, dev->threads, n, a->q.dim[1], a->k.dim[1], a->q.dim[2]);
    memory->dev = dev;
    memory->tiles = 0;
    for (int64_t d = 0; d < a->docs.dim[0]; d++) {
        int64_t begin = doc[d * a->docs.stride], after = doc[d * a->docs.stride + 1];

        if (begin == after)
            continue;
        if (begin < end || after < begin || after > n) {
            gr_device_fail(dev, GR_ERR_BUG, op,
                           "document %lld does not fit (found rows %lld to %lld of %lld, previous "
                           "end %lld)",
                           (long long)d, (long long)begin, (long long)after, (long long)n,
                           (long long)end);
            return false;
        }
        add_tiles(memory, end, begin, false);
        add_tiles(memory, begin, after, true);
        end = after;
    }
    add_tiles(memory, end, n, false);
    list_documents(memory, a);
    return true;
}

/* ---- packed keys and values ---- */

static uint32_t *packed_head(const struct gr_attention_memory *memory, const struct gr_attention *a,
                             enum gr_packed packed, int64_t kv_head)
{
    return memory->packed[packed] + kv_head * gr_packed_words(a->q.dim[0], a->q.dim[2]);
}

/* All rows of a head, whatever document they are in. */
static struct gr_left packed_rows(const struct gr_attention_memory *memory,
                                  const struct gr_attention *a, enum gr_packed packed,
                                  int64_t kv_head)
{
    return gr_left_at(packed_head(memory, a, packed, kv_head), a->q.dim[0], a->q.dim[2],
                      gr_packs_pairs(a->q.dtype));
}

/* A document's, one behind the other. */
static struct gr_left packed_document(const struct gr_attention_memory *memory,
                                      const struct gr_attention *a, int64_t kv_head, int64_t begin,
                                      int64_t end)
{
    int64_t head_dim = a->q.dim[2];
    uint32_t *words = packed_head(memory, a, GR_PACKED_TRANSPOSED, kv_head) +
                      begin * gr_pieces(head_dim, GR_LEFT_ROWS) * GR_LEFT_ROWS;

    return gr_left_at(words, head_dim, end - begin, gr_packs_pairs(a->q.dtype));
}

/* Whether it takes no more words than its rows have in the workspace: tiles are filled up. */
static bool has_place(struct gr_left document)
{
    return document.depth <= document.k;
}

static void pack_rows(const struct gr_attention_memory *memory, const struct gr_attention *a,
                      enum gr_packed packed, gr_tensor from)
{
    int64_t n = from.dim[0], heads = from.dim[1], pieces = gr_pieces(n, GR_TILE_ROWS);

#pragma omp for schedule(static)
    for (int64_t task = 0; task < pieces * heads; task++) {
        int64_t begin = task % pieces * GR_TILE_ROWS, end = gr_smaller(n, begin + GR_TILE_ROWS);
        struct gr_left to = packed_rows(memory, a, packed, task / pieces);
        struct gr_operand rows = {gr_head_rows(from, task / pieces, begin, end), false};

        GR_CPU(pack_left)(gr_left_part(to, begin, end).words, rows, to.pairs);
    }
}

/* A task packs a panel: as many elements of the heads as it has rows. */
static void pack_transposed(const struct gr_attention_memory *memory, const struct gr_attention *a,
                            gr_tensor from)
{
    const int32_t *doc = a->docs.data;
    int64_t heads = from.dim[1], panels = gr_pieces(from.dim[2], GR_LEFT_ROWS);

#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < a->docs.dim[0] * heads * panels; task++) {
        const int32_t *rows = doc + task / (heads * panels) * a->docs.stride;
        int64_t head = task / panels % heads, first = task % panels * GR_LEFT_ROWS;
        int64_t end = gr_smaller(from.dim[2], first + GR_LEFT_ROWS);
        struct gr_left to = packed_document(memory, a, head, rows[0], rows[1]);
        gr_tensor columns =
            gr_tensor_columns(gr_head_rows(from, head, rows[0], rows[1]), first, end);

        if (has_place(to))
            GR_CPU(pack_left)
        (gr_left_part(to, first, end).words, (struct gr_operand){columns, true}, to.pairs);
    }
}

void GR_CPU(attention_pack)(const struct gr_attention_memory *memory, const struct gr_attention *a,
                            enum gr_packed packed, gr_tensor from)
{
    if (packed == GR_PACKED_TRANSPOSED)
        pack_transposed(memory, a, from);
    else
        pack_rows(memory, a, packed, from);
}

/* Panels are whole: the product has scores of up to GR_LEFT_ROWS - 1 rows before the block too. */
gr_tensor GR_CPU(attention_scores)(const struct gr_attention_memory *memory,
                                   const struct gr_attention *a, int number, float alpha,
                                   enum gr_packed packed, struct gr_key_block block, gr_tensor q)
{
    int64_t before = block.begin % GR_LEFT_ROWS, rows = before + block.end - block.begin;
    struct gr_left left = packed_rows(memory, a, packed, block.kv_head);
    gr_tensor scores = gr_score_tile(memory, number, rows, q.dim[0]);

    GR_CPU(multiply)
    (scores, GR_OVERWRITE, alpha, gr_left_part(left, block.begin - before, block.end),
     (struct gr_operand){q, true}, gr_attention_room(memory));
    return gr_tensor_rows(scores, before, rows);
}

struct gr_left GR_CPU(attention_transposed)(const struct gr_attention_memory *memory,
                                            const struct gr_attention *a, gr_tensor from,
                                            struct gr_attention_tile t, struct gr_key_block block)
{
    struct gr_left document = packed_document(memory, a, block.kv_head, t.doc_begin, t.doc_end);

    if (!has_place(document)) {
        gr_tensor rows = gr_head_rows(from, block.kv_head, t.doc_begin, t.doc_end);

        document = GR_CPU(pack_left)(gr_attention_room(memory).left,
                                     (struct gr_operand){rows, true}, document.pairs);
    }
    return gr_left_columns(document, block.begin - t.doc_begin, block.end - t.doc_begin);
}

void GR_CPU(attention_store)(gr_tensor to, struct gr_attention_tile t, int64_t head, gr_tensor sums,
                             const float scale[GR_TILE_ROWS])
{
    float run[GR_RUN];

    for (int64_t i = 0; i < t.end - t.begin; i++)
        for (int64_t begin = 0; begin < to.dim[2]; begin += GR_RUN) {
            int64_t count = gr_smaller(GR_RUN, to.dim[2] - begin);

            for (int64_t j = 0; j < count; j++)
                run[j] = gr_row_f32(sums, begin + j)[i] * scale[i];
            gr_store_run(to, t.begin + i, head * to.dim[2] + begin, count, run);
        }
}
