/* Rotary position embedding in place, in the half-split layout.  Two products and a sum, each
 * rounded: the bits of the CPU backend. */
#include "kernels/cuda/vector.cuh"

struct rope_shape {
    int64_t rows, positions; /* positions: of the tables */
    int heads, half;
};

template <int run>
static __device__ __forceinline__ void read_table(float (&v)[run], const float *p, int count)
{
    for (int i = 0; i < run; i += 4) {
        float four[4];

        gr_read(four, p + i, count - i);
        for (int j = 0; j < 4; j++)
            v[i + j] = four[j];
    }
}

/* Angles of `count` elements; a position outside the tables makes NaN, which the loss shows. */
template <int run>
static __device__ __forceinline__ void
read_angles(float (&c)[run], float (&s)[run], gr_view<const float> cos, gr_view<const float> sin,
            int64_t position, int64_t positions, int begin, int count)
{
    if (position >= 0 && position < positions) {
        read_table(c, cos.at(position, begin), count);
        read_table(s, sin.at(position, begin), count);
        return;
    }
    for (int i = 0; i < run; i++)
        c[i] = s[i] = NAN;
}

/* (a, b) <- (a*cos - b*sin, b*cos + a*sin).  A thread takes a run of angles through the heads
 * threadIdx.y, + blockDim.y, ...: the tables are read once for all of them. */
template <typename T>
static __global__ void rotate(gr_view<T> x, gr_view<const float> cos, gr_view<const float> sin,
                              const int32_t *position, struct rope_shape shape, float sign)
{
    constexpr int run = gr_run_of<T>;
    const int64_t row = (int64_t)blockIdx.x * blockDim.z + threadIdx.z;

    if (row >= shape.rows)
        return;
    for (int begin = (int)threadIdx.x * run; begin < shape.half; begin += (int)blockDim.x * run) {
        const int count = shape.half - begin;
        float c[run], s[run];

        read_angles(c, s, cos, sin, position[row], shape.positions, begin, count);
        for (int h = (int)threadIdx.y; h < shape.heads; h += (int)blockDim.y) {
            T *first = x.at(row, (int64_t)h * 2 * shape.half + begin);
            float a[run], b[run];

            const uint4 a_bits = gr_fetch<run>(first, count);
            const uint4 b_bits = gr_fetch<run>(first + shape.half, count);

            gr_unpack(a, a_bits);
            gr_unpack(b, b_bits);
            for (int i = 0; i < run; i++) {
                const float a_i = a[i], s_i = sign * s[i];

                a[i] = __fsub_rn(__fmul_rn(a_i, c[i]), __fmul_rn(b[i], s_i));
                b[i] = __fadd_rn(__fmul_rn(b[i], c[i]), __fmul_rn(a_i, s_i));
            }
            gr_write(first, a, count);
            gr_write(first + shape.half, b, count);
        }
    }
}

template <typename T>
static void rope(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin,
                 gr_tensor positions, int direction)
{
    enum { THREADS = 256, LANES_MOST = 32, ROWS_MOST = 64 /* CUDA's */, ABREAST = 4 };
    constexpr int run = gr_run_of<T>;
    const struct rope_shape shape = {x.dim[0], cos.dim[0], (int)x.dim[1], (int)x.dim[2] / 2};
    /* so many heads that none idles in the last turn, if these are not too few */
    const int even = shape.heads & -shape.heads,
              least = shape.heads < ABREAST ? shape.heads : ABREAST;
    const int abreast = even > least ? even : least;
    dim3 block, grid;

    block.x = (unsigned)gr_power_of_two((shape.half + run - 1) / run, LANES_MOST);
    block.y = (unsigned)gr_power_of_two(abreast, THREADS / (int)block.x);
    block.z = (unsigned)gr_power_of_two(shape.rows, THREADS / (int)(block.x * block.y));
    block.z = block.z < ROWS_MOST ? block.z : (unsigned)ROWS_MOST;
    grid.x = (unsigned)((shape.rows + block.z - 1) / block.z);
    gr_cuda_ok(dev, "rope",
               GR_LAUNCH(rotate<T>, grid, block, 0, gr_cuda_of(dev)->stream, gr_view_of<T>(x),
                         gr_view_of<const float>(cos), gr_view_of<const float>(sin),
                         (const int32_t *)positions.data, shape, (float)direction));
}

void gr_cuda_rope(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin,
                  gr_tensor positions, int direction)
{
    if (gr_tensor_count(x) == 0)
        return;
    (x.dtype == GR_BF16 ? rope<__nv_bfloat16> : rope<float>)(dev, x, cos, sin, positions,
                                                             direction);
}
