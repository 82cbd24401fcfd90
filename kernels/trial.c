/* Measurements on a device.  See trial.h. */
#include "kernels/trial.h"

#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "kernels/joined.h"
#include "kernels/values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_MOST = 64, BEHIND = 48 /* columns behind rows: those of adapters */, TAIL = 3 };

static int compare_ms(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *ms, int runs)
{
    qsort(ms, (size_t)runs, sizeof *ms, compare_ms);
    return runs % 2 != 0 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
}

/* Milliseconds of `run`, after one that warms up: plans and algorithms are made in it. */
static gr_status measure(double *ms, struct gr_device *dev, int runs,
                         void (*run)(struct gr_device *dev, const void *what), const void *what)
{
    gr_status status = GR_OK;
    double all[RUNS_MOST];

    run(dev, what);
    GR_TRY(gr_device_sync(dev));
    for (int i = 0; i < runs; i++) {
        const int64_t begin = dev->ops->moment(dev);
        int64_t end;

        run(dev, what);
        end = dev->ops->moment(dev);
        GR_TRY(gr_device_sync(dev));
        all[i] = (double)dev->ops->moments_apart(dev, begin, end) * 1e-6;
        dev->ops->moment_keep(dev, end);
    }
    *ms = median(all, runs);
out:
    return status;
}

static void fill_random(struct gr_device *dev, gr_tensor t, uint32_t number)
{
    gr_values_random(dev, t, number, -1, 1);
}

/* ---- attention ---- */

enum { RESULTS = 5 };

/* As a pass lays them out: kernels/joined.h leaves room behind rows for adapters. */
static void layout(struct gr_attention *a, struct gr_arena *arena,
                   const struct gr_attention_trial *t)
{
    const int64_t q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    const gr_tensor qkv = gr_arena_tensor_2d(arena, GR_BF16, t->n, q + 2 * kv);
    const gr_tensor dqkv =
        gr_arena_tensor_2d(arena, GR_BF16, t->n, gr_joined_stride(q + 2 * kv + BEHIND));
    const gr_tensor o = gr_arena_tensor_2d(arena, GR_BF16, t->n, gr_joined_stride(q + BEHIND));

    *a = (struct gr_attention){
        .q = gr_tensor_heads(gr_tensor_columns(qkv, 0, q), t->heads),
        .k = gr_tensor_heads(gr_tensor_columns(qkv, q, q + kv), t->kv_heads),
        .v = gr_tensor_heads(gr_tensor_columns(qkv, q + kv, q + 2 * kv), t->kv_heads),
        .docs = gr_arena_tensor_2d(arena, GR_I32, t->documents, 2),
        .scale = 1 / sqrtf((float)t->head_dim),
        .o = gr_tensor_heads(gr_tensor_columns(o, 0, q), t->heads),
        .lse = gr_arena_tensor_2d(arena, GR_F32, t->n, t->heads),
        .d_o = gr_tensor_heads(gr_arena_tensor_2d(arena, GR_BF16, t->n, q), t->heads),
        .dq = gr_tensor_heads(gr_tensor_columns(dqkv, 0, q), t->heads),
        .dk = gr_tensor_heads(gr_tensor_columns(dqkv, q, q + kv), t->kv_heads),
        .dv = gr_tensor_heads(gr_tensor_columns(dqkv, q + kv, q + 2 * kv), t->kv_heads)};
}

/* Documents of different lengths; a longest one of about half the rows where there are several. */
static void fill_inputs(struct gr_device *dev, const struct gr_attention *a,
                        struct gr_attention_trial *t)
{
    int32_t *docs = gr_alloc(2 * t->documents, sizeof *docs);
    int64_t begin = 0;
    double pairs = 0;

    for (int64_t d = 0; d < t->documents; d++) {
        const int64_t left = t->n - TAIL - begin;
        const int64_t length = d + 1 == t->documents ? left : left / 2;

        docs[2 * d] = (int32_t)begin;
        docs[2 * d + 1] = (int32_t)(begin + length);
        begin += length;
        pairs += 0.5 * (double)length * ((double)length + 1);
    }
    gr_device_upload(dev, a->docs, docs);
    gr_free(docs);
    fill_random(dev, a->q, 1);
    fill_random(dev, a->k, 2);
    fill_random(dev, a->v, 3);
    fill_random(dev, a->d_o, 4);
    t->flop[0] = 4 * pairs * (double)(t->heads * t->head_dim);
    t->flop[1] = 2.5 * t->flop[0];
}

static void run_forward(struct gr_device *dev, const void *what)
{
    gr_attention_forward(dev, what);
}

static void run_backward(struct gr_device *dev, const void *what)
{
    gr_attention_backward(dev, what);
}

/* Both directions from outputs of NaN; their results for the caller to free. */
static gr_status run_both(double ms[2], void *result[RESULTS], struct gr_device *dev,
                          const struct gr_attention *a, int runs)
{
    const gr_tensor tensor[RESULTS] = {a->o, a->lse, a->dq, a->dk, a->dv};
    gr_status status = GR_OK;

    for (int i = 0; i < RESULTS; i++)
        gr_values_poison(dev, tensor[i]);
    GR_TRY(measure(&ms[0], dev, runs, run_forward, a));
    GR_TRY(measure(&ms[1], dev, runs, run_backward, a));
    for (int i = 0; i < RESULTS; i++) {
        result[i] = gr_alloc(gr_tensor_count(tensor[i]), (size_t)gr_dtype_bytes(tensor[i].dtype));
        gr_device_download(dev, result[i], tensor[i]);
    }
    GR_TRY(gr_device_sync(dev));
out:
    return status;
}

static double difference(const void *a, const void *b, gr_tensor t)
{
    double most = 0, apart = 0;

    for (int64_t i = 0; i < gr_tensor_count(t); i++) {
        const double x = gr_value_get(a, t.dtype, i), y = gr_value_get(b, t.dtype, i);

        if (!isfinite(x) || !isfinite(y))
            return (double)INFINITY;
        most = fmax(most, fabs(x));
        apart = fmax(apart, fabs(x - y));
    }
    return most > 0 ? apart / most : apart;
}

static gr_status compare(struct gr_device *dev, struct gr_attention_trial *t,
                         const struct gr_attention *a)
{
    const gr_tensor tensor[RESULTS] = {a->o, a->lse, a->dq, a->dk, a->dv};
    void *own[RESULTS] = {NULL}, *cudnn[RESULTS] = {NULL};
    gr_status status = GR_OK;

    GR_TRY(gr_device_choose_attention(dev, GR_ATTENTION_OWN));
    GR_TRY(run_both(t->own_ms, own, dev, a, t->runs));
    if (!t->is_cudnn)
        goto out;
    GR_TRY(gr_device_choose_attention(dev, GR_ATTENTION_CUDNN));
    GR_TRY(run_both(t->cudnn_ms, cudnn, dev, a, t->runs));
    for (int i = 0; i < RESULTS; i++)
        t->apart = fmax(t->apart, difference(own[i], cudnn[i], tensor[i]));
out:
    for (int i = 0; i < RESULTS; i++) {
        gr_free(own[i]);
        gr_free(cudnn[i]);
    }
    return status;
}

/* What both need of the workspace; whether cuDNN computes it is found out on the way. */
static int64_t workspace_bytes(struct gr_device *dev, struct gr_attention_trial *t,
                               const struct gr_attention *a)
{
    int64_t own, cudnn = 0;

    gr_device_choose_attention(dev, GR_ATTENTION_OWN);
    own = gr_attention_workspace_bytes(dev, a);
    if (gr_device_choose_attention(dev, GR_ATTENTION_CUDNN) != GR_OK) {
        snprintf(t->why, sizeof t->why, "%s", gr_error_message());
        gr_error_clear();
        return own;
    }
    t->is_cudnn = dev->ops->attention_is_cudnn(dev, a, t->why, sizeof t->why);
    if (t->is_cudnn)
        cudnn = gr_attention_workspace_bytes(dev, a);
    return own > cudnn ? own : cudnn;
}

gr_status gr_trial_attention(struct gr_device *dev, struct gr_attention_trial *t)
{
    struct gr_arena arena = {.name = "trial"}, workspace = {.name = "workspace"};
    struct gr_attention a;
    gr_status status = GR_OK;
    int64_t bytes;

    GR_CHECK(t->runs >= 1 && t->runs <= RUNS_MOST, "%d runs", t->runs);
    t->apart = 0;
    layout(&a, &arena, t);
    bytes = workspace_bytes(dev, t, &a);
    GR_TRY(gr_device_arena_create(dev, &arena, "trial", arena.used));
    GR_TRY(gr_device_arena_create(dev, &workspace, "workspace", bytes));
    gr_device_set_workspace(dev, workspace.base, bytes);
    layout(&a, &arena, t);
    fill_inputs(dev, &a, t);
    status = compare(dev, t, &a);
out:
    gr_device_set_workspace(dev, NULL, 0);
    gr_device_choose_attention(dev, GR_ATTENTION_OWN);
    gr_device_arena_release(dev, &workspace);
    gr_device_arena_release(dev, &arena);
    return status;
}

/* ---- ceilings ---- */

static void run_product(struct gr_device *dev, const void *what)
{
    gr_lora_group_forward(dev, what);
}

struct copy {
    gr_tensor to, from;
};

static void run_copy(struct gr_device *dev, const void *what)
{
    const struct copy *c = what;

    gr_copy(dev, c->to, c->from);
}

gr_status gr_trial_ceilings(struct gr_device *dev, struct gr_ceilings *c, int runs)
{
    const int64_t n = c->size, numbers = 2 * n * n, bf16 = 2;
    const int64_t bytes = gr_lora_group_workspace_bytes(dev, n, n, n, 0) + GR_ARENA_ALIGN;
    const double size = (double)n;
    struct gr_arena arena = {0};
    struct gr_linear linear = {0};
    struct gr_lora_group product = {.linears = 1, .linear = &linear};
    struct copy copy;
    gr_status status = GR_OK;
    double ms;

    GR_CHECK(runs >= 1 && runs <= RUNS_MOST, "%d runs", runs);
    GR_TRY(gr_device_arena_create(dev, &arena, "trial",
                                  bytes + 2 * numbers * 4 + 3 * n * n * bf16 + 8 * GR_ARENA_ALIGN));
    copy = (struct copy){gr_arena_tensor_1d(&arena, GR_F32, numbers),
                         gr_arena_tensor_1d(&arena, GR_F32, numbers)};
    product.x = gr_arena_tensor_2d(&arena, GR_BF16, n, n);
    product.y = gr_arena_tensor_2d(&arena, GR_BF16, n, n);
    linear.weight = gr_arena_tensor_2d(&arena, GR_BF16, n, n);
    gr_device_set_workspace(dev, gr_arena_take(&arena, bytes), bytes);
    fill_random(dev, product.x, 5); /* products of zeros take less power, and so less time */
    fill_random(dev, linear.weight, 6);
    GR_TRY(measure(&ms, dev, runs, run_product, &product));
    c->product_flop_per_s = 2 * size * size * size / (ms * 1e-3);
    GR_TRY(measure(&ms, dev, runs, run_copy, &copy));
    c->copy_bytes_per_s = 2 * 4 * (double)numbers / (ms * 1e-3);
out:
    gr_device_set_workspace(dev, NULL, 0);
    gr_device_arena_release(dev, &arena);
    return status;
}
