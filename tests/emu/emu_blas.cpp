/* cuBLASLt's double: products of matrices as the plug-in asks for them, and nothing else.
 *
 * What the real library refuses is refused with its status, and a line that says why.  What it
 * could not notice (memory outside an allocation, operands that overlap) is a finding.  An
 * algorithm knows its problem and what it was promised; it is 64 bytes that may be kept in a file,
 * as the real one.  Sums are f32; each algorithm has an order of its own and so bits of its own,
 * and those whose sums are added by atomics give other bits each time.
 *
 * The heuristic's first result may be one that is none, as its state says.  EMU_BLAS_SPARSE: it
 * finds nothing 1: with a workspace, 2: for more than the alignment of an element, 3: either, 4: at
 * all. */
#include "emu_queue.h"

#include <cublasLt.h>

#include <algorithm>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "emu_blas_product.h"

using namespace emu;

namespace
{

enum tag : uint64_t { HANDLE = 0x68616e64, PRODUCT, LAYOUT, PREFERENCE, ALGORITHM };

struct handle {
    tag is;
};

struct product {
    tag is;
    cublasOperation_t a_is, b_is;
};

struct layout {
    tag is;
    cudaDataType_t type;
    uint64_t rows, columns; /* column-major */
    int64_t ld;
};

enum operand { A, B, C, D, OPERANDS };
const char operand_names[] = "ABCD";

struct preference {
    tag is;
    uint64_t workspace;
    uint32_t reductions;
    uint32_t alignment[OPERANDS];
};

/* What stands in a cublasLtMatmulAlgo_t. */
struct algorithm {
    uint64_t is; /* ALGORITHM */
    uint64_t problem;
    uint64_t workspace;
    uint32_t alignment[OPERANDS];
    uint32_t number, reduction;
};

static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm is 64 bytes");

/* All of a call but the pointers. */
struct problem {
    product what;
    layout of[OPERANDS];
};

cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

cublasStatus_t refuse(cublasStatus_t status, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "EMU cublasLt: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", cublasLtGetStatusString(status));
    return status;
}

template <class T> T *create(tag is)
{
    T *made = new T{};

    made->is = is;
    return made;
}

/* Behind a handle; what is destroyed has no tag any more. */
template <class T> T *behind(const void *handle, tag is)
{
    T *object = (T *)handle;

    if (object == nullptr || object->is != is)
        fail("cublasLt", "%p is no handle, one of another kind, or destroyed", handle);
    return object;
}

template <class T> cublasStatus_t destroy(const void *handle, tag is)
{
    T *object = behind<T>(handle, is);

    object->is = (tag)0;
    delete object;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> cublasStatus_t set(T *field, const void *value, size_t bytes)
{
    if (value == nullptr || bytes != sizeof *field)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "an attribute of %zu bytes (found %zu)",
                      sizeof *field, bytes);
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

size_t size_of(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

/* Bytes from the first element to the last. */
size_t extent(const layout &l)
{
    return ((l.columns - 1) * (uint64_t)l.ld + l.rows) * size_of(l.type);
}

uint64_t rows_of(const layout &l, cublasOperation_t is)
{
    return is == CUBLAS_OP_N ? l.rows : l.columns;
}

uint64_t columns_of(const layout &l, cublasOperation_t is)
{
    return is == CUBLAS_OP_N ? l.columns : l.rows;
}

cublasStatus_t check_layouts(const problem &p)
{
    for (int i = A; i < OPERANDS; i++) {
        const layout &l = p.of[i];

        if (l.type != CUDA_R_16BF && l.type != CUDA_R_32F)
            return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%c is neither bf16 nor f32",
                          operand_names[i]);
        if (l.rows == 0 || l.columns == 0 || l.ld < (int64_t)l.rows)
            return refuse(CUBLAS_STATUS_INVALID_VALUE,
                          "%c is %llu x %llu with a leading dimension of %lld", operand_names[i],
                          (unsigned long long)l.rows, (unsigned long long)l.columns,
                          (long long)l.ld);
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_problem(const problem &p)
{
    const layout &a = p.of[A], &b = p.of[B], &c = p.of[C], &d = p.of[D];
    const cublasStatus_t status = check_layouts(p);

    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types %d x %d + %d to %d", a.type, b.type,
                      c.type, d.type);
    if (rows_of(a, p.what.a_is) != d.rows || columns_of(b, p.what.b_is) != d.columns ||
        columns_of(a, p.what.a_is) != rows_of(b, p.what.b_is) || c.rows != d.rows ||
        c.columns != d.columns)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the shapes of A, B, C and D do not fit");
    return CUBLAS_STATUS_SUCCESS;
}

/* FNV-1a of what an algorithm is made for. */
uint64_t fingerprint(const problem &p)
{
    std::vector<uint64_t> facts = {p.what.a_is, p.what.b_is};
    uint64_t hash = 0xcbf29ce484222325u;

    for (const layout &l : p.of)
        facts.insert(facts.end(), {(uint64_t)l.type, l.rows, l.columns, (uint64_t)l.ld});
    for (uint64_t fact : facts)
        hash = (hash ^ fact) * 0x100000001b3u;
    return hash;
}

problem problem_of(cublasLtMatmulDesc_t what, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                   cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d)
{
    return {*behind<product>(what, PRODUCT),
            {*behind<layout>(a, LAYOUT), *behind<layout>(b, LAYOUT), *behind<layout>(c, LAYOUT),
             *behind<layout>(d, LAYOUT)}};
}

/* The algorithms there are: how their partial sums meet, and their workspace.  The second, which is
 * the first of those without atomics, sums in the order of k, and each behind it from a later k on
 * and round. */
const struct {
    uint32_t reduction;
    uint64_t workspace;
} algorithms[] = {
    {CUBLASLT_REDUCTION_SCHEME_INPLACE, 0}, /* atomics: the default preference gets this */
    {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 4096},
    {CUBLASLT_REDUCTION_SCHEME_NONE, 0},
    {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 65536},
};

/* Whether the heuristic has nothing to say to that. */
bool is_silent(const problem &p, const preference &by)
{
    const char *text = getenv("EMU_BLAS_SPARSE");
    const int sparse = text == nullptr ? 0 : atoi(text);
    bool is_aligned = false;

    for (int i = A; i < OPERANDS; i++)
        is_aligned = is_aligned || by.alignment[i] > size_of(p.of[i].type);
    return sparse == 4 || ((sparse & 1) != 0 && by.workspace > 0) ||
           ((sparse & 2) != 0 && is_aligned);
}

bool is_allowed(uint32_t number, const preference &p)
{
    const uint32_t reduction = algorithms[number].reduction;

    return algorithms[number].workspace <= p.workspace &&
           (reduction == CUBLASLT_REDUCTION_SCHEME_NONE || (p.reductions & reduction) != 0);
}

cublasStatus_t check_algorithm(algorithm *found, const cublasLtMatmulAlgo_t *given,
                               const problem &p)
{
    memcpy(found, given, sizeof *found);
    if (found->is != ALGORITHM || found->number >= std::size(algorithms) ||
        found->workspace != algorithms[found->number].workspace)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "the algorithm is none of the heuristic's");
    if (found->problem != fingerprint(p))
        return refuse(CUBLAS_STATUS_INVALID_VALUE,
                      "the algorithm was chosen for other layouts or transposes");
    return CUBLAS_STATUS_SUCCESS;
}

/* One cublasLtMatmul. */
struct call {
    problem p;
    algorithm by;
    const char *memory[OPERANDS];
    float alpha, beta;
    void *workspace;
};

cublasStatus_t check_memory(const call &c)
{
    for (int i = A; i < OPERANDS; i++) {
        if (i == C && c.beta == 0)
            continue;
        if (c.memory[i] == nullptr)
            return refuse(CUBLAS_STATUS_INVALID_VALUE, "%c is NULL", operand_names[i]);
        if ((uintptr_t)c.memory[i] % c.by.alignment[i] != 0)
            return refuse(CUBLAS_STATUS_INVALID_VALUE,
                          "%c at %p: the algorithm was promised an alignment of %u (256 unless "
                          "the preference says less)",
                          operand_names[i], (const void *)c.memory[i], c.by.alignment[i]);
    }
    if (c.memory[C] == c.memory[D] && c.p.of[C].ld != c.p.of[D].ld)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "C is D, but its leading dimension is not");
    return CUBLAS_STATUS_SUCCESS;
}

/* Whether columns of two matrices meet in memory; both go upwards. */
bool overlap(const char *x, const layout &of_x, const char *y, const layout &of_y)
{
    const size_t x_step = (size_t)of_x.ld * size_of(of_x.type);
    const size_t y_step = (size_t)of_y.ld * size_of(of_y.type);
    const size_t x_bytes = of_x.rows * size_of(of_x.type), y_bytes = of_y.rows * size_of(of_y.type);

    for (uint64_t i = 0, j = 0; i < of_x.columns && j < of_y.columns;) {
        const char *left = x + i * x_step, *right = y + j * y_step;

        if (left < right + y_bytes && right < left + x_bytes)
            return true;
        if (left < right)
            i++;
        else
            j++;
    }
    return false;
}

/* What the real library does not see. */
void find_faults(const call &c)
{
    static const char *const names[] = {"A of cublasLtMatmul", "B of cublasLtMatmul",
                                        "C of cublasLtMatmul", "D of cublasLtMatmul"};

    for (int i = A; i < OPERANDS; i++) {
        if (i == C && c.beta == 0)
            continue;
        dev_extent(c.memory[i], extent(c.p.of[i]), names[i]);
        if (i != D && !(i == C && c.memory[C] == c.memory[D]) &&
            overlap(c.memory[i], c.p.of[i], c.memory[D], c.p.of[D]))
            fail("cublasLt", "%c and D overlap in memory", operand_names[i]);
    }
    if (c.by.workspace > 0)
        dev_extent(c.workspace, c.by.workspace, "the workspace of cublasLtMatmul");
}

void touch(const call &c, operand o, access_kind kind)
{
    const layout &l = c.p.of[o];
    const size_t step = (size_t)l.ld * size_of(l.type), bytes = l.rows * size_of(l.type);

    for (uint64_t i = 0; i < l.columns; i++)
        dev_touch(c.memory[o] + i * step, bytes, kind, "cublasLtMatmul");
}

matrix view(const call &c, operand o, cublasOperation_t is)
{
    const layout &l = c.p.of[o];

    return {c.memory[o], l.type == CUDA_R_16BF, is == CUBLAS_OP_N ? 1 : l.ld,
            is == CUBLAS_OP_N ? l.ld : 1};
}

void run(const call &c)
{
    const layout &d = c.p.of[D];
    const uint64_t depth = columns_of(c.p.of[A], c.p.what.a_is);
    const bool is_random = c.by.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE;
    std::vector<float> sums(d.rows * d.columns);

    touch(c, A, LOAD);
    touch(c, B, LOAD);
    if (c.by.workspace > 0) {
        dev_scratch(c.workspace, c.by.workspace, "the workspace of cublasLtMatmul");
        memset(c.workspace, 0xff, c.by.workspace);
    }
    multiply(sums.data(), view(c, A, c.p.what.a_is), view(c, B, c.p.what.b_is),
             {(int64_t)d.rows, (int64_t)d.columns, (int64_t)depth},
             is_random ? (int64_t)(random_bits() % depth)
                       : (int64_t)(depth * (c.by.number - 1) / std::size(algorithms)));
    if (c.beta != 0)
        touch(c, C, LOAD);
    touch(c, D, STORE);
    add_scaled(view(c, D, CUBLAS_OP_N), sums.data(), view(c, C, CUBLAS_OP_N), c.alpha, c.beta,
               (int64_t)d.rows, (int64_t)d.columns);
    count_product((int64_t)d.rows, (int64_t)d.columns, (int64_t)depth);
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *made)
{
    *made = (cublasLtHandle_t)create<handle>(HANDLE);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t library)
{
    EMU_API;
    return destroy<handle>(library, HANDLE);
}

size_t cublasLtGetVersion()
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "another status of cuBLAS";
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *made, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    EMU_API;
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only sums and scales in f32 are modelled");
    *made = (cublasLtMatmulDesc_t)create<product>(PRODUCT);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t what)
{
    EMU_API;
    return destroy<product>(what, PRODUCT);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t what,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    EMU_API;
    product *p = behind<product>(what, PRODUCT);

    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&p->a_is, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&p->b_is, value, bytes);
    default:
        fail("not-modelled", "attribute %d of a product", (int)attribute);
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    layout *l = create<layout>(LAYOUT);

    *l = {LAYOUT, type, rows, columns, ld};
    *made = (cublasLtMatrixLayout_t)l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    EMU_API;
    return destroy<layout>(l, LAYOUT);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made)
{
    preference *p = create<preference>(PREFERENCE);

    p->reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    for (uint32_t &alignment : p->alignment)
        alignment = 256;
    *made = (cublasLtMatmulPreference_t)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    EMU_API;
    return destroy<preference>(p, PREFERENCE);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t of,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    EMU_API;
    preference *p = behind<preference>(of, PREFERENCE);

    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(&p->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return set(&p->alignment[A], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return set(&p->alignment[B], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return set(&p->alignment[C], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(&p->alignment[D], value, bytes);
    default:
        fail("not-modelled", "attribute %d of a preference", (int)attribute);
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t library, cublasLtMatmulDesc_t what,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t by, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    EMU_API;
    const problem p = problem_of(what, a, b, c, d);
    const preference &preferred = *behind<preference>(by, PREFERENCE);
    const cublasStatus_t status = check_problem(p);

    behind<handle>(library, HANDLE);
    *found = 0;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (is_silent(p, preferred))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (wanted > 1) {
        results[*found] = {};
        results[(*found)++].state = CUBLAS_STATUS_NOT_SUPPORTED;
    }
    for (uint32_t i = 0; i < std::size(algorithms) && *found < wanted; i++) {
        algorithm made = {ALGORITHM, fingerprint(p),         algorithms[i].workspace, {},
                          i,         algorithms[i].reduction};

        if (!is_allowed(i, preferred))
            continue;
        std::copy_n(preferred.alignment, (int)OPERANDS, made.alignment);
        results[*found] = {};
        memcpy(&results[*found].algo, &made, sizeof made);
        results[(*found)++].workspaceSize = made.workspace;
    }
    return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t library, cublasLtMatmulDesc_t what,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *by,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    EMU_API;
    const problem p = problem_of(what, a, b, c, d);
    algorithm found;
    cublasStatus_t status = check_problem(p);

    behind<handle>(library, HANDLE);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = check_algorithm(&found, by, p);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    *result = {};
    result->algo = *by;
    result->workspaceSize = found.workspace;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *by,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written)
{
    EMU_API;
    algorithm found;

    memcpy(&found, by, sizeof found);
    if (attribute != CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)
        fail("not-modelled", "attribute %d of an algorithm", (int)attribute);
    if (bytes != sizeof found.reduction)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "an attribute of 4 bytes (found %zu)", bytes);
    memcpy(value, &found.reduction, bytes);
    *written = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t library, cublasLtMatmulDesc_t what,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t of_a,
                              const void *b, cublasLtMatrixLayout_t of_b, const void *beta,
                              const void *c, cublasLtMatrixLayout_t of_c, void *d,
                              cublasLtMatrixLayout_t of_d, const cublasLtMatmulAlgo_t *by,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    EMU_API;
    call now = {problem_of(what, of_a, of_b, of_c, of_d),
                {},
                {(const char *)a, (const char *)b, (const char *)c, (const char *)d},
                *(const float *)alpha, /* the host's, read at the call */
                *(const float *)beta,
                workspace};
    cublasStatus_t status = check_problem(now.p);

    behind<handle>(library, HANDLE);
    if (by == nullptr)
        fail("not-modelled", "cublasLtMatmul that chooses the algorithm itself");
    if (status == CUBLAS_STATUS_SUCCESS)
        status = check_algorithm(&now.by, by, now.p);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = check_memory(now);
    if (status == CUBLAS_STATUS_SUCCESS && workspace_bytes < now.by.workspace)
        status = refuse(CUBLAS_STATUS_INVALID_VALUE, "a workspace of %zu bytes (expected %llu)",
                        workspace_bytes, (unsigned long long)now.by.workspace);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    find_faults(now);
    enqueue(stream, "cublasLtMatmul", [now] { run(now); });
    return CUBLAS_STATUS_SUCCESS;
}
}
