/* Products over widened pieces.  See product.h. */
#include "kernels/cpu/product.h"

#include "kernels/base/status.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/stored.h"
#include "kernels/cpu/tiles.h"

typedef void matmul(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta);

enum { DEPTH_MOST = 256 }; /* of a piece: two of them and a tile of c stay in the L2 cache */

/* An operand as it lies in memory: the inner dimension runs along its columns or its rows. */
struct operand {
    gr_tensor t;
    bool inner_is_columns;
    float *scratch;
};

static int64_t depth_of(const struct operand *o)
{
    return o->inner_is_columns ? o->t.dim[1] : o->t.dim[0];
}

/* How deep a piece of it may be. */
static int64_t deepest(const struct operand *o)
{
    int64_t across = o->inner_is_columns ? o->t.dim[0] : o->t.dim[1];

    GR_CHECK(across <= GR_PIECE_FLOATS, "%lld", (long long)across);
    return o->t.dtype == GR_F32 || across == 0 ? DEPTH_MOST : GR_PIECE_FLOATS / across;
}

static gr_tensor piece(const struct operand *o, int64_t begin, int64_t end)
{
    return gr_load_tile(o->inner_is_columns ? gr_tensor_columns(o->t, begin, end)
                                            : gr_tensor_rows(o->t, begin, end),
                        o->scratch);
}

static void product(matmul *multiply, gr_tensor c, const struct operand *a, const struct operand *b,
                    float alpha, float beta)
{
    int64_t depth = depth_of(a), most = DEPTH_MOST;

    if ((a->t.dtype == GR_F32 && b->t.dtype == GR_F32) || depth == 0) {
        multiply(c, gr_place_tile(a->t, a->scratch), gr_place_tile(b->t, b->scratch), alpha, beta);
        return;
    }
    most = gr_smaller(most, gr_smaller(deepest(a), deepest(b)));
    for (int64_t begin = 0; begin < depth; begin += most) {
        int64_t end = gr_smaller(depth, begin + most);

        multiply(c, piece(a, begin, end), piece(b, begin, end), alpha, begin == 0 ? beta : 1.0f);
    }
}

void GR_CPU(product_nn)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces)
{
    product(gr_cpu_matmul_nn, c, &(struct operand){a, true, pieces.a},
            &(struct operand){b, false, pieces.b}, alpha, beta);
}

void GR_CPU(product_nt)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces)
{
    product(gr_cpu_matmul_nt, c, &(struct operand){a, true, pieces.a},
            &(struct operand){b, true, pieces.b}, alpha, beta);
}

void GR_CPU(product_tn)(gr_tensor c, gr_tensor a, gr_tensor b, float alpha, float beta,
                        struct gr_pieces pieces)
{
    product(gr_cpu_matmul_tn, c, &(struct operand){a, false, pieces.a},
            &(struct operand){b, false, pieces.b}, alpha, beta);
}
