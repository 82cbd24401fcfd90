/* Learning-rate schedules.  See schedule.h. */
#include "trainer/run/schedule.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

static const char *const names[GR_SCHEDULE_COUNT] = {
#define X(name, words) #name,
    GR_SCHEDULE_LIST(X)
#undef X
};

bool gr_schedule_find(enum gr_schedule_kind *kind, const char *name)
{
    for (int i = 0; i < GR_SCHEDULE_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            *kind = (enum gr_schedule_kind)i;
            return true;
        }
    }
    return false;
}

int64_t gr_schedule_warmup_steps(double warmup_ratio, int64_t total_steps)
{
    return (int64_t)ceil(warmup_ratio * (double)total_steps);
}

double gr_schedule_factor(enum gr_schedule_kind kind, int64_t steps_done, int64_t warmup_steps,
                          int64_t total_steps)
{
    int64_t steps = total_steps - warmup_steps;
    double divisor = steps > 1 ? (double)steps : 1.0;

    if (kind == GR_SCHEDULE_constant)
        return 1.0;
    if (steps_done < warmup_steps)
        return (double)steps_done / (double)warmup_steps;
    switch (kind) {
    case GR_SCHEDULE_linear:
        return fmax(0.0, (double)(total_steps - steps_done) / divisor);
    case GR_SCHEDULE_cosine:
        return fmax(0.0, 0.5 * (1.0 + cos(pi * ((double)(steps_done - warmup_steps) / divisor))));
    default:
        return 1.0;
    }
}
