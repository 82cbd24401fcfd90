/* Saving off the step: two host buffers and a thread.  The loop copies a snapshot and trains on;
 * the thread makes it durable and collects garbage.  Only the I/O rank has one.  The protocol
 * itself is trainer/state; this adds the thread and nothing else. */
#ifndef GR_TRAINER_SAVER_H
#define GR_TRAINER_SAVER_H

#include "trainer/events/events.h"
#include "trainer/run/snapshot.h"

struct gr_saver;

/* Borrows everything.  From now on only the saver's thread uses `state`, until gr_saver_drain.
 * Errors: those of gr_thread_start. */
gr_status gr_saver_create(struct gr_saver **saver, struct gr_state *state, struct gr_events *events,
                          const struct gr_adapter *adapter, const char *base_model);
void gr_saver_destroy(struct gr_saver *saver); /* drains; NULL is fine */

/* Host memory a saver takes: two buffers, and the packed objects of one.  The exports at the end,
 * which need less, come when it is gone. */
int64_t gr_saver_bytes(int64_t elements);

/* A snapshot to fill; NULL when both buffers are in use and `waits` is false (the periodic save is
 * skipped: logged and counted). */
struct gr_snapshot *gr_saver_take(struct gr_saver *saver, bool waits);
/* Hands the filled snapshot over. */
void gr_saver_submit(struct gr_saver *saver, struct gr_snapshot *snapshot);
/* Takes back a snapshot that could not be filled: nothing is saved. */
void gr_saver_give_back(struct gr_saver *saver, struct gr_snapshot *snapshot);
/* Waits until everything handed over is durable.  Errors: those of gr_state_save. */
gr_status gr_saver_drain(struct gr_saver *saver);
/* The first failure so far, with its message on this thread; OK while there is none. */
gr_status gr_saver_status(struct gr_saver *saver);

#endif
