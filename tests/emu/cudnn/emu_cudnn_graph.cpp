/* The rules of graphs, and their text.  See emu_cudnn_graph.h. */
#include "emu_cudnn_graph.h"

#include <set>
#include <stdlib.h>
#include <string.h>

namespace cudnn
{

bool graph::has(int64_t id) const
{
    for (const tensor &t : tensors) {
        if (t.id == id)
            return true;
    }
    return false;
}

const tensor &graph::of(int64_t id) const
{
    for (const tensor &t : tensors) {
        if (t.id == id)
            return t;
    }
    fault("no tensor %lld in the graph", (long long)id);
}

size_t size_of(int64_t type)
{
    switch (type) {
    case GR_CUDNN_DATA_BFLOAT16:
        return 2;
    case GR_CUDNN_DATA_FLOAT:
    case GR_CUDNN_DATA_INT32:
        return 4;
    case GR_CUDNN_DATA_BOOLEAN:
        return 1;
    default:
        fault("type %lld of a tensor is not modelled", (long long)type);
    }
}

bool is_integer(int64_t type)
{
    return type == GR_CUDNN_DATA_INT32 || type == GR_CUDNN_DATA_BOOLEAN;
}

void add_tensor(graph *g, const tensor &t)
{
    for (const tensor &other : g->tensors) {
        if (other.id != t.id)
            continue;
        if (memcmp(&other, &t, sizeof t) != 0)
            fault("tensor %lld is described in two ways", (long long)t.id);
        return;
    }
    g->tensors.push_back(t);
}

/* ---- shapes ---- */

static bool is_one(const tensor &t, int k)
{
    return t.dim[k] == 1;
}

/* Operand o of a pointwise operation fits y, or is broadcast. */
static void check_broadcast(const graph &g, const operation &o, operand which)
{
    if (o.id[which] < 0)
        return;
    const tensor &x = g.of(o.id[which]), &y = g.of(o.id[Y]);

    for (int k = 0; k < 4; k++) {
        if (x.dim[k] != y.dim[k] && !is_one(x, k))
            fault("dimension %d of tensor %lld is %lld, of the result %lld", k, (long long)x.id,
                  (long long)x.dim[k], (long long)y.dim[k]);
    }
}

static void check_pointwise(const graph &g, const operation &o)
{
    const bool is_unary = o.mode == GR_CUDNN_POINTWISE_EXP || o.mode == GR_CUDNN_POINTWISE_LOG ||
                          o.mode == GR_CUDNN_POINTWISE_IDENTITY ||
                          o.mode == GR_CUDNN_POINTWISE_GEN_INDEX;
    const bool is_choice = o.mode == GR_CUDNN_POINTWISE_BINARY_SELECT;
    const bool compares =
        o.mode == GR_CUDNN_POINTWISE_CMP_GE || o.mode == GR_CUDNN_POINTWISE_CMP_LT;
    const bool decides = compares || o.mode == GR_CUDNN_POINTWISE_LOGICAL_AND;
    const tensor &y = g.of(o.id[Y]);

    if ((o.id[B] >= 0) == is_unary || (o.id[T] >= 0) != is_choice)
        fault("mode %lld has too many or too few operands", (long long)o.mode);
    if ((o.axis >= 0) != (o.mode == GR_CUDNN_POINTWISE_GEN_INDEX) || o.axis > 3)
        fault("mode %lld with the axis %lld", (long long)o.mode, (long long)o.axis);
    if (decides != (y.type == GR_CUDNN_DATA_BOOLEAN))
        fault("mode %lld results in type %lld", (long long)o.mode, (long long)y.type);
    if (is_choice && g.of(o.id[T]).type != GR_CUDNN_DATA_BOOLEAN)
        fault("a choice by a tensor of type %lld", (long long)g.of(o.id[T]).type);
    if (compares && is_integer(g.of(o.id[X]).type) != is_integer(g.of(o.id[B]).type))
        fault("a comparison of types %lld and %lld", (long long)g.of(o.id[X]).type,
              (long long)g.of(o.id[B]).type);
    for (operand which : {X, B, T})
        check_broadcast(g, o, which);
}

/* Lengths of each part's rows, columns or depth. */
static void check_override(const graph &g, const operation &o, operand which)
{
    if (o.id[which] < 0)
        return;
    const tensor &t = g.of(o.id[which]);

    if (t.type != GR_CUDNN_DATA_INT32 || t.dim[0] != g.of(o.id[Y]).dim[0] || t.dim[1] != 1 ||
        t.dim[2] != 1 || t.dim[3] != 1)
        fault("tensor %lld cannot say how long the parts of a product are", (long long)t.id);
}

static void check_product(const graph &g, const operation &o)
{
    const tensor &a = g.of(o.id[X]), &b = g.of(o.id[B]), &c = g.of(o.id[Y]);

    if (a.dim[0] != c.dim[0] || b.dim[0] != c.dim[0] || a.dim[2] != c.dim[2] ||
        a.dim[3] != b.dim[2] || b.dim[3] != c.dim[3])
        fault("the shapes of a product of %lld and %lld do not fit", (long long)a.id,
              (long long)b.id);
    if (c.dim[1] % a.dim[1] != 0 || c.dim[1] % b.dim[1] != 0)
        fault("heads %lld and %lld for %lld", (long long)a.dim[1], (long long)b.dim[1],
              (long long)c.dim[1]);
    for (operand which : {M, N, K})
        check_override(g, o, which);
}

static void check_reduction(const graph &g, const operation &o)
{
    const tensor &x = g.of(o.id[X]), &y = g.of(o.id[Y]);

    if (o.mode != GR_CUDNN_REDUCE_TENSOR_ADD && o.mode != GR_CUDNN_REDUCE_TENSOR_MAX)
        fault("reduction %lld is not modelled", (long long)o.mode);
    for (int k = 0; k < 4; k++) {
        if (x.dim[k] % y.dim[k] != 0 || (k != 1 && x.dim[k] != y.dim[k] && !is_one(y, k)))
            fault("dimension %d of %lld cannot be reduced to %lld", k, (long long)x.dim[k],
                  (long long)y.dim[k]);
    }
}

/* Here only what attention does: the same elements in the same order of parts and heads, the last
 * two dimensions as they are or exchanged. */
static void check_reshape(const graph &g, const operation &o)
{
    const tensor &x = g.of(o.id[X]), &y = g.of(o.id[Y]);
    const bool is_same = x.dim[2] == y.dim[2] && x.dim[3] == y.dim[3];
    const bool is_exchanged = x.dim[2] == y.dim[3] && x.dim[3] == y.dim[2];

    const bool keeps = x.stride[2] == y.stride[2] && x.stride[3] == y.stride[3];
    const bool exchanges = x.stride[2] == y.stride[3] && x.stride[3] == y.stride[2];

    if (x.dim[0] != y.dim[0] || x.dim[1] != y.dim[1] ||
        !((is_same && keeps) || (is_exchanged && exchanges)))
        fault("tensor %lld cannot be reshaped to %lld", (long long)x.id, (long long)y.id);
}

/* ---- the whole ---- */

static void check_tensor(const graph &g, const tensor &t)
{
    if (t.offsets < 0)
        return;
    const tensor &offsets = g.of(t.offsets);

    if (offsets.type != GR_CUDNN_DATA_INT32 || offsets.dim[0] != t.dim[0] + 1 ||
        offsets.is_virtual || offsets.is_by_value || t.is_virtual)
        fault("the offsets of tensor %lld (found %lld numbers, expected %lld)", (long long)t.id,
              (long long)offsets.dim[0], (long long)t.dim[0] + 1);
}

static void check_operation(const graph &g, const operation &o)
{
    switch (o.kind) {
    case MATMUL:
        check_product(g, o);
        break;
    case POINTWISE:
        check_pointwise(g, o);
        break;
    case REDUCTION:
        check_reduction(g, o);
        break;
    default:
        check_reshape(g, o);
    }
    if (o.kind != RESHAPE && o.computed_in != GR_CUDNN_DATA_FLOAT && !is_integer(o.computed_in))
        fault("an operation computed in type %lld", (long long)o.computed_in);
}

void check(const graph &g)
{
    std::set<int64_t> written, read;

    for (const tensor &t : g.tensors)
        check_tensor(g, t);
    for (const operation &o : g.operations) {
        for (operand which : {X, B, T, M, N, K}) {
            const int64_t id = o.id[which];

            if (id < 0)
                continue;
            if (g.of(id).is_virtual && written.count(id) == 0)
                fault("virtual tensor %lld is read before it is written", (long long)id);
            read.insert(id);
        }
        if (g.of(o.id[Y]).is_by_value)
            fault("tensor %lld is a number of the host", (long long)o.id[Y]);
        if (!written.insert(o.id[Y]).second)
            fault("tensor %lld is written twice", (long long)o.id[Y]);
        if (!g.of(o.id[Y]).is_virtual && read.count(o.id[Y]) != 0)
            fault("tensor %lld is read before it is written", (long long)o.id[Y]);
        check_operation(g, o);
    }
    for (int64_t id : written) {
        if (g.of(id).is_virtual && read.count(id) == 0)
            fault("virtual tensor %lld is written for nobody", (long long)id);
    }
}

const char *unsupported(const graph &g)
{
    for (const operation &o : g.operations) {
        if (o.kind != MATMUL)
            continue;
        const tensor &a = g.of(o.id[X]);

        if (!a.is_virtual && (a.dim[3] % 8 != 0 || a.dim[3] > 128))
            return "heads of that many elements";
    }
    if (getenv("EMU_CUDNN_REFUSE") != nullptr)
        return "EMU_CUDNN_REFUSE is set";
    return nullptr;
}

/* ---- text ---- */

static const char head[] = "{\"emulated cuDNN\":1,\"device\":\"";
static const char middle[] = "\",\"numbers\":[";

template <class V> static void put(std::string *text, const std::vector<V> &all)
{
    static_assert(sizeof(V) % sizeof(int64_t) == 0, "numbers of 64 bits alone");
    const int64_t *numbers = (const int64_t *)all.data();

    *text += std::to_string(all.size());
    for (size_t i = 0; i < all.size() * sizeof(V) / sizeof(int64_t); i++)
        *text += "," + std::to_string(numbers[i]);
}

std::string text_of(const graph &g, const std::string &device)
{
    std::string text = head + device + middle;

    put(&text, g.tensors);
    text += ",";
    put(&text, g.operations);
    return text + "]}";
}

static bool take(int64_t *number, const char **at)
{
    char *end;

    *number = strtoll(*at, &end, 10);
    if (end == *at)
        return false;
    *at = *end == ',' ? end + 1 : end;
    return true;
}

template <class V> static bool take_all(std::vector<V> *all, const char **at)
{
    int64_t count;

    if (!take(&count, at) || count < 0 || count > 1000)
        return false;
    all->resize((size_t)count);
    for (size_t i = 0; i < all->size() * sizeof(V) / sizeof(int64_t); i++) {
        if (!take((int64_t *)all->data() + i, at))
            return false;
    }
    return true;
}

bool parse(graph *g, const std::string &text, const std::string &device)
{
    const std::string expected = head + device + middle;
    const char *at = text.c_str() + expected.size();

    return text.compare(0, expected.size(), expected) == 0 && take_all(&g->tensors, &at) &&
           take_all(&g->operations, &at) && strcmp(at, "]}") == 0;
}

} // namespace cudnn
