/* Uploads on the emulated GPU: what is larger than all pinned memory arrives whole, the caller's
 * copy is taken before the call returns, and the host waits for a slot, not for a tensor. */
#include "kernels/base/alloc.h"
#include "tests/cuda/counter.h"
#include "tests/cuda/layout.h"
#include "tests/test.h"

enum { SLOTS = 4, SLOT_BYTES = 8 << 20 }; /* of pinned memory: kernels/cuda/cuda.h */

static struct counter emu;

/* Of the plug-in, which a device has opened. */
static void start_counting(void)
{
    emu = counter_of_plugin();
    emu.count(1);
}

static unsigned char byte_at(int64_t i)
{
    return (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 20) * 101);
}

/* t is uploaded from bytes that are overwritten before anything is waited for. */
static void check_upload(struct gr_device *dev, gr_tensor t)
{
    int64_t bytes = gr_tensor_count(t) * gr_dtype_bytes(t.dtype), wrong = 0;
    unsigned char *data = gr_alloc(bytes, 1);

    for (int64_t i = 0; i < bytes; i++)
        data[i] = byte_at(i);
    gr_device_upload(dev, t, data);
    for (int64_t i = 0; i < bytes; i++)
        data[i] = 0xee;
    gr_device_download(dev, data, t);
    ASSERT_OK(gr_device_sync(dev));
    for (int64_t i = 0; i < bytes; i++)
        wrong += data[i] != byte_at(i);
    ASSERT_MSG(wrong == 0, "%" PRId64 " of %" PRId64 " bytes are wrong", wrong, bytes);
    gr_free(data);
}

TEST(cuda_upload_beyond_all_slots_arrives_whole)
{
    enum { ODD = 13, ROWS = 5000, COLUMNS = 4099, STRIDE = 4104, LONG = SLOT_BYTES / 2 + 24 };
    struct gr_device *dev;
    struct gr_arena arena;
    gr_tensor rows;

    ASSERT_OK(gr_device_create(&dev, "cuda", 1, NULL));
    ASSERT_OK(gr_device_arena_create(dev, &arena, "test", (int64_t)(SLOTS + 2) * SLOT_BYTES));
    check_upload(dev, gr_tensor_1d(arena.base, GR_U8, (SLOTS + 1) * SLOT_BYTES + ODD));
    rows = gr_tensor_2d(arena.base, GR_BF16, ROWS, STRIDE); /* as a weight that is joined */
    check_upload(dev, gr_tensor_columns(rows, 0, COLUMNS));
    rows = gr_tensor_2d(arena.base, GR_BF16, 3, LONG + 8); /* each row is more than a slot */
    check_upload(dev, gr_tensor_columns(rows, 0, LONG));
    gr_device_arena_release(dev, &arena);
    gr_device_destroy(dev);
}

/* One wait for each slot that is used again: whoever waited after each piece or not at all would be
 * noticed here. */
TEST(cuda_upload_waits_for_slots_alone)
{
    enum { PIECE = 1 << 20, PIECES = 48 };
    struct gr_device *dev;
    struct gr_arena arena;
    unsigned char *data = gr_alloc(PIECE, 1);
    int64_t expected = PIECES * (int64_t)PIECE / SLOT_BYTES - SLOTS;

    memset(data, 1, PIECE);
    ASSERT_OK(gr_device_create(&dev, "cuda", 1, NULL));
    ASSERT_OK(gr_device_arena_create(dev, &arena, "test", PIECE));
    start_counting();
    for (int i = 0; i < PIECES; i++)
        gr_device_upload(dev, gr_tensor_1d(arena.base, GR_U8, PIECE), data);
    ASSERT_INT(emu.host().waits, expected);
    ASSERT_INT(emu.host().allocations, 0);
    ASSERT_OK(gr_device_sync(dev));
    gr_device_arena_release(dev, &arena);
    gr_device_destroy(dev);
    gr_free(data);
}

/* Whether this process has the file mapped. */
static bool is_mapped(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[1024];
    bool found = false;

    ASSERT(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        found = found || strstr(line, name) != NULL;
    fclose(maps);
    return found;
}

/* The golden model fits into one slot. */
static void check_loading(bool joined)
{
    static const char *const keys[OPEN_KEYS];
    enum { WAITS = 3 /* for the tables of RoPE, the adapter and its moments */ };
    struct engine_rig e;
    struct gr_update update;

    choose_layout(joined);
    open_model(&e, "cuda", "llama", keys);
    ASSERT(is_mapped("llama/model.safetensors"));
    start_counting();
    engine_rig_prepare(&e, 1);
    ASSERT_INT(e.engine.is_joined, joined);
    ASSERT_INT(emu.host().waits, WAITS);
    ASSERT(!is_mapped("llama/model.safetensors") && !is_mapped("graft-weights"));
    engine_rig_step(&e, &update, 1); /* what is computed with is on the device */
    ASSERT(update.loss > 0 && update.grad_norm > 0);
    engine_rig_close(&e);
}

TEST(cuda_upload_of_a_model_waits_for_no_tensor)
{
    check_loading(true);
    check_loading(false);
}
