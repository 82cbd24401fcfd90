/* The rig of the op tests: a device, tensors on it whose surroundings are guarded, and helpers to
 * fill, read and compare.  Written against device.h alone, so that it serves every backend. */
#ifndef GR_TESTS_RIG_H
#define GR_TESTS_RIG_H

#include "kernels/ops.h"
#include "tests/test.h"

enum { RIG_TENSORS_MAX = 64 };

struct rig {
    struct gr_device *dev;
    struct gr_arena arena;     /* the tensors: what two runs are compared by */
    struct gr_arena workspace; /* scratch: not compared; guarded behind workspace_bytes */
    int64_t workspace_bytes;
    int tensors;
    struct {
        gr_tensor view, around; /* around: the view with its guards */
    } tensor[RIG_TENSORS_MAX];
    uint32_t fills; /* numbers the random fills */
};

/* The instruction sets of the CPU backend this machine can run: 0, 1, .. until NULL; with
 * GRAFT_TEST_DEVICE=cuda "cuda" alone. */
const char *rig_isa(int index);
/* Whether GRAFT_TEST_DEVICE says so: then the emulated plug-in or a real one. */
bool rig_is_cuda(void);

/* isa: one of rig_isa, NULL for the best; "cpu" is the CPU even where the tests run on CUDA. */
void rig_open(struct rig *r, const char *isa, int threads);
/* The same with an arena of this size, for a case that needs more than the emulated usual. */
void rig_open_bytes(struct rig *r, const char *isa, int threads, int64_t arena_bytes);
/* Asserts that the device did not fail and that no guard was written. */
void rig_close(struct rig *r);

/* Runs a case on each of rig_isa with one thread; more threads: test_ops_threads.c. */
void rig_each_isa(void (*body)(struct rig *r));

/* A tensor shaped as `shape` (made with data NULL) whose rows lie `gap` elements apart; elements,
 * gaps and a row before and after it are filled with the bits ff..ff, a NaN. */
gr_tensor rig_tensor(struct rig *r, gr_tensor shape, int64_t gap);
/* The same with random elements, low <= value < high: F32, BF16, or I32 (rounded down).  The values
 * depend on the order of the calls only. */
gr_tensor rig_random(struct rig *r, gr_tensor shape, int64_t gap, double low, double high);
/* Elements in row order, as f64; the caller frees what rig_read returns. */
void rig_write(struct rig *r, gr_tensor t, const double *values);
double *rig_read(struct rig *r, gr_tensor t);
int32_t *rig_read_i32(struct rig *r, gr_tensor t);
void rig_set_workspace(struct rig *r, int64_t bytes);

/* What the tests of products allow besides their tolerance: gr_device_factor_rounding. */
double rig_factor_rounding(const struct rig *r, enum gr_dtype dtype);

/* |found - expected| <= tolerance * max|expected| for every element. */
void rig_assert_close(const char *what, const double *found, const double *expected, int64_t count,
                      double tolerance);

/* The same for what is stored in `dtype`, which may be off by one rounding of its own besides: half
 * a unit in the last place of the element. */
void rig_assert_stored(const char *what, enum gr_dtype dtype, const double *found,
                       const double *expected, int64_t count, double tolerance);

/* Runs `body` with 1, 2, 3 and 5 threads on every instruction set; all tensors of the rig must
 * hold the same bits after each.  on_all_devices: where the tests run on CUDA, the CPU's. */
void rig_assert_same_bits(void (*body)(struct rig *r), bool on_all_devices);

/* A case of that kind:  SAME_BITS(rope) { gr_tensor x = rig_random(r, ...); gr_rope(...); } */
#define SAME_BITS(op)                SAME_BITS_CASE(op, false)
#define SAME_BITS_ON_ALL_DEVICES(op) SAME_BITS_CASE(op, true)
#define SAME_BITS_CASE(op, on_all_devices)                                                         \
    static void run_##op(struct rig *r);                                                           \
    TEST(op##_any_threads_same_bits)                                                               \
    {                                                                                              \
        rig_assert_same_bits(run_##op, on_all_devices);                                            \
    }                                                                                              \
    static void run_##op(struct rig *r)

#endif
