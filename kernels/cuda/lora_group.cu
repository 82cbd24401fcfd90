/* A linear group with its adapters, forward and backward, as a list of matrix products.
 *
 * Where the group is joined (ops.h), base and adapter are one product each way.  Else an adapter's
 * product is added to what the base's has left: in bf16 y and dx are then rounded once for each
 * product that goes into them, which are as few as the tensors' places allow: linears whose
 * weights, or whose A, lie behind each other are multiplied together.
 * Sums over rows begin with a segment's first row, so that nothing depends on the rows beside it.
 */
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/vector.cuh"

static const int64_t masked_rows = 2048; /* of x, at a time */
static const char op[] = "lora_group";

int64_t gr_cuda_lora_group_workspace_bytes(struct gr_device *dev, int64_t n, int64_t in,
                                           int64_t out, int64_t r)
{
    const int64_t masked = n < masked_rows ? n : masked_rows;

    (void)dev;
    (void)out;
    return r == 0 ? 0 : (masked > r ? masked : r) * in * (int64_t)sizeof(float); /* or dA */
}

/* ---- parts of the tensors ---- */

/* Rows of one segment, and the adapter of one linear for them. */
struct part {
    const struct gr_segment *segment;
    const struct gr_lora *lora;
    int linear;
    int64_t begin, end;
};

/* The first column of linear i in y and dy. */
static int64_t y_begin(const struct gr_lora_group *g, int linear)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += g->linear[i].weight.dim[0];
    return begin;
}

/* The first column of linear i in s and ds. */
static int64_t s_begin(const struct gr_lora_group *g, int linear)
{
    int64_t begin = 0;

    for (int i = 0; i < linear; i++)
        begin += gr_lora_group_r(g, i);
    return begin;
}

/* Segment number `segment` for one linear; false: there is no adapter. */
static bool find_part(struct part *p, const struct gr_lora_group *g, int segment, int linear)
{
    const struct gr_segment *s = &g->segment[segment];

    if (s->adapter < 0)
        return false;
    p->segment = s;
    p->lora = &g->lora[(int64_t)s->adapter * g->linears + linear];
    p->linear = linear;
    p->begin = s->row_begin;
    p->end = s->row_end;
    return !gr_tensor_is_none(p->lora->a);
}

static gr_tensor columns_of(gr_tensor t, int64_t begin, int64_t count, const struct part *p)
{
    return gr_tensor_columns(gr_tensor_rows(t, p->begin, p->end), begin, begin + count);
}

static gr_tensor y_part(const struct gr_lora_group *g, gr_tensor y, const struct part *p)
{
    return columns_of(y, y_begin(g, p->linear), g->linear[p->linear].weight.dim[0], p);
}

/* r columns of s or ds from those of the part's linear on. */
static gr_tensor s_part(const struct gr_lora_group *g, gr_tensor s, const struct part *p, int64_t r)
{
    return columns_of(s, s_begin(g, p->linear), r, p);
}

static bool drops(const struct gr_lora_group *g, const struct gr_lora *lora)
{
    return g->train && lora->dropout > 0.0f;
}

static bool segment_drops(const struct gr_lora_group *g, int segment)
{
    struct part p;

    for (int i = 0; i < g->linears; i++)
        if (find_part(&p, g, segment, i) && drops(g, p.lora))
            return true;
    return false;
}

static bool any_drops(const struct gr_lora_group *g)
{
    for (int segment = 0; segment < g->segments; segment++)
        if (segment_drops(g, segment))
            return true;
    return false;
}

/* Whether b's rows lie behind those of a, so that both are one matrix. */
static bool follows(gr_tensor a, gr_tensor b)
{
    return a.stride == b.stride && a.dim[1] == b.dim[1] &&
           (char *)b.data - (char *)a.data == a.dim[0] * a.stride * gr_dtype_bytes(a.dtype);
}

/* The weights of linear `first` and of those behind it that are one matrix; *end: behind them. */
static gr_tensor weights_from(const struct gr_lora_group *g, int first, int *end)
{
    gr_tensor w = g->linear[first].weight;

    for (*end = first + 1; *end < g->linears && follows(w, g->linear[*end].weight); ++*end)
        w.dim[0] += g->linear[*end].weight.dim[0];
    return w;
}

/* The same for A of a part's adapter, where scale and places in s allow it and nothing drops. */
static gr_tensor a_from(const struct gr_lora_group *g, const struct part *p, int *end)
{
    gr_tensor a = p->lora->a;

    for (*end = p->linear + 1; *end < g->linears; ++*end) {
        const struct gr_lora *before = &p->lora[*end - 1 - p->linear], *next = before + 1;

        if (gr_tensor_is_none(next->a) || next->scale != p->lora->scale || drops(g, p->lora) ||
            drops(g, next) || before->a.dim[0] != gr_lora_group_r(g, *end - 1) ||
            !follows(a, next->a))
            break;
        a.dim[0] += next->a.dim[0];
    }
    return a;
}

/* ---- joined groups ---- */

static bool is_joined(const struct gr_lora_group *g)
{
    return !gr_tensor_is_none(g->joined) && !gr_tensor_is_none(g->s);
}

/* t with the r columns behind it. */
static gr_tensor widened(gr_tensor t, int64_t r)
{
    t.dim[1] += r;
    return t;
}

/* Those columns alone. */
static gr_tensor room_behind(gr_tensor t, int64_t r)
{
    return gr_tensor_columns(widened(t, r), t.dim[1], t.dim[1] + r);
}

/* ---- what is started from: zero, copies, bias ---- */

template <typename T>
static __global__ void start_rows(gr_view<T> y, gr_view<const T> x, const T *bias,
                                  struct gr_runs runs)
{
    constexpr int run = gr_run_of<T>;
    struct gr_run at;
    float v[run], offset[run];

    if (!gr_find_run(&at, runs, run))
        return;
    gr_read(v, x.at(at.row, at.begin), x.data == NULL ? 0 : at.count);
    gr_read(offset, bias + at.begin, bias == NULL ? 0 : at.count);
    for (int i = 0; i < run; i++)
        v[i] += offset[i];
    gr_write(y.at(at.row, at.begin), v, at.count);
}

template <typename T>
static void start_in(struct gr_device *dev, gr_tensor y, gr_tensor x, gr_tensor bias)
{
    const struct gr_runs runs = gr_runs_over(y.dim[0], y.dim[1], gr_run_of<T>);

    gr_cuda_ok(dev, op,
               GR_LAUNCH(start_rows<T>, runs.grid, runs.block, 0, gr_cuda_of(dev)->stream,
                         gr_view_of<T>(y), gr_view_of<const T>(x), (const T *)bias.data, runs));
}

/* y <- x + bias; what is none is zero; x may be y */
static void start(struct gr_device *dev, gr_tensor y, gr_tensor x, gr_tensor bias)
{
    if (gr_tensor_count(y) > 0)
        (y.dtype == GR_BF16 ? start_in<__nv_bfloat16> : start_in<float>)(dev, y, x, bias);
}

static void set_zero(struct gr_device *dev, gr_tensor y)
{
    start(dev, y, gr_tensor{}, gr_tensor{});
}

/* Whether adapters write every element of s and ds. */
static bool covers(const struct gr_lora_group *g)
{
    struct part p;

    if (g->segments != 1 || g->segment->row_begin != 0 || g->segment->row_end != g->x.dim[0])
        return false;
    for (int i = 0; i < g->linears; i++) {
        int64_t r = gr_lora_group_r(g, i);

        if (r > 0 && (!find_part(&p, g, 0, i) || p.lora->a.dim[0] != r))
            return false;
    }
    return true;
}

/* ---- products ---- */

/* c <- [source +] alpha a b; an operand is transposed where its name says so */
struct product {
    gr_tensor c, a, b, source;
    float alpha;
};

static void multiply(struct gr_device *dev, const struct product *p, bool a_is_transposed,
                     bool b_is_transposed)
{
    const float beta = gr_tensor_is_none(p->source) ? 0.0f : 1.0f;
    const struct gr_cuda_product all = {
        p->c, p->a, p->b, p->source, a_is_transposed, b_is_transposed, p->alpha, beta};

    gr_cuda_gemm(dev, op, &all);
}

/* c <- [source +] alpha a b */
static void product_nn(struct gr_device *dev, gr_tensor c, float alpha, gr_tensor a, gr_tensor b,
                       gr_tensor source)
{
    const struct product p = {c, a, b, source, alpha};

    multiply(dev, &p, false, false);
}

/* c <- [source +] alpha a bT */
static void product_nt(struct gr_device *dev, gr_tensor c, float alpha, gr_tensor a, gr_tensor b,
                       gr_tensor source)
{
    const struct product p = {c, a, b, source, alpha};

    multiply(dev, &p, false, true);
}

/* c <- [source +] aT b; zero where there are no rows */
static void product_tn(struct gr_device *dev, gr_tensor c, gr_tensor a, gr_tensor b,
                       gr_tensor source)
{
    const struct product p = {c, a, b, source, 1.0f};

    if (a.dim[0] > 0)
        multiply(dev, &p, true, false);
    else if (gr_tensor_is_none(source))
        set_zero(dev, c);
}

static struct gr_dropout dropout_of(const struct gr_lora_group *g, const struct part *p,
                                    int64_t row)
{
    const struct gr_rng *rng = &p->segment->rng;
    struct gr_dropout d = {
        rng->seed,        gr_rng_stream(GR_RNG_DROPOUT, g->layer, g->module + p->linear),
        rng->micro_batch, rng->step,
        p->lora->dropout, row - p->segment->row_begin};

    return d;
}

/* Rows [begin, end) of x, masked, in the workspace. */
static gr_tensor masked_x(struct gr_device *dev, const struct gr_lora_group *g,
                          const struct part *p, int64_t begin, int64_t end)
{
    gr_tensor x = gr_tensor_rows(g->x, begin, end);
    gr_tensor masked = gr_tensor_2d(dev->workspace, x.dtype, x.dim[0], x.dim[1]);
    const struct gr_dropout dropout = dropout_of(g, p, begin);

    gr_cuda_drop(dev, op, masked, x, &dropout);
    return masked;
}

static int64_t masked_end(const struct part *p, int64_t begin)
{
    return p->end - begin < masked_rows ? p->end : begin + masked_rows;
}

/* ---- forward ---- */

/* s <- s_i drop(x) A^T of a part, a: A of its linear and of those multiplied with it */
static void make_s_part(struct gr_device *dev, const struct gr_lora_group *g, gr_tensor s,
                        const struct part *p, gr_tensor a)
{
    s = s_part(g, s, p, a.dim[0]);
    if (!drops(g, p->lora)) {
        product_nt(dev, s, p->lora->scale, gr_tensor_rows(g->x, p->begin, p->end), a, gr_tensor{});
        return;
    }
    for (int64_t begin = p->begin; begin < p->end; begin = masked_end(p, begin)) {
        int64_t end = masked_end(p, begin);

        product_nt(dev, gr_tensor_rows(s, begin - p->begin, end - p->begin), p->lora->scale,
                   masked_x(dev, g, p, begin, end), a, gr_tensor{});
    }
}

static void make_s(struct gr_device *dev, const struct gr_lora_group *g, gr_tensor s)
{
    struct part p;

    if (gr_tensor_is_none(s))
        return;
    if (!covers(g))
        set_zero(dev, s);
    for (int segment = 0; segment < g->segments; segment++)
        for (int i = 0, end; i < g->linears; i = end) {
            end = i + 1;
            if (find_part(&p, g, segment, i)) {
                gr_tensor a = a_from(g, &p, &end);

                make_s_part(dev, g, s, &p, a);
            }
        }
}

/* What the base's product is added to: the residual, or y, where the bias then is already. */
static gr_tensor start_y(struct gr_device *dev, const struct gr_lora_group *g)
{
    bool has_bias = false;

    for (int i = 0; i < g->linears; i++)
        has_bias = has_bias || !gr_tensor_is_none(g->linear[i].bias);
    if (!has_bias)
        return g->residual;
    for (int i = 0; i < g->linears; i++) {
        int64_t begin = y_begin(g, i), end = y_begin(g, i + 1);
        gr_tensor residual = g->residual;

        if (!gr_tensor_is_none(residual))
            residual = gr_tensor_columns(residual, begin, end);
        start(dev, gr_tensor_columns(g->y, begin, end), residual, g->linear[i].bias);
    }
    return g->y;
}

/* y <- [residual +] x W^T [+ bias] */
static void forward_base(struct gr_device *dev, const struct gr_lora_group *g)
{
    gr_tensor source = start_y(dev, g);

    for (int i = 0, end; i < g->linears; i = end) {
        gr_tensor w = weights_from(g, i, &end);
        int64_t begin = y_begin(g, i);
        gr_tensor y = gr_tensor_columns(g->y, begin, begin + w.dim[0]), add = source;

        if (!gr_tensor_is_none(add))
            add = gr_tensor_columns(add, begin, begin + w.dim[0]);
        product_nt(dev, y, 1.0f, g->x, w, add);
    }
}

/* y += S B^T */
static void forward_adapters(struct gr_device *dev, const struct gr_lora_group *g)
{
    struct part p;

    for (int segment = 0; segment < g->segments; segment++)
        for (int i = 0; i < g->linears; i++)
            if (find_part(&p, g, segment, i)) {
                gr_tensor y = y_part(g, g->y, &p);

                product_nt(dev, y, 1.0f, s_part(g, g->s, &p, p.lora->a.dim[0]), p.lora->b, y);
            }
}

/* y <- [residual +] [x|S] [W|B]^T [+ bias];  S is in x's room, and kept in s */
static void forward_joined(struct gr_device *dev, const struct gr_lora_group *g)
{
    int64_t out = g->y.dim[1], r = g->s.dim[1];
    gr_tensor s = room_behind(g->x, r);

    make_s(dev, g, s);
    if (g->s.data != s.data)
        start(dev, g->s, s, gr_tensor{});
    product_nt(dev, g->y, 1.0f, widened(g->x, r), gr_tensor_rows(g->joined, 0, out),
               start_y(dev, g));
}

void gr_cuda_lora_group_forward(struct gr_device *dev, const struct gr_lora_group *g)
{
    if (is_joined(g)) {
        forward_joined(dev, g);
        return;
    }
    make_s(dev, g, g->s);
    forward_base(dev, g);
    forward_adapters(dev, g);
}

/* ---- backward ---- */

/* dA <- dS^T drop(x) over the whole segment */
static void make_da(struct gr_device *dev, const struct gr_lora_group *g, const struct part *p)
{
    gr_tensor ds = s_part(g, g->ds, p, p->lora->a.dim[0]), sum = {};

    if (!drops(g, p->lora) || p->begin == p->end) {
        product_tn(dev, p->lora->da, ds, gr_tensor_rows(g->x, p->begin, p->end), sum);
        return;
    }
    for (int64_t begin = p->begin; begin < p->end; begin = masked_end(p, begin)) {
        int64_t end = masked_end(p, begin);

        product_tn(dev, p->lora->da, gr_tensor_rows(ds, begin - p->begin, end - p->begin),
                   masked_x(dev, g, p, begin, end), sum);
        sum = p->lora->da;
    }
}

/* That of all adapters of the first segment; NAN: they have no common one. */
static float common_scale(const struct gr_lora_group *g)
{
    const struct gr_lora *first = NULL;
    struct part p;

    for (int i = 0; i < g->linears; i++)
        if (find_part(&p, g, 0, i)) {
            if (first != NULL && first->scale != p.lora->scale)
                return NAN;
            first = p.lora;
        }
    return first == NULL ? NAN : first->scale;
}

/* dS <- s dy B of all linears in one pass over dy: in the joined matrix a linear's B has zeros
 * beside it.  false: they have no such matrix, or more than one scale. */
static bool make_joined_ds(struct gr_device *dev, const struct gr_lora_group *g)
{
    int64_t out = g->dy.dim[1], in = g->x.dim[1];
    float scale;

    if (!is_joined(g) || !covers(g) || isnan(scale = common_scale(g)))
        return false;
    product_nn(dev, g->ds, scale, g->dy,
               gr_tensor_columns(gr_tensor_rows(g->joined, 0, out), in, in + g->s.dim[1]),
               gr_tensor{});
    return true;
}

/* dS <- s dy B, unless it is there;  dB <- dy^T S */
static void make_ds_and_db(struct gr_device *dev, const struct gr_lora_group *g,
                           const struct part *p, bool has_ds)
{
    const struct gr_lora *lora = p->lora;
    int64_t r = lora->a.dim[0];
    gr_tensor dy = y_part(g, g->dy, p);

    if (!has_ds)
        product_nn(dev, s_part(g, g->ds, p, r), lora->scale, dy, lora->b, gr_tensor{});
    product_tn(dev, lora->db, dy, s_part(g, g->s, p, r), gr_tensor{});
}

/* dA of all linears in one pass over x: dS^T x in the workspace, from where each goes to its place.
 * false: linears drop other elements of x each, or there is only one. */
static bool make_group_da(struct gr_device *dev, const struct gr_lora_group *g)
{
    struct gr_copy_pair pair[GR_LINEARS_MOST];
    gr_tensor sum = gr_tensor_2d(dev->workspace, GR_F32, g->s.dim[1], g->x.dim[1]);
    int pairs = 0;
    struct part p;

    if (any_drops(g) || !covers(g))
        return false;
    for (int i = 0; i < g->linears; i++)
        if (find_part(&p, g, 0, i)) {
            int64_t begin = s_begin(g, i);

            pair[pairs].y = p.lora->da;
            pair[pairs++].x = gr_tensor_rows(sum, begin, begin + p.lora->a.dim[0]);
        }
    if (pairs < 2)
        return false;
    product_tn(dev, sum, g->ds, g->x, gr_tensor{});
    gr_cuda_copy_pairs(dev, pair, pairs);
    return true;
}

static void make_gradients(struct gr_device *dev, const struct gr_lora_group *g)
{
    bool has_ds = g->part == GR_LORA_DA || make_joined_ds(dev, g), has_da;
    struct part p;

    for (int segment = 0; segment < g->segments && g->part != GR_LORA_DA; segment++)
        for (int i = 0; i < g->linears; i++)
            if (find_part(&p, g, segment, i))
                make_ds_and_db(dev, g, &p, has_ds);
    has_da = g->part == GR_LORA_BUT_DA || make_group_da(dev, g);
    for (int segment = 0; segment < g->segments && !has_da; segment++)
        for (int i = 0; i < g->linears; i++)
            if (find_part(&p, g, segment, i))
                make_da(dev, g, &p);
}

/* dx <- sum over the linears of dy W */
static void backward_base(struct gr_device *dev, const struct gr_lora_group *g)
{
    gr_tensor sum = {};

    for (int i = 0, end; i < g->linears; i = end) {
        gr_tensor w = weights_from(g, i, &end);
        int64_t begin = y_begin(g, i);

        product_nn(dev, g->dx, 1.0f, gr_tensor_columns(g->dy, begin, begin + w.dim[0]), w, sum);
        sum = g->dx;
    }
}

/* dx += sum over the linears of mask * (dS A), for a segment in which some linear drops */
static void add_dropped_dx(struct gr_device *dev, const struct gr_lora_group *g, int segment)
{
    struct gr_dropped dropped[GR_LINEARS_MOST];
    struct part p = {};
    int count = 0;

    for (int i = 0; i < g->linears; i++)
        if (find_part(&p, g, segment, i)) {
            dropped[count].ds = s_part(g, g->ds, &p, p.lora->a.dim[0]);
            dropped[count].a = p.lora->a;
            dropped[count++].dropout = dropout_of(g, &p, p.begin);
        }
    if (count > 0)
        gr_cuda_add_dropped(dev, op, gr_tensor_rows(g->dx, p.begin, p.end), dropped, count);
}

/* dx += sum over the linears of dS A */
static void add_dx(struct gr_device *dev, const struct gr_lora_group *g, int segment)
{
    struct part p;

    for (int i = 0, end; i < g->linears; i = end) {
        end = i + 1;
        if (find_part(&p, g, segment, i)) {
            gr_tensor dx = gr_tensor_rows(g->dx, p.begin, p.end), a = a_from(g, &p, &end);

            product_nn(dev, dx, 1.0f, s_part(g, g->ds, &p, a.dim[0]), a, dx);
        }
    }
}

void gr_cuda_lora_group_backward(struct gr_device *dev, const struct gr_lora_group *g)
{
    if (is_joined(g) && !covers(g) && g->part != GR_LORA_DA)
        set_zero(dev, g->ds);
    make_gradients(dev, g);
    if (gr_tensor_is_none(g->dx) || g->part == GR_LORA_DA)
        return;
    if (is_joined(g) && !any_drops(g)) { /* dx <- [dy|dS] [[W], [A]] */
        product_nn(dev, g->dx, 1.0f, widened(g->dy, g->s.dim[1]),
                   gr_tensor_columns(g->joined, 0, g->x.dim[1]), gr_tensor{});
        return;
    }
    backward_base(dev, g);
    for (int segment = 0; segment < g->segments; segment++) {
        if (segment_drops(g, segment))
            add_dropped_dx(dev, g, segment);
        else
            add_dx(dev, g, segment);
    }
}
