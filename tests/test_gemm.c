/* Matrix products of one instruction set (GR_ISA): every form at every edge of the tiles, strides,
 * bf16 in both packings, and bits that do not depend on what stands beside a row or column. */
#include "kernels/cpu/gemm.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "kernels/base/widen.h"
#include "kernels/device.h"
#include "tests/test.h"

#include <stdlib.h>

enum { GAP = 3 };

struct matrix {
    gr_tensor t;
    bool transposed;
};

static struct gr_gemm_room room(void)
{
    static void *memory;

    if (memory == NULL)
        memory = aligned_alloc(64, (size_t)gr_gemm_room_words() * 4);
    return gr_gemm_room_at(&(struct gr_device){0}, memory);
}

/* Whether this CPU has what this file is compiled for. */
static void need_isa(void)
{
    struct gr_device *dev = NULL;

    if (gr_device_create(&dev, "cpu", 1, GR_ISA_NAME) != GR_OK)
        SKIP("this CPU lacks " GR_ISA_NAME);
    gr_device_destroy(dev);
}

/* A matrix with gaps between its rows, NaN in them; the caller frees data. */
static struct matrix make(int64_t rows, int64_t columns, bool transposed, enum gr_dtype dtype,
                          uint32_t stream)
{
    struct matrix m = {
        gr_tensor_2d(NULL, dtype, transposed ? columns : rows, transposed ? rows : columns),
        transposed};
    int64_t width = m.t.dim[1] + GAP, count = m.t.dim[0] * width;
    char *data = gr_alloc(count + 1, 4);

    for (int64_t i = 0; i < count; i++) {
        float x = 2 * gr_uniform(gr_philox(stream, (uint32_t)i, 0, 0, 0).word[0]) - 1;

        gr_narrow(data + i * gr_dtype_bytes(dtype), i % width < m.t.dim[1] ? &x : &(float){NAN},
                  dtype, 1);
    }
    m.t.data = data;
    m.t.stride = width;
    return m;
}

static float at(struct matrix m, int64_t i, int64_t j)
{
    float x;

    if (m.transposed) {
        int64_t swap = i;

        i = j;
        j = swap;
    }
    gr_widen(&x, (const char *)m.t.data + (i * m.t.stride + j) * gr_dtype_bytes(m.t.dtype),
             m.t.dtype, 1);
    return x;
}

struct shape {
    int64_t m, n, k;
};

struct form {
    bool trans_a, trans_b;
};
static const struct form forms[] = {{false, false}, {false, true}, {true, false}, {true, true}};

/* What an element is worth once packed. */
static double packed(struct matrix x, int64_t i, int64_t j, bool pairs)
{
    float value = at(x, i, j);

    return (double)(pairs ? gr_float_from_bf16(gr_float_to_bf16(value)) : value);
}

/* (rows, columns), or (columns, rows): the elements once packed; the caller frees them. */
static double *all_packed(struct matrix x, int64_t rows, int64_t columns, bool transposed,
                          bool pairs)
{
    double *values = GR_NEW_ARRAY(double, rows *columns + 1);

    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            values[transposed ? j * rows + i : i * columns + j] = packed(x, i, j, pairs);
    return values;
}

static void check_alpha(struct shape s, const struct form *f, enum gr_dtype dtype_a,
                        enum gr_dtype dtype_b, bool pairs, enum gr_write write, float alpha)
{
    struct matrix a = make(s.m, s.k, f->trans_a, dtype_a, 1);
    struct matrix b = make(s.k, s.n, f->trans_b, dtype_b, 2);
    struct matrix c = make(s.m, s.n, false, GR_F32, 3), before = make(s.m, s.n, false, GR_F32, 3);
    double *rows = all_packed(a, s.m, s.k, false, pairs);
    double *columns = all_packed(b, s.k, s.n, true, pairs);

    GR_CPU(product)
    (c.t, write, alpha, (struct gr_operand){a.t, a.transposed},
     (struct gr_operand){b.t, b.transposed}, pairs, room());
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            double expected = write == GR_ACCUMULATE ? (double)at(before, i, j) : 0.0;

            for (int64_t l = 0; l < s.k; l++)
                expected += (double)alpha * rows[i * s.k + l] * columns[j * s.k + l];
            ASSERT_NEAR((double)at(c, i, j), expected, 1e-6 * (double)(s.k + 10));
        }
        ASSERT(isnan(((float *)c.t.data)[i * c.t.stride + s.n])); /* the gap is untouched */
    }
    gr_free(rows);
    gr_free(columns);
    gr_free(a.t.data);
    gr_free(b.t.data);
    gr_free(c.t.data);
    gr_free(before.t.data);
}

static void check(struct shape s, const struct form *f, enum gr_dtype dtype_a,
                  enum gr_dtype dtype_b, bool pairs, enum gr_write write)
{
    check_alpha(s, f, dtype_a, dtype_b, pairs, write, 0.5f);
    if (s.m * s.n * s.k < 300000) /* the larger ones take their time */
        check_alpha(s, f, dtype_a, dtype_b, pairs, write, 1.0f);
}

/* One tile and a part of one; all widths of a panel; an inner dimension cut in the middle. */
static const struct shape shapes[] = {{37, 29, 90},  {8, 48, 16},   {1, 70, 33},    {9, 1, 7},
                                      {3, 16, 1},    {16, 32, 17},  {5, 100, 0},    {130, 50, 5},
                                      {4, 24, 1500}, {12, 7, 2500}, {200, 17, 700}, {1, 5, 1100},
                                      {300, 20, 40}};

TEST(gemm_every_form_equals_sums)
{
    need_isa();
    for (int64_t i = 0; i < GR_COUNT(shapes) * GR_COUNT(forms); i++) {
        check(shapes[i / GR_COUNT(forms)], &forms[i % GR_COUNT(forms)], GR_F32, GR_F32, false,
              GR_OVERWRITE);
        check(shapes[i / GR_COUNT(forms)], &forms[i % GR_COUNT(forms)], GR_F32, GR_F32, false,
              GR_ACCUMULATE);
    }
}

TEST(gemm_bf16_operands_equal_sums)
{
    need_isa();
    for (int64_t i = 0; i < GR_COUNT(shapes) * GR_COUNT(forms); i++) {
        const struct shape *s = &shapes[i / GR_COUNT(forms)];
        const struct form *f = &forms[i % GR_COUNT(forms)];

        for (int pairs = 0; pairs <= GR_HAS_PAIRS; pairs++) {
            check(*s, f, GR_BF16, GR_BF16, pairs == 1, GR_ACCUMULATE);
            check(*s, f, GR_F32, GR_BF16, pairs == 1, GR_OVERWRITE);
            check(*s, f, GR_BF16, GR_F32, pairs == 1, GR_OVERWRITE);
        }
    }
}

/* The rows [begin, end) of c alone, and some of its columns alone, have the bits they have in it.
 */
static void check_parts(struct shape s, const struct form *f, bool pairs)
{
    enum gr_dtype dtype = pairs ? GR_BF16 : GR_F32;
    struct matrix a = make(s.m, s.k, f->trans_a, dtype, 1),
                  b = make(s.k, s.n, f->trans_b, dtype, 2);
    struct matrix c = make(s.m, s.n, false, GR_F32, 3), part = make(s.m, s.n, false, GR_F32, 4);
    int64_t row = s.m / 3, column = s.n / 2;
    gr_tensor some = gr_tensor_columns(gr_tensor_rows(part.t, row, s.m), column, s.n);
    gr_tensor rows = f->trans_a ? gr_tensor_columns(a.t, row, s.m) : gr_tensor_rows(a.t, row, s.m);
    gr_tensor columns =
        f->trans_b ? gr_tensor_rows(b.t, column, s.n) : gr_tensor_columns(b.t, column, s.n);

    GR_CPU(product)
    (c.t, GR_OVERWRITE, 1.0f, (struct gr_operand){a.t, a.transposed},
     (struct gr_operand){b.t, b.transposed}, pairs, room());
    GR_CPU(product)
    (some, GR_OVERWRITE, 1.0f, (struct gr_operand){rows, f->trans_a},
     (struct gr_operand){columns, f->trans_b}, pairs, room());
    for (int64_t i = row; i < s.m; i++)
        for (int64_t j = column; j < s.n; j++)
            ASSERT(at(c, i, j) == at(part, i, j));
    gr_free(a.t.data);
    gr_free(b.t.data);
    gr_free(c.t.data);
    gr_free(part.t.data);
}

TEST(gemm_bits_do_not_depend_on_the_tile)
{
    need_isa();
    for (int64_t i = 0; i < GR_COUNT(shapes) * GR_COUNT(forms); i++) {
        const struct shape *s = &shapes[i / GR_COUNT(forms)];

        for (int pairs = 0; pairs <= GR_HAS_PAIRS && s->m > 1; pairs++)
            check_parts(*s, &forms[i % GR_COUNT(forms)], pairs == 1);
    }
}

/* Rows that are multiplied as they lie give the bits of packed ones, also from a row and a column
 * in the middle on. */
TEST(gemm_lying_rows_equal_packed)
{
    enum { M = 48, K = 192, N = 40, WIDER = 1 }; /* with GAP an even distance of rows */
    struct matrix a = make(M, K + WIDER, false, GR_BF16, 1), b = make(K, N, true, GR_BF16, 2);
    struct matrix c[2] = {make(M, N, false, GR_F32, 3), make(M, N, false, GR_F32, 3)};
    gr_tensor rows = gr_tensor_columns(a.t, 0, K);
    uint32_t *words = aligned_alloc(64, (size_t)gr_left_words(M, K, true) * sizeof *words);

    need_isa();
    if (!gr_left_can_lie(rows))
        SKIP("no tiles");
    for (int lies = 0; lies < 2; lies++) {
        struct gr_left left =
            lies == 1 ? gr_left_lying(rows)
                      : GR_CPU(pack_left)(words, (struct gr_operand){rows, false}, true);

        left = gr_left_columns(gr_left_part(left, 16, M), 64, K);
        GR_CPU(multiply)
        (gr_tensor_rows(c[lies].t, 16, M), GR_OVERWRITE, 1.0f, left,
         (struct gr_operand){gr_tensor_columns(b.t, 64, K), true}, room());
    }
    for (int64_t i = 16; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            double expected = 0;

            for (int64_t l = 64; l < K; l++)
                expected += packed(a, i, l, true) * packed(b, l, j, true);
            ASSERT_NEAR((double)at(c[0], i, j), expected, 1e-4);
            ASSERT_NEAR((double)at(c[1], i, j), (double)at(c[0], i, j), 0);
        }
    free(words);
    gr_free(a.t.data);
    gr_free(b.t.data);
    gr_free(c[0].t.data);
    gr_free(c[1].t.data);
}

/* Overwriting does not read what was there. */
TEST(gemm_overwrite_ignores_nan)
{
    struct matrix a, b;
    float c[9 * 7];

    need_isa();
    a = make(9, 5, false, GR_F32, 1);
    b = make(5, 7, false, GR_F32, 2);
    for (int64_t i = 0; i < GR_COUNT(c); i++)
        c[i] = NAN;
    gr_product_nn(gr_tensor_2d(c, GR_F32, 9, 7), GR_OVERWRITE, 1.0f, a.t, b.t, false, room());
    for (int64_t i = 0; i < GR_COUNT(c); i++)
        ASSERT(isfinite(c[i]));
    gr_free(a.t.data);
    gr_free(b.t.data);
}

/* The form that does not pack: every dtype, gaps, an inner dimension of several runs and of more
 * than the room has. */
TEST(gemm_row_equals_sums)
{
    static const enum gr_dtype dtypes[] = {GR_F32, GR_BF16};

    need_isa();
    for (int i = 0; i < 8; i++) {
        int64_t n = i < 4 ? 70 : 3, k = i < 4 ? 1100 : GR_LEFT_WORDS + 700;
        struct matrix a = make(1, k, false, dtypes[i % 2], 1);
        struct matrix b = make(k, n, true, dtypes[i / 2 % 2], 2);
        struct matrix c = make(1, n, false, GR_F32, 3), before = make(1, n, false, GR_F32, 3);

        GR_CPU(product_row)(c.t, GR_ACCUMULATE, 0.5f, a.t, b.t, room());
        for (int64_t j = 0; j < n; j++) {
            double expected = (double)at(before, 0, j);

            for (int64_t l = 0; l < k; l++)
                expected += 0.5 * (double)at(a, 0, l) * (double)at(b, l, j);
            ASSERT_NEAR((double)at(c, 0, j), expected, 1e-4);
        }
        gr_free(a.t.data);
        gr_free(b.t.data);
        gr_free(c.t.data);
        gr_free(before.t.data);
    }
}
