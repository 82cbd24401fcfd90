/* A run and its directory: who may write there, where training goes on from, what is saved when,
 * and how it ends.  All ranks call these together; only the I/O rank touches files. */
#ifndef GR_TRAINER_PERSIST_H
#define GR_TRAINER_PERSIST_H

#include "trainer/run/engine.h"
#include "trainer/run/saver.h"
#include "trainer/state/identity.h"
#include "trainer/state/lock.h"
#include "trainer/state/run_files.h"

struct gr_persist {
    const struct gr_config *config;
    struct gr_comm *comm;
    bool is_io_rank;
    /* the I/O rank's; NULL elsewhere */
    const struct gr_run_identity *identity;
    struct gr_store *store;
    struct gr_run_lock *lock;
    struct gr_state *state;
    struct gr_saver *saver;
    float *parent;        /* adapter of train.init_from once it is read; NULL: not yet, or none */
    int64_t last_save_ns; /* when the last save was handed over */
    int64_t base_step;    /* resumed from: durable already */

    int64_t term; /* number of this start */
    /* best evaluation so far, the same on all ranks */
    int64_t best_step, evals_since_best;
    double best_loss;
};

/* Opens the output and takes its lock.  *is_done: the run is finished and its adapter is there as
 * done.json says (exported again from a checkpoint if not, as is best/); then nothing was started.
 * identity: borrowed until gr_persist_resume, which claims the output for it; a start that fails
 * before leaves it to any other.  Errors: ERR_USAGE (another run), ERR_FENCED (in use by another
 * process). */
gr_status gr_persist_open(bool *is_done, struct gr_persist *persist, const struct gr_config *config,
                          struct gr_comm *comm, const struct gr_run_identity *identity,
                          const struct gr_adapter *adapter, bool takeover);

/* Puts run.json and config.yaml, takes a term and the newest good checkpoint into the engine
 * (initialised already), on every rank.  *step: updates done, 0 without a checkpoint.  Errors:
 * those of gr_run_identity_claim, gr_state_start and, for a new run, gr_parent_read; ERR_DATA when
 * the checkpoint is not this adapter's. */
gr_status gr_persist_resume(struct gr_persist *persist, int64_t *step, struct gr_engine *engine,
                            const char *device_kind);

/* A run with a parent that begins at step 0 starts from its adapter: read by the I/O rank, the same
 * at every start.  Errors: those of gr_parent_read and gr_run_claim_parent. */
gr_status gr_persist_init_from(struct gr_persist *persist, struct gr_engine *engine);
/* Starts the saver, on every rank; events: of the I/O rank.  Errors: those of gr_saver_create. */
gr_status gr_persist_begin(struct gr_persist *persist, struct gr_engine *engine,
                           struct gr_events *events);

/* Whether the I/O rank wants a save after this step: by steps or by its clock.  Ranks agree on it
 * before gr_persist_save. */
bool gr_persist_wants_save(const struct gr_persist *persist, int64_t step);
/* A failure of the saver's thread, if any. */
gr_status gr_persist_status(struct gr_persist *persist);
/* Notes an evaluation; *is_best: it is the best so far. */
void gr_persist_note_eval(struct gr_persist *persist, bool *is_best, int64_t step, double loss);
/* train.early_stopping_patience evaluations in a row were no better than the best: the run ends
 * here. Part of the saved state, so the same after a resume. */
bool gr_persist_is_exhausted(const struct gr_persist *persist);
/* Hands the state after `step` updates to the saver.  is_periodic: skipped when both buffers are in
 * use; otherwise it waits for a buffer, and is durable on return.  Errors: as gr_state_save. */
gr_status gr_persist_save(struct gr_persist *persist, struct gr_engine *engine, int64_t step,
                          bool is_periodic);

/* The final checkpoint durable, the exports (best/ if there was an evaluation), the fence,
 * done.json.  Errors: those of gr_persist_save, gr_run_export and gr_run_put_done; ERR_FENCED. */
gr_status gr_persist_finish(struct gr_persist *persist, struct gr_engine *engine, int64_t step,
                            double train_loss);
void gr_persist_release(struct gr_persist *persist);

#endif
