/* Failpoints: named places of the shipped code at which a test kills, stops, delays or fails the
 * process.  GRAFT_FAIL chooses; unset, a place costs one load and one branch.
 *
 *   GRAFT_FAIL=NAME[@K]:RANK:ACTION[,...]
 *   NAME    one of the table below; `graft version --failpoints` lists them
 *   @K      acts when the place is reached for the K-th time (default 1); @*: every time
 *   RANK    the rank in the job, or * for all
 *   ACTION  kill: SIGKILL to itself; stop: SIGSTOP to itself; fail: what stands there fails;
 *           delay=MS: sleeps */
#ifndef GR_BASE_FAILPOINT_H
#define GR_BASE_FAILPOINT_H

#include "kernels/base/status.h"

/* enum, name, where it stands */
#define GR_FAILPOINT_LIST(X)                                                                       \
    X(TOKENS_DOCUMENT, "tokens.document", "a document went into a token store in the making")      \
    X(TOKENS_WRITTEN, "tokens.written", "a token store is written, what makes it count is next")   \
    X(PEERS_JOIN, "peers.join", "the devices of the ranks are about to be joined")                 \
    X(MICRO_BATCH, "micro_batch", "a micro-batch of a step is next")                               \
    X(STEP_COMPUTED, "step.computed", "this rank's micro-batches are done, the update is next")    \
    X(GRADIENTS, "gradients", "the gradients of the ranks are about to be joined")                 \
    X(STEP_UPDATED, "step.updated", "the adapter is updated, the next step is next")               \
    X(TERM_BEFORE, "term.before", "the term of this start is about to be put")                     \
    X(TERM_AFTER, "term.after", "the term of this start is put")                                   \
    X(RESUME_CHOOSE, "resume.choose", "the checkpoints are listed, one is about to be chosen")     \
    X(RESUME_OBJECT, "resume.object", "an object of the chosen checkpoint is about to be staged")  \
    X(RESUME_STAGED, "resume.staged", "the checkpoint is staged and verified, not yet swapped in") \
    X(RESUME_METRICS, "resume.metrics", "the metrics of steps that stand are about to be put")     \
    X(SAVE_BEGIN, "save.begin", "a checkpoint is about to be saved")                               \
    X(SAVE_OBJECT, "save.object", "an object of a checkpoint is about to be put")                  \
    X(SAVE_FENCE, "save.fence", "the objects are put, the fence is about to be checked")           \
    X(MANIFEST_BEFORE, "manifest.before", "a manifest is about to be put")                         \
    X(MANIFEST_AFTER, "manifest.after", "a manifest is put, not yet read back")                    \
    X(SAVE_DURABLE, "save.durable", "a manifest is read back, the durable line is next")           \
    X(GC_MANIFEST, "gc.manifest", "a manifest is deleted, its data is next")                       \
    X(GC_DATA, "gc.data", "an object of a deleted checkpoint is deleted")                          \
    X(EXPORT_WEIGHTS, "export.weights", "the adapter's weights are about to be exported")          \
    X(EXPORT_CONFIG, "export.config", "the weights are exported, the adapter's config is next")    \
    X(DONE_BEFORE, "done.before", "the adapter is exported, done.json is next")                    \
    X(DONE_AFTER, "done.after", "done.json is put")                                                \
    X(REPORT_BEGIN, "report.begin", "the run is finished, its report is next")                     \
    X(STORE_OP, "store.op", "any operation on files of a store; fail: it gives EIO")               \
    X(STORE_WRITTEN, "store.written", "an object's temporary file is written, not yet synced")     \
    X(STORE_SYNCED, "store.synced", "the temporary file is synced, its key is next")               \
    X(STORE_NAMED, "store.named", "the object has its key, its folder is not yet synced")          \
    X(STORE_DURABLE, "store.durable", "the object's folders are synced")

enum gr_failpoint {
#define X(point, name, words) GR_FAILPOINT_##point,
    GR_FAILPOINT_LIST(X)
#undef X
        GR_FAILPOINT_COUNT
};
struct gr_failpoint_info {
    const char *name, *words;
};
extern const struct gr_failpoint_info gr_failpoint_table[GR_FAILPOINT_COUNT];

/* Reads the specification (NULL: none) for the process of this rank; once, before any thread.
 * Errors: ERR_USAGE. */
gr_status gr_failpoints_init(const char *specification, int rank);

/* The place is reached.  ERR_RETRY "failpoint NAME" when told to fail, else OK. */
gr_status gr_failpoint(enum gr_failpoint point);
/* The same where a failure has a message of its own: whether to fail. */
bool gr_failpoint_fails(enum gr_failpoint point);

#endif
