/* A store in memory with the faults of a real one, for processes of a simulated world.
 *
 * One bucket is shared; every process opens it for itself, with its own chances of faults.  What is
 * assumed of any store holds here too: an object is put whole or not at all, and what was put is
 * seen by whoever asks next.  What may go wrong: an operation takes long; it fails; its answer is
 * lost, whether it took effect, did not, or will later; a put that was answered arrives a second
 * time; the process dies before or after any operation took effect, or sleeps for hours there. */
#ifndef GR_TESTS_SIM_MEM_STORE_H
#define GR_TESTS_SIM_MEM_STORE_H

#include "data/store/store.h"
#include "tests/sim/world.h"

struct sim_bucket;

/* Chances per 1,000 operations, except where it says otherwise. */
struct sim_faults {
    int fail;          /* refused at once: ERR_RETRY, no effect */
    int lose_answer;   /* took effect: ERR_RETRY all the same */
    int late_put;      /* ERR_RETRY, takes effect after late_ns at most */
    int duplicate_put; /* answered, and arrives once more after late_ns at most */
    int stall;         /* the process sleeps, stall_ns at most, before or after the effect */
    int stall_before_put_if_absent; /* the worst moment: the fence was just read */
    int64_t latency_ns;             /* of an operation, at most */
    int64_t late_ns, stall_ns;
    int64_t crash_at;              /* the operation at which the process dies; 0: never */
    void (*asleep)(void *context); /* told when a process falls asleep; NULL: nobody is */
    void *asleep_context;
};

/* Told of every put and removal that took effect, by whomever ("late" for a late arrival). */
typedef void sim_watcher(void *context, const char *who, const char *key);

struct sim_bucket *sim_bucket_create(struct sim_world *world);
void sim_bucket_destroy(struct sim_bucket *bucket);
void sim_bucket_watch(struct sim_bucket *bucket, sim_watcher *watcher, void *context);
/* For the judge: no faults, no time, no traces. */
int64_t sim_bucket_count(const struct sim_bucket *bucket);
const char *sim_bucket_key(const struct sim_bucket *bucket, int64_t index); /* sorted */
const struct gr_buffer *sim_bucket_find(const struct sim_bucket *bucket,
                                        const char *key); /* NULL */
void sim_bucket_put(struct sim_bucket *bucket, const char *key, const char *text);
/* Hostile: turns one bit over. */
void sim_bucket_damage(struct sim_bucket *bucket, const char *key, int64_t bit);

struct gr_store *sim_store_open(struct sim_bucket *bucket, struct sim_process *process,
                                const struct sim_faults *faults);

#endif
