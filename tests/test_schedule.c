/* Learning-rate factors against transformers' schedulers. */
#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/run/schedule.h"

/* Printed by transformers 5.23.0, torch 2.15:
 *
 *   import math, torch, warnings; warnings.simplefilter("ignore")
 *   from transformers import get_scheduler
 *   for name in ("linear", "cosine", "constant", "constant_with_warmup"):
 *       for S, ratio in ((10, 0.0), (10, 0.25), (125, 0.03), (1, 0.5)):
 *           o = torch.optim.SGD([torch.zeros(1)], lr=1.0)
 *           s = get_scheduler(name, o, math.ceil(S * ratio), S)
 *           for k in range(S):
 *               if k in (0, 1, 2, 3, 4, 9, 62, 124):
 *                   print("{%s, %d, %g, %d, %r}," % (name, S, ratio, k, s.get_last_lr()[0]))
 *               o.step(); s.step()
 */
static const struct {
    enum gr_schedule_kind kind;
    int64_t total_steps;
    double warmup_ratio;
    int64_t steps_done;
    double factor;
} expected[] = {
    {GR_SCHEDULE_linear, 10, 0, 0, 1.0},
    {GR_SCHEDULE_linear, 10, 0, 1, 0.9},
    {GR_SCHEDULE_linear, 10, 0, 2, 0.8},
    {GR_SCHEDULE_linear, 10, 0, 3, 0.7},
    {GR_SCHEDULE_linear, 10, 0, 4, 0.6},
    {GR_SCHEDULE_linear, 10, 0, 9, 0.1},
    {GR_SCHEDULE_linear, 10, 0.25, 0, 0.0},
    {GR_SCHEDULE_linear, 10, 0.25, 1, 0.3333333333333333},
    {GR_SCHEDULE_linear, 10, 0.25, 2, 0.6666666666666666},
    {GR_SCHEDULE_linear, 10, 0.25, 3, 1.0},
    {GR_SCHEDULE_linear, 10, 0.25, 4, 0.8571428571428571},
    {GR_SCHEDULE_linear, 10, 0.25, 9, 0.14285714285714285},
    {GR_SCHEDULE_linear, 125, 0.03, 0, 0.0},
    {GR_SCHEDULE_linear, 125, 0.03, 1, 0.25},
    {GR_SCHEDULE_linear, 125, 0.03, 2, 0.5},
    {GR_SCHEDULE_linear, 125, 0.03, 3, 0.75},
    {GR_SCHEDULE_linear, 125, 0.03, 4, 1.0},
    {GR_SCHEDULE_linear, 125, 0.03, 9, 0.9586776859504132},
    {GR_SCHEDULE_linear, 125, 0.03, 62, 0.5206611570247934},
    {GR_SCHEDULE_linear, 125, 0.03, 124, 0.008264462809917356},
    {GR_SCHEDULE_linear, 1, 0.5, 0, 0.0},
    {GR_SCHEDULE_cosine, 10, 0, 0, 1.0},
    {GR_SCHEDULE_cosine, 10, 0, 1, 0.9755282581475768},
    {GR_SCHEDULE_cosine, 10, 0, 2, 0.9045084971874737},
    {GR_SCHEDULE_cosine, 10, 0, 3, 0.7938926261462366},
    {GR_SCHEDULE_cosine, 10, 0, 4, 0.6545084971874737},
    {GR_SCHEDULE_cosine, 10, 0, 9, 0.024471741852423234},
    {GR_SCHEDULE_cosine, 10, 0.25, 0, 0.0},
    {GR_SCHEDULE_cosine, 10, 0.25, 1, 0.3333333333333333},
    {GR_SCHEDULE_cosine, 10, 0.25, 2, 0.6666666666666666},
    {GR_SCHEDULE_cosine, 10, 0.25, 3, 1.0},
    {GR_SCHEDULE_cosine, 10, 0.25, 4, 0.9504844339512095},
    {GR_SCHEDULE_cosine, 10, 0.25, 9, 0.04951556604879048},
    {GR_SCHEDULE_cosine, 125, 0.03, 0, 0.0},
    {GR_SCHEDULE_cosine, 125, 0.03, 1, 0.25},
    {GR_SCHEDULE_cosine, 125, 0.03, 2, 0.5},
    {GR_SCHEDULE_cosine, 125, 0.03, 3, 0.75},
    {GR_SCHEDULE_cosine, 125, 0.03, 4, 1.0},
    {GR_SCHEDULE_cosine, 125, 0.03, 9, 0.9957927432338332},
    {GR_SCHEDULE_cosine, 125, 0.03, 62, 0.5324316849938715},
    {GR_SCHEDULE_cosine, 125, 0.03, 124, 0.00016851734824380182},
    {GR_SCHEDULE_cosine, 1, 0.5, 0, 0.0},
    {GR_SCHEDULE_constant, 10, 0, 0, 1.0},
    {GR_SCHEDULE_constant, 10, 0, 1, 1.0},
    {GR_SCHEDULE_constant, 10, 0, 2, 1.0},
    {GR_SCHEDULE_constant, 10, 0, 3, 1.0},
    {GR_SCHEDULE_constant, 10, 0, 4, 1.0},
    {GR_SCHEDULE_constant, 10, 0, 9, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 0, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 1, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 2, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 3, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 4, 1.0},
    {GR_SCHEDULE_constant, 10, 0.25, 9, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 0, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 1, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 2, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 3, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 4, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 9, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 62, 1.0},
    {GR_SCHEDULE_constant, 125, 0.03, 124, 1.0},
    {GR_SCHEDULE_constant, 1, 0.5, 0, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 0, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 1, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 2, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 3, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 4, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0, 9, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 0, 0.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 1, 0.3333333333333333},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 2, 0.6666666666666666},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 3, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 4, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 10, 0.25, 9, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 0, 0.0},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 1, 0.25},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 2, 0.5},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 3, 0.75},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 4, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 9, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 62, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 125, 0.03, 124, 1.0},
    {GR_SCHEDULE_constant_with_warmup, 1, 0.5, 0, 0.0},
};

TEST(schedule_factors_are_those_of_transformers)
{
    for (int64_t i = 0; i < GR_COUNT(expected); i++) {
        int64_t warmup =
            gr_schedule_warmup_steps(expected[i].warmup_ratio, expected[i].total_steps);
        double factor = gr_schedule_factor(expected[i].kind, expected[i].steps_done, warmup,
                                           expected[i].total_steps);

        ASSERT_MSG(fabs(factor - expected[i].factor) <= 1e-15,
                   "kind %d, S %d, ratio %g, after %d steps: %.17g, expected %.17g",
                   (int)expected[i].kind, (int)expected[i].total_steps, expected[i].warmup_ratio,
                   (int)expected[i].steps_done, factor, expected[i].factor);
    }
}

TEST(schedule_warmup_steps_round_up)
{
    ASSERT_INT(gr_schedule_warmup_steps(0.0, 125), 0);
    ASSERT_INT(gr_schedule_warmup_steps(0.03, 125), 4);
    ASSERT_INT(gr_schedule_warmup_steps(0.5, 4), 2);
    ASSERT_INT(gr_schedule_warmup_steps(0.001, 10), 1);
}

TEST(schedule_after_the_last_step_is_zero_not_negative)
{
    ASSERT_NEAR(gr_schedule_factor(GR_SCHEDULE_linear, 12, 2, 10), 0.0, 0.0);
    ASSERT_NEAR(gr_schedule_factor(GR_SCHEDULE_cosine, 10, 2, 10), 0.0, 0.0);
}

TEST(schedule_names_are_found)
{
    enum gr_schedule_kind kind = GR_SCHEDULE_COUNT;

    ASSERT(gr_schedule_find(&kind, "constant_with_warmup"));
    ASSERT_INT(kind, GR_SCHEDULE_constant_with_warmup);
    ASSERT(!gr_schedule_find(&kind, "polynomial"));
    ASSERT_INT(kind, GR_SCHEDULE_constant_with_warmup);
}
