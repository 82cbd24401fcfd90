/* cuDNN's double: the C backend interface as the plug-in uses it, as libcudnn.so.9.
 *
 * Descriptors know which attributes they may have; what the real library refuses, and what it would
 * not notice, is a finding.  The heuristic offers two engines, of which the first makes no plan.  A
 * plan becomes text and is made from text.  What is executed is queued on the handle's stream.
 *
 * Settings: EMU_CUDNN_VERSION; EMU_CUDNN_REFUSE: no engine makes a plan; EMU_CUDNN_WRONG: products
 * are a tenth too large; EMU_CUDNN_LARGE: plans take gigabytes. */
#include "../emu_link.h"
#include "emu_cudnn_graph.h"
#include "emu_cudnn_rules.h"

#include <algorithm>
#include <dlfcn.h>
#include <memory>
#include <set>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

const emu_link *emulator;

extern "C" size_t cudnnGetVersion();

namespace cudnn
{

void fault(const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (emulator != nullptr)
        emulator->fail("cudnn", text);
    fprintf(stderr, "EMU ERROR [cudnn] %s\n", text);
    _exit(99);
}

} // namespace cudnn

using namespace cudnn;

namespace
{

struct attribute {
    int type;
    int64_t count;
    std::vector<char> bytes;
};

enum { ALIVE = 0x616c6976 };

struct descriptor {
    int alive, type;
    bool is_final;
    std::map<int, attribute> attributes;
    graph all;         /* of an operation, a graph, an engine's configuration, a plan */
    int64_t workspace; /* of a plan */
    int64_t engine;
};

struct handle {
    int alive;
    cudaStream_t stream;
};

std::string last_error;

int refuse(int status, const std::string &why)
{
    last_error = why;
    return status;
}

/* The emulator is in the plug-in that calls us. */
void find_emulator(const void *caller)
{
    Dl_info plugin;
    void *handle;

    if (emulator == nullptr && dladdr(caller, &plugin) != 0 &&
        (handle = dlopen(plugin.dli_fname, RTLD_NOW | RTLD_NOLOAD)) != nullptr)
        emulator = (const emu_link *)dlsym(handle, "emu_link_table");
    if (emulator == nullptr)
        fault("the caller is no emulated plug-in");
}

handle *handle_of(void *given)
{
    handle *h = (handle *)given;

    if (h == nullptr || h->alive != ALIVE)
        fault("%p is no handle, or destroyed", given);
    return h;
}

descriptor *behind(void *given)
{
    descriptor *d = (descriptor *)given;

    if (d == nullptr || d->alive != ALIVE)
        fault("%p is no descriptor, or destroyed", given);
    return d;
}

/* A descriptor that is final, of that type. */
descriptor *final_one(void *given, int type)
{
    descriptor *d = behind(given);

    if (d->type != type || !d->is_final)
        fault("a descriptor of type %d, %s (expected type %d, final)", d->type,
              d->is_final ? "final" : "not final", type);
    return d;
}

/* What a GPU is to a plan. */
std::string device_name()
{
    cudaDeviceProp *properties = new cudaDeviceProp;
    std::string name;

    emulator->device_properties(properties);
    name = "sm_" + std::to_string(properties->major) + std::to_string(properties->minor) +
           " cuDNN " + std::to_string(cudnnGetVersion());
    delete properties;
    return name;
}

/* ---- attributes ---- */

#define D(name)  GR_CUDNN_BACKEND_##name##_DESCRIPTOR
#define A(name)  GR_CUDNN_ATTR_##name
#define IS(name) GR_CUDNN_TYPE_##name

bool has(const descriptor *d, int name)
{
    return d->attributes.count(name) != 0;
}

/* Element i of an attribute that is there. */
template <class V> V get(const descriptor *d, int name, int64_t i = 0)
{
    V found;

    memcpy(&found, d->attributes.at(name).bytes.data() + (size_t)i * sizeof found, sizeof found);
    return found;
}

/* ---- what becomes of descriptors when they are final ---- */

tensor tensor_of(void *given)
{
    const descriptor *d = final_one(given, D(TENSOR));
    tensor t = {};

    t.id = get<int64_t>(d, A(TENSOR_UNIQUE_ID));
    t.type = get<int>(d, A(TENSOR_DATA_TYPE));
    t.alignment = get<int64_t>(d, A(TENSOR_BYTE_ALIGNMENT));
    for (int k = 0; k < 4; k++) {
        t.dim[k] = get<int64_t>(d, A(TENSOR_DIMENSIONS), k);
        t.stride[k] = get<int64_t>(d, A(TENSOR_STRIDES), k);
    }
    t.is_virtual = has(d, A(TENSOR_IS_VIRTUAL)) && get<bool>(d, A(TENSOR_IS_VIRTUAL));
    t.is_by_value = has(d, A(TENSOR_IS_BY_VALUE)) && get<bool>(d, A(TENSOR_IS_BY_VALUE));
    t.offsets = -1;
    if (has(d, A(TENSOR_RAGGED_OFFSET_DESC)))
        t.offsets = tensor_of(get<void *>(d, A(TENSOR_RAGGED_OFFSET_DESC))).id;
    return t;
}

void finish_tensor(descriptor *d)
{
    tensor t;

    d->is_final = true;
    t = tensor_of(d);
    for (int k = 0; k < 4; k++) {
        if (t.dim[k] < 1 || t.stride[k] < 1)
            fault("tensor %lld: dimension %d is %lld, its stride %lld", (long long)t.id, k,
                  (long long)t.dim[k], (long long)t.stride[k]);
        if (t.is_by_value && t.dim[k] != 1)
            fault("tensor %lld is a number of the host, and of several elements", (long long)t.id);
    }
    if (t.alignment < (int64_t)size_of(t.type) || (t.alignment & (t.alignment - 1)) != 0)
        fault("tensor %lld is aligned to %lld bytes", (long long)t.id, (long long)t.alignment);
    if (t.is_virtual && t.is_by_value)
        fault("tensor %lld is virtual and a number of the host", (long long)t.id);
}

/* A tensor of an operation, with the one that says where its parts begin. */
int64_t take(descriptor *operation, int name)
{
    tensor t;

    if (!has(operation, name))
        return -1;
    void *given = get<void *>(operation, name);

    t = tensor_of(given);
    add_tensor(&operation->all, t);
    if (t.offsets >= 0)
        add_tensor(&operation->all,
                   tensor_of(get<void *>(behind(given), A(TENSOR_RAGGED_OFFSET_DESC))));
    return t.id;
}

void finish_pointwise(descriptor *d, operation *o)
{
    const descriptor *what =
        final_one(get<void *>(d, A(OPERATION_POINTWISE_PW_DESCRIPTOR)), D(POINTWISE));

    o->kind = POINTWISE;
    o->mode = get<int>(what, A(POINTWISE_MODE));
    o->computed_in = get<int>(what, A(POINTWISE_MATH_PREC));
    o->axis = has(what, A(POINTWISE_AXIS)) ? get<int64_t>(what, A(POINTWISE_AXIS)) : -1;
    o->id[X] = take(d, A(OPERATION_POINTWISE_XDESC));
    o->id[B] = take(d, A(OPERATION_POINTWISE_BDESC));
    o->id[T] = take(d, A(OPERATION_POINTWISE_TDESC));
    o->id[Y] = take(d, A(OPERATION_POINTWISE_YDESC));
}

void finish_product(descriptor *d, operation *o)
{
    const descriptor *what = final_one(get<void *>(d, A(OPERATION_MATMUL_DESC)), D(MATMUL));

    o->kind = MATMUL;
    o->computed_in = get<int>(what, A(MATMUL_COMP_TYPE));
    o->id[X] = take(d, A(OPERATION_MATMUL_ADESC));
    o->id[B] = take(d, A(OPERATION_MATMUL_BDESC));
    o->id[Y] = take(d, A(OPERATION_MATMUL_CDESC));
    o->id[M] = take(d, A(OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC));
    o->id[N] = take(d, A(OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC));
    o->id[K] = take(d, A(OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC));
}

void finish_operation(descriptor *d)
{
    operation o = {};

    std::fill(o.id, o.id + OPERANDS, -1);
    o.axis = -1;
    if (d->type == D(OPERATION_POINTWISE)) {
        finish_pointwise(d, &o);
    } else if (d->type == D(OPERATION_MATMUL)) {
        finish_product(d, &o);
    } else if (d->type == D(OPERATION_REDUCTION)) {
        const descriptor *what =
            final_one(get<void *>(d, A(OPERATION_REDUCTION_DESC)), D(REDUCTION));

        o.kind = REDUCTION;
        o.mode = get<int>(what, A(REDUCTION_OPERATOR));
        o.computed_in = get<int>(what, A(REDUCTION_COMP_TYPE));
        o.id[X] = take(d, A(OPERATION_REDUCTION_XDESC));
        o.id[Y] = take(d, A(OPERATION_REDUCTION_YDESC));
    } else {
        o.kind = RESHAPE;
        o.id[X] = take(d, A(OPERATION_RESHAPE_XDESC));
        o.id[Y] = take(d, A(OPERATION_RESHAPE_YDESC));
    }
    d->all.operations.push_back(o);
}

void finish_graph(descriptor *d)
{
    handle_of(get<void *>(d, A(OPERATIONGRAPH_HANDLE)));
    for (int64_t i = 0; i < d->attributes[A(OPERATIONGRAPH_OPS)].count; i++) {
        const descriptor *one = behind(get<void *>(d, A(OPERATIONGRAPH_OPS), i));

        if (!one->is_final || one->all.operations.size() != 1)
            fault("operation %lld of a graph is none, or not final", (long long)i);
        for (const tensor &t : one->all.tensors)
            add_tensor(&d->all, t);
        d->all.operations.push_back(one->all.operations[0]);
    }
    check(d->all);
}

int finish_plan(descriptor *d)
{
    const bool is_text = has(d, A(EXECUTION_PLAN_JSON_REPRESENTATION));

    handle_of(get<void *>(d, A(EXECUTION_PLAN_HANDLE)));
    if (is_text == has(d, A(EXECUTION_PLAN_ENGINE_CONFIG)))
        fault("a plan of an engine and of a text, or of neither");
    if (is_text) {
        const std::vector<char> &bytes = d->attributes[A(EXECUTION_PLAN_JSON_REPRESENTATION)].bytes;

        if (!parse(&d->all, std::string(bytes.begin(), bytes.end()), device_name()))
            return refuse(GR_CUDNN_STATUS_BAD_PARAM, "this text is no plan for this GPU");
        check(d->all);
    } else {
        const descriptor *by =
            final_one(get<void *>(d, A(EXECUTION_PLAN_ENGINE_CONFIG)), D(ENGINECFG));
        const char *why = unsupported(by->all);

        if (by->engine == 0)
            why = "this engine makes no plan";
        if (why != nullptr)
            return refuse(GR_CUDNN_STATUS_NOT_SUPPORTED, why);
        d->all = by->all;
    }
    d->workspace = 4096 * (int64_t)d->all.operations.size();
    if (getenv("EMU_CUDNN_LARGE") != nullptr)
        d->workspace <<= 20;
    return GR_CUDNN_STATUS_SUCCESS;
}

void finish_pack(const descriptor *d)
{
    if (d->attributes.at(A(VARIANT_PACK_UNIQUE_IDS)).count !=
        d->attributes.at(A(VARIANT_PACK_DATA_POINTERS)).count)
        fault("a variant pack with other numbers of ids and pointers");
}

int finish(descriptor *d)
{
    switch (d->type) {
    case D(TENSOR):
        finish_tensor(d);
        break;
    case D(OPERATION_POINTWISE):
    case D(OPERATION_MATMUL):
    case D(OPERATION_REDUCTION):
    case D(OPERATION_RESHAPE):
        finish_operation(d);
        break;
    case D(OPERATIONGRAPH):
        finish_graph(d);
        break;
    case D(ENGINEHEUR):
        d->all = final_one(get<void *>(d, A(ENGINEHEUR_OPERATION_GRAPH)), D(OPERATIONGRAPH))->all;
        break;
    case D(EXECUTION_PLAN):
        return finish_plan(d);
    case D(VARIANT_PACK):
        finish_pack(d);
        break;
    default:
        break;
    }
    return GR_CUDNN_STATUS_SUCCESS;
}

/* ---- asking ---- */

int give(const void *data, size_t size, int64_t elements, int64_t wanted, int64_t *count,
         void *values)
{
    *count = elements;
    if (values != nullptr)
        memcpy(values, data, (size_t)std::min(wanted, elements) * size);
    return GR_CUDNN_STATUS_SUCCESS;
}

int offer_engines(const descriptor *d, int64_t wanted, int64_t *count, void *values)
{
    *count = 0;
    for (int64_t i = 0; i < 2 && i < wanted; i++) {
        descriptor *configuration = behind(((void **)values)[i]);

        if (configuration->type != D(ENGINECFG))
            fault("an engine is put into a descriptor of type %d", configuration->type);
        configuration->all = d->all;
        configuration->engine = i;
        configuration->is_final = true;
        ++*count;
    }
    return GR_CUDNN_STATUS_SUCCESS;
}

int ask(const descriptor *d, int name, int64_t wanted, int64_t *count, void *values)
{
    if (d->type == D(ENGINEHEUR) && name == A(ENGINEHEUR_RESULTS))
        return offer_engines(d, wanted, count, values);
    if (d->type == D(ENGINECFG) && name == A(ENGINECFG_ENGINE)) {
        descriptor *engine = behind(*(void **)values);

        engine->engine = d->engine;
        engine->is_final = true;
        *count = 1;
        return GR_CUDNN_STATUS_SUCCESS;
    }
    if (d->type == D(ENGINE) && name == A(ENGINE_GLOBAL_INDEX))
        return give(&d->engine, 8, 1, wanted, count, values);
    if (d->type == D(EXECUTION_PLAN) && name == A(EXECUTION_PLAN_WORKSPACE_SIZE))
        return give(&d->workspace, 8, 1, wanted, count, values);
    if (d->type == D(EXECUTION_PLAN) && name == A(EXECUTION_PLAN_JSON_REPRESENTATION)) {
        const std::string text = text_of(d->all, device_name());

        return give(text.data(), 1, (int64_t)text.size(), wanted, count, values);
    }
    fault("attribute %d of a descriptor of type %d is not modelled", name, d->type);
}

/* ---- execution ---- */

/* All that the graph needs of memory, once each, and nothing else. */
binding bind(const graph &g, const descriptor *pack)
{
    const int64_t count = pack->attributes.at(A(VARIANT_PACK_UNIQUE_IDS)).count;
    std::set<int64_t> seen;
    binding bound;

    for (int64_t i = 0; i < count; i++) {
        const int64_t id = get<int64_t>(pack, A(VARIANT_PACK_UNIQUE_IDS), i);
        char *memory = get<char *>(pack, A(VARIANT_PACK_DATA_POINTERS), i);

        if (!g.has(id) || g.of(id).is_virtual || !seen.insert(id).second)
            fault("tensor %lld is bound, but not of the graph, virtual, or bound twice",
                  (long long)id);
        if (memory == nullptr || (uintptr_t)memory % (uintptr_t)g.of(id).alignment != 0)
            fault("tensor %lld is bound to %p (expected multiples of %lld)", (long long)id,
                  (void *)memory, (long long)g.of(id).alignment);
        if (g.of(id).is_by_value) {
            memcpy(&bound.numbers[id], memory, sizeof(float));
            continue;
        }
        emulator->dev_extent(memory, size_of(g.of(id).type), "a tensor of cudnnBackendExecute");
        bound.memory[id] = memory;
    }
    for (const tensor &t : g.tensors) {
        if (!t.is_virtual && seen.count(t.id) == 0)
            fault("tensor %lld is not bound", (long long)t.id);
    }
    return bound;
}

void check_attributes(const descriptor *d)
{
    for (int i = 0; i < rule_count; i++) {
        const rule &r = rules[i];

        if (r.descriptor == d->type && r.is_needed && !has(d, r.name))
            fault("a descriptor of type %d is final without attribute %d", d->type, r.name);
    }
}

} // namespace

extern "C" {

EXPORTED size_t cudnnGetVersion()
{
    const char *version = getenv("EMU_CUDNN_VERSION");

    return version != nullptr ? (size_t)atol(version) : 91900;
}

EXPORTED void cudnnGetLastErrorString(char *words, size_t room)
{
    snprintf(words, room, "%s", last_error.c_str());
}

EXPORTED int cudnnCreate(void **made)
{
    find_emulator(__builtin_return_address(0));
    *made = new handle{ALIVE, nullptr};
    return GR_CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnDestroy(void *given)
{
    handle *h = handle_of(given);

    h->alive = 0;
    delete h;
    return GR_CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnSetStream(void *given, void *stream)
{
    handle_of(given)->stream = (cudaStream_t)stream;
    return GR_CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendCreateDescriptor(int type, void **made)
{
    *made = new descriptor{ALIVE, type, false, {}, {}, 0, 0};
    return GR_CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendDestroyDescriptor(void *given)
{
    descriptor *d = behind(given);

    d->alive = 0;
    delete d;
    return GR_CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendSetAttribute(void *given, int name, int type, int64_t count,
                                      const void *values)
{
    descriptor *d = behind(given);

    if (d->is_final)
        fault("attribute %d is set in a descriptor that is final", name);
    for (int i = 0; i < rule_count; i++) {
        const rule &r = rules[i];

        if (r.descriptor != d->type || r.name != name)
            continue;
        if (r.type != type || count < 1 || (r.count >= 0 && r.count != count))
            fault("attribute %d with %lld elements of type %d (expected %lld of type %d)", name,
                  (long long)count, type, (long long)r.count, r.type);
        d->attributes[name] = {
            type, count,
            std::vector<char>((const char *)values,
                              (const char *)values + (size_t)count * element_bytes(type))};
        return GR_CUDNN_STATUS_SUCCESS;
    }
    fault("a descriptor of type %d has no attribute %d, or none that is modelled", d->type, name);
}

EXPORTED int cudnnBackendFinalize(void *given)
{
    descriptor *d = behind(given);
    int status;

    if (d->is_final)
        fault("a descriptor of type %d is made final twice", d->type);
    check_attributes(d);
    status = finish(d);
    d->is_final = status == GR_CUDNN_STATUS_SUCCESS;
    return status;
}

EXPORTED int cudnnBackendGetAttribute(void *given, int name, int, int64_t wanted, int64_t *count,
                                      void *values)
{
    const descriptor *d = behind(given);

    if (!d->is_final)
        fault("attribute %d of a descriptor that is not final", name);
    return ask(d, name, wanted, count, values);
}

EXPORTED int cudnnBackendExecute(void *given, void *plan, void *pack)
{
    const handle *h = handle_of(given);
    const descriptor *p = final_one(plan, D(EXECUTION_PLAN));
    const descriptor *tensors = final_one(pack, D(VARIANT_PACK));
    const auto all = std::make_shared<const graph>(p->all);
    const auto bound = std::make_shared<const binding>(bind(p->all, tensors));
    char *workspace = get<char *>(tensors, A(VARIANT_PACK_WORKSPACE));
    const size_t bytes = (size_t)p->workspace;

    emulator->dev_extent(workspace, bytes, "the workspace of cudnnBackendExecute");
    emulator->enqueue_poll(h->stream, "cudnnBackendExecute", [=] {
        emulator->dev_touch(workspace, bytes, emu::STORE, "the workspace of cudnnBackendExecute");
        memset(workspace, 0xff, bytes);
        run(*all, *bound);
        return true;
    });
    return GR_CUDNN_STATUS_SUCCESS;
}
}
