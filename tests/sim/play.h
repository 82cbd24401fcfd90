/* One play: a run of training in a hostile world, from one seed.
 *
 * Jobs start trainers again and again, as a scheduler would; a trainer is the product's protocol
 * code around a fake training, whose every step hashes its history.  Others take the run over while
 * the first still lives, pin, read, and damage.  When all is over a last trainer must find the
 * finished state and leave no garbage.  Called by test_sim.c. */
#ifndef GR_TESTS_SIM_PLAY_H
#define GR_TESTS_SIM_PLAY_H

#include <stdbool.h>
#include <stdint.h>

/* What happened, summed over plays: shows that the plays are about something. */
#define SIM_COUNTS(X)                                                                              \
    X(starts)                                                                                      \
    X(resumes)                                                                                     \
    X(crashes)                                                                                     \
    X(saves)                                                                                       \
    X(retries)                                                                                     \
    X(fenced)                                                                                      \
    X(collects)                                                                                    \
    X(pins)                                                                                        \
    X(loads)                                                                                       \
    X(damages)
struct sim_counts {
#define X(name) int64_t name;
    SIM_COUNTS(X)
#undef X
};

/* NULL: every invariant held; else what did not, which the caller frees. */
char *sim_play(uint64_t seed, bool is_verbose, struct sim_counts *counts);

#endif
