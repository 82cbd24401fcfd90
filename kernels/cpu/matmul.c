/* The matrix products of the CPU backend, by oneDNN's sgemm.  See matmul.h.
 * Compiled once: oneDNN chooses its own instruction set at run time. */
#include "kernels/cpu/matmul.h"

#include "kernels/base/status.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

/* The leading dimension: a tensor of one row may have any stride. */
static int64_t leading(gr_tensor t)
{
    return t.stride > t.dim[1] ? t.stride : t.dim[1];
}

/* Inside a parallel region of two or more threads oneDNN uses the calling thread only.  A region of
 * one thread does not count as parallel: there it must be told. */
static dnnl_status_t sgemm_on_one_thread(char trans_a, char trans_b, int64_t m, int64_t n,
                                         int64_t k, float alpha, gr_tensor a, gr_tensor b,
                                         float beta, gr_tensor c)
{
    int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
    dnnl_status_t status;

    if (threads > 1)
        omp_set_num_threads(1);
    status = dnnl_sgemm(trans_a, trans_b, m, n, k, alpha, a.data, leading(a), b.data, leading(b),
                        beta, c.data, leading(c));
    if (threads > 1)
        omp_set_num_threads(threads);
    return status;
}

static void scale_rows(gr_tensor c, float beta)
{
    for (int64_t i = 0; i < c.dim[0]; i++) {
        float *row = (float *)c.data + i * c.stride;

        for (int64_t j = 0; j < c.dim[1]; j++)
            row[j] = beta == 0.0f ? 0.0f : beta * row[j];
    }
}

static void multiply(gr_tensor c, gr_tensor a, bool trans_a, gr_tensor b, bool trans_b, float alpha,
                     float beta)
{
    int64_t m = trans_a ? a.dim[1] : a.dim[0], k = trans_a ? a.dim[0] : a.dim[1];
    int64_t n = trans_b ? b.dim[0] : b.dim[1], k_of_b = trans_b ? b.dim[1] : b.dim[0];
    dnnl_status_t status;

    GR_CHECK(a.ndim == 2 && b.ndim == 2 && c.ndim == 2 && k == k_of_b && c.dim[0] == m &&
                 c.dim[1] == n,
             "(%lld, %lld) x (%lld, %lld) into (%lld, %lld)", (long long)m, (long long)k,
             (long long)k_of_b, (long long)n, (long long)c.dim[0], (long long)c.dim[1]);
    GR_CHECK(a.dtype == GR_F32 && b.dtype == GR_F32 && c.dtype == GR_F32, "f32 only");
    if (m == 0 || n == 0)
        return;
    if (k == 0) {
        scale_rows(c, beta);
        return;
    }
    status = sgemm_on_one_thread(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, b,
                                 beta, c);
    if (status == dnnl_out_of_memory) { /* as in base/alloc.c: there is no way to go on */
        fprintf(stderr, "graft: error: host memory: oneDNN found none\n"
                        "  hint: give the job more memory, or lower data.max_length\n");
        gr_abort(gr_status_exit_code(GR_ERR_DEVICE));
    }
    GR_CHECK(status == dnnl_success, "oneDNN says %d", (int)status);
}

void gr_cpu_matmul_nn(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta)
{
    multiply(c, a, false, b, false, alpha, beta);
}

void gr_cpu_matmul_nt(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta)
{
    multiply(c, a, false, b, true, alpha, beta);
}

void gr_cpu_matmul_tn(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta)
{
    multiply(c, a, true, b, false, alpha, beta);
}

void gr_cpu_matmul_limit_isa(const char *isa)
{
    if (strcmp(isa, "v3") == 0)
        dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
}

const char *gr_cpu_matmul_library(void)
{
    static char text[64];
    const dnnl_version_t *version = dnnl_version();

    snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return text;
}
