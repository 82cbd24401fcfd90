/* The row-wise ops (embedding, RMSNorm, RoPE, SwiGLU) against their f64 twins, on every instruction
 * set, in f32 and bf16, over awkward shapes and strided views.  Tolerances are relative to the
 * largest element; they stand for a few roundings of f32 (6e-8 each); what is stored as bf16 may be
 * off by one rounding more. */
#include "kernels/base/alloc.h"
#include "tests/ref/ref.h"
#include "tests/rig.h"

#include <stdlib.h>

static const double tolerance = 5e-7;
static const gr_tensor none;
static const double eps = 1e-5;

static const int64_t all_rows[] = {64, 192};
static const int64_t all_widths[] = {1, 7, 31, 33, 63, 576, 1040};
static const int64_t all_gaps[] = {0, 5};

/* One shape of a case; `heads` is 1 where the tensors are 2-D. */
struct size {
    int64_t n, heads, width, gap;
    enum gr_dtype dtype;
};

static const enum gr_dtype all_dtypes[] = {GR_F32, GR_BF16};

/* No case has more tensors than eight of this size and some small ones. */
static void open_for(struct rig *r, const char *isa, const struct size *s)
{
    int64_t row = s->heads * s->width + s->gap + 2;

    rig_open_bytes(r, isa, 1, 8 * (s->n + 2) * row * (int64_t)sizeof(float) + (1 << 16));
}

static void each_width(void (*body)(struct rig *r, const struct size *s))
{
    const char *isa;
    struct rig r;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++)
        for (int64_t n = 0; n < GR_COUNT(all_rows); n++)
            for (int64_t c = 0; c < GR_COUNT(all_widths); c++)
                for (int64_t g = 0; g < 2 * GR_COUNT(all_gaps); g++) {
                    struct size s = {all_rows[n], 1, all_widths[c], all_gaps[g / 2],
                                     all_dtypes[g % 2]};

                    open_for(&r, isa, &s); /* more threads: test_ops_threads.c */
                    body(&r, &s);
                    rig_close(&r);
                }
}

static void each_head(void (*body)(struct rig *r, const struct size *s))
{
    static const struct size sizes[] = {
        {64, 1, 2, 0, GR_F32},    {64, 3, 16, 0, GR_F32},   {128, 2, 18, 7, GR_F32},
        {192, 9, 64, 0, GR_F32},  {64, 4, 64, 384, GR_F32}, {64, 1, 2, 0, GR_BF16},
        {128, 2, 18, 7, GR_BF16}, {192, 9, 64, 1, GR_BF16}, {64, 5, 128, 16, GR_BF16}};
    const char *isa;
    struct rig r;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++)
        for (int64_t k = 0; k < GR_COUNT(sizes); k++) {
            open_for(&r, isa, &sizes[k]); /* more threads: test_ops_threads.c */
            body(&r, &sizes[k]);
            rig_close(&r);
        }
}

/* Frees a NULL-ended list. */
static void free_all(void *const *list)
{
    for (; *list != NULL; list++)
        gr_free(*list);
}
#define FREE(...) free_all((void *const[]){__VA_ARGS__, NULL})

/* The shape of activations: (n, width), or (n, heads, width). */
static gr_tensor whole(const struct size *s)
{
    return gr_tensor_2d(NULL, s->dtype, s->n, s->width);
}

static gr_tensor heads(const struct size *s)
{
    return gr_tensor_3d(NULL, s->dtype, s->n, s->heads, s->width);
}

static void embedding(struct rig *r, const struct size *s)
{
    gr_tensor table = rig_random(r, gr_tensor_2d(NULL, s->dtype, 11, s->width), s->gap, -2, 2);
    gr_tensor ids = rig_random(r, gr_tensor_1d(NULL, GR_I32, s->n), 0, -1, 11);
    gr_tensor y = rig_tensor(r, whole(s), s->gap);
    double *table_v = rig_read(r, table), *expected = GR_NEW_ARRAY(double, gr_tensor_count(y));
    int32_t *ids_v = rig_read_i32(r, ids);
    double *found;

    gr_embedding_forward(r->dev, y, table, ids);
    found = rig_read(r, y);
    ref_embedding_forward(expected, table_v, ids_v, s->n, s->width);
    rig_assert_close("y", found, expected, gr_tensor_count(y), 0);
    FREE(table_v, expected, ids_v, found);
}

TEST(embedding_any_shape_equals_twin)
{
    each_width(embedding);
}

/* A frozen matrix in bf16 beside activations in f32: widened by the CPU, refused by a GPU. */
TEST(embedding_bf16_table_beside_f32_equals_twin_or_is_refused)
{
    for (int i = 0; rig_isa(i) != NULL; i++) {
        struct rig r;
        gr_tensor table, ids, y;
        double *table_v, *found, expected[64 * 33];
        int32_t *ids_v;

        rig_open(&r, rig_isa(i), 1);
        table = rig_random(&r, gr_tensor_2d(NULL, GR_BF16, 11, 33), 0, -2, 2);
        ids = rig_random(&r, gr_tensor_1d(NULL, GR_I32, 64), 0, -1, 11);
        y = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, 64, 33), 0);
        table_v = rig_read(&r, table);
        ids_v = rig_read_i32(&r, ids);
        gr_embedding_forward(r.dev, y, table, ids);
        if (rig_is_cuda()) {
            ASSERT_INT(gr_device_sync(r.dev), GR_ERR_BUG);
            ASSERT_TEXT(gr_error_message(), "embedding_forward: table does not fit (found BF16 "
                                            "(11, 33), expected F32 (11, 33))");
            gr_error_clear(); /* it sticks in the device */
        } else {
            found = rig_read(&r, y);
            ref_embedding_forward(expected, table_v, ids_v, 64, 33);
            rig_assert_close("y", found, expected, 64 * 33, 0);
            gr_free(found);
            rig_close(&r);
        }
        FREE(table_v, ids_v);
    }
}

/* Forward into another tensor, backward overwriting, both against the twin. */
static void rmsnorm(struct rig *r, gr_tensor shape, gr_tensor rstd_shape, const struct size *s)
{
    int64_t count = gr_tensor_count(shape), rows = s->n * s->heads;
    gr_tensor x = rig_random(r, shape, s->gap, -2, 3);
    gr_tensor w = rig_random(r, gr_tensor_1d(NULL, s->dtype, s->width), 0, -1, 2);
    gr_tensor dy = rig_random(r, shape, s->gap, -1, 1);
    gr_tensor y = rig_tensor(r, shape, s->gap), dx = rig_tensor(r, shape, s->gap + 2);
    gr_tensor again = rig_tensor(r, shape, s->gap + 1);
    gr_tensor rstd = rig_tensor(r, rstd_shape, rstd_shape.ndim > 1 ? 3 : 0);
    double *x_v = rig_read(r, x), *w_v = rig_read(r, w), *dy_v = rig_read(r, dy);
    double *expected = GR_NEW_ARRAY(double, count), *expected_rstd = GR_NEW_ARRAY(double, rows);
    double *found, *found_again, *found_rstd, *found_dx;

    gr_rmsnorm_forward(r->dev, y, rstd, x, w, eps);
    gr_rmsnorm_backward(r->dev, dx, GR_OVERWRITE, again, dy, x, w, rstd);
    found = rig_read(r, y);
    found_again = rig_read(r, again);
    found_rstd = rig_read(r, rstd);
    found_dx = rig_read(r, dx);
    ref_rmsnorm_forward(expected, expected_rstd, x_v, w_v, eps, rows, s->width);
    rig_assert_stored("y", s->dtype, found, expected, count, tolerance);
    rig_assert_close("y again", found_again, found, count, 0);
    rig_assert_close("rstd", found_rstd, expected_rstd, rows, tolerance);
    ref_rmsnorm_backward(expected, dy_v, x_v, w_v, eps, rows, s->width);
    /* One column: dx is what eps leaves of two equal terms, so measured by the terms. */
    if (s->width > 1)
        rig_assert_stored("dx", s->dtype, found_dx, expected, count, tolerance);
    FREE(x_v, w_v, dy_v, expected, expected_rstd, found, found_again, found_rstd, found_dx);
}

static void rmsnorm_whole(struct rig *r, const struct size *s)
{
    rmsnorm(r, whole(s), gr_tensor_1d(NULL, GR_F32, s->n), s);
}

static void rmsnorm_heads(struct rig *r, const struct size *s)
{
    rmsnorm(r, heads(s), gr_tensor_2d(NULL, GR_F32, s->n, s->heads), s);
}

TEST(rmsnorm_whole_rows_equals_twin)
{
    each_width(rmsnorm_whole);
}

TEST(rmsnorm_per_head_equals_twin)
{
    each_head(rmsnorm_heads);
}

/* y over x, dx over dy, and dx added to what is there: the same bits as into fresh memory; in bf16
 * the sum is rounded instead of dx. */
static void rmsnorm_in_place(struct rig *r, const struct size *s)
{
    int64_t count = s->n * s->width;
    gr_tensor x = rig_random(r, whole(s), s->gap, -2, 3);
    gr_tensor w = rig_random(r, gr_tensor_1d(NULL, s->dtype, s->width), 0, -1, 2);
    gr_tensor dy = rig_random(r, whole(s), s->gap, -1, 1);
    gr_tensor sum = rig_random(r, whole(s), s->gap, -1, 1);
    gr_tensor y = rig_tensor(r, whole(s), s->gap), dx = rig_tensor(r, whole(s), s->gap);
    gr_tensor again = rig_tensor(r, whole(s), s->gap);
    gr_tensor rstd = rig_tensor(r, gr_tensor_1d(NULL, GR_F32, s->n), 0);
    double *before = rig_read(r, sum), *fresh_y, *fresh_dx, *y_v, *dx_v, *sum_v, *again_v;
    double *x_v = rig_read(r, x), *w_v = rig_read(r, w), *dy_v = rig_read(r, dy);
    double *exact_dx = GR_NEW_ARRAY(double, count);

    gr_rmsnorm_forward(r->dev, y, rstd, x, w, eps);
    gr_rmsnorm_backward(r->dev, dx, GR_OVERWRITE, none, dy, x, w, rstd);
    fresh_y = rig_read(r, y);
    fresh_dx = rig_read(r, dx);
    gr_rmsnorm_backward(r->dev, sum, GR_ACCUMULATE, again, dy, x, w, rstd);
    gr_rmsnorm_backward(r->dev, dy, GR_OVERWRITE, none, dy, x, w, rstd);
    again_v = rig_read(r, again);
    gr_rmsnorm_forward(r->dev, x, rstd, x, w, eps);
    y_v = rig_read(r, x);
    dx_v = rig_read(r, dy);
    sum_v = rig_read(r, sum);
    rig_assert_close("y over x", y_v, fresh_y, count, 0);
    rig_assert_close("y again", again_v, fresh_y, count, 0);
    rig_assert_close("dx over dy", dx_v, fresh_dx, count, 0);
    ref_rmsnorm_backward(exact_dx, dy_v, x_v, w_v, eps, s->n, s->width);
    for (int64_t i = 0; i < count; i++)
        before[i] = s->dtype == GR_F32 ? (double)((float)before[i] + (float)fresh_dx[i])
                                       : before[i] + exact_dx[i];
    rig_assert_stored("dx added", s->dtype, sum_v, before, count,
                      s->dtype == GR_F32 ? 0 : 4 * tolerance);
    FREE(x_v, w_v, dy_v, exact_dx, before, fresh_y, fresh_dx, y_v, dx_v, sum_v, again_v);
}

TEST(rmsnorm_in_place_and_accumulating_same_bits)
{
    each_width(rmsnorm_in_place);
}

static void rope(struct rig *r, const struct size *s)
{
    int64_t count = s->n * s->heads * s->width;
    gr_tensor x = rig_random(r, heads(s), s->gap, -2, 2);
    gr_tensor cos = rig_random(r, gr_tensor_2d(NULL, GR_F32, 23, s->width / 2), 0, -1, 1);
    gr_tensor sin = rig_random(r, gr_tensor_2d(NULL, GR_F32, 23, s->width / 2), 0, -1, 1);
    gr_tensor positions = rig_random(r, gr_tensor_1d(NULL, GR_I32, s->n), 0, 0, 23);
    double *expected = rig_read(r, x), *cos_v = rig_read(r, cos), *sin_v = rig_read(r, sin);
    int32_t *positions_v = rig_read_i32(r, positions);
    double *found, *found_back;

    gr_rope(r->dev, x, cos, sin, positions, 1);
    found = rig_read(r, x);
    ref_rope(expected, cos_v, sin_v, positions_v, 1, s->n, s->heads, s->width);
    rig_assert_stored("x forward", s->dtype, found, expected, count, tolerance);
    gr_rope(r->dev, x, cos, sin, positions, -1);
    found_back = rig_read(r, x);
    ref_rope(found, cos_v, sin_v, positions_v, -1, s->n, s->heads, s->width);
    rig_assert_stored("x backward", s->dtype, found_back, found, count, tolerance);
    FREE(expected, cos_v, sin_v, positions_v, found, found_back);
}

TEST(rope_any_heads_equals_twin)
{
    each_head(rope);
}

static void swiglu(struct rig *r, const struct size *s)
{
    int64_t count = s->n * s->width;
    /* gate and up as column blocks of one buffer, as the layer has them */
    gr_tensor both =
        rig_random(r, gr_tensor_2d(NULL, s->dtype, s->n, 2 * s->width), s->gap, -12, 12);
    gr_tensor gate = gr_tensor_columns(both, 0, s->width);
    gr_tensor up = gr_tensor_columns(both, s->width, 2 * s->width);
    gr_tensor dh = rig_random(r, whole(s), s->gap, -1, 1), h = rig_tensor(r, whole(s), s->gap);
    gr_tensor again = rig_tensor(r, whole(s), s->gap + 1);
    double *gate_v = rig_read(r, gate), *up_v = rig_read(r, up), *dh_v = rig_read(r, dh);
    double *expected = GR_NEW_ARRAY(double, count), *expected_up = GR_NEW_ARRAY(double, count);
    double *found, *found_again, *found_dgate, *found_dup;

    gr_swiglu_forward(r->dev, h, gate, up);
    gr_swiglu_backward(r->dev, gate, up, again, dh, gate, up);
    found = rig_read(r, h);
    found_again = rig_read(r, again);
    found_dgate = rig_read(r, gate);
    found_dup = rig_read(r, up);
    ref_swiglu_forward(expected, gate_v, up_v, count);
    rig_assert_stored("h", s->dtype, found, expected, count, tolerance);
    rig_assert_close("h again", found_again, found, count, 0);
    ref_swiglu_backward(expected, expected_up, dh_v, gate_v, up_v, count);
    /* silu' holds gate * (1 - sigma), where a rounding of sigma counts up to 12 times */
    rig_assert_stored("dgate", s->dtype, found_dgate, expected, count, 4 * tolerance);
    rig_assert_stored("dup", s->dtype, found_dup, expected_up, count, tolerance);
    FREE(gate_v, up_v, dh_v, expected, expected_up, found, found_again, found_dgate, found_dup);
}

TEST(swiglu_any_shape_equals_twin)
{
    each_width(swiglu);
}

/* Gates so far out that exp(-gate) is inf or 0: the limits, not NaN. */
TEST(swiglu_huge_gates_reach_limits)
{
    static const double gates[] = {-1e30, -200, -95, 95, 200, 1e30};
    struct rig r;
    gr_tensor gate, up, h, again;
    double values[64] = {0}, ones[64], *found;

    for (int i = 0; i < 64; i++) {
        values[i] = i < GR_COUNT(gates) ? gates[i] : 0;
        ones[i] = 1;
    }
    rig_open(&r, NULL, 1);
    gate = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, 64, 1), 0);
    up = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, 64, 1), 0);
    h = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, 64, 1), 0);
    again = rig_tensor(&r, gr_tensor_2d(NULL, GR_F32, 64, 1), 0);
    rig_write(&r, gate, values);
    rig_write(&r, up, ones);
    gr_swiglu_forward(r.dev, h, gate, up);
    gr_swiglu_backward(r.dev, gate, up, again, up, gate, up);
    for (int k = 0; k < 2; k++) {
        found = rig_read(&r, k == 0 ? h : again);
        for (int i = 0; i < GR_COUNT(gates); i++)
            ASSERT_NEAR(found[i], gates[i] < 0 ? 0 : (double)(float)gates[i], 1e-30);
        gr_free(found);
    }
    found = rig_read(&r, gate);
    for (int i = 0; i < GR_COUNT(gates); i++)
        ASSERT_NEAR(found[i], gates[i] < 0 ? 0 : 1, 1e-30);
    gr_free(found);
    rig_close(&r);
}

static bool all_nan(const double *values, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        if (!isnan(values[i]))
            return false;
    return true;
}

/* A GPU's host cannot look at index tensors: what a wrong index gives is NaN, and nothing outside
 * the table is read; the rows beside it are as they should be. */
TEST(index_outside_the_table_gives_nan_on_cuda)
{
    enum { N = 64, C = 24, HD = 16 };
    static const double wrong[] = {-2, 11, 2147483647};
    struct rig r;

    if (rig_isa(0) == NULL || strcmp(rig_isa(0), "cuda") != 0)
        SKIP("the CPU looks first and fails: test_ops_checks");
    for (int64_t k = 0; k < GR_COUNT(wrong); k++) {
        double index[N] = {0}, *y_v, *x_v;
        gr_tensor table, y, x, angles, indices;

        index[5] = wrong[k];
        rig_open(&r, NULL, 1);
        table = rig_random(&r, gr_tensor_2d(NULL, GR_BF16, 11, C), 0, -2, 2);
        y = rig_tensor(&r, gr_tensor_2d(NULL, GR_BF16, N, C), 0);
        x = rig_random(&r, gr_tensor_3d(NULL, GR_F32, N, 2, HD), 0, -2, 2);
        angles = rig_random(&r, gr_tensor_2d(NULL, GR_F32, 11, HD / 2), 0, -1, 1);
        indices = rig_tensor(&r, gr_tensor_1d(NULL, GR_I32, N), 0);
        rig_write(&r, indices, index);
        gr_embedding_forward(r.dev, y, table, indices);
        gr_rope(r.dev, x, angles, angles, indices, 1);
        y_v = rig_read(&r, y);
        x_v = rig_read(&r, x);
        for (int n = 0; n < N; n++) {
            ASSERT(all_nan(y_v, n * C, n * C + C) == (n == 5));
            ASSERT(all_nan(x_v, n * 2 * HD, (n + 1) * 2 * HD) == (n == 5));
        }
        FREE(y_v, x_v);
        rig_close(&r);
    }
}
