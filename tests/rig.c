/* See rig.h. */
#include "tests/rig.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "kernels/values.h"

#include <stdlib.h>

/* The arena is a reservation: pages nobody touches cost nothing. */
static const int64_t arena_bytes = (int64_t)256 << 20;
static const int64_t cuda_arena_bytes = (int64_t)16 << 20; /* emulated memory is all touched */
static const int64_t guard_bytes = 4096;                   /* after the workspace */

/* A case opens it once: its pinned memory takes longer than most ops. */
static struct gr_device *cuda_device;

bool rig_is_cuda(void)
{
    const char *device = getenv("GRAFT_TEST_DEVICE");

    return device != NULL && strcmp(device, "cuda") == 0;
}

const char *rig_isa(int index)
{
    if (rig_is_cuda())
        return index == 0 ? "cuda" : NULL;
    for (int i = 0; gr_isa_name(i) != NULL; i++) {
        struct gr_device *dev = NULL;
        gr_status status = gr_device_create(&dev, "cpu", 1, gr_isa_name(i));

        /* this CPU may lack one, but graft must know it */
        ASSERT(status == GR_OK || status == GR_ERR_DEVICE);
        gr_error_clear();
        gr_device_destroy(dev);
        if (status == GR_OK && index-- == 0)
            return gr_isa_name(i);
    }
    return NULL;
}

void rig_open(struct rig *r, const char *isa, int threads)
{
    rig_open_bytes(r, isa, threads, rig_is_cuda() ? cuda_arena_bytes : arena_bytes);
}

void rig_open_bytes(struct rig *r, const char *isa, int threads, int64_t bytes)
{
    bool on_cuda = rig_is_cuda() && (isa == NULL || strcmp(isa, "cpu") != 0);

    *r = (struct rig){0};
    if (on_cuda && cuda_device == NULL)
        ASSERT_OK(gr_device_create(&cuda_device, "cuda", threads, NULL));
    if (on_cuda)
        r->dev = cuda_device;
    else
        ASSERT_OK(gr_device_create(&r->dev, "cpu", threads, rig_is_cuda() ? NULL : isa));
    ASSERT_OK(gr_device_arena_create(r->dev, &r->arena, "tensors", bytes));
}

void rig_each_isa(void (*body)(struct rig *r))
{
    const char *isa;
    struct rig r;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        rig_open(&r, isa, 1);
        body(&r);
        rig_close(&r);
    }
}

/* Everything around the view still holds the bits it was filled with. */
static void assert_guards(struct rig *r, gr_tensor view, gr_tensor around)
{
    int64_t element = gr_dtype_bytes(view.dtype);
    int64_t bytes = gr_tensor_count(around) * element;
    int64_t first = (char *)view.data - (char *)around.data;
    unsigned char *found = gr_alloc(bytes, 1);
    char text[96];

    gr_device_download(r->dev, found, around);
    ASSERT_OK(gr_device_sync(r->dev));
    for (int64_t i = 0; i < view.dim[0]; i++)
        memset(found + first + i * view.stride * element, 0xff,
               (size_t)(gr_tensor_row_size(view) * element));
    for (int64_t i = 0; i < bytes; i++)
        if (found[i] != 0xff)
            ASSERT_MSG(false, "%" PRId64 " bytes from %s, memory was written", i - first,
                       gr_tensor_describe(view, text, sizeof text));
    gr_free(found);
}

static void assert_workspace_guard(struct rig *r)
{
    unsigned char *found = gr_alloc(guard_bytes, 1);

    gr_device_download(r->dev, found,
                       gr_tensor_1d(r->workspace.base + r->workspace_bytes, GR_U8, guard_bytes));
    ASSERT_OK(gr_device_sync(r->dev));
    for (int64_t i = 0; i < guard_bytes; i++)
        ASSERT_MSG(found[i] == 0xff, "byte %" PRId64 " after the workspace was written", i);
    gr_free(found);
}

void rig_close(struct rig *r)
{
    ASSERT_OK(gr_device_sync(r->dev));
    if (r->workspace.base != NULL)
        assert_workspace_guard(r);
    for (int i = 0; i < r->tensors; i++)
        assert_guards(r, r->tensor[i].view, r->tensor[i].around);
    gr_device_arena_release(r->dev, &r->workspace);
    gr_device_arena_release(r->dev, &r->arena);
    if (r->dev == cuda_device)
        gr_device_set_workspace(r->dev, NULL, 0);
    else
        gr_device_destroy(r->dev);
}

gr_tensor rig_tensor(struct rig *r, gr_tensor shape, int64_t gap)
{
    int64_t n = shape.dim[0], row = gr_tensor_row_size(shape);
    gr_tensor around = gr_arena_tensor_2d(&r->arena, shape.dtype, n + 2, row + gap);
    gr_tensor view = gr_tensor_columns(gr_tensor_rows(around, 1, n + 1), gap / 2, gap / 2 + row);

    ASSERT(r->tensors < RIG_TENSORS_MAX && (shape.ndim > 1 || gap == 0));
    gr_values_poison(r->dev, around);
    shape.data = view.data;
    shape.stride = view.stride;
    r->tensor[r->tensors].view = shape;
    r->tensor[r->tensors++].around = around;
    return shape;
}

gr_tensor rig_random(struct rig *r, gr_tensor shape, int64_t gap, double low, double high)
{
    gr_tensor t = rig_tensor(r, shape, gap);
    int64_t count = gr_tensor_count(t);
    double *values = GR_NEW_ARRAY(double, count);

    for (int64_t i = 0; i < count; i++) {
        struct gr_philox_block block = gr_philox(r->fills, (uint32_t)i, 0, 0, 0);

        values[i] = low + (high - low) * (double)gr_uniform(block.word[0]);
        if (t.dtype == GR_I32)
            values[i] = floor(values[i]);
    }
    r->fills++;
    rig_write(r, t, values);
    gr_free(values);
    return t;
}

void rig_write(struct rig *r, gr_tensor t, const double *values)
{
    gr_values_write(r->dev, t, values);
    ASSERT_OK(gr_device_sync(r->dev));
}

double *rig_read(struct rig *r, gr_tensor t)
{
    double *values = gr_values_read(r->dev, t);

    ASSERT_OK(gr_device_status(r->dev));
    return values;
}

int32_t *rig_read_i32(struct rig *r, gr_tensor t)
{
    int32_t *values = GR_NEW_ARRAY(int32_t, gr_tensor_count(t));

    gr_device_download(r->dev, values, t);
    ASSERT_OK(gr_device_sync(r->dev));
    return values;
}

/* Filled with NaN: an op that reads scratch it has not written shows it. */
void rig_set_workspace(struct rig *r, int64_t bytes)
{
    gr_device_arena_release(r->dev, &r->workspace);
    ASSERT_OK(gr_device_arena_create(r->dev, &r->workspace, "workspace", bytes + guard_bytes));
    r->workspace_bytes = bytes;
    gr_values_poison(r->dev, gr_tensor_1d(r->workspace.base, GR_U8, bytes + guard_bytes));
    gr_device_set_workspace(r->dev, r->workspace.base, bytes);
}

double rig_factor_rounding(const struct rig *r, enum gr_dtype dtype)
{
    return gr_device_factor_rounding(r->dev, dtype);
}

void rig_assert_close(const char *what, const double *found, const double *expected, int64_t count,
                      double tolerance)
{
    rig_assert_stored(what, GR_F32, found, expected, count, tolerance);
}

void rig_assert_stored(const char *what, enum gr_dtype dtype, const double *found,
                       const double *expected, int64_t count, double tolerance)
{
    double largest = 0;

    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (int64_t i = 0; i < count; i++) {
        double allowed = tolerance * largest + gr_value_half_unit(dtype, expected[i]);

        ASSERT_MSG(fabs(found[i] - expected[i]) <= allowed,
                   "%s %s: element %" PRId64 " is %.9g, expected %.9g (off by %g of the largest)",
                   gr_dtype_name(dtype), what, i, found[i], expected[i],
                   fabs(found[i] - expected[i]) / largest);
    }
}

/* The bytes of the rig's arena after `body`; the caller frees. */
static unsigned char *run_body(void (*body)(struct rig *r), const char *isa, int threads,
                               int64_t *bytes)
{
    struct rig r;
    unsigned char *memory;

    rig_open(&r, isa, threads);
    body(&r);
    ASSERT_OK(gr_device_sync(r.dev));
    *bytes = r.arena.used;
    memory = gr_alloc(*bytes, 1);
    gr_device_download(r.dev, memory, gr_tensor_1d(r.arena.base, GR_U8, *bytes));
    ASSERT_OK(gr_device_sync(r.dev));
    rig_close(&r);
    return memory;
}

/* Other runs of the body leave the same bits: `threads` of them, on `isa`. */
static void assert_same(void (*body)(struct rig *r), const char *isa, int threads,
                        const unsigned char *expected, int64_t bytes)
{
    int64_t found_bytes = 0;
    unsigned char *found = run_body(body, isa, threads, &found_bytes);

    ASSERT_INT(found_bytes, bytes);
    for (int64_t b = 0; b < bytes; b++)
        if (found[b] != expected[b])
            ASSERT_MSG(false, "byte %" PRId64 " of %" PRId64 " differs on %s with %d threads", b,
                       bytes, isa, threads);
    gr_free(found);
}

void rig_assert_same_bits(void (*body)(struct rig *r), bool on_all_devices)
{
    static const int threads[] = {2, 3, 5};
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        int64_t bytes = 0;
        unsigned char *alone = run_body(body, isa, 1, &bytes);

        /* a GPU has no such threads: once more is enough */
        for (int64_t t = 0; t < (rig_is_cuda() ? 1 : GR_COUNT(threads)); t++)
            assert_same(body, isa, threads[t], alone, bytes);
        if (rig_is_cuda() && on_all_devices)
            assert_same(body, "cpu", 1, alone, bytes);
        gr_free(alone);
    }
}
