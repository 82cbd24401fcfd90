/* One simulated world: virtual time, chance from one seed, and processes that are coroutines.
 *
 * Exactly one process runs at a time, and it runs until it waits; then the earliest event of the
 * world is next.  All chance comes from the world's generator, so a seed replays its run exactly.
 * A process that crashes is not torn down: sim_wait and the store stop working for it, and its code
 * unwinds through its own error paths, seen by nobody.  That way nothing leaks and those paths are
 * tested too.  Knows nothing of checkpoints. */
#ifndef GR_TESTS_SIM_WORLD_H
#define GR_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_MS     INT64_C(1000000)
#define SIM_SECOND (1000 * SIM_MS)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_HOUR   (60 * SIM_MINUTE)

struct sim_world;
struct sim_process;
typedef void sim_action(struct sim_world *world, void *context);
typedef void sim_body(struct sim_process *process, void *context);

struct sim_world *sim_world_create(uint64_t seed, bool is_verbose);
void sim_world_destroy(
    struct sim_world *world); /* frees the contexts given to sim_after, sim_spawn */

int64_t sim_now(const struct sim_world *world);             /* ns since the world began */
int64_t sim_random(struct sim_world *world, int64_t below); /* uniform in [0, below) */
bool sim_chance(struct sim_world *world, int per_mille);

/* Runs `action` after a while, or a process from then on.  `context` comes from gr_alloc, or is
 * NULL, and is freed by the world. */
void sim_after(struct sim_world *world, int64_t delay_ns, sim_action *action, void *context);
void sim_spawn(struct sim_world *world, const char *name, int64_t delay_ns, sim_body *body,
               void *context);
/* Until nothing is left to happen, a violation was found, or `until_ns` is reached (a livelock: a
 * violation). */
void sim_world_run(struct sim_world *world, int64_t until_ns);

/* Prints a line of the trace if the world is verbose; `process` may be NULL. */
void sim_trace(struct sim_world *world, const struct sim_process *process, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An invariant does not hold: remembers the first one; the world stops at the next event. */
void sim_violation(struct sim_world *world, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const char *sim_violation_text(const struct sim_world *world); /* NULL: none */

/* ---- called inside a process ------------------------------------------------------------- */

struct sim_world *sim_world_of(const struct sim_process *process);
const char *sim_name(const struct sim_process *process);
void sim_wait(struct sim_process *process, int64_t ns); /* others run meanwhile */
void sim_crash(struct sim_process *process);
bool sim_is_dead(const struct sim_process *process);
/* What the process' own clock says now, as an offset to sim_now; a dead one's runs away, so that
 * whoever waits for a deadline gives up. */
int64_t sim_clock_offset(const struct sim_process *process);
void sim_set_clock_offset(struct sim_process *process, int64_t ns);

#endif
