/* The stash of the emulated GPU: copies beside the stream arrive, and a wait that is missing is
 * found. */
#include "kernels/base/alloc.h"
#include "kernels/ops.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 5000, ROUNDS = 4, FOUND = 99 /* the emulator's exit code */ };

struct bench {
    struct gr_device *dev;
    struct gr_arena arena, stash;
    gr_tensor place, other; /* of the device */
    gr_tensor kept[GR_STASH_LANES];
};

static void open_bench(struct bench *b)
{
    ASSERT_OK(gr_device_create(&b->dev, "cuda", 1, NULL));
    ASSERT_OK(gr_device_arena_create(b->dev, &b->arena, "test", 3 * COUNT * 4));
    ASSERT_OK(gr_device_stash_create(b->dev, &b->stash, "test", 3 * COUNT * 4));
    b->place = gr_arena_tensor_1d(&b->arena, GR_F32, COUNT);
    b->other = gr_arena_tensor_1d(&b->arena, GR_F32, COUNT);
    for (int i = 0; i < GR_STASH_LANES; i++)
        b->kept[i] = gr_arena_tensor_1d(&b->stash, GR_F32, COUNT);
}

static void close_bench(struct bench *b)
{
    gr_device_stash_release(b->dev, &b->stash);
    gr_device_arena_release(b->dev, &b->arena);
    gr_device_destroy(b->dev);
}

static void fill(struct bench *b, gr_tensor t, float value)
{
    float values[COUNT];

    for (int i = 0; i < COUNT; i++)
        values[i] = value + (float)i;
    gr_device_upload(b->dev, t, values);
}

static void assert_filled(struct bench *b, gr_tensor t, float value)
{
    float values[COUNT];

    gr_device_download(b->dev, values, t);
    ASSERT_OK(gr_device_sync(b->dev));
    for (int i = 0; i < COUNT; i++)
        ASSERT_MSG(values[i] == value + (float)i, "element %d is %g, expected %g", i,
                   (double)values[i], (double)(value + (float)i));
}

/* Out and back, over and over, before anything is waited for: what waits in the stash is neither
 * overwritten too soon nor fetched too late. */
TEST(cuda_stash_gives_back_what_it_got)
{
    struct bench b;

    open_bench(&b);
    for (int round = 0; round < ROUNDS; round++) {
        for (int lane = 0; lane < GR_STASH_LANES; lane++) {
            fill(&b, b.place, (float)(100 * round + lane));
            gr_device_stash_out(b.dev, b.kept[lane], b.place, lane);
            gr_device_stash_wait(b.dev, lane);
        }
        gr_zero(b.dev, b.place);
        gr_device_stash_in(b.dev, b.place, b.kept[0], 0);
        gr_device_stash_in(b.dev, b.other, b.kept[1], 1);
        gr_device_stash_wait(b.dev, 0);
        gr_add(b.dev, b.place, b.place, b.place);
        gr_device_stash_wait(b.dev, 1);
    }
    assert_filled(&b, b.other, 100 * (ROUNDS - 1) + 1);
    close_bench(&b);
}

static void overwrite_too_soon(struct bench *b)
{
    gr_device_stash_out(b->dev, b->kept[0], b->place, 0);
    gr_zero(b->dev, b->place);
}

static void read_too_soon(struct bench *b)
{
    gr_device_stash_out(b->dev, b->kept[0], b->place, 0);
    gr_device_stash_wait(b->dev, 0);
    gr_device_stash_in(b->dev, b->other, b->kept[0], 0);
    gr_add(b->dev, b->place, b->place, b->other);
}

static void wait_for_other_lane(struct bench *b)
{
    gr_device_stash_out(b->dev, b->kept[1], b->place, 1);
    gr_device_stash_wait(b->dev, 0);
    gr_zero(b->dev, b->place);
}

/* In a process of its own, which the emulator ends. */
static void assert_found(const char *what, void (*fault)(struct bench *b))
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct bench b;

        open_bench(&b);
        fill(&b, b.place, 1);
        fill(&b, b.other, 2);
        ASSERT_OK(gr_device_sync(b.dev));
        fault(&b);
        gr_device_sync(b.dev);
        close_bench(&b);
        _exit(0);
    }
    ASSERT(child > 0 && waitpid(child, &status, 0) == child);
    ASSERT_MSG(WIFEXITED(status) && WEXITSTATUS(status) == FOUND, "%s is not found: status %d",
               what, status);
}

TEST(cuda_stash_missing_wait_is_found)
{
    const char *plugin = getenv("GRAFT_CUDA_PLUGIN");

    if (plugin == NULL || strstr(plugin, "/checked/") == NULL)
        SKIP("only the checked plug-in looks at every access");
    assert_found("a place that is overwritten before its copy has gone", overwrite_too_soon);
    assert_found("a place that is read before its copy has come", read_too_soon);
    assert_found("a wait for the other lane", wait_for_other_lane);
}
