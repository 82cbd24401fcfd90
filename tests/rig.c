/* See rig.h. */
#include "tests/rig.h"

#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "kernels/base/widen.h"

/* The arena is a reservation: pages nobody touches cost nothing. */
static const int64_t arena_bytes = (int64_t)256 << 20;
static const int64_t guard_bytes = 4096; /* after the workspace */

const char *rig_isa(int index)
{
#ifdef __x86_64__
    static const char *const names[] = {"v4", "v3"};
#else
    static const char *const names[] = {"baseline"};
#endif

    for (int64_t i = 0; i < GR_COUNT(names); i++) {
        struct gr_device *dev = NULL;
        gr_status status = gr_device_create(&dev, "cpu", 1, names[i]);

        /* this CPU may lack one, but graft must know it */
        ASSERT(status == GR_OK || status == GR_ERR_DEVICE);
        gr_error_clear();
        gr_device_destroy(dev);
        if (status == GR_OK && index-- == 0)
            return names[i];
    }
    return NULL;
}

void rig_open(struct rig *r, const char *isa, int threads)
{
    *r = (struct rig){0};
    ASSERT_OK(gr_device_create(&r->dev, "cpu", threads, isa));
    ASSERT_OK(gr_device_arena_create(r->dev, &r->arena, "tensors", arena_bytes));
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
    gr_device_destroy(r->dev);
}

/* Every byte ff: a NaN in each type of float. */
static void fill_bytes(struct rig *r, gr_tensor t)
{
    int64_t bytes = gr_tensor_count(t) * gr_dtype_bytes(t.dtype);
    unsigned char *fill = gr_alloc(bytes, 1);

    memset(fill, 0xff, (size_t)bytes);
    gr_device_upload(r->dev, t, fill);
    ASSERT_OK(gr_device_sync(r->dev));
    gr_free(fill);
}

gr_tensor rig_tensor(struct rig *r, gr_tensor shape, int64_t gap)
{
    int64_t n = shape.dim[0], row = gr_tensor_row_size(shape);
    gr_tensor around = gr_arena_tensor_2d(&r->arena, shape.dtype, n + 2, row + gap);
    gr_tensor view = gr_tensor_columns(gr_tensor_rows(around, 1, n + 1), gap / 2, gap / 2 + row);

    ASSERT(r->tensors < RIG_TENSORS_MAX && (shape.ndim > 1 || gap == 0));
    fill_bytes(r, around);
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
    int64_t count = gr_tensor_count(t);
    unsigned char *bytes = gr_alloc(count, (size_t)gr_dtype_bytes(t.dtype));

    for (int64_t i = 0; i < count; i++) {
        if (t.dtype == GR_F32)
            ((float *)(void *)bytes)[i] = (float)values[i];
        else if (t.dtype == GR_BF16)
            ((uint16_t *)(void *)bytes)[i] = gr_float_to_bf16((float)values[i]);
        else if (t.dtype == GR_I32)
            ((int32_t *)(void *)bytes)[i] = (int32_t)values[i];
        else
            ((double *)(void *)bytes)[i] = values[i];
    }
    gr_device_upload(r->dev, t, bytes);
    ASSERT_OK(gr_device_sync(r->dev));
    gr_free(bytes);
}

double *rig_read(struct rig *r, gr_tensor t)
{
    int64_t count = gr_tensor_count(t);
    double *values = GR_NEW_ARRAY(double, count);
    unsigned char *bytes = gr_alloc(count, (size_t)gr_dtype_bytes(t.dtype));

    gr_device_download(r->dev, bytes, t);
    ASSERT_OK(gr_device_sync(r->dev));
    for (int64_t i = 0; i < count; i++) {
        if (t.dtype == GR_F32)
            values[i] = (double)((float *)(void *)bytes)[i];
        else if (t.dtype == GR_BF16)
            values[i] = (double)gr_float_from_bf16(((uint16_t *)(void *)bytes)[i]);
        else if (t.dtype == GR_I32)
            values[i] = ((int32_t *)(void *)bytes)[i];
        else
            values[i] = ((double *)(void *)bytes)[i];
    }
    gr_free(bytes);
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
    fill_bytes(r, gr_tensor_1d(r->workspace.base, GR_U8, bytes + guard_bytes));
    gr_device_set_workspace(r->dev, r->workspace.base, bytes);
}

void rig_assert_close(const char *what, const double *found, const double *expected, int64_t count,
                      double tolerance)
{
    rig_assert_stored(what, GR_F32, found, expected, count, tolerance);
}

/* Half of the distance between neighbours around a value; of f32: nothing worth telling. */
static double half_unit(enum gr_dtype dtype, double value)
{
    enum { BF16_DIGITS = 8 };

    return dtype != GR_BF16 || value == 0 ? 0 : ldexp(0.5, ilogb(value) - (BF16_DIGITS - 1));
}

void rig_assert_stored(const char *what, enum gr_dtype dtype, const double *found,
                       const double *expected, int64_t count, double tolerance)
{
    double largest = 0;

    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (int64_t i = 0; i < count; i++) {
        double allowed = tolerance * largest + half_unit(dtype, expected[i]);

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

void rig_assert_same_bits(void (*body)(struct rig *r))
{
    static const int threads[] = {2, 3, 5};
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        int64_t bytes = 0, more = 0;
        unsigned char *alone = run_body(body, isa, 1, &bytes);

        for (int64_t t = 0; t < GR_COUNT(threads); t++) {
            unsigned char *shared = run_body(body, isa, threads[t], &more);

            ASSERT_INT(more, bytes);
            for (int64_t b = 0; b < bytes; b++)
                if (shared[b] != alone[b])
                    ASSERT_MSG(false,
                               "%s: byte %" PRId64 " of %" PRId64
                               " differs between 1 and %d threads",
                               isa, b, bytes, threads[t]);
            gr_free(shared);
        }
        gr_free(alone);
    }
}
