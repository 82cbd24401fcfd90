/* Sums and the element-wise ops, on every instruction set: against f64 twins and exact values. */
#include "kernels/base/alloc.h"
#include "kernels/base/widen.h"
#include "tests/ref/ref.h"
#include "tests/rig.h"

static gr_tensor flat(int64_t n)
{
    return gr_tensor_1d(NULL, GR_F32, n);
}

static void sum_squares(struct rig *r)
{
    /* the last: three chunks to each partial sum */
    static const int64_t sizes[] = {0, 1, 15, 4095, 4096, 4097, 70001, 2049 * 4096 + 3};
    gr_tensor out = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);

    for (int64_t i = 0; i < GR_COUNT(sizes); i++) {
        gr_tensor x = rig_random(r, flat(sizes[i]), 0, -2, 2);
        double *x_v = rig_read(r, x), *found, expected = ref_sum_squares(x_v, sizes[i]);

        gr_sum_squares(r->dev, out, x, 1);
        found = rig_read(r, out);
        ASSERT_NEAR(found[0], expected, 1e-11 * expected); /* the twin's own error */
        gr_free(found);
        gr_free(x_v);
    }
}

TEST(sum_squares_any_size_equals_twin)
{
    const char *isa;
    struct rig r;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        rig_open_bytes(&r, isa, 1, (int64_t)40 << 20);
        sum_squares(&r);
        rig_close(&r);
    }
}

/* The product is rounded before it is squared. */
static void sum_squares_scaled(struct rig *r)
{
    enum { ELEMENTS = 9001 };
    gr_tensor x = rig_random(r, flat(ELEMENTS), 0, -2, 2);
    gr_tensor scaled = rig_tensor(r, flat(ELEMENTS), 0);
    gr_tensor out = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);
    double *x_v = rig_read(r, x), *found, *expected;

    gr_sum_squares(r->dev, out, x, 0.7f);
    found = rig_read(r, out);
    for (int i = 0; i < ELEMENTS; i++)
        x_v[i] = (double)((float)x_v[i] * 0.7f);
    rig_write(r, scaled, x_v);
    gr_sum_squares(r->dev, out, scaled, 1);
    expected = rig_read(r, out);
    ASSERT_MSG(found[0] == expected[0], "found %.17g, expected %.17g", found[0], expected[0]);
    gr_free(found);
    gr_free(expected);
    gr_free(x_v);
}

TEST(sum_squares_scaled_equals_that_of_the_products)
{
    rig_each_isa(sum_squares_scaled);
}

static void sum_squares_bad(struct rig *r)
{
    static const double bad[] = {NAN, INFINITY};
    double values[5000] = {0}, *found;
    gr_tensor x = rig_tensor(r, flat(5000), 0);
    gr_tensor out = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 1), 0);

    for (int64_t i = 0; i < GR_COUNT(bad); i++) {
        values[4999] = bad[i];
        rig_write(r, x, values);
        gr_sum_squares(r->dev, out, x, 1);
        found = rig_read(r, out);
        ASSERT(!isfinite(found[0]));
        gr_free(found);
    }
}

TEST(sum_squares_nan_or_inf_shows)
{
    rig_each_isa(sum_squares_bad);
}

static void sum_spans(struct rig *r)
{
    enum { ELEMENTS = 40000 };
    static const double spans_v[] = {0, ELEMENTS, 3, 3, 17, 4113, 9999, 10000};
    static const double first[] = {0, 3, 17, 9999};
    gr_tensor x = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, ELEMENTS), 0);
    gr_tensor spans = rig_tensor(r, gr_tensor_2d(NULL, GR_I32, 4, 2), 3);
    gr_tensor sum = rig_tensor(r, gr_tensor_1d(NULL, GR_F64, 4), 0);
    double *x_v = GR_NEW_ARRAY(double, ELEMENTS), *found;

    for (int i = 0; i < ELEMENTS; i++)
        x_v[i] = sin(i);
    rig_write(r, x, x_v);
    rig_write(r, spans, spans_v);
    gr_sum_spans(r->dev, sum, x, spans);
    found = rig_read(r, sum);
    for (int i = 0; i < 4; i++) {
        int64_t begin = (int64_t)first[i], end = (int64_t)spans_v[2 * i + 1];

        ASSERT_NEAR(found[i], ref_sum(x_v + begin, end - begin), 1e-11);
    }
    gr_free(found);
    gr_free(x_v);
}

TEST(sum_spans_any_length_equals_twin)
{
    rig_each_isa(sum_spans);
}

/* A GPU's host cannot look at spans: a wrong one gives NaN, and nothing outside x is read. */
TEST(sum_spans_outside_gives_nan_on_cuda)
{
    static const double spans_v[] = {5, 3, -1, 2, 0, 101, 0, 100};
    struct rig r;
    gr_tensor around, x, spans, sum;
    double *found;

    if (rig_isa(0) == NULL || strcmp(rig_isa(0), "cuda") != 0)
        SKIP("the CPU looks first and fails: test_ops_checks");
    rig_open(&r, NULL, 1);
    around = rig_tensor(&r, gr_tensor_1d(NULL, GR_F64, 300), 0);
    x = gr_tensor_rows(around, 100, 200);
    spans = rig_tensor(&r, gr_tensor_2d(NULL, GR_I32, 4, 2), 0);
    sum = rig_tensor(&r, gr_tensor_1d(NULL, GR_F64, 4), 0);
    gr_zero(r.dev, around);
    rig_write(&r, spans, spans_v);
    gr_sum_spans(r.dev, sum, x, spans);
    found = rig_read(&r, sum);
    for (int i = 0; i < 4; i++)
        ASSERT(i < 3 ? isnan(found[i]) : found[i] == 0);
    gr_free(found);
    rig_close(&r);
}

static double as_bf16(double value)
{
    return (double)gr_float_from_bf16(gr_float_to_bf16((float)value));
}

/* To bf16: what the twin in f64 says of each element is rounded once, ties to even. */
static void copy_bf16(struct rig *r)
{
    static const double values[] = {1, 1 + 0x1p-8, 1 + 0x1.8p-7, 1 + 0x1.0002p-8, -0x1.fep127};
    static const double rounded[] = {1, 1, 1 + 0x1p-6, 1 + 0x1p-7, -0x1.fep127};
    gr_tensor x = rig_tensor(r, flat(5), 0), y = rig_tensor(r, gr_tensor_1d(NULL, GR_BF16, 5), 0);
    double *found;

    rig_write(r, x, values);
    gr_copy(r->dev, y, x);
    found = rig_read(r, y);
    for (int i = 0; i < 5; i++)
        ASSERT_MSG(found[i] == rounded[i], "%a is stored as %a, expected %a (off by %g)", values[i],
                   found[i], rounded[i], found[i] - rounded[i]);
    gr_free(found);
}

TEST(copy_to_bf16_rounds_to_nearest_even)
{
    rig_each_isa(copy_bf16);
}

/* An update of 1e-5 of a weight is far below bf16's last place: the master moves, its copy is the
 * master rounded. */
static void adamw_bf16(struct rig *r)
{
    enum { ELEMENTS = 9001, BEGIN = 5 };
    struct gr_adamw_span span = {.begin = BEGIN, .end = ELEMENTS, .learning_rate = 1e-5};
    struct gr_adamw a = {.param = rig_random(r, flat(ELEMENTS), 0, 0.5, 1),
                         .moment1 = rig_tensor(r, flat(ELEMENTS), 0),
                         .moment2 = rig_tensor(r, flat(ELEMENTS), 0),
                         .grad = rig_random(r, flat(ELEMENTS), 0, 1, 2),
                         .grad_scale = 1,
                         .spans = 1,
                         .span = &span,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .step = 1};
    double *before = rig_read(r, a.param), *after, *copy;

    span.copy = rig_tensor(r, gr_tensor_1d(NULL, GR_BF16, ELEMENTS - BEGIN), 0);
    gr_zero(r->dev, a.moment1);
    gr_zero(r->dev, a.moment2);
    gr_adamw(r->dev, &a);
    after = rig_read(r, a.param);
    copy = rig_read(r, span.copy);
    for (int i = BEGIN; i < ELEMENTS; i++) {
        ASSERT_NEAR(before[i] - after[i], 1e-5, 1e-7);
        ASSERT_MSG(copy[i - BEGIN] == as_bf16(after[i]), "the copy of %.9g is %.9g", after[i],
                   copy[i - BEGIN]);
    }
    gr_free(before);
    gr_free(after);
    gr_free(copy);
}

TEST(adamw_small_update_moves_master_and_rounds_copy)
{
    rig_each_isa(adamw_bf16);
}

/* One rounding per element: the values are exact.  2-D views and gapless buffers. */
static void elements(struct rig *r)
{
    static const int64_t gaps[] = {0, 9};

    for (int64_t g = 0; g < GR_COUNT(gaps); g++) {
        gr_tensor shape = gr_tensor_2d(NULL, GR_F32, 3, 5001);
        int64_t count = gr_tensor_count(shape);
        gr_tensor a = rig_random(r, shape, gaps[g], -2, 2), b = rig_random(r, shape, 0, -2, 2);
        gr_tensor y = rig_tensor(r, shape, gaps[g]), z = rig_tensor(r, shape, 4);
        double *a_v = rig_read(r, a), *b_v = rig_read(r, b), *y_v, *z_v, *sum_v;

        gr_add(r->dev, y, a, b);
        gr_copy(r->dev, z, y);
        gr_add(r->dev, a, a, b);
        y_v = rig_read(r, y);
        z_v = rig_read(r, z);
        sum_v = rig_read(r, a);
        for (int64_t i = 0; i < count; i++)
            a_v[i] = (double)((float)a_v[i] + (float)b_v[i]);
        rig_assert_close("y = a + b", y_v, a_v, count, 0);
        rig_assert_close("a += b", sum_v, a_v, count, 0);
        rig_assert_close("z = y", z_v, a_v, count, 0);
        gr_free(a_v);
        gr_free(b_v);
        gr_free(y_v);
        gr_free(z_v);
        gr_free(sum_v);
    }
}

TEST(add_copy_views_exact)
{
    rig_each_isa(elements);
}

/* More pairs than a launch takes, of widths from 1 to 33, from any address; what lies between them
 * keeps its NaN.  One pair is empty. */
static void check_pairs(struct rig *r, enum gr_dtype to, enum gr_dtype from)
{
    enum { PAIRS = 70, ROWS = 3, WIDTH = 33, LEFT = 2 };
    gr_tensor y = rig_tensor(r, gr_tensor_2d(NULL, to, PAIRS * ROWS, LEFT + WIDTH), 5);
    gr_tensor x = rig_random(r, gr_tensor_1d(NULL, from, PAIRS * ROWS * WIDTH), 0, -2, 2);
    struct gr_copy_pair pair[PAIRS];
    double *x_v = rig_read(r, x), *y_v;
    int64_t at = 0;

    for (int64_t i = 0; i < PAIRS; i++) {
        int64_t rows = i == 5 ? 0 : ROWS, width = 1 + i % WIDTH;

        pair[i].y =
            gr_tensor_columns(gr_tensor_rows(y, ROWS * i, ROWS * i + rows), LEFT, LEFT + width);
        pair[i].x = gr_tensor_2d(gr_tensor_rows(x, at, at + rows * width).data, from, rows, width);
        at += rows * width;
    }
    gr_copy_pairs(r->dev, pair, PAIRS);
    y_v = rig_read(r, y);
    at = 0;
    for (int64_t row = 0; row < PAIRS * ROWS; row++)
        for (int64_t j = 0; j < LEFT + WIDTH; j++) {
            int64_t i = row / ROWS, width = i == 5 ? 0 : 1 + i % WIDTH;
            double found = y_v[row * (LEFT + WIDTH) + j];

            if (j < LEFT || j >= LEFT + width)
                ASSERT_MSG(isnan(found), "pair %" PRId64 " wrote beside itself: %g", i, found);
            else
                ASSERT_NEAR(found, to == GR_F32 ? x_v[at] : as_bf16(x_v[at]), 0);
            at += j >= LEFT && j < LEFT + width;
        }
    gr_free(x_v);
    gr_free(y_v);
}

static void copied_pairs(struct rig *r)
{
    check_pairs(r, GR_F32, GR_F32);
    check_pairs(r, GR_BF16, GR_F32);
    check_pairs(r, GR_F32, GR_BF16);
    check_pairs(r, GR_BF16, GR_BF16);
    gr_copy_pairs(r->dev, NULL, 0);
}

TEST(copy_pairs_any_widths_exact)
{
    rig_each_isa(copied_pairs);
}

/* Longer than what an upload takes at a time. */
TEST(upload_rows_of_many_megabytes_exact)
{
    enum { ROWS = 3000, COLUMNS = 1501, PERIOD = 251 };
    struct rig r;
    double *values = GR_NEW_ARRAY(double, (int64_t)ROWS *COLUMNS), *found;
    gr_tensor t;

    rig_open_bytes(&r, NULL, 1, (int64_t)64 << 20);
    t = rig_tensor(&r, gr_tensor_2d(NULL, GR_BF16, ROWS, COLUMNS), 3);
    for (int64_t i = 0; i < gr_tensor_count(t); i++)
        values[i] = (double)(i % PERIOD);
    rig_write(&r, t, values);
    found = rig_read(&r, t);
    rig_assert_close("the matrix", found, values, gr_tensor_count(t), 0);
    gr_free(found);
    gr_free(values);
    rig_close(&r);
}

static void zero(struct rig *r)
{
    static const enum gr_dtype dtypes[] = {GR_F32, GR_F64, GR_I32};

    for (int64_t i = 0; i < GR_COUNT(dtypes); i++) {
        gr_tensor x = rig_tensor(r, gr_tensor_2d(NULL, dtypes[i], 7, 700), 2 * i);
        double *found;

        gr_zero(r->dev, x); /* over NaN bits */
        found = rig_read(r, x);
        for (int64_t j = 0; j < gr_tensor_count(x); j++)
            ASSERT(found[j] == 0 && !signbit(found[j]));
        gr_free(found);
    }
}

TEST(zero_any_dtype_is_plus_zero)
{
    rig_each_isa(zero);
}
