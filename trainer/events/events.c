/* The event stream: a bounded queue between the loop, which must never wait, and a thread that
 * hands the events to the sinks, which may be slow or fail.  Knows no format; see the sink_*.c
 * files. Called by the loop; the thread touches nothing but queue and sinks. */
#include "trainer/events/events.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/thread.h"

#include <string.h>

enum { QUEUE_LENGTH = 256, MAX_SINKS = 8 };

const struct gr_metric_info gr_metric_table[GR_METRIC_COUNT] = {
#define X(name, label, format, unit) {#name, label, format, unit},
    GR_METRIC_LIST(X)
#undef X
};

struct gr_events {
    pthread_mutex_t lock;
    pthread_cond_t work; /* for the thread: an event, a flush to do, or the end */
    pthread_cond_t done; /* for who waits in flush */
    pthread_t thread;
    bool is_running, stops;
    struct gr_event queue[QUEUE_LENGTH]; /* a ring: `count` events from `first` on */
    int first, count;
    int64_t dropped;
    int64_t flushes_asked, flushes_done;
    struct gr_sink *sinks[MAX_SINKS]; /* NULL: failed and gone; the thread's after the first emit */
    int sink_count;
};

static struct gr_event *queued(struct gr_events *events, int index)
{
    return &events->queue[(events->first + index) % QUEUE_LENGTH];
}

static void remove_queued(struct gr_events *events, int index)
{
    for (int i = index; i + 1 < events->count; i++)
        *queued(events, i) = *queued(events, i + 1);
    events->count--;
}

/* A sink that failed is left out from now on. */
static void drop_sink(struct gr_events *events, int index)
{
    struct gr_sink *sink = events->sinks[index];

    gr_warn("%s gets no more metrics: %s", sink->ops->name, gr_error_message());
    gr_error_clear();
    sink->ops->destroy(sink);
    events->sinks[index] = NULL;
}

static void write_to_sinks(struct gr_events *events, const struct gr_event *event)
{
    for (int i = 0; i < events->sink_count; i++) {
        struct gr_sink *sink = events->sinks[i];

        if (sink != NULL && sink->ops->write(sink, event) != GR_OK)
            drop_sink(events, i);
    }
}

static void flush_sinks(struct gr_events *events)
{
    for (int i = 0; i < events->sink_count; i++) {
        struct gr_sink *sink = events->sinks[i];

        if (sink != NULL && sink->ops->flush(sink) != GR_OK)
            drop_sink(events, i);
    }
}

static void *run(void *argument)
{
    struct gr_events *events = argument;

    pthread_mutex_lock(&events->lock);
    for (;;) {
        if (events->count > 0) {
            struct gr_event event = *queued(events, 0);

            events->first = (events->first + 1) % QUEUE_LENGTH;
            events->count--;
            pthread_mutex_unlock(&events->lock);
            write_to_sinks(events, &event);
            pthread_mutex_lock(&events->lock);
        } else if (events->flushes_done < events->flushes_asked) {
            int64_t asked = events->flushes_asked;

            pthread_mutex_unlock(&events->lock);
            flush_sinks(events);
            pthread_mutex_lock(&events->lock);
            events->flushes_done = asked;
            pthread_cond_broadcast(&events->done);
        } else if (events->stops) {
            break;
        } else {
            pthread_cond_wait(&events->work, &events->lock);
        }
    }
    pthread_mutex_unlock(&events->lock);
    return NULL;
}

gr_status gr_events_create(struct gr_events **events)
{
    struct gr_events *e = GR_NEW(struct gr_events);
    gr_status status;

    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->done, NULL);
    *events = e;
    status = gr_thread_start(&e->thread, run, e, "events");
    e->is_running = status == GR_OK;
    if (status != GR_OK) {
        gr_events_destroy(e);
        *events = NULL;
    }
    return status;
}

void gr_events_add_sink(struct gr_events *events, struct gr_sink *sink)
{
    pthread_mutex_lock(&events->lock);
    GR_CHECK(events->sink_count < MAX_SINKS, "sink %s", sink->ops->name);
    events->sinks[events->sink_count++] = sink;
    pthread_mutex_unlock(&events->lock);
}

/* Makes room in a full queue: the oldest step event goes; without one, the oldest of all. */
static void drop_oldest(struct gr_events *events)
{
    int index = 0;

    while (index < events->count && queued(events, index)->kind != GR_EVENT_STEP)
        index++;
    remove_queued(events, index < events->count ? index : 0);
    events->dropped++;
}

void gr_events_emit(struct gr_events *events, const struct gr_event *event)
{
    pthread_mutex_lock(&events->lock);
    if (events->count == QUEUE_LENGTH)
        drop_oldest(events);
    events->count++;
    *queued(events, events->count - 1) = *event;
    queued(events, events->count - 1)->unix_s = gr_clock_unix_s();
    pthread_cond_signal(&events->work);
    pthread_mutex_unlock(&events->lock);
}

void gr_events_flush(struct gr_events *events)
{
    int64_t mine;

    pthread_mutex_lock(&events->lock);
    mine = ++events->flushes_asked;
    pthread_cond_signal(&events->work);
    while (events->flushes_done < mine)
        pthread_cond_wait(&events->done, &events->lock);
    pthread_mutex_unlock(&events->lock);
}

int64_t gr_events_dropped(struct gr_events *events)
{
    int64_t dropped;

    pthread_mutex_lock(&events->lock);
    dropped = events->dropped;
    pthread_mutex_unlock(&events->lock);
    return dropped;
}

void gr_events_destroy(struct gr_events *events)
{
    if (events == NULL)
        return;
    if (events->is_running) {
        gr_events_flush(events);
        pthread_mutex_lock(&events->lock);
        events->stops = true;
        pthread_cond_signal(&events->work);
        pthread_mutex_unlock(&events->lock);
        pthread_join(events->thread, NULL);
    }
    for (int i = 0; i < events->sink_count; i++) {
        if (events->sinks[i] != NULL)
            events->sinks[i]->ops->destroy(events->sinks[i]);
    }
    if (events->dropped > 0)
        gr_warn("%lld lines of metrics are missing: they came faster than they could be written",
                (long long)events->dropped);
    pthread_cond_destroy(&events->done);
    pthread_cond_destroy(&events->work);
    pthread_mutex_destroy(&events->lock);
    gr_free(events);
}
