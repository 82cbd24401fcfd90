/* From packs to micro-batches.  See loader.h.
 * Everything is allocated when the loader and the batch are made; filling allocates nothing. */
#include "data/loader.h"

#include "data/pack.h"
#include "kernels/base/alloc.h"
#include "kernels/base/row_multiple.h"

#include <string.h>

struct gr_loader {
    const struct gr_documents *documents;
    struct gr_loader_options options;
    int64_t pack_rows;   /* rows of a pack: T rounded up */
    int64_t total_steps; /* S */
    struct gr_packs packs;
    struct gr_loader_place at; /* the epoch the packs are of */
};

static int64_t step_packs(const struct gr_loader *loader)
{
    return gr_mul(loader->options.micro_batches, loader->options.micro_batch_size);
}

static void enter_epoch(struct gr_loader *loader, int64_t epoch, int64_t first_step)
{
    const struct gr_loader_options *o = &loader->options;
    struct gr_pack_options options = {
        .max_length = o->max_length, .seed = o->seed, .packing = o->packing, .shuffle = o->shuffle};
    int64_t per_step = step_packs(loader);

    gr_packs_fill(&loader->packs, loader->documents, &options, epoch);
    loader->at =
        (struct gr_loader_place){.epoch = epoch,
                                 .epoch_first_step = first_step,
                                 .epoch_steps = (loader->packs.count + per_step - 1) / per_step};
}

static int64_t next_epoch_step(const struct gr_loader *loader)
{
    return loader->at.epoch_first_step + loader->at.epoch_steps;
}

/* Where an epoch begins is known once those before it are packed: training, which goes on step by
 * step, packs each once; a step back begins again. */
static void enter_epoch_of(struct gr_loader *loader, int64_t step)
{
    if (step < loader->at.epoch_first_step)
        enter_epoch(loader, 0, 1);
    while (step >= next_epoch_step(loader))
        enter_epoch(loader, loader->at.epoch + 1, next_epoch_step(loader));
}

/* Leaves the loader in the last epoch that had to be packed. */
static int64_t count_steps(struct gr_loader *loader)
{
    const struct gr_loader_options *o = &loader->options;

    enter_epoch(loader, 0, 1);
    if (o->max_steps > 0)
        return o->max_steps;
    while (loader->at.epoch + 1 < o->num_train_epochs)
        enter_epoch(loader, loader->at.epoch + 1, next_epoch_step(loader));
    return next_epoch_step(loader) - 1;
}

gr_status gr_loader_create(struct gr_loader **loader, const struct gr_documents *documents,
                           const struct gr_loader_options *options)
{
    struct gr_loader *made = NULL;

    *loader = NULL;
    GR_CHECK(options->max_length >= 1 && options->micro_batch_size >= 1 &&
                 options->micro_batches >= 1 &&
                 (options->max_steps > 0 || options->num_train_epochs >= 1),
             "T %lld, packs %lld, micro-batches %lld, epochs %lld", (long long)options->max_length,
             (long long)options->micro_batch_size, (long long)options->micro_batches,
             (long long)options->num_train_epochs);
    if (documents->count == 0)
        return gr_fail(GR_ERR_DATA, "data", "see the counts of dropped documents above, if any",
                       "nothing to load (found 0 documents, expected at least 1)");
    made = GR_NEW(struct gr_loader);
    made->documents = documents;
    made->options = *options;
    made->pack_rows = gr_round_up_rows(options->max_length);
    gr_packs_init(&made->packs, documents->count);
    made->total_steps = count_steps(made);
    *loader = made;
    return GR_OK;
}

void gr_loader_destroy(struct gr_loader *loader)
{
    if (loader == NULL)
        return;
    gr_packs_release(&loader->packs);
    gr_free(loader);
}

int64_t gr_loader_rows(const struct gr_loader *loader)
{
    return gr_mul(loader->options.micro_batch_size, loader->pack_rows);
}

int64_t gr_loader_total_steps(const struct gr_loader *loader)
{
    return loader->total_steps;
}

struct gr_loader_place gr_loader_place(struct gr_loader *loader, int64_t step)
{
    GR_CHECK(step >= 1 && step <= loader->total_steps, "step %lld of %lld", (long long)step,
             (long long)loader->total_steps);
    enter_epoch_of(loader, step);
    return loader->at;
}

gr_status gr_batch_init(struct gr_batch *batch, const struct gr_loader *loader)
{
    int64_t rows = gr_loader_rows(loader);

    memset(batch, 0, sizeof *batch);
    if (rows > INT32_MAX)
        return gr_fail(GR_ERR_USAGE, "data.max_length",
                       "lower data.max_length or train.micro_batch_size",
                       "a micro-batch has too many rows (found %lld, expected at most %d)",
                       (long long)rows, INT32_MAX);
    *batch = (struct gr_batch){.rows = rows,
                               .ids = GR_NEW_ARRAY(int32_t, rows),
                               .positions = GR_NEW_ARRAY(int32_t, rows),
                               .docs = GR_NEW_ARRAY(int32_t, 2 * rows),
                               .doc_capacity = rows,
                               .label_rows = GR_NEW_ARRAY(int32_t, rows),
                               .targets = GR_NEW_ARRAY(int32_t, rows)};
    return GR_OK;
}

void gr_batch_release(struct gr_batch *batch)
{
    gr_free(batch->ids);
    gr_free(batch->positions);
    gr_free(batch->docs);
    gr_free(batch->label_rows);
    gr_free(batch->targets);
    memset(batch, 0, sizeof *batch);
}

static void clear(struct gr_batch *batch)
{
    for (int64_t row = 0; row < batch->rows; row++) {
        batch->ids[row] = -1;
        batch->positions[row] = 0;
        batch->docs[2 * row] = batch->docs[2 * row + 1] = (int32_t)batch->rows;
        batch->label_rows[row] = -1;
        batch->targets[row] = 0;
    }
    batch->doc_count = batch->label_count = batch->label_padded = batch->token_count = 0;
}

/* Appends one document at `row`.  Row r is listed as a label iff the document goes on at r + 1 and
 * the token there is supervised: nothing is predicted across documents. */
static void add_document(struct gr_batch *batch, int64_t row, const struct gr_documents *documents,
                         int64_t number)
{
    const struct gr_document *d = &documents->document[number];
    const uint32_t *tokens = documents->tokens + d->offset;
    const uint8_t *labels = documents->labels + d->offset;

    for (int32_t i = 0; i < d->length; i++) {
        batch->ids[row + i] = (int32_t)tokens[i];
        batch->positions[row + i] = i;
        if (i > 0 && labels[i] != 0) {
            batch->label_rows[batch->label_count] = (int32_t)row + i - 1;
            batch->targets[batch->label_count] = (int32_t)tokens[i];
            batch->label_count++;
        }
    }
    batch->docs[2 * batch->doc_count] = (int32_t)row;
    batch->docs[2 * batch->doc_count + 1] = (int32_t)row + d->length;
    batch->doc_count++;
    batch->token_count += d->length;
}

void gr_loader_fill(struct gr_loader *loader, struct gr_batch *batch, int64_t step, int64_t m)
{
    struct gr_loader_place place = gr_loader_place(loader, step);
    int64_t per_batch = loader->options.micro_batch_size;
    int64_t begin = (step - place.epoch_first_step) * step_packs(loader) + m * per_batch;

    GR_CHECK(m >= 0 && m < loader->options.micro_batches && batch->rows == gr_loader_rows(loader),
             "micro-batch %lld, %lld rows", (long long)m, (long long)batch->rows);
    clear(batch);
    for (int64_t b = 0; b < per_batch && begin + b < loader->packs.count; b++) {
        const int64_t *first = loader->packs.first + begin + b;
        int64_t row = b * loader->pack_rows;

        for (int64_t i = first[0]; i < first[1]; i++) {
            int64_t number = loader->packs.member[i];

            add_document(batch, row, loader->documents, number);
            row += loader->documents->document[number].length;
        }
    }
    batch->label_padded = gr_round_up_rows(batch->label_count);
}
