/* Every op on two devices.  See trial_ops.h; the ops' cases are in trial_cases.c and
 * trial_groups.c.
 *
 * How far results may be apart: the tests hold each device to the exact result within a tolerance
 * (tests/test_ops_*.c, which say where it comes from), so two devices may be apart by twice that,
 * by what either rounds its factors to, and by one rounding each to the type that is stored. */
#include "kernels/trial_ops.h"

#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "kernels/trial_side.h"
#include "kernels/values.h"

#include <math.h>
#include <stdio.h>

static const struct {
    const char *op;
    void (*run)(struct gr_trial_side *s);
} cases[GR_PROFILED_OP_COUNT] = {
#define X(name) {#name, gr_try_##name},
    GR_PROFILED_OPS(X)
#undef X
};

/* ---- what cases call ---- */

static gr_tensor carve(struct gr_trial_side *s, gr_tensor shape)
{
    shape.data =
        gr_arena_take(&s->arena, gr_mul(gr_tensor_count(shape), gr_dtype_bytes(shape.dtype)));
    return shape;
}

gr_tensor gr_trial_given_between(struct gr_trial_side *s, gr_tensor shape, double low, double high)
{
    const gr_tensor t = carve(s, shape);

    gr_values_random(s->dev, t, s->fills++, low, high);
    return t;
}

gr_tensor gr_trial_room(struct gr_trial_side *s, gr_tensor shape)
{
    const gr_tensor t = carve(s, shape);

    gr_values_poison(s->dev, t);
    return t;
}

gr_tensor gr_trial_given(struct gr_trial_side *s, gr_tensor shape)
{
    return gr_trial_given_between(s, shape, -1, 1);
}

gr_tensor gr_trial_given_rows(struct gr_trial_side *s, int64_t columns)
{
    const gr_tensor wider = gr_trial_matrix(s, s->sizes->rows, columns + GR_TRIAL_BEHIND);

    return gr_tensor_columns(gr_trial_given(s, wider), 0, columns);
}

gr_tensor gr_trial_room_for_rows(struct gr_trial_side *s, int64_t columns)
{
    const gr_tensor wider = gr_trial_matrix(s, s->sizes->rows, columns + GR_TRIAL_BEHIND);

    return gr_tensor_columns(gr_trial_room(s, wider), 0, columns);
}

/* Poisoned, so that scratch shows which is read before it is written. */
void gr_trial_need_workspace(struct gr_trial_side *s, int64_t bytes)
{
    gr_device_set_workspace(s->dev, NULL, 0);
    gr_device_arena_release(s->dev, &s->workspace);
    if (gr_device_arena_create(s->dev, &s->workspace, "workspace", bytes) != GR_OK) {
        gr_error_clear();
        gr_device_fail(s->dev, GR_ERR_DEVICE, "trial", "no memory for the workspace (%lld bytes)",
                       (long long)bytes);
        return;
    }
    gr_values_poison(s->dev, gr_tensor_1d(s->workspace.base, GR_U8, bytes));
    gr_device_set_workspace(s->dev, s->workspace.base, bytes);
}

bool gr_trial_prepares(const struct gr_trial_side *s)
{
    return s->cpu == NULL;
}

/* Both sides carve the same, so it lies where it lies on the CPU. */
void gr_trial_take_over(struct gr_trial_side *s, gr_tensor t)
{
    gr_tensor there = t;
    double *values;

    if (s->cpu == NULL)
        return;
    there.data = s->cpu->arena.base + ((unsigned char *)t.data - s->arena.base);
    values = gr_values_read(s->cpu->dev, there);
    gr_values_write(s->dev, t, values);
    gr_free(values);
}

static void add_result(struct gr_trial_side *s, const char *name, gr_tensor t, double apart,
                       bool is_exact)
{
    GR_CHECK(s->results < GR_TRIAL_RESULTS, "%d results", s->results + 1);
    s->result[s->results].name = name;
    s->result[s->results].of = s->of;
    s->result[s->results].tensor = t;
    s->result[s->results].apart = apart;
    s->result[s->results++].is_exact = is_exact;
}

void gr_trial_same(struct gr_trial_side *s, const char *name, gr_tensor t)
{
    add_result(s, name, t, 0, true);
}

void gr_trial_near(struct gr_trial_side *s, const char *name, gr_tensor t, double tolerance)
{
    add_result(s, name, t, 2 * tolerance, false);
}

void gr_trial_product(struct gr_trial_side *s, const char *name, gr_tensor t, double tolerance)
{
    add_result(s, name, t, 2 * tolerance + s->rounding, false);
}

/* ---- comparing ---- */

/* How much of what is allowed beyond two roundings a difference is beyond them; what is not finite
 * is beyond anything. */
static double share_of(double apart, double allowed, double roundings)
{
    if (apart <= roundings)
        return 0;
    return isfinite(apart) && allowed > 0 ? (apart - roundings) / allowed : INFINITY;
}

static void note(struct gr_op_trial *trial, const struct gr_trial_side *cpu, int result,
                 int64_t element, double found, double expected)
{
    const char *of = cpu->result[result].of;

    snprintf(trial->where, sizeof trial->where, "%s %s%s%s", cpu->dtype == GR_F32 ? "f32" : "bf16",
             cpu->result[result].name, of == NULL ? "" : ", ", of == NULL ? "" : of);
    trial->element = element;
    trial->found = found;
    trial->expected = expected;
}

/* Result i of both sides into the trial, if it is nearer to its bound than what is there; *share:
 * of what is there. */
static void compare(struct gr_op_trial *trial, double *share, const struct gr_trial_side *cpu,
                    const struct gr_trial_side *other, int i)
{
    const gr_tensor t = cpu->result[i].tensor;
    const int64_t count = gr_tensor_count(t);
    double *expected = gr_values_read(cpu->dev, t);
    double *found = gr_values_read(other->dev, other->result[i].tensor);
    double largest = 0;

    for (int64_t k = 0; k < count; k++)
        largest = fabs(expected[k]) > largest ? fabs(expected[k]) : largest;
    for (int64_t k = 0; k < count; k++) {
        const double apart = fabs(found[k] - expected[k]);
        double allowed = 0, roundings = 0, here;

        if (apart == 0 && *share >= 0) /* nearly all of them */
            continue;
        if (!cpu->result[i].is_exact) {
            const double size = fmax(fabs(found[k]), fabs(expected[k]));

            allowed = cpu->result[i].apart * largest;
            roundings = 2 * gr_value_half_unit(t.dtype, size);
        }
        here = share_of(apart, allowed, roundings);
        if (here <= *share)
            continue;
        *share = here;
        note(trial, cpu, i, k, found[k], expected[k]);
        trial->apart = apart / (largest > 0 ? largest : 1);
        trial->share = here;
        trial->bound = (allowed + roundings) / (largest > 0 ? largest : 1);
    }
    gr_free(expected);
    gr_free(found);
}

/* ---- running ---- */

static gr_status run_side(struct gr_trial_side *s, int op, enum gr_dtype dtype)
{
    s->dtype = dtype;
    s->of = NULL;
    s->fills = 0;
    s->results = 0;
    gr_arena_reset(&s->arena, 0);
    cases[op].run(s);
    return gr_device_sync(s->dev);
}

static gr_status run_op(struct gr_op_trial *trial, int op, struct gr_trial_side *cpu,
                        struct gr_trial_side *other)
{
    static const enum gr_dtype dtypes[] = {GR_F32, GR_BF16};
    gr_status status = GR_OK;
    double share = -1;

    for (int i = 0; i < GR_COUNT(dtypes); i++) {
        const enum gr_dtype dtype = dtypes[i];

        cpu->rounding = other->rounding = gr_device_factor_rounding(cpu->dev, dtype) +
                                          gr_device_factor_rounding(other->dev, dtype);
        GR_TRY(run_side(cpu, op, dtype));
        GR_TRY(run_side(other, op, dtype));
        for (int k = 0; k < cpu->results; k++)
            compare(trial, &share, cpu, other, k);
        GR_TRY(gr_device_sync(other->dev));
    }
    trial->is_same = share <= 1;
out:
    return status;
}

/* What the largest case takes, with room to spare: the weights of the head, or state. */
static int64_t arena_bytes(const struct gr_trial_sizes *z)
{
    const int64_t widest = z->hidden + z->ffn + 128 * (z->heads + 2 * z->kv_heads) + 4 * z->r;

    return 4 * (8 * z->rows * widest + 2 * widest * widest + z->vocab * (z->hidden + 8) +
                8 * z->flat) +
           64 * GR_ARENA_ALIGN;
}

static gr_status open_side(struct gr_trial_side *s, struct gr_device *dev,
                           const struct gr_trial_sizes *sizes)
{
    s->dev = dev;
    s->sizes = sizes;
    return gr_device_arena_create(dev, &s->arena, "trial", arena_bytes(sizes));
}

static void close_side(struct gr_trial_side *s)
{
    if (s->dev == NULL)
        return;
    gr_device_set_workspace(s->dev, NULL, 0);
    gr_device_arena_release(s->dev, &s->workspace);
    gr_device_arena_release(s->dev, &s->arena);
}

/* Sums are as long as in the tests whose tolerances hold here.  Quick: for tests; some widths are
 * no round numbers. */
static const struct gr_trial_sizes sizes_of[] = {
    {640, 512, 8, 2, 1000, 1001, 16, 300007},
    {128, 160, 2, 1, 176, 300, 8, 9001},
};

gr_status gr_trial_ops(struct gr_op_trial trial[GR_PROFILED_OP_COUNT], int *compared,
                       struct gr_device *dev, struct gr_device *cpu, bool is_quick)
{
    const struct gr_trial_sizes *sizes = &sizes_of[is_quick];
    struct gr_trial_side on_cpu = {0}, on_device = {.cpu = &on_cpu};
    gr_status status = GR_OK;

    *compared = 0;
    for (int i = 0; i < GR_PROFILED_OP_COUNT; i++)
        trial[i] = (struct gr_op_trial){.op = cases[i].op};
    GR_TRY(open_side(&on_cpu, cpu, sizes));
    GR_TRY(open_side(&on_device, dev, sizes));
    GR_TRY(gr_device_choose_attention(dev, GR_ATTENTION_OWN));
    for (; *compared < GR_PROFILED_OP_COUNT; (*compared)++)
        GR_TRY(run_op(&trial[*compared], *compared, &on_cpu, &on_device));
out:
    close_side(&on_device);
    close_side(&on_cpu);
    return status;
}
