/* The meaning of a graph: its operations one after the other, for one part (document) after the
 * other, in f32 with sums in f64; what is bf16 is rounded when it is stored, and factors of
 * products are, since tensor cores take them so.
 *
 * Of a part with lengths, what is beyond them is NaN in the results of products for a few more rows
 * and columns, and not computed further: who forgets to mask it sees NaN.  Of padded statistics
 * that are read as many more rows are, and a product multiplies what it has of its first factor
 * beyond the length by the zeros that the other has there.  Every run of elements in memory is
 * shown to the emulator before it is read or written. */
#include "../emu_link.h"
#include "emu_cudnn_graph.h"

#include <algorithm>
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const emu_link *emulator;

namespace cudnn
{

namespace
{

constexpr int64_t BEYOND = 3; /* rows and columns behind the end that are computed, as NaN */

float round_to(int64_t type, double value)
{
    float x = (float)value;
    uint32_t bits;

    if (type != GR_CUDNN_DATA_BFLOAT16)
        return x;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        bits = 0x7fc00000u;
    else
        bits = (bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A tensor in one part.  extent: how much of dimensions 1 to 3 there is. */
struct value {
    const tensor *is;
    char *base; /* in memory */
    int64_t extent[4];
    std::vector<float> elements; /* virtual */
    float number;                /* the host's */
    bool is_turned;              /* a reshape has exchanged rows and columns */
};

struct part {
    const graph *all;
    const binding *bound;
    int64_t number, length; /* rows */
    int64_t rows;           /* a part has at most */
    std::map<int64_t, value> values;
};

int64_t at(const value &v, int64_t h, int64_t i, int64_t j)
{
    return (h * v.extent[2] + i) * v.extent[3] + j;
}

char *address(const value &v, int64_t h, int64_t i, int64_t j)
{
    const tensor &t = *v.is;

    return v.base +
           (h * t.stride[1] + i * t.stride[2] + j * t.stride[3]) * (int64_t)size_of(t.type);
}

float load(const value &v, int64_t h, int64_t i, int64_t j)
{
    const tensor &t = *v.is;

    h = t.dim[1] == 1 ? 0 : h;
    i = t.dim[2] == 1 ? 0 : i;
    j = t.dim[3] == 1 ? 0 : j;
    if (t.is_by_value)
        return v.number;
    if (t.is_virtual)
        return v.elements[(size_t)at(v, h, i, j)];

    const char *place = address(v, h, i, j);
    uint32_t bits = 0;
    float x;

    if (t.type == GR_CUDNN_DATA_INT32) {
        int32_t whole;

        memcpy(&whole, place, sizeof whole);
        return (float)whole;
    }
    if (t.type == GR_CUDNN_DATA_BFLOAT16) {
        memcpy((char *)&bits + 2, place, 2);
        memcpy(&x, &bits, sizeof x);
    } else {
        memcpy(&x, place, sizeof x);
    }
    return x;
}

void store(value *v, int64_t h, int64_t i, int64_t j, double x)
{
    const tensor &t = *v->is;
    const float rounded = round_to(t.type, x);

    if (t.is_virtual)
        v->elements[(size_t)at(*v, h, i, j)] = rounded;
    else if (t.type == GR_CUDNN_DATA_BFLOAT16)
        memcpy(address(*v, h, i, j), (const char *)&rounded + 2, 2);
    else
        memcpy(address(*v, h, i, j), &rounded, sizeof rounded);
}

/* Shows the emulator the box of elements, in runs as long as they are. */
void touch(const value &v, int64_t rows, int64_t columns, emu::access_kind kind)
{
    const tensor &t = *v.is;
    const bool by_row = t.stride[3] == 1;
    const int64_t runs = by_row ? rows : columns, length = by_row ? columns : rows;
    const size_t size = size_of(t.type);

    if (t.is_virtual || t.is_by_value || rows == 0 || columns == 0)
        return;
    for (int64_t h = 0; h < v.extent[1]; h++) {
        for (int64_t k = 0; k < runs; k++) {
            const char *first = by_row ? address(v, h, k, 0) : address(v, h, 0, k);

            if (by_row || t.stride[2] == 1) {
                emulator->dev_touch(first, (size_t)length * size, kind, "cudnnBackendExecute");
                continue;
            }
            for (int64_t m = 0; m < length; m++)
                emulator->dev_touch(first + m * t.stride[2] * (int64_t)size, size, kind,
                                    "cudnnBackendExecute");
        }
    }
}

int32_t integer(const part &p, int64_t id, int64_t index)
{
    const char *place = p.bound->memory.at(id) + index * 4;
    int32_t found;

    emulator->dev_touch(place, sizeof found, emu::LOAD, "cudnnBackendExecute");
    memcpy(&found, place, sizeof found);
    return found;
}

/* The dimension along the rows of a part: the widest stride of those it could be. */
int row_dimension(const tensor &t)
{
    int best = 2;

    for (int k : {2, 3}) {
        if (t.stride[k] > t.stride[best] || (t.stride[k] == t.stride[best] && t.dim[best] == 1))
            best = k;
    }
    return best;
}

/* A tensor in memory, or a number of the host, of that part. */
value look_up(const part &p, int64_t id)
{
    value v = {};
    const tensor &t = p.all->of(id);
    const int64_t size = (int64_t)size_of(t.type);

    v.is = &t;
    std::copy_n(t.dim, 4, v.extent);
    if (t.is_by_value) {
        v.number = p.bound->numbers.at(id);
        return v;
    }
    v.base = p.bound->memory.at(id);
    if (t.offsets >= 0) {
        const int64_t begin = integer(p, t.offsets, p.number);

        if (begin < 0 || begin * size % t.alignment != 0)
            fault("part %lld of tensor %lld begins at element %lld", (long long)p.number,
                  (long long)id, (long long)begin);
        v.base += begin * size;
        v.extent[row_dimension(t)] = p.length;
    } else if (t.dim[0] > 1 || t.dim[2] == p.rows) {
        v.base += p.number * t.stride[0] * size;
        if (t.dim[2] == p.rows && t.dim[3] == 1)
            v.extent[2] = std::min(p.length + BEYOND, p.rows);
    }
    return v;
}

value *operand_of(part *p, const operation &o, operand which)
{
    const int64_t id = o.id[which];

    if (id < 0)
        return nullptr;
    if (p->values.count(id) == 0)
        p->values[id] = look_up(*p, id);
    return &p->values[id];
}

/* The result, of that extent. */
value *result_of(part *p, const operation &o, const int64_t extent[4])
{
    const tensor &t = p->all->of(o.id[Y]);
    value v = {};

    if (t.is_virtual) {
        v.is = &t;
        std::copy_n(extent, 4, v.extent);
        v.elements.assign((size_t)(extent[1] * extent[2] * extent[3]), NAN);
    } else {
        v = look_up(*p, t.id);
        for (int k = 1; k < 4; k++)
            v.extent[k] = std::min(v.extent[k], extent[k]);
        if (t.offsets < 0 && t.dim[2] == p->rows && t.dim[3] == 1)
            v.extent[2] = std::min(v.extent[2], p->length);
    }
    p->values[t.id] = v;
    return &p->values[t.id];
}

/* ---- operations ---- */

double apply(const operation &o, float x, float b, float t)
{
    switch (o.mode) {
    case GR_CUDNN_POINTWISE_ADD:
        return (double)x + b;
    case GR_CUDNN_POINTWISE_SUB:
        return (double)x - b;
    case GR_CUDNN_POINTWISE_MUL:
        return (double)x * b;
    case GR_CUDNN_POINTWISE_DIV:
        return (double)x / b;
    case GR_CUDNN_POINTWISE_EXP:
        return exp((double)x);
    case GR_CUDNN_POINTWISE_LOG:
        return log((double)x);
    case GR_CUDNN_POINTWISE_IDENTITY:
        return x;
    case GR_CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case GR_CUDNN_POINTWISE_CMP_LT:
        return x < b;
    case GR_CUDNN_POINTWISE_LOGICAL_AND:
        return x != 0 && b != 0;
    case GR_CUDNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    default:
        fault("mode %lld is not modelled", (long long)o.mode);
    }
}

void run_pointwise(part *p, const operation &o)
{
    value *in[3] = {operand_of(p, o, X), operand_of(p, o, B), operand_of(p, o, T)};
    int64_t extent[4];
    value *y;

    std::copy_n(p->all->of(o.id[Y]).dim, 4, extent);
    for (const value *v : in) {
        for (int k = 1; v != nullptr && k < 4; k++) {
            if (v->is->dim[k] != 1)
                extent[k] = std::min(extent[k], v->extent[k]);
        }
    }
    y = result_of(p, o, extent);
    for (const value *v : in) {
        if (v != nullptr && !v->is->is_by_value)
            touch(*v, std::min(v->extent[2], y->extent[2]), std::min(v->extent[3], y->extent[3]),
                  emu::LOAD);
    }
    touch(*y, y->extent[2], y->extent[3], emu::STORE);
    for (int64_t h = 0; h < y->extent[1]; h++) {
        for (int64_t i = 0; i < y->extent[2]; i++) {
            for (int64_t j = 0; j < y->extent[3]; j++) {
                const int64_t index[4] = {0, h, i, j};

                if (o.mode == GR_CUDNN_POINTWISE_GEN_INDEX)
                    store(y, h, i, j, (double)index[o.axis]);
                else
                    store(y, h, i, j,
                          apply(o, load(*in[0], h, i, j),
                                in[1] != nullptr ? load(*in[1], h, i, j) : 0,
                                in[2] != nullptr ? load(*in[2], h, i, j) : 0));
            }
        }
    }
}

double reduce_one(const operation &o, const value &x, const value &y, const int64_t index[4])
{
    int64_t from[4], to[4];
    double result = o.mode == GR_CUDNN_REDUCE_TENSOR_MAX ? -INFINITY : 0;
    bool is_nan = false;

    for (int k = 1; k < 4; k++) {
        const int64_t each = x.is->dim[k] / y.is->dim[k];

        from[k] = index[k] * each;
        to[k] = std::min(from[k] + each, x.extent[k]);
    }
    for (int64_t h = from[1]; h < to[1]; h++) {
        for (int64_t i = from[2]; i < to[2]; i++) {
            for (int64_t j = from[3]; j < to[3]; j++) {
                const double element = load(x, h, i, j);

                is_nan = is_nan || isnan(element);
                if (o.mode == GR_CUDNN_REDUCE_TENSOR_MAX)
                    result = std::max(result, element);
                else
                    result += element;
            }
        }
    }
    return is_nan ? NAN : result;
}

void run_reduction(part *p, const operation &o)
{
    const value *x = operand_of(p, o, X);
    int64_t extent[4];
    value *y;

    for (int k = 0; k < 4; k++) {
        const int64_t whole = p->all->of(o.id[Y]).dim[k];

        extent[k] = whole == x->is->dim[k] ? x->extent[k] : whole;
    }
    y = result_of(p, o, extent);
    touch(*x, x->extent[2], x->extent[3], emu::LOAD);
    touch(*y, y->extent[2], y->extent[3], emu::STORE);
    for (int64_t h = 0; h < y->extent[1]; h++) {
        for (int64_t i = 0; i < y->extent[2]; i++) {
            for (int64_t j = 0; j < y->extent[3]; j++) {
                const int64_t index[4] = {0, h, i, j};

                store(y, h, i, j, reduce_one(o, *x, *y, index));
            }
        }
    }
}

/* The elements of a factor as they are multiplied, and whether it is transposed. */
std::vector<float> factor(const value &v, int64_t h, int64_t rows, int64_t columns)
{
    std::vector<float> all((size_t)(rows * columns));

    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++)
            all[(size_t)(i * columns + j)] = round_to(GR_CUDNN_DATA_BFLOAT16, load(v, h, i, j));
    }
    return all;
}

/* How much of a dimension takes part: the part's length, or all there is. */
int64_t length_of(part *p, const operation &o, operand by, const value &v, int dimension)
{
    int64_t length = v.extent[dimension];

    if (o.id[by] >= 0)
        length = integer(*p, o.id[by], p->number);
    else if (v.is->offsets >= 0 && row_dimension(*v.is) == dimension)
        fault("a product along the rows of tensor %lld without their lengths", (long long)v.is->id);
    if (length < 0 || length > v.extent[dimension])
        fault("tensor %lld has %lld rows or columns in part %lld (expected %lld)",
              (long long)v.is->id, (long long)v.extent[dimension], (long long)p->number,
              (long long)length);
    return length;
}

/* What columns k and on of a row of the factor add to its sums: nothing, if they are finite.  Of
 * scores that were turned these are queries behind the document's end; keys there are others' rows,
 * which are finite in truth, and NaN here. */
double sum_beyond(const value &v, int64_t h, int64_t row, int64_t k)
{
    double sum = 0;

    for (int64_t l = k; v.is_turned && l < v.extent[3]; l++)
        sum += 0.0 * load(v, h, row, l);
    return sum;
}

void multiply(value *c, int64_t h, const value &factor_a, const std::vector<float> &a,
              const std::vector<float> &b, int64_t m, int64_t n, int64_t k)
{
    static const double wrong = getenv("EMU_CUDNN_WRONG") != nullptr ? 1.1 : 1;
    const bool adds = !c->is->is_virtual && c->is->type == GR_CUDNN_DATA_FLOAT;
    std::vector<double> sums((size_t)n);
    const int64_t a_head = h * factor_a.is->dim[1] / c->is->dim[1];

    for (int64_t i = 0; i < m; i++) {
        std::fill(sums.begin(), sums.end(), sum_beyond(factor_a, a_head, i, k));
        for (int64_t l = 0; l < k; l++) {
            const double left = a[(size_t)(i * k + l)];

            for (int64_t j = 0; j < n; j++)
                sums[(size_t)j] += left * b[(size_t)(l * n + j)];
        }
        for (int64_t j = 0; j < n; j++) /* f32 in memory is added to, by atomics */
            store(c, h, i, j, wrong * sums[(size_t)j] + (adds ? load(*c, h, i, j) : 0));
    }
}

void run_product(part *p, const operation &o)
{
    const value *a = operand_of(p, o, X), *b = operand_of(p, o, B);
    const int64_t m = length_of(p, o, M, *a, 2), n = length_of(p, o, N, *b, 3);
    const int64_t k = length_of(p, o, K, *a, 3);
    const tensor &result = p->all->of(o.id[Y]);
    const int64_t extent[4] = {1, result.dim[1],
                               o.id[M] < 0 ? m : std::min(m + BEYOND, result.dim[2]),
                               o.id[N] < 0 ? n : std::min(n + BEYOND, result.dim[3])};
    value *c = result_of(p, o, extent);

    if (k > b->extent[2])
        fault("tensor %lld has %lld rows in part %lld (expected %lld)", (long long)b->is->id,
              (long long)b->extent[2], (long long)p->number, (long long)k);
    touch(*a, m, k, emu::LOAD);
    touch(*b, k, n, emu::LOAD);
    if (!result.is_virtual && result.type == GR_CUDNN_DATA_FLOAT)
        touch(*c, m, n, emu::LOAD);
    touch(*c, m, n, emu::STORE);
    for (int64_t h = 0; h < result.dim[1]; h++)
        multiply(c, h, *a, factor(*a, h * a->is->dim[1] / result.dim[1], m, k),
                 factor(*b, h * b->is->dim[1] / result.dim[1], k, n), m, n, k);
}

/* The same memory, or what is virtual, seen with other strides. */
void run_reshape(part *p, const operation &o)
{
    const value *x = operand_of(p, o, X);
    const tensor &result = p->all->of(o.id[Y]);
    /* which of the last two comes with the same stride: both run through the same elements */
    const bool exchanges = x->is->stride[2] != result.stride[2];
    const int64_t extent[4] = {1, x->extent[1], x->extent[exchanges ? 3 : 2],
                               x->extent[exchanges ? 2 : 3]};
    value *y = result_of(p, o, extent);

    y->is_turned = exchanges && result.is_virtual;
    for (int64_t h = 0; h < y->extent[1]; h++) {
        for (int64_t i = 0; i < y->extent[2]; i++) {
            for (int64_t j = 0; j < y->extent[3]; j++)
                store(y, h, i, j, exchanges ? load(*x, h, j, i) : load(*x, h, i, j));
        }
    }
}

/* A result may be shorter than it is, where the rows end: nobody asks for them then. */
void run_part(part *p)
{
    for (const operation &o : p->all->operations) {
        switch (o.kind) {
        case MATMUL:
            run_product(p, o);
            break;
        case POINTWISE:
            run_pointwise(p, o);
            break;
        case REDUCTION:
            run_reduction(p, o);
            break;
        default:
            run_reshape(p, o);
        }
    }
}

} // namespace

/* Rows of a part are those that the first product is told. */
void run(const graph &g, const binding &bound)
{
    for (const operation &o : g.operations) {
        if (o.kind != MATMUL || o.id[M] < 0)
            continue;
        const tensor &c = g.of(o.id[Y]);

        for (int64_t d = 0; d < c.dim[0]; d++) {
            part p = {&g, &bound, d, 0, c.dim[2], {}};

            p.length = integer(p, o.id[M], d);
            if (p.length > c.dim[2])
                fault("part %lld has %lld rows, the plan %lld", (long long)d, (long long)p.length,
                      (long long)c.dim[2]);
            if (p.length > 0)
                run_part(&p);
        }
        return;
    }
    fault("no product knows the lengths of its parts");
}

} // namespace cudnn
