/* Moments of the stream, for the profile, and ranges that NVIDIA's tools show.
 *
 * A moment is an event: recording it waits for nothing, and a step takes as many as it needs, which
 * are used again when they have been read. */
#include "kernels/cuda/cuda.h"

/* NVIDIA's header opens what it needs at run time, and only under a tool; emu.h has the same. */
#if defined(GR_EMULATED)
#define HAS_NVTX 1
#elif __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define HAS_NVTX 1
#endif

struct gr_cuda_moments {
    cudaEvent_t *event; /* [room] */
    int64_t count, room;
};

/* One more event; false: there is none. */
static bool grow(struct gr_device *dev, struct gr_cuda_moments *m)
{
    m->event = (cudaEvent_t *)gr_realloc(m->event, m->room + 1, sizeof *m->event);
    if (!gr_cuda_ok(dev, "profile", cudaEventCreate(&m->event[m->room])))
        return false;
    m->room++;
    return true;
}

int64_t gr_cuda_moment(struct gr_device *dev)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    struct gr_cuda_moments *m;

    if (c->moments == NULL)
        c->moments = GR_NEW(struct gr_cuda_moments);
    m = c->moments;
    if (dev->failure.status != GR_OK || (m->count == m->room && !grow(dev, m)))
        return 0;
    gr_cuda_ok(dev, "profile", cudaEventRecord(m->event[m->count], c->stream));
    return m->count++;
}

int64_t gr_cuda_moments_apart(struct gr_device *dev, int64_t begin, int64_t end)
{
    const struct gr_cuda_moments *m = gr_cuda_of(dev)->moments;
    float ms = 0;

    gr_cuda_ok(dev, "profile", cudaEventElapsedTime(&ms, m->event[begin], m->event[end]));
    return (int64_t)((double)ms * 1e6);
}

int64_t gr_cuda_moment_keep(struct gr_device *dev, int64_t kept)
{
    struct gr_cuda_moments *m = gr_cuda_of(dev)->moments;
    cudaEvent_t event = m->event[kept];

    m->event[kept] = m->event[0];
    m->event[0] = event;
    m->count = 1;
    return 0;
}

void gr_cuda_timer_close(struct gr_cuda *c)
{
    if (c->moments == NULL)
        return;
    for (int64_t i = 0; i < c->moments->room; i++)
        cudaEventDestroy(c->moments->event[i]);
    gr_free(c->moments->event);
    gr_free(c->moments);
}

void gr_cuda_range_begin(struct gr_device *dev, const char *name)
{
    (void)dev;
    (void)name;
#ifdef HAS_NVTX
    nvtxRangePushA(name);
#endif
}

void gr_cuda_range_end(struct gr_device *dev)
{
    (void)dev;
#ifdef HAS_NVTX
    nvtxRangePop();
#endif
}
