/* The commit protocol of a run: start, save, resume, collect garbage.  Single-threaded code over
 * two tables, a store (data/store/store.h) and a clock: no threads, no MPI, no knowledge of the
 * model.  Only the I/O rank calls it, from one thread at a time.
 *
 *   term/<n:08d>.json                  the fence: who has the last term may write
 *   objects/<step>-<term>-<uuid>/...   data, unique per attempt, never overwritten
 *   ckpt/<step:012d>-<term:08d>.json   the manifest, the commit record, put after its data
 *   bad/<manifest name>                verdict: its bytes are wrong or missing, and why
 *   pin/<manifest name>                kept until unpinned
 *
 * A start takes a term that is a fence alone, and then one with its base, the checkpoint that it
 * continues from.  A manifest (term e, step s) is live iff s <= the step of the base of every term
 * after e: what a fenced writer commits after a takeover beyond the new base is ignored, without
 * clocks or leases. */
#ifndef GR_TRAINER_STATE_H
#define GR_TRAINER_STATE_H

#include "data/hash.h"
#include "data/store/store.h"

enum {
    GR_STATE_OBJECTS = 8,          /* objects of a checkpoint, at most */
    GR_STATE_NAME_BYTES = 64,      /* of an object's name, with the NUL */
    GR_STATE_UUID_BYTES = 37,      /* 8-4-4-4-12 hexadecimal digits and the NUL */
    GR_CHECKPOINT_NAME_BYTES = 22, /* "000000000100-00000003" and the NUL */
    GR_STATE_LIMIT_LEAST = 3,      /* checkpoints kept, at least */
};

/* ---- what the protocol asks of the world ------------------------------------------------ */

struct gr_state_clock {
    double (*unix_s)(void *context);      /* for stamps, and the age of orphans */
    double (*monotonic_s)(void *context); /* for patience */
    void (*sleep_s)(void *context, double seconds);
    void (*uuid)(void *context, char text[GR_STATE_UUID_BYTES]);
    void *context;
};
struct gr_state_clock gr_state_real_clock(void);

struct gr_state_options {
    const char *run_hash; /* SHA-256 of run.json's bytes, hexadecimal (gr_state_run_hash) */
    const char *kind;     /* of the devices, for the term object: a resume elsewhere can warn */
    const char *host;
    int64_t pid, world_size;
    int64_t save_total_limit; /* >= GR_STATE_LIMIT_LEAST */
    double patience_s;        /* a request that fails is sent again for so long: then ERR_RETRY */
    bool fresh;               /* resume: never; what is there becomes history */
    struct gr_state_clock clock;
};

/* ---- a checkpoint ------------------------------------------------------------------------ */

struct gr_state_object {
    char name[GR_STATE_NAME_BYTES]; /* of letters, digits, '.', '_': "optimizer.safetensors" */
    struct gr_buffer bytes;
};
struct gr_checkpoint {
    int64_t step; /* 0: none, start at the beginning */
    int64_t epoch, epoch_first_step;
    int64_t best_step; /* 0: none yet */
    double best_loss;  /* finite where there is a best_step */
    int64_t evals_since_best;
    int64_t world_size; /* of the writer; gr_state_save takes that of its options */
    int64_t object_count;
    struct gr_state_object object[GR_STATE_OBJECTS];
};
void gr_checkpoint_release(struct gr_checkpoint *c);
/* NULL if there is no such object. */
const struct gr_buffer *gr_checkpoint_object(const struct gr_checkpoint *c, const char *name);

/* ---- the writer -------------------------------------------------------------------------- */

struct gr_state;

/* Chooses the newest live checkpoint whose bytes are all as its manifest says, loads it into *found
 * (zeroed or released before), and takes the next term with it as the base.  Wrong bytes and
 * missing objects are a verdict (bad/) and the one before is tried; a read error is none: it is
 * tried again while there is patience.  `store` and the texts of `options` must outlive the state.
 * Errors: ERR_CORRUPT when manifests exist but none is good (never a start from zero);
 * ERR_RETRY when the patience is over; what the store refuses. */
gr_status gr_state_start(struct gr_state **state, struct gr_checkpoint *found,
                         struct gr_store *store, const struct gr_state_options *options);
void gr_state_destroy(struct gr_state *state); /* NULL is fine */

int64_t gr_state_term(const struct gr_state *state);
/* The kind of devices that wrote the base; "" if there is none or it is not known. */
const char *gr_state_kind_before(const struct gr_state *state);

/* Makes *c durable: objects, then the fence, then the manifest.  OK: it is durable, and the newest.
 * A step that this term has committed already is OK at once.  Steps must not go back.
 * Errors: ERR_FENCED when another start took over (nothing more may be written);
 * ERR_RETRY when the patience is over; what the store refuses. */
gr_status gr_state_save(struct gr_state *state, const struct gr_checkpoint *c);

/* ERR_FENCED if another start took over, else OK: asked before done.json is put. */
gr_status gr_state_check_fence(struct gr_state *state);

/* Deletes what nothing needs any more.  Stays: the save_total_limit newest good checkpoints, the
 * best that any of these tells of, the pinned, the base of this term.  Goes: other manifests with
 * their data, data without manifest of this term at once and of earlier terms a day after they
 * ended. Asks everything once, without waiting; an ERR_RETRY is no harm, the next call goes on.
 * Call it after a save. */
gr_status gr_state_collect(struct gr_state *state);

/* ---- the commands: any process, with or without a running writer --------------------------- */

struct gr_checkpoint_row {
    char name[GR_CHECKPOINT_NAME_BYTES];
    int64_t step, term, bytes;
    double unix_s; /* when it was committed; 0 if the manifest cannot be read */
    bool is_live, is_pinned, is_best;
    char *bad; /* the verdict, owned; NULL: none */
};
struct gr_checkpoint_rows {
    struct gr_checkpoint_row *row; /* newest step first */
    int64_t count;
};

/* SHA-256 of run.json.  Errors: ERR_NOT_FOUND if there is none. */
gr_status gr_state_run_hash(char hash[GR_SHA256_HEX_BYTES], struct gr_store *store);
/* All checkpoints; verdicts are those that starts have left.  Errors: what the store refuses. */
gr_status gr_state_list(struct gr_checkpoint_rows *rows, struct gr_store *store);
/* The same, but every live checkpoint's bytes are read and judged; writes nothing. */
gr_status gr_state_verify(struct gr_checkpoint_rows *rows, struct gr_store *store);
/* The newest live one without a verdict; NULL: there is none. */
const struct gr_checkpoint_row *gr_checkpoint_rows_newest(const struct gr_checkpoint_rows *rows);
void gr_checkpoint_rows_release(struct gr_checkpoint_rows *rows);

/* `which`: a name, or a step (then the live checkpoint of that step).
 * Errors: ERR_USAGE for text that is neither, ERR_NOT_FOUND. */
gr_status gr_state_find(char name[GR_CHECKPOINT_NAME_BYTES], struct gr_store *store,
                        const char *which);
/* Loads and verifies the checkpoint of this name.  Errors: ERR_NOT_FOUND, ERR_DATA with the reason,
 * what the store refuses. */
gr_status gr_state_load(struct gr_checkpoint *c, struct gr_store *store, const char *name);
/* Errors: ERR_NOT_FOUND if it or its data is not there, or went away meanwhile (the pin is taken
 * back); ERR_DATA if its manifest is damaged. */
gr_status gr_state_pin(struct gr_store *store, const char *name);
gr_status gr_state_unpin(struct gr_store *store, const char *name);
/* Errors: ERR_USAGE for the three newest good ones, the best and pinned ones. */
gr_status gr_state_remove(struct gr_store *store, const char *name);

#endif
