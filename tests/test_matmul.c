/* Matrix products: the three forms, strides, beta, an empty sum, and bits that depend neither on
 * the team a product is called from nor on how many threads there could be. */
#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "kernels/base/status.h"
#include "kernels/cpu/matmul.h"
#include "kernels/device.h"
#include "tests/test.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

enum { M = 37, N = 29, K = 90, GAP = 3 };

/* A matrix with gaps; the caller frees data. */
static gr_tensor make(int64_t rows, int64_t columns, uint32_t stream)
{
    gr_tensor t = gr_tensor_2d(NULL, GR_F32, rows, columns);
    float *data = GR_NEW_ARRAY(float, rows *(columns + GAP));

    for (int64_t i = 0; i < rows * (columns + GAP); i++)
        data[i] = 2 * gr_uniform(gr_philox(stream, (uint32_t)i, 0, 0, 0).word[0]) - 1;
    t.data = data;
    t.stride = columns + GAP;
    return t;
}

static double at(gr_tensor t, int64_t i, int64_t j, bool transposed)
{
    const float *data = t.data;

    return (double)(transposed ? data[j * t.stride + i] : data[i * t.stride + j]);
}

struct form {
    void (*multiply)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta);
    bool trans_a, trans_b;
};
static const struct form forms[] = {{gr_cpu_matmul_nn, false, false},
                                    {gr_cpu_matmul_nt, false, true},
                                    {gr_cpu_matmul_tn, true, false}};

static void check_form(const struct form *f, int64_t k, float beta)
{
    gr_tensor a = f->trans_a ? make(k, M, 1) : make(M, k, 1);
    gr_tensor b = f->trans_b ? make(N, k, 2) : make(k, N, 2);
    gr_tensor c = make(M, N, 3), before = make(M, N, 3);

    f->multiply(c, a, b, 0.5f, beta);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N + GAP; j++) {
            double expected = at(before, i, j, false) * (j < N ? (double)beta : 1.0);

            for (int64_t l = 0; l < k && j < N; l++)
                expected += 0.5 * at(a, i, l, f->trans_a) * at(b, l, j, f->trans_b);
            ASSERT_NEAR(at(c, i, j, false), expected, 1e-5); /* sums of 90 products below 1 */
        }
    free(a.data);
    free(b.data);
    free(c.data);
    free(before.data);
}

TEST(matmul_every_form_equals_sums)
{
    for (int64_t i = 0; i < GR_COUNT(forms); i++) {
        check_form(&forms[i], K, 0.0f);
        check_form(&forms[i], K, 1.0f);
        check_form(&forms[i], 1, 1.0f);
        check_form(&forms[i], 0, 0.0f);
        check_form(&forms[i], 0, 1.0f);
    }
}

/* beta 0 overwrites whatever was there. */
TEST(matmul_beta_zero_ignores_nan)
{
    gr_tensor a = make(M, K, 1), b = make(K, N, 2), c = make(M, N, 3);

    for (int64_t i = 0; i < M * c.stride; i++)
        ((float *)c.data)[i] = NAN;
    gr_cpu_matmul_nn(c, a, b, 1.0f, 0.0f);
    ASSERT(isfinite(at(c, M - 1, N - 1, false)));
    free(a.data);
    free(b.data);
    free(c.data);
}

enum { PLACES = 4 };

/* The product from place 0: no team, 1 thread;  1: no team, 5 possible threads;  2: a team of 1
 * while 5 are possible;  3: a team of 3. */
static void multiply_at(int place, const struct form *f, gr_tensor c, gr_tensor a, gr_tensor b)
{
    omp_set_num_threads(place == 0 ? 1 : 5);
    if (place < 2) {
        f->multiply(c, a, b, 1.0f, 0.0f);
    } else {
#pragma omp parallel num_threads(place == 2 ? 1 : 3)
#pragma omp single
        f->multiply(c, a, b, 1.0f, 0.0f);
    }
    ASSERT_INT(omp_get_max_threads(), place == 0 ? 1 : 5); /* left as it was */
}

TEST(matmul_from_any_team_same_bits)
{
    static const int64_t sizes[][3] = {{256, 96, 576},  {192, 16, 640}, {16, 96, 640},
                                       {1536, 16, 640}, {64, 64, 256},  {37, 29, 90}};

    for (int64_t s = 0; s < GR_COUNT(sizes) * GR_COUNT(forms); s++) {
        const struct form *f = &forms[s % GR_COUNT(forms)];
        const int64_t *size = sizes[s / GR_COUNT(forms)];
        gr_tensor a = f->trans_a ? make(size[2], size[0], 1) : make(size[0], size[2], 1);
        gr_tensor b = f->trans_b ? make(size[1], size[2], 2) : make(size[2], size[1], 2);
        gr_tensor c[PLACES];

        for (int place = 0; place < PLACES; place++) {
            c[place] = make(size[0], size[1], 3);
            multiply_at(place, f, c[place], a, b);
            ASSERT_MSG(memcmp(c[0].data, c[place].data,
                              (size_t)(size[0] * c[0].stride) * sizeof(float)) == 0,
                       "%" PRId64 " x %" PRId64 " x %" PRId64 ": bits differ at place %d", size[0],
                       size[1], size[2], place);
        }
        for (int place = 0; place < PLACES; place++)
            free(c[place].data);
        free(a.data);
        free(b.data);
    }
}

/* A forced v3 has the bits of a CPU with AVX2: oneDNN must not use AVX-512 beside it. */
TEST(matmul_forced_v3_keeps_onednn_to_avx2)
{
    struct gr_device *dev = NULL;

    if (gr_device_create(&dev, "cpu", 1, "v3") != GR_OK)
        SKIP("no v3 here: %s", gr_error_message());
    ASSERT_INT((int)dnnl_get_effective_cpu_isa() | (int)dnnl_cpu_isa_avx2, dnnl_cpu_isa_avx2);
    gr_device_destroy(dev);
}
