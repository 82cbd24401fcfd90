/* Timing ops and phases by moments of the device's stream, whatever these are (backend.h).  See
 * profile.h. */
#include "kernels/profile.h"

#include "kernels/backend.h"
#include "kernels/base/alloc.h"

#include <string.h>

struct gr_profile_span {
    int64_t *ns; /* where its time is added */
    int64_t begin, end;
};

struct gr_profile *gr_device_profile_start(struct gr_device *dev)
{
    struct gr_profile *p = dev->profile;

    if (p == NULL) {
        p = dev->profile = GR_NEW(struct gr_profile);
        p->threads = dev->threads;
        p->thread = GR_NEW_ARRAY(struct gr_thread_profile, dev->threads);
        p->phase_began = dev->ops->moment(dev);
    }
    return p;
}

void gr_profile_destroy(struct gr_profile *p)
{
    if (p == NULL)
        return;
    gr_free(p->thread);
    gr_free(p->span);
    gr_free(p);
}

static void add_span(struct gr_profile *p, int64_t *ns, int64_t begin, int64_t end)
{
    if (p->spans == p->room) {
        p->room = p->room == 0 ? 1024 : 2 * p->room;
        p->span = gr_realloc(p->span, p->room, sizeof *p->span);
    }
    p->span[p->spans++] = (struct gr_profile_span){ns, begin, end};
}

int64_t gr_profile_begin(struct gr_device *dev)
{
    return dev->profile == NULL ? 0 : dev->ops->moment(dev);
}

void gr_profile_end(struct gr_device *dev, enum gr_profiled_op op, int64_t begin, double bytes)
{
    struct gr_profile *p = dev->profile;

    if (p == NULL)
        return;
    p->op_bytes[op] += bytes;
    add_span(p, &p->op_ns[op], begin, dev->ops->moment(dev));
}

void gr_device_profile_phase(struct gr_device *dev, int phase)
{
    struct gr_profile *p = dev->profile;
    int64_t now = dev->ops->moment(dev);

    add_span(p, &p->phase_ns[phase], p->phase_began, now);
    p->phase_began = now;
}

void gr_profile_collect(struct gr_device *dev)
{
    struct gr_profile *p = dev->profile;

    if (p == NULL || dev->failure.status != GR_OK)
        return;
    for (int64_t i = 0; i < p->spans; i++)
        *p->span[i].ns += dev->ops->moments_apart(dev, p->span[i].begin, p->span[i].end);
    p->spans = 0;
    p->phase_began = dev->ops->moment_keep(dev, p->phase_began);
}

void gr_device_profile_clear(struct gr_device *dev)
{
    struct gr_profile *p = dev->profile;

    gr_device_sync(dev); /* a failure sticks */
    memset(p->op_ns, 0, sizeof p->op_ns);
    memset(p->op_bytes, 0, sizeof p->op_bytes);
    memset(p->phase_ns, 0, sizeof p->phase_ns);
    memset(p->thread, 0, (size_t)p->threads * sizeof *p->thread);
}
