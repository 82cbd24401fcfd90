/* Refusing what is not there yet.  See not_yet.h. */
#include "trainer/run/not_yet.h"

#include "kernels/base/alloc.h"

#include <string.h>

gr_status gr_refuse_not_yet(const struct gr_config *c)
{
    const struct {
        const char *key;
        bool asks;
        const char *neutral;
    } rows[] = {
        {"device.memory", c->device.memory > 0, "auto"},
        {"device.recompute", strcmp(c->device.recompute, "all") == 0, "auto or none"},
        {"dist.backend", strcmp(c->dist.backend, "nccl") == 0, "auto or mpi"},
    };

    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        if (rows[i].asks)
            return gr_fail(GR_ERR_USAGE, rows[i].key, "leave the key out",
                           "not supported yet (expected %s)", rows[i].neutral);
    }
    return GR_OK;
}
