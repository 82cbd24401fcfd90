/* See emu_blas_product.h.  Operands are first copied as f32: a in panels of LANES rows, b in strips
 * of STRIP columns; then each tile of LANES x STRIP sums stays in registers.  The order of a sum
 * and the bits do not depend on the instruction set. */
#include "emu_blas_product.h"

#include <cuda_bf16.h>
#include <string.h>
#include <vector>

namespace emu
{

static constexpr int64_t LANES = 16, STRIP = 8;

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

static float load(const matrix &m, int64_t i, int64_t j)
{
    const int64_t at = i * m.row_step + j * m.column_step;
    uint32_t bits = 0;
    float value;

    if (!m.is_bf16) {
        memcpy(&value, m.data + 4 * at, sizeof value);
        return value;
    }
    memcpy((char *)&bits + 2, m.data + 2 * at, 2);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* packed (blocks, depth, block): block rows of m, those past the end 0, from column `first` on and
 * round. */
static void pack(std::vector<float> *packed, const matrix &m, int64_t rows, int64_t depth,
                 int64_t block, int64_t first)
{
    const int64_t blocks = (rows + block - 1) / block;

    packed->assign((size_t)(blocks * depth * block), 0.0f);
    for (int64_t i = 0; i < rows; i++) {
        float *to = packed->data() + (i / block) * depth * block + i % block;

        for (int64_t k = first; k < depth; k++, to += block)
            *to = load(m, i, k);
        for (int64_t k = 0; k < first; k++, to += block)
            *to = load(m, i, k);
    }
}

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"),
               optimize("-O3", "-ffp-contract=off"))) static void
multiply_tile(float *tile, const float *a, const float *b, int64_t depth)
{
    lanes sum[STRIP] = {};

    for (int64_t k = 0; k < depth; k++) {
        lanes row;

        memcpy(&row, a + k * LANES, sizeof row);
        for (int64_t j = 0; j < STRIP; j++)
            sum[j] += row * b[k * STRIP + j];
    }
    memcpy(tile, sum, sizeof sum);
}

void multiply(float *sums, const matrix &a, const matrix &b, const shape &shape, int64_t first)
{
    static std::vector<float> a_packed, b_packed;
    const matrix b_transposed = {b.data, b.is_bf16, b.column_step, b.row_step};
    float tile[STRIP][LANES];

    pack(&a_packed, a, shape.rows, shape.depth, LANES, first);
    pack(&b_packed, b_transposed, shape.columns, shape.depth, STRIP, first);
    for (int64_t j = 0; j < shape.columns; j += STRIP) {
        for (int64_t i = 0; i < shape.rows; i += LANES) {
            const int64_t rows = shape.rows - i < LANES ? shape.rows - i : LANES;

            multiply_tile(tile[0], &a_packed[(size_t)(i * shape.depth)],
                          &b_packed[(size_t)(j * shape.depth)], shape.depth);
            for (int64_t l = 0; l < STRIP && j + l < shape.columns; l++)
                memcpy(sums + (j + l) * shape.rows + i, tile[l], (size_t)rows * sizeof(float));
        }
    }
}

void add_scaled(const matrix &d, const float *sums, const matrix &c, float alpha, float beta,
                int64_t rows, int64_t columns)
{
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t i = 0; i < rows; i++) {
            const int64_t at = i * d.row_step + j * d.column_step;
            float value = alpha * sums[j * rows + i];

            if (beta != 0)
                value += beta * load(c, i, j);
            if (d.is_bf16) {
                const __nv_bfloat16 rounded = __float2bfloat16(value);

                memcpy((char *)d.data + 2 * at, &rounded, sizeof rounded);
            } else {
                memcpy((char *)d.data + 4 * at, &value, sizeof value);
            }
        }
    }
}

} // namespace emu
