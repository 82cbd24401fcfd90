/* Batches: a small case written out, and a property test over random documents. */
#include "data/loader.h"
#include "data/pack.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/philox.h"
#include "kernels/ops.h"
#include "tests/test.h"

/* Token of place i in document number n: no two are equal. */
static uint32_t token_at(int64_t n, int64_t i)
{
    return (uint32_t)(n * 1000 + i);
}

/* Labels: the bits of `mask`, lowest first, over and over. */
static void add_document(struct gr_documents *d, int32_t length, uint32_t mask)
{
    uint32_t tokens[1000];
    uint8_t labels[1000];

    for (int32_t i = 0; i < length; i++) {
        tokens[i] = token_at(d->count, i);
        labels[i] = mask >> i % 32 & 1;
    }
    gr_documents_add(d, tokens, labels, length, 0);
}

static struct gr_documents random_documents(int64_t count, int32_t max_length, uint64_t seed)
{
    struct gr_documents d = {0};

    for (int64_t i = 0; i < count; i++) {
        struct gr_philox_block b = gr_philox(seed, (uint32_t)i, 99, 0, 0);

        add_document(&d, 1 + (int32_t)(b.word[0] % (uint32_t)max_length), b.word[1]);
    }
    return d;
}

TEST(loader_small_case_is_as_written_out)
{
    /* T = 70 takes 128 rows: documents of 40 and 30 fill the first pack, 50 begins the second. */
    struct gr_documents d = {0};
    struct gr_loader_options options = {.max_length = 70,
                                        .micro_batch_size = 2,
                                        .micro_batches = 2,
                                        .num_train_epochs = 1,
                                        .packing = true};
    struct gr_loader *loader = NULL;
    struct gr_batch batch;

    add_document(&d, 40, 1u << 0 | 1u << 1 | 1u << 7); /* bit 0 is never a target */
    add_document(&d, 30, 0);
    add_document(&d, 50, 1u << 31);
    d.labels[0] = 1; /* as a foreign token store might have it */
    ASSERT_OK(gr_loader_create(&loader, &d, &options));
    ASSERT_INT(gr_loader_rows(loader), 256);
    ASSERT_INT(gr_loader_total_steps(loader), 1);
    ASSERT_OK(gr_batch_init(&batch, loader));
    gr_loader_fill(loader, &batch, 1, 0);
    ASSERT_INT(batch.rows, 256);
    ASSERT_INT(batch.rows % GR_ROW_MULTIPLE, 0);
    ASSERT_INT(batch.doc_count, 3);
    ASSERT_INT(batch.token_count, 120);
    {
        static const int32_t docs[][2] = {{0, 40}, {40, 70}, {128, 178}, {256, 256}};

        for (int i = 0; i < 4; i++)
            for (int end = 0; end < 2; end++)
                ASSERT_INT(batch.docs[2 * i + end], docs[i][end]);
    }
    {
        /* 1, 7, 32+0, 32+1 and 32+7 of document 0; 31 of document 2, which begins at row 128 */
        static const int32_t rows[] = {0, 6, 31, 32, 38, 158, -1};
        static const int32_t targets[] = {1, 7, 32, 33, 39, 2031, 0};

        ASSERT_INT(batch.label_count, 6);
        ASSERT_INT(batch.label_padded, GR_ROW_MULTIPLE);
        for (int i = 0; i < 7; i++) {
            ASSERT_INT(batch.label_rows[i], rows[i]);
            ASSERT_INT(batch.targets[i], targets[i]);
        }
    }
    ASSERT_INT(batch.ids[69], 1029);
    ASSERT_INT(batch.positions[69], 29);
    ASSERT_INT(batch.ids[70], -1);
    ASSERT_INT(batch.positions[70], 0);
    gr_loader_fill(loader, &batch, 1, 1); /* there is no third pack: empty */
    ASSERT_INT(batch.doc_count + batch.label_count + batch.label_padded + batch.token_count, 0);
    ASSERT_INT(batch.ids[0], -1);
    ASSERT_INT(batch.docs[0], 256);
    gr_batch_release(&batch);
    gr_loader_destroy(loader);
    gr_documents_release(&d);
}

/* What every batch must be, whatever is in it; counts the documents it holds in seen[]. */
static void assert_batch(const struct gr_batch *b, const struct gr_documents *d, int *seen)
{
    int64_t row = 0, label = 0, tokens = 0;

    for (int64_t i = 0; i < b->doc_count; i++) {
        int32_t begin = b->docs[2 * i], end = b->docs[2 * i + 1];
        int64_t number = b->ids[begin] / 1000;

        ASSERT(begin >= row && end > begin);
        ASSERT_INT(end - begin, d->document[number].length);
        seen[number]++;
        for (; row < begin; row++)
            ASSERT(b->ids[row] == -1 && b->positions[row] == 0);
        for (; row < end; row++) {
            ASSERT_INT(b->ids[row], token_at(number, row - begin));
            ASSERT_INT(b->positions[row], row - begin);
            if (row + 1 < end && d->labels[d->document[number].offset + row + 1 - begin]) {
                ASSERT_INT(b->label_rows[label], row);
                ASSERT_INT(b->targets[label], b->ids[row + 1]);
                label++;
            }
        }
        tokens += end - begin;
    }
    for (; row < b->rows; row++)
        ASSERT(b->ids[row] == -1 && b->positions[row] == 0);
    for (int64_t i = b->doc_count; i < b->doc_capacity; i++)
        ASSERT(b->docs[2 * i] == b->rows && b->docs[2 * i + 1] == b->rows);
    ASSERT_INT(b->label_count, label);
    ASSERT_INT(b->label_padded, (label + 63) / 64 * 64);
    ASSERT_INT(b->token_count, tokens);
    for (; label < b->rows; label++)
        ASSERT(b->label_rows[label] == -1 && b->targets[label] == 0);
}

/* Walks all steps; every epoch holds every document once and ends with its own short step. */
static void assert_walk(const struct gr_documents *d, const struct gr_loader_options *o)
{
    struct gr_loader *loader = NULL;
    struct gr_batch batch;
    int *seen = GR_NEW_ARRAY(int, d->count);
    int64_t labels = 0, epochs = 0, epoch_tokens = 0;

    ASSERT_OK(gr_loader_create(&loader, d, o));
    ASSERT_OK(gr_batch_init(&batch, loader));
    for (int64_t step = 1; step <= gr_loader_total_steps(loader); step++) {
        struct gr_loader_place place = gr_loader_place(loader, step);
        bool empty = false;

        ASSERT_INT(place.epoch, epochs);
        for (int64_t m = 0; m < o->micro_batches; m++) {
            gr_loader_fill(loader, &batch, step, m);
            assert_batch(&batch, d, seen);
            ASSERT(!empty || batch.doc_count == 0);
            empty = batch.doc_count == 0;
            ASSERT(m > 0 || !empty);
            labels += batch.label_count;
            epoch_tokens += batch.token_count;
        }
        if (epoch_tokens == d->token_count) {
            epochs++;
            epoch_tokens = 0;
            for (int64_t i = 0; i < d->count; i++)
                ASSERT_INT(seen[i], epochs);
        }
    }
    ASSERT_INT(labels, d->supervised_count * o->num_train_epochs);
    ASSERT_INT(epochs, o->num_train_epochs);
    gr_batch_release(&batch);
    gr_loader_destroy(loader);
    gr_free(seen);
}

TEST(loader_random_documents_are_all_there_once_per_epoch)
{
    int case_number = 0;

    for (int32_t length = 1; length <= 200; length += 66)
        for (int packing = 0; packing < 2; packing++)
            for (int64_t m = 1; m <= 5; m += 2)
                for (int64_t packs = 1; packs <= 3; packs += 2) {
                    struct gr_documents d =
                        random_documents(1 + 11 * case_number, length, (uint64_t)case_number);
                    struct gr_loader_options options = {.max_length = length,
                                                        .micro_batch_size = packs,
                                                        .micro_batches = m,
                                                        .num_train_epochs = 2,
                                                        .seed = 9,
                                                        .packing = packing,
                                                        .shuffle = true};

                    assert_walk(&d, &options);
                    gr_documents_release(&d);
                    case_number++;
                }
}

/* Steps of an epoch, from its packs. */
static int64_t epoch_steps(const struct gr_documents *d, const struct gr_loader_options *o,
                           int64_t epoch)
{
    struct gr_pack_options options = {o->max_length, o->seed, o->packing, o->shuffle};
    int64_t per_step = o->micro_batches * o->micro_batch_size;
    struct gr_packs packs;
    int64_t steps;

    gr_packs_init(&packs, d->count);
    gr_packs_fill(&packs, d, &options, epoch);
    steps = (packs.count + per_step - 1) / per_step;
    gr_packs_release(&packs);
    return steps;
}

TEST(loader_total_steps_and_places_follow_from_the_packs)
{
    struct gr_documents d = random_documents(300, 50, 3);
    struct gr_loader_options options = {.max_length = 50,
                                        .micro_batch_size = 1,
                                        .micro_batches = 4,
                                        .num_train_epochs = 5,
                                        .seed = 1,
                                        .packing = true,
                                        .shuffle = true};
    struct gr_loader *loader = NULL;
    int64_t next = 1;

    ASSERT_OK(gr_loader_create(&loader, &d, &options));
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        int64_t steps = epoch_steps(&d, &options, epoch);

        for (int64_t step = next; step < next + steps; step++) {
            ASSERT_INT(gr_loader_place(loader, step).epoch, epoch);
            ASSERT_INT(gr_loader_place(loader, step).epoch_first_step, next);
        }
        next += steps;
    }
    ASSERT_INT(gr_loader_total_steps(loader), next - 1);
    gr_loader_destroy(loader);
    gr_documents_release(&d);
}

TEST(loader_max_steps_replaces_the_epochs)
{
    struct gr_documents d = random_documents(40, 30, 3);
    struct gr_loader_options options = {.max_length = 30,
                                        .micro_batch_size = 2,
                                        .micro_batches = 3,
                                        .num_train_epochs = 1,
                                        .seed = 1,
                                        .packing = true,
                                        .shuffle = true};
    int64_t one_epoch = epoch_steps(&d, &options, 0);
    static const int64_t wanted[] = {1, 2, 1000};

    ASSERT(one_epoch > 2);
    for (int64_t i = 0; i < GR_COUNT(wanted); i++) {
        struct gr_loader *loader = NULL;
        struct gr_batch batch;

        options.max_steps = wanted[i];
        ASSERT_OK(gr_loader_create(&loader, &d, &options));
        ASSERT_OK(gr_batch_init(&batch, loader));
        ASSERT_INT(gr_loader_total_steps(loader), wanted[i]);
        gr_loader_fill(loader, &batch, wanted[i], 0);
        ASSERT(batch.doc_count > 0);
        ASSERT_INT(gr_loader_place(loader, wanted[i]).epoch > 0, wanted[i] > one_epoch);
        gr_batch_release(&batch);
        gr_loader_destroy(loader);
    }
    gr_documents_release(&d);
}

/* A run that is to end by itself, or by hand, begins at once. */
TEST(loader_huge_max_steps_begins_at_once)
{
    struct gr_documents d = random_documents(400, 30, 3);
    struct gr_loader_options options = {.max_length = 30,
                                        .micro_batch_size = 1,
                                        .micro_batches = 8,
                                        .max_steps = 1000000000,
                                        .seed = 1,
                                        .packing = true,
                                        .shuffle = true};
    struct gr_loader *loader = NULL;
    int64_t begin = gr_clock_ns();

    ASSERT_OK(gr_loader_create(&loader, &d, &options));
    ASSERT_INT(gr_loader_total_steps(loader), 1000000000);
    ASSERT_INT(gr_loader_place(loader, 1).epoch, 0);
    ASSERT(gr_clock_ns() - begin < 5000000000);
    gr_loader_destroy(loader);
    gr_documents_release(&d);
}

TEST(loader_steps_in_any_order_are_the_same_bytes)
{
    struct gr_documents d = random_documents(120, 90, 8);
    struct gr_loader_options options = {.max_length = 90,
                                        .micro_batch_size = 1,
                                        .micro_batches = 3,
                                        .num_train_epochs = 3,
                                        .seed = 1,
                                        .packing = true,
                                        .shuffle = true};
    struct gr_loader *forward = NULL, *jumping = NULL;
    struct gr_batch a, b;
    int64_t steps;

    ASSERT_OK(gr_loader_create(&forward, &d, &options));
    ASSERT_OK(gr_loader_create(&jumping, &d, &options));
    ASSERT_OK(gr_batch_init(&a, forward));
    ASSERT_OK(gr_batch_init(&b, jumping));
    steps = gr_loader_total_steps(forward);
    for (int64_t step = 1; step <= steps; step++)
        for (int64_t m = 0; m < 3; m++) {
            gr_loader_fill(jumping, &b, 1 + (step * 7 + m) % steps, m); /* somewhere else first */
            gr_loader_fill(jumping, &b, step, m);
            gr_loader_fill(forward, &a, step, m);
            ASSERT(memcmp(a.ids, b.ids, (size_t)a.rows * sizeof *a.ids) == 0);
            ASSERT(memcmp(a.docs, b.docs, (size_t)a.rows * 2 * sizeof *a.docs) == 0);
            ASSERT(memcmp(a.label_rows, b.label_rows, (size_t)a.rows * sizeof *a.ids) == 0);
        }
    gr_batch_release(&a);
    gr_batch_release(&b);
    gr_loader_destroy(forward);
    gr_loader_destroy(jumping);
    gr_documents_release(&d);
}

TEST(loader_without_documents_is_refused)
{
    struct gr_documents d = {0};
    struct gr_loader_options options = {
        .max_length = 8, .micro_batch_size = 1, .micro_batches = 1, .num_train_epochs = 1};
    struct gr_loader *loader = NULL;

    ASSERT_INT(gr_loader_create(&loader, &d, &options), GR_ERR_DATA);
    ASSERT(loader == NULL);
    ASSERT_TEXT(gr_error_message(),
                "data: nothing to load (found 0 documents, expected at least 1)");
    gr_loader_destroy(loader);
}
