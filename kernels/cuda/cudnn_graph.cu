/* Tensors, operations and plans of cuDNN.  See cudnn_graph.h. */
#include "kernels/cuda/cudnn_graph.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool gr_cudnn_open(struct gr_cudnn *cudnn, char *why, int64_t why_size)
{
    const char *missing = NULL;
    long version;

    memset(cudnn, 0, sizeof *cudnn);
    cudnn->library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (cudnn->library == NULL) {
        snprintf(why, (size_t)why_size, "%s", dlerror());
        return false;
    }
#define X(name, type, parameters)                                                                  \
    cudnn->name = (type(*) parameters)dlsym(cudnn->library, #name);                                \
    if (cudnn->name == NULL)                                                                       \
        missing = #name;
    GR_CUDNN_FUNCTIONS(X)
#undef X
    if (missing != NULL) {
        snprintf(why, (size_t)why_size, "libcudnn.so.9 has no %s", missing);
        return false;
    }
    version = (long)cudnn->cudnnGetVersion();
    if (version < GR_CUDNN_OLDEST)
        snprintf(why, (size_t)why_size, "cuDNN %ld.%ld.%ld is too old, expected %d.%d.%d",
                 version / 10000, version / 100 % 100, version % 100, GR_CUDNN_OLDEST / 10000,
                 GR_CUDNN_OLDEST / 100 % 100, GR_CUDNN_OLDEST % 100);
    return version >= GR_CUDNN_OLDEST;
}

bool gr_cudnn_use_gpu(struct gr_cudnn *cudnn, void *stream, char *why, int64_t why_size)
{
    int status = cudnn->cudnnCreate(&cudnn->handle);

    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnSetStream(cudnn->handle, stream);
    if (status != GR_CUDNN_STATUS_SUCCESS)
        snprintf(why, (size_t)why_size, "cuDNN does not start (status %d)", status);
    return status == GR_CUDNN_STATUS_SUCCESS;
}

/* The library stays. */
void gr_cudnn_close(struct gr_cudnn *cudnn)
{
    if (cudnn->handle != NULL)
        cudnn->cudnnDestroy(cudnn->handle);
    if (cudnn->properties != NULL)
        cudnn->cudnnBackendDestroyDescriptor(cudnn->properties);
    cudnn->handle = cudnn->properties = NULL;
}

bool gr_cudnn_describe_gpu(struct gr_cudnn *cudnn, const char *json)
{
    void **p = &cudnn->properties;

    return cudnn->cudnnBackendCreateDescriptor(GR_CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, p) ==
               GR_CUDNN_STATUS_SUCCESS &&
           cudnn->cudnnBackendSetAttribute(*p, GR_CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                           GR_CUDNN_TYPE_CHAR, (int64_t)strlen(json),
                                           json) == GR_CUDNN_STATUS_SUCCESS &&
           cudnn->cudnnBackendFinalize(*p) == GR_CUDNN_STATUS_SUCCESS;
}

void gr_cudnn_graph_init(struct gr_cudnn_graph *g, const struct gr_cudnn *cudnn)
{
    memset(g, 0, sizeof *g);
    g->cudnn = cudnn;
    g->next_id = 1000; /* the caller's are below */
}

void gr_cudnn_graph_release(struct gr_cudnn_graph *g)
{
    while (g->descriptors > 0)
        g->cudnn->cudnnBackendDestroyDescriptor(g->descriptor[--g->descriptors]);
    g->plan = NULL;
}

/* Whether all is well still; if not, the message is that of the first failure. */
static bool went(struct gr_cudnn_graph *g, int status, const char *what)
{
    char words[384] = "";

    if (g->status == GR_CUDNN_STATUS_SUCCESS && status != GR_CUDNN_STATUS_SUCCESS) {
        g->status = status;
        g->cudnn->cudnnGetLastErrorString(words, sizeof words);
        snprintf(g->message, sizeof g->message, "%s: %s", what, words);
    }
    return g->status == GR_CUDNN_STATUS_SUCCESS;
}

static void *make(struct gr_cudnn_graph *g, int type)
{
    void *made = NULL;

    if (g->status != GR_CUDNN_STATUS_SUCCESS)
        return NULL;
    if (g->descriptors == GR_CUDNN_DESCRIPTORS)
        went(g, GR_CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
    else if (went(g, g->cudnn->cudnnBackendCreateDescriptor(type, &made), "create"))
        g->descriptor[g->descriptors++] = made;
    return made;
}

static void set_many(struct gr_cudnn_graph *g, void *d, int name, int type, int64_t count,
                     const void *values)
{
    char what[32];

    if (g->status != GR_CUDNN_STATUS_SUCCESS)
        return;
    snprintf(what, sizeof what, "attribute %d", (int)name);
    went(g, g->cudnn->cudnnBackendSetAttribute(d, name, type, count, values), what);
}

static void set(struct gr_cudnn_graph *g, void *d, int name, int type, const void *value)
{
    set_many(g, d, name, type, 1, value);
}

static void finalize(struct gr_cudnn_graph *g, void *d, const char *what)
{
    if (g->status == GR_CUDNN_STATUS_SUCCESS)
        went(g, g->cudnn->cudnnBackendFinalize(d), what);
}

enum place { IN_MEMORY, A_NUMBER, INSIDE };

static struct gr_cudnn_tensor tensor(struct gr_cudnn_graph *g, enum place place, int64_t id,
                                     int type, const int64_t dim[4], const int64_t stride[4],
                                     const struct gr_cudnn_tensor *offsets)
{
    struct gr_cudnn_tensor t;
    int64_t alignment = place == A_NUMBER || dim[3] == 1 ? 4 : 16; /* numbers that lie alone */
    bool yes = true;

    t.type = type;
    memcpy(t.dim, dim, sizeof t.dim);
    memcpy(t.stride, stride, sizeof t.stride);
    t.descriptor = make(g, GR_CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_DATA_TYPE, GR_CUDNN_TYPE_DATA_TYPE, &type);
    set_many(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_DIMENSIONS, GR_CUDNN_TYPE_INT64, 4, dim);
    set_many(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_STRIDES, GR_CUDNN_TYPE_INT64, 4, stride);
    set(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_UNIQUE_ID, GR_CUDNN_TYPE_INT64, &id);
    set(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, GR_CUDNN_TYPE_INT64, &alignment);
    if (place != IN_MEMORY)
        set(g, t.descriptor,
            place == INSIDE ? GR_CUDNN_ATTR_TENSOR_IS_VIRTUAL : GR_CUDNN_ATTR_TENSOR_IS_BY_VALUE,
            GR_CUDNN_TYPE_BOOLEAN, &yes);
    if (offsets != NULL)
        set(g, t.descriptor, GR_CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC,
            GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, &offsets->descriptor);
    finalize(g, t.descriptor, "tensor");
    if (place != INSIDE && g->bounds == GR_CUDNN_BOUND)
        went(g, GR_CUDNN_STATUS_INTERNAL_ERROR, "too many tensors");
    else if (place != INSIDE)
        g->bound[g->bounds++] = id;
    return t;
}

struct gr_cudnn_tensor gr_cudnn_given(struct gr_cudnn_graph *g, int64_t id, int type,
                                      const int64_t dim[4], const int64_t stride[4],
                                      const struct gr_cudnn_tensor *offsets)
{
    return tensor(g, IN_MEMORY, id, type, dim, stride, offsets);
}

struct gr_cudnn_tensor gr_cudnn_number(struct gr_cudnn_graph *g, int64_t id)
{
    static const int64_t one[4] = {1, 1, 1, 1};

    return tensor(g, A_NUMBER, id, GR_CUDNN_DATA_FLOAT, one, one, NULL);
}

struct gr_cudnn_tensor gr_cudnn_inside(struct gr_cudnn_graph *g, int type, const int64_t dim[4],
                                       const int64_t *stride)
{
    const int64_t dense[4] = {dim[1] * dim[2] * dim[3], dim[2] * dim[3], dim[3], 1};

    return tensor(g, INSIDE, g->next_id++, type, dim, stride != NULL ? stride : dense, NULL);
}

static void operand(struct gr_cudnn_graph *g, void *operation, int name,
                    const struct gr_cudnn_tensor *t)
{
    if (t != NULL)
        set(g, operation, name, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, &t->descriptor);
}

static void add(struct gr_cudnn_graph *g, void *operation, const char *what)
{
    finalize(g, operation, what);
    if (g->operations == GR_CUDNN_OPERATIONS)
        went(g, GR_CUDNN_STATUS_INTERNAL_ERROR, "too many operations");
    if (g->status == GR_CUDNN_STATUS_SUCCESS)
        g->operation[g->operations++] = operation;
}

/* axis -1: none */
static void pointwise(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int mode,
                      int computed_in, int64_t axis, const struct gr_cudnn_tensor *x,
                      const struct gr_cudnn_tensor *b, const struct gr_cudnn_tensor *t)
{
    void *d = make(g, GR_CUDNN_BACKEND_POINTWISE_DESCRIPTOR), *o;

    set(g, d, GR_CUDNN_ATTR_POINTWISE_MODE, GR_CUDNN_TYPE_POINTWISE_MODE, &mode);
    set(g, d, GR_CUDNN_ATTR_POINTWISE_MATH_PREC, GR_CUDNN_TYPE_DATA_TYPE, &computed_in);
    if (axis >= 0)
        set(g, d, GR_CUDNN_ATTR_POINTWISE_AXIS, GR_CUDNN_TYPE_INT64, &axis);
    finalize(g, d, "pointwise");
    o = make(g, GR_CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set(g, o, GR_CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
        &d);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add(g, o, "pointwise operation");
}

void gr_cudnn_pointwise(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int mode,
                        const struct gr_cudnn_tensor *x, const struct gr_cudnn_tensor *b,
                        const struct gr_cudnn_tensor *t)
{
    pointwise(g, y, mode, y->type == GR_CUDNN_DATA_BOOLEAN ? y->type : GR_CUDNN_DATA_FLOAT, -1, x,
              b, t);
}

void gr_cudnn_place(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int computed_in,
                    const struct gr_cudnn_tensor *x, int64_t axis)
{
    pointwise(g, y, GR_CUDNN_POINTWISE_GEN_INDEX, computed_in, axis, x, NULL, NULL);
}

void gr_cudnn_reduce(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int op,
                     const struct gr_cudnn_tensor *x)
{
    void *d = make(g, GR_CUDNN_BACKEND_REDUCTION_DESCRIPTOR), *o;
    int f32 = GR_CUDNN_DATA_FLOAT;

    set(g, d, GR_CUDNN_ATTR_REDUCTION_OPERATOR, GR_CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, &op);
    set(g, d, GR_CUDNN_ATTR_REDUCTION_COMP_TYPE, GR_CUDNN_TYPE_DATA_TYPE, &f32);
    finalize(g, d, "reduction");
    o = make(g, GR_CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set(g, o, GR_CUDNN_ATTR_OPERATION_REDUCTION_DESC, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, &d);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add(g, o, "reduction operation");
}

void gr_cudnn_product(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *c,
                      const struct gr_cudnn_tensor *a, const struct gr_cudnn_tensor *b,
                      const struct gr_cudnn_tensor *m, const struct gr_cudnn_tensor *n,
                      const struct gr_cudnn_tensor *k)
{
    void *d = make(g, GR_CUDNN_BACKEND_MATMUL_DESCRIPTOR), *o;
    int f32 = GR_CUDNN_DATA_FLOAT;

    set(g, d, GR_CUDNN_ATTR_MATMUL_COMP_TYPE, GR_CUDNN_TYPE_DATA_TYPE, &f32);
    finalize(g, d, "product");
    o = make(g, GR_CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_DESC, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, &d);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k);
    add(g, o, "product operation");
}

void gr_cudnn_reshape(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y,
                      const struct gr_cudnn_tensor *x)
{
    void *o = make(g, GR_CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);

    operand(g, o, GR_CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    operand(g, o, GR_CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add(g, o, "reshape operation");
}

/* A plan of this engine's configuration, or why there is none. */
static bool build(struct gr_cudnn_graph *g, void *configuration)
{
    const struct gr_cudnn *c = g->cudnn;
    void *plan = make(g, GR_CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    void *engine = make(g, GR_CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    int64_t count = 0;

    set(g, plan, GR_CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
        &configuration);
    if (c->properties != NULL)
        set(g, plan, GR_CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
            &c->properties);
    else
        set(g, plan, GR_CUDNN_ATTR_EXECUTION_PLAN_HANDLE, GR_CUDNN_TYPE_HANDLE, &c->handle);
    finalize(g, plan, "plan");
    if (g->status != GR_CUDNN_STATUS_SUCCESS)
        return false;
    g->plan = plan;
    c->cudnnBackendGetAttribute(plan, GR_CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                GR_CUDNN_TYPE_INT64, 1, &count, &g->workspace_bytes);
    c->cudnnBackendGetAttribute(configuration, GR_CUDNN_ATTR_ENGINECFG_ENGINE,
                                GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine);
    c->cudnnBackendGetAttribute(engine, GR_CUDNN_ATTR_ENGINE_GLOBAL_INDEX, GR_CUDNN_TYPE_INT64, 1,
                                &count, &g->engine);
    return true;
}

bool gr_cudnn_graph_plan(struct gr_cudnn_graph *g)
{
    const struct gr_cudnn *c = g->cudnn;
    enum { MOST = 8 };
    void *all = make(g, GR_CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    void *choice = make(g, GR_CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), *found[MOST];
    int mode = GR_CUDNN_HEUR_MODE_A;
    int64_t count = 0;

    set_many(g, all, GR_CUDNN_ATTR_OPERATIONGRAPH_OPS, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
             g->operations, g->operation);
    if (c->properties == NULL)
        set(g, all, GR_CUDNN_ATTR_OPERATIONGRAPH_HANDLE, GR_CUDNN_TYPE_HANDLE, &c->handle);
    finalize(g, all, "graph");
    set(g, choice, GR_CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
        &all);
    set(g, choice, GR_CUDNN_ATTR_ENGINEHEUR_MODE, GR_CUDNN_TYPE_HEUR_MODE, &mode);
    if (c->properties != NULL)
        set(g, choice, GR_CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, GR_CUDNN_TYPE_BACKEND_DESCRIPTOR,
            &c->properties);
    finalize(g, choice, "choice of an engine");
    for (int i = 0; i < MOST; i++)
        found[i] = make(g, GR_CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->status != GR_CUDNN_STATUS_SUCCESS)
        return false;
    went(g,
         c->cudnnBackendGetAttribute(choice, GR_CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST, &count, found),
         "engines");
    if (count == 0)
        went(g, GR_CUDNN_STATUS_NOT_SUPPORTED, "no engine");
    for (int64_t i = 0; i < count; i++) {
        if (build(g, found[i]))
            return true;
        if (i + 1 < count)
            g->status = GR_CUDNN_STATUS_SUCCESS; /* the next one may do */
    }
    return false;
}

int64_t gr_cudnn_graph_text(struct gr_cudnn_graph *g, char *text, int64_t room)
{
    int64_t length = 0;

    if (g->plan == NULL || !went(g,
                                 g->cudnn->cudnnBackendGetAttribute(
                                     g->plan, GR_CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                     GR_CUDNN_TYPE_CHAR, room, &length, room == 0 ? NULL : text),
                                 "plan as text"))
        return 0;
    return length;
}

bool gr_cudnn_plan_load(void **plan, int64_t *workspace_bytes, const struct gr_cudnn *cudnn,
                        const char *text, int64_t length)
{
    int64_t count = 0;
    void *made = NULL;
    bool is_made = cudnn->cudnnBackendCreateDescriptor(GR_CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                                                       &made) == GR_CUDNN_STATUS_SUCCESS;
    const bool has_gpu = cudnn->properties == NULL;
    const void *gpu = has_gpu ? &cudnn->handle : &cudnn->properties;

    is_made =
        is_made &&
        cudnn->cudnnBackendSetAttribute(
            made,
            has_gpu ? GR_CUDNN_ATTR_EXECUTION_PLAN_HANDLE : GR_CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
            has_gpu ? GR_CUDNN_TYPE_HANDLE : GR_CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            gpu) == GR_CUDNN_STATUS_SUCCESS &&
        cudnn->cudnnBackendSetAttribute(made, GR_CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                        GR_CUDNN_TYPE_CHAR, length,
                                        text) == GR_CUDNN_STATUS_SUCCESS &&
        cudnn->cudnnBackendFinalize(made) == GR_CUDNN_STATUS_SUCCESS &&
        cudnn->cudnnBackendGetAttribute(made, GR_CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                        GR_CUDNN_TYPE_INT64, 1, &count,
                                        workspace_bytes) == GR_CUDNN_STATUS_SUCCESS;
    if (!is_made && made != NULL)
        cudnn->cudnnBackendDestroyDescriptor(made);
    *plan = is_made ? made : NULL;
    return is_made;
}

int gr_cudnn_plan_run(const struct gr_cudnn *cudnn, void *plan, int64_t count, const int64_t *ids,
                      void *const *memory, void *workspace)
{
    void *pack = NULL;
    int status =
        cudnn->cudnnBackendCreateDescriptor(GR_CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);

    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnBackendSetAttribute(pack, GR_CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                                 GR_CUDNN_TYPE_INT64, count, ids);
    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnBackendSetAttribute(pack, GR_CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                                 GR_CUDNN_TYPE_VOID_PTR, count, memory);
    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnBackendSetAttribute(pack, GR_CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                                 GR_CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnBackendFinalize(pack);
    if (status == GR_CUDNN_STATUS_SUCCESS)
        status = cudnn->cudnnBackendExecute(cudnn->handle, plan, pack);
    if (pack != NULL)
        cudnn->cudnnBackendDestroyDescriptor(pack);
    return status;
}
