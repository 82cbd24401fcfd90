/* Learning-rate schedules: pure functions of the step number, named and defined as transformers'
 * lr_scheduler_type.  Update k (from 1) uses gr_schedule_factor(k - 1). */
#ifndef GR_TRAINER_SCHEDULE_H
#define GR_TRAINER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

/* name, factor after the warm-up; x goes from 0 at its end to 1 at the last step */
#define GR_SCHEDULE_LIST(X)                                                                        \
    X(linear, "1 - x")                                                                             \
    X(cosine, "(1 + cos(pi x)) / 2")                                                               \
    X(constant, "1, and no warm-up")                                                               \
    X(constant_with_warmup, "1")

enum gr_schedule_kind {
#define X(name, words) GR_SCHEDULE_##name,
    GR_SCHEDULE_LIST(X)
#undef X
        GR_SCHEDULE_COUNT
};
/* False: no schedule of that name. */
bool gr_schedule_find(enum gr_schedule_kind *kind, const char *name);

/* Steps of warm-up: ceil(warmup_ratio * total_steps). */
int64_t gr_schedule_warmup_steps(double warmup_ratio, int64_t total_steps);

/* What the learning rate is multiplied with after `steps_done` steps of total_steps, in [0, 1].
 * During the warm-up steps_done / warmup_steps.  Source: transformers/optimization.py. */
double gr_schedule_factor(enum gr_schedule_kind kind, int64_t steps_done, int64_t warmup_steps,
                          int64_t total_steps);

#endif
