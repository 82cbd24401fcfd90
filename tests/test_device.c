/* Devices: opening, forcing an instruction set, arenas, copies and the sticky failure. */
#include "kernels/backend.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/rig.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>

static void assert_refused(const char *kind, const char *isa, gr_status expected, const char *word)
{
    struct gr_device *dev = NULL;

    ASSERT_INT(gr_device_create(&dev, kind, 1, isa), expected);
    ASSERT(dev == NULL);
    ASSERT_MSG(strstr(gr_error_message(), word) != NULL, "\"%s\" does not say \"%s\"",
               gr_error_message(), word);
    ASSERT(gr_error_hint()[0] != '\0');
    gr_error_clear();
    gr_device_destroy(dev);
}

TEST(device_unknown_kind_or_isa_refused)
{
    ASSERT(setenv("GRAFT_CUDA_PLUGIN", "none", 1) == 0);
    assert_refused("gpu", NULL, GR_ERR_USAGE, "found gpu");
    assert_refused("cpu", "v5", GR_ERR_USAGE, "found v5");
    assert_refused("cuda", NULL, GR_ERR_DEVICE, "CUDA plug-in");
}

/* Linux may keep a program from using the tiles of AMX. */
TEST(device_without_leave_for_tiles_takes_the_next_isa)
{
#ifdef __x86_64__
    struct gr_device *dev = NULL;

    gr_test_forbid(SYS_arch_prctl, EPERM);
    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    ASSERT(strcmp(gr_device_isa(dev), "v4amx") != 0);
    gr_device_destroy(dev);
    assert_refused("cpu", "v4amx", GR_ERR_DEVICE, "expected v4amx");
#endif
}

TEST(device_auto_takes_best_isa)
{
    struct gr_device *dev = NULL;

    ASSERT(setenv("GRAFT_CUDA_PLUGIN", "none", 1) == 0);
    ASSERT_OK(gr_device_create(&dev, "auto", 3, NULL));
    ASSERT_TEXT(gr_device_name(dev), "cpu");
    ASSERT_TEXT(gr_device_isa(dev), rig_isa(0));
    ASSERT_INT(gr_device_threads(dev), 3);
    gr_device_destroy(dev);
}

/* Each instruction set has a table of its own, and no entry of it is missing. */
TEST(device_every_isa_table_is_complete)
{
    const char *isa;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        struct gr_device *dev = NULL;

        ASSERT_OK(gr_device_create(&dev, "cpu", 1, isa));
        ASSERT_TEXT(gr_device_isa(dev), isa);
#define X(type, name, parameters) ASSERT_MSG(dev->ops->name != NULL, "%s has no %s", isa, #name);
        GR_BACKEND_LIST(X)
#undef X
        gr_device_destroy(dev);
    }
}

TEST(device_arena_zeroed_aligned_and_released)
{
    struct gr_device *dev = NULL;
    struct gr_arena arena;

    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    ASSERT_OK(gr_device_arena_create(dev, &arena, "state", 100000));
    ASSERT(!gr_arena_measures(&arena));
    ASSERT_INT(arena.capacity, 100000);
    ASSERT_INT((intptr_t)arena.base % GR_ARENA_ALIGN, 0);
    for (int i = 0; i < 100000; i++)
        ASSERT(arena.base[i] == 0);
    gr_device_arena_release(dev, &arena);
    ASSERT(arena.base == NULL);
    gr_device_arena_release(dev, &arena); /* twice is fine */
    ASSERT_OK(gr_device_arena_create(dev, &arena, "empty", 0));
    ASSERT(!gr_arena_measures(&arena));
    gr_device_arena_release(dev, &arena);
    gr_device_destroy(dev);
}

TEST(device_arena_too_large_names_arena)
{
    struct gr_device *dev = NULL;
    struct gr_arena arena;

    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    ASSERT_INT(gr_device_arena_create(dev, &arena, "weights", INT64_MAX / 2), GR_ERR_DEVICE);
    ASSERT(strstr(gr_error_message(), "weights") != NULL);
    ASSERT(strstr(gr_error_message(), "4611686018427387903") != NULL);
    gr_device_destroy(dev);
}

/* rig_close checks that the gaps stayed. */
TEST(device_copies_skip_gaps_of_views)
{
    struct rig r;
    gr_tensor t;
    double values[12], *found;

    for (int i = 0; i < 12; i++)
        values[i] = i + 1;
    rig_open(&r, NULL, 1);
    t = rig_tensor(&r, gr_tensor_3d(NULL, GR_F32, 3, 2, 2), 3);
    rig_write(&r, t, values);
    found = rig_read(&r, t);
    rig_assert_close("t", found, values, 12, 0);
    gr_free(found);
    rig_close(&r);
}

TEST(device_first_failure_sticks)
{
    struct gr_device *dev = NULL;

    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    ASSERT_OK(gr_device_status(dev));
    gr_device_fail(dev, GR_ERR_BUG, "first", "wrong (found %d)", 1);
    gr_device_fail(dev, GR_ERR_DEVICE, "second", "wrong (found %d)", 2);
    ASSERT(!gr_error_is_set()); /* reported when asked */
    ASSERT_INT(gr_device_status(dev), GR_ERR_BUG);
    ASSERT_TEXT(gr_error_message(), "first: wrong (found 1)");
    gr_error_clear();
    ASSERT_INT(gr_device_sync(dev), GR_ERR_BUG);
    ASSERT_TEXT(gr_error_message(), "first: wrong (found 1)");
    gr_device_destroy(dev);
}

TEST(device_failure_keeps_earlier_message)
{
    struct gr_device *dev = NULL;

    ASSERT_OK(gr_device_create(&dev, "cpu", 1, NULL));
    gr_fail(GR_ERR_DATA, "file", NULL, "is bad");
    gr_device_fail(dev, GR_ERR_BUG, "op", "is bad too");
    ASSERT_TEXT(gr_error_message(), "file: is bad");
    gr_error_clear();
    ASSERT_INT(gr_device_status(dev), GR_ERR_BUG);
    ASSERT_TEXT(gr_error_message(), "op: is bad too");
    gr_device_destroy(dev);
}
