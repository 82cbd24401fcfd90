/* The thread that makes snapshots durable.  See saver.h. */
#include "trainer/run/saver.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/thread.h"

enum { BUFFERS = 2 };
enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_SUBMITTED };

struct slot {
    struct gr_snapshot snapshot;
    enum slot_state state;
    int64_t order; /* of submission: the older is saved first */
};

struct gr_saver {
    struct gr_state *state;
    struct gr_events *events;
    const struct gr_adapter *adapter;
    const char *base_model;
    struct gr_checkpoint checkpoint; /* the thread's own: packed bytes, memory used again */

    pthread_t thread;
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t changed;
    struct slot slot[BUFFERS];
    int64_t submissions, skipped;
    bool is_running, ends;
    struct gr_error failure; /* of the thread; status OK while there is none */
};

/* The metrics up to the step stand on the disk before the manifest that says it was reached. */
static gr_status save(struct gr_saver *s, const struct gr_snapshot *snapshot)
{
    gr_status status = GR_OK;

    gr_events_flush(s->events);
    gr_snapshot_pack(&s->checkpoint, snapshot, s->adapter, s->base_model);
    GR_TRY(gr_state_save(s->state, &s->checkpoint));
    gr_note("durable: step %lld", (long long)snapshot->step);
    status = gr_state_collect(s->state);
    if (status != GR_OK && status != GR_ERR_FENCED) { /* what stays too long does no harm */
        gr_warn("older checkpoints stay for now: %s", gr_error_message());
        gr_error_clear();
        status = GR_OK;
    }
out:
    return status;
}

static struct slot *oldest_submitted(struct gr_saver *s)
{
    struct slot *oldest = NULL;

    for (int i = 0; i < BUFFERS; i++) {
        if (s->slot[i].state == SLOT_SUBMITTED &&
            (oldest == NULL || s->slot[i].order < oldest->order))
            oldest = &s->slot[i];
    }
    return oldest;
}

static void *run_thread(void *context)
{
    struct gr_saver *s = context;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct slot *slot = oldest_submitted(s);
        gr_status status = GR_OK;

        if (slot == NULL && s->ends)
            break;
        if (slot == NULL) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        if (s->failure.status == GR_OK) { /* after a failure nothing more is written */
            pthread_mutex_unlock(&s->lock);
            status = save(s, &slot->snapshot);
            pthread_mutex_lock(&s->lock);
        }
        if (status != GR_OK)
            s->failure = gr_error_take();
        slot->state = SLOT_FREE;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int64_t gr_saver_bytes(int64_t elements)
{
    return (BUFFERS + 1) * gr_mul(elements, 3 * (int64_t)sizeof(float)); /* param and two moments */
}

gr_status gr_saver_create(struct gr_saver **out, struct gr_state *state, struct gr_events *events,
                          const struct gr_adapter *adapter, const char *base_model)
{
    struct gr_saver *s = GR_NEW(struct gr_saver);
    gr_status status;

    s->state = state;
    s->events = events;
    s->adapter = adapter;
    s->base_model = base_model;
    for (int i = 0; i < BUFFERS; i++)
        gr_snapshot_init(&s->slot[i].snapshot, adapter->elements);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    *out = s;
    status = gr_thread_start(&s->thread, run_thread, s, "checkpoints");
    s->is_running = status == GR_OK;
    if (status != GR_OK) {
        gr_saver_destroy(s);
        *out = NULL;
    }
    return status;
}

void gr_saver_destroy(struct gr_saver *s)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->ends = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->is_running)
        pthread_join(s->thread, NULL);
    for (int i = 0; i < BUFFERS; i++)
        gr_snapshot_release(&s->slot[i].snapshot);
    gr_checkpoint_release(&s->checkpoint);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    gr_free(s);
}

static struct slot *find_free(struct gr_saver *s)
{
    for (int i = 0; i < BUFFERS; i++) {
        if (s->slot[i].state == SLOT_FREE)
            return &s->slot[i];
    }
    return NULL;
}

struct gr_snapshot *gr_saver_take(struct gr_saver *s, bool waits)
{
    struct slot *slot;

    pthread_mutex_lock(&s->lock);
    while ((slot = find_free(s)) == NULL && waits)
        pthread_cond_wait(&s->changed, &s->lock);
    if (slot != NULL)
        slot->state = SLOT_FILLING;
    else
        s->skipped++;
    pthread_mutex_unlock(&s->lock);
    if (slot == NULL)
        gr_warn("a save was skipped: two earlier ones are still being written (%lld so far)",
                (long long)s->skipped);
    return slot == NULL ? NULL : &slot->snapshot;
}

static void give(struct gr_saver *s, const struct gr_snapshot *snapshot, enum slot_state state)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < BUFFERS; i++) {
        if (&s->slot[i].snapshot == snapshot) {
            s->slot[i].state = state;
            s->slot[i].order = s->submissions++;
        }
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void gr_saver_submit(struct gr_saver *s, struct gr_snapshot *snapshot)
{
    give(s, snapshot, SLOT_SUBMITTED);
}

void gr_saver_give_back(struct gr_saver *s, struct gr_snapshot *snapshot)
{
    give(s, snapshot, SLOT_FREE);
}

gr_status gr_saver_drain(struct gr_saver *s)
{
    pthread_mutex_lock(&s->lock);
    while (oldest_submitted(s) != NULL)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return gr_saver_status(s);
}

gr_status gr_saver_status(struct gr_saver *s)
{
    struct gr_error failure;

    pthread_mutex_lock(&s->lock);
    failure = s->failure;
    pthread_mutex_unlock(&s->lock);
    if (failure.status != GR_OK)
        gr_error_put(&failure);
    return failure.status;
}
