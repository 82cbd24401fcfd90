/* Evaluation and its dump.  See eval.h. */
#include "trainer/run/eval.h"

#include "data/safetensors.h"
#include "data/store/store.h"
#include "kernels/base/alloc.h"

#include <string.h>

gr_status gr_evaluator_init(struct gr_evaluator *v, const struct gr_config *config,
                            const struct gr_documents *documents, int ranks)
{
    gr_status status = GR_OK;
    struct gr_loader_options options = {.max_length = config->data.max_length,
                                        .micro_batch_size = 1,
                                        .micro_batches = 1,
                                        .num_train_epochs = 1,
                                        .seed = 0,
                                        .packing = config->data.packing,
                                        .shuffle = false};
    int64_t block;

    memset(v, 0, sizeof *v);
    GR_TRY(gr_loader_create(&v->loader, documents, &options));
    GR_TRY(gr_batch_init(&v->batch, v->loader));
    v->packs = gr_loader_total_steps(v->loader);
    block = (v->packs + ranks - 1) / ranks;
    v->mine = GR_NEW_ARRAY(struct gr_sums, block);
    v->all = GR_NEW_ARRAY(struct gr_sums, gr_mul(block, ranks));
out:
    return status;
}

void gr_evaluator_release(struct gr_evaluator *v)
{
    gr_batch_release(&v->batch);
    gr_loader_destroy(v->loader);
    gr_free(v->all);
    gr_free(v->mine);
    memset(v, 0, sizeof *v);
}

gr_status gr_evaluator_rehearse(struct gr_evaluator *v, struct gr_engine *e)
{
    struct gr_sums sums = {0};

    if (gr_device_uses_host_memory(e->dev) || v->packs == 0)
        return GR_OK;
    gr_loader_fill(v->loader, &v->batch, 1, 0);
    return gr_engine_eval_batch(e, &sums, &v->batch, 0);
}

gr_status gr_evaluate(struct gr_sums *total, struct gr_evaluator *v, struct gr_engine *e, int trial)
{
    gr_status status = GR_OK;
    int ranks = gr_comm_size(e->comm);
    int64_t block = (v->packs + ranks - 1) / ranks;
    int64_t begin = block * gr_comm_rank(e->comm);

    memset(v->mine, 0, (size_t)block * sizeof *v->mine);
    for (int64_t i = 0; i < block && begin + i < v->packs && status == GR_OK; i++) {
        gr_loader_fill(v->loader, &v->batch, begin + i + 1, 0);
        status = gr_engine_eval_batch(e, &v->mine[i], &v->batch, trial);
    }
    GR_TRY(gr_comm_agree_status(e->comm, status, "evaluation"));
    GR_TRY(gr_comm_all_gather(e->comm, v->all, v->mine, block * (int64_t)sizeof *v->mine,
                              "evaluation"));
    *total = gr_sums_tree(v->all, 1, 0, v->packs);
out:
    return status;
}

struct dump {
    struct gr_buffer tokens, docs, labels, logits, row_loss;
    float *row; /* logits of one supervised row */
    double *loss;
};

static void dump_tokens(struct dump *d, const struct gr_batch *batch)
{
    const uint8_t no = 0, yes = 1;
    int64_t label = 0;

    for (int64_t i = 0; i < batch->doc_count; i++) {
        int32_t begin = batch->docs[2 * i], end = batch->docs[2 * i + 1];
        int32_t place[2] = {(int32_t)(d->tokens.length / sizeof(int32_t)), 0};

        place[1] = place[0] + end - begin;
        gr_buffer_add(&d->docs, place, sizeof place);
        gr_buffer_add(&d->tokens, batch->ids + begin, (size_t)(end - begin) * sizeof *batch->ids);
        for (int32_t row = begin; row < end; row++) {
            /* the row before a supervised token is listed */
            while (label < batch->label_count && batch->label_rows[label] < row - 1)
                label++;
            gr_buffer_add(&d->labels,
                          row > begin && label < batch->label_count &&
                                  batch->label_rows[label] == row - 1
                              ? &yes
                              : &no,
                          1);
        }
    }
}

/* One row at a time: the logits of a pack may be larger than the step's memory. */
static gr_status dump_logits(struct dump *d, struct gr_engine *e, const struct gr_batch *batch,
                             gr_tensor device_row)
{
    gr_status status = GR_OK;
    struct gr_pass *p = e->eval_pass;

    gr_device_download(e->dev, d->loss, gr_tensor_rows(p->row_loss, 0, p->label_count));
    for (int64_t i = 0; i < batch->label_count; i++) {
        gr_head_logits(e->dev, device_row, p->h_final, e->model.weights.head,
                       gr_tensor_rows(p->in.label_rows, i, i + 1));
        gr_device_download(e->dev, d->row, device_row);
        GR_TRY(gr_device_sync(e->dev));
        gr_buffer_add(&d->logits, d->row, (size_t)e->model.config.vocab_size * sizeof *d->row);
    }
    gr_buffer_add(&d->row_loss, d->loss, (size_t)batch->label_count * sizeof *d->loss);
out:
    return status;
}

static gr_status write_dump(const struct dump *d, int64_t vocab, const char *path)
{
    int64_t tokens = (int64_t)(d->tokens.length / sizeof(int32_t));
    int64_t docs = (int64_t)(d->docs.length / (2 * sizeof(int32_t)));
    int64_t rows = (int64_t)(d->row_loss.length / sizeof(double));
    const struct gr_safetensors_item items[] = {
        {"docs", GR_I32, 2, {docs, 2}, d->docs.data},
        {"labels", GR_U8, 1, {tokens}, d->labels.data},
        {"logits", GR_F32, 2, {rows, vocab}, d->logits.data},
        {"row_loss", GR_F64, 1, {rows}, d->row_loss.data},
        {"tokens", GR_I32, 1, {tokens}, d->tokens.data},
    };
    struct gr_buffer bytes = {0};
    gr_status status;

    gr_safetensors_write(&bytes, items, GR_COUNT(items), NULL);
    status = gr_store_put_path(path, bytes.data, (int64_t)bytes.length, false);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_evaluate_dump(struct gr_evaluator *v, struct gr_engine *e, const char *path)
{
    gr_status status = GR_OK;
    int64_t vocab = e->model.config.vocab_size;
    struct dump d = {.row = GR_NEW_ARRAY(float, vocab),
                     .loss = GR_NEW_ARRAY(double, e->eval_pass->rows)};
    struct gr_sums sums = {0};
    struct gr_arena arena = {0};

    GR_TRY(gr_device_arena_create(e->dev, &arena, "dump", vocab * (int64_t)sizeof(float)));
    for (int64_t pack = 0; pack < v->packs; pack++) {
        gr_loader_fill(v->loader, &v->batch, pack + 1, 0);
        GR_TRY(gr_engine_eval_batch(e, &sums, &v->batch, 0));
        dump_tokens(&d, &v->batch);
        GR_TRY(dump_logits(&d, e, &v->batch, gr_tensor_2d(arena.base, GR_F32, 1, vocab)));
    }
    GR_TRY(write_dump(&d, vocab, path));
out:
    gr_device_arena_release(e->dev, &arena);
    gr_buffer_release(&d.tokens);
    gr_buffer_release(&d.docs);
    gr_buffer_release(&d.labels);
    gr_buffer_release(&d.logits);
    gr_buffer_release(&d.row_loss);
    gr_free(d.row);
    gr_free(d.loss);
    return status;
}
