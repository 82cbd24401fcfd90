/* One stream of events, many sinks: terminal, metrics.jsonl, more later.  The loop emits; a thread
 * of the stream hands each event to every sink in turn through a bounded queue.  A sink can fail
 * (it is then dropped with one warning); it never stops or slows a run, and never calls MPI. */
#ifndef GR_TRAINER_EVENTS_H
#define GR_TRAINER_EVENTS_H

#include "kernels/base/status.h"

#include <stdint.h>

/* Metric names, once: [a-z0-9_]+.  name, unit or "", digits after the point for people */
#define GR_METRIC_LIST(X)                                                                          \
    X(train_loss, "", 4)                                                                           \
    X(eval_loss, "", 4)                                                                            \
    X(learning_rate, "", 8)                                                                        \
    X(grad_norm, "", 4)                                                                            \
    X(tokens_per_s, "tokens/s", 0)                                                                 \
    X(step_time_ms, "ms", 1)                                                                       \
    X(supervised_tokens, "tokens", 0)

enum gr_metric {
#define X(name, unit, digits) GR_METRIC_##name,
    GR_METRIC_LIST(X)
#undef X
        GR_METRIC_COUNT
};
const char *gr_metric_name(enum gr_metric metric);

enum gr_event_kind {
    GR_EVENT_BEGIN, /* total_steps is known */
    GR_EVENT_STEP,  /* metrics of a training step */
    GR_EVENT_EVAL,  /* metrics of an evaluation */
    GR_EVENT_END    /* the run is over */
};
struct gr_event {
    enum gr_event_kind kind;
    int trial; /* 0 in an ordinary run */
    int64_t step, total_steps;
    int64_t term;  /* number of this start of the run, 1 for now */
    double epoch;  /* 1.5: in the middle of the second */
    double unix_s; /* filled by gr_events_emit */
    bool has[GR_METRIC_COUNT];
    double value[GR_METRIC_COUNT];
};
static inline void gr_event_set(struct gr_event *event, enum gr_metric metric, double value)
{
    event->has[metric] = true;
    event->value[metric] = value;
}

struct gr_sink;
struct gr_sink_ops {
    const char *name;
    gr_status (*write)(struct gr_sink *, const struct gr_event *event);
    gr_status (*flush)(struct gr_sink *); /* all written so far is on the disk */
    void (*destroy)(struct gr_sink *);
};
struct gr_sink {
    const struct gr_sink_ops *ops;
};

struct gr_events;

/* Takes the sinks over.  The queue and its thread start here. */
gr_status gr_events_create(struct gr_events **events);
void gr_events_add_sink(struct gr_events *events, struct gr_sink *sink); /* before the first emit */
/* Never blocks: a full queue drops the oldest GR_EVENT_STEP and counts it. */
void gr_events_emit(struct gr_events *events, const struct gr_event *event);
/* Waits until every sink has everything emitted so far on the disk. */
void gr_events_flush(struct gr_events *events);
void gr_events_destroy(struct gr_events *events); /* flushes, joins, destroys the sinks */

/* A progress bar on a terminal, plain lines elsewhere; on stderr. */
struct gr_sink *gr_sink_terminal_create(bool is_terminal);
/* One JSON object per event, appended to `path`.  Errors: ERR_USAGE (cannot be created). */
gr_status gr_sink_jsonl_create(struct gr_sink **sink, const char *path);

#endif
