/* One stream of events, many sinks: terminal, metrics.jsonl, more later.  The loop emits; a thread
 * of the stream hands each event to every sink in turn through a bounded queue.  A sink can fail
 * (it is then dropped with one warning); it never stops or slows a run, and never calls MPI. */
#ifndef GR_TRAINER_EVENTS_H
#define GR_TRAINER_EVENTS_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

#include <stdint.h>

/* The metrics, once.  name ([a-z0-9_]+, in files and for servers); for people: label, format of the
 * value (NULL: not shown), unit, as in "loss 2.1034", "1523 tokens/s". */
#define GR_METRIC_LIST(X)                                                                          \
    X(train_loss, "loss", "%.4f", "")                                                              \
    X(eval_loss, "eval_loss", "%.4f", "")                                                          \
    X(learning_rate, "lr", "%.3g", "")                                                             \
    X(grad_norm, "grad_norm", "%.3g", "")                                                          \
    X(tokens_per_s, "", "%.0f", "tokens/s")                                                        \
    X(step_time_ms, "", NULL, "ms")                                                                \
    X(supervised_tokens, "", NULL, "tokens")                                                       \
    /* of a start: what is trained on what, by whom */                                             \
    X(train_documents, "", NULL, "documents")                                                      \
    X(train_tokens, "", NULL, "tokens")                                                            \
    X(train_supervised_tokens, "", NULL, "tokens")                                                 \
    X(eval_documents, "", NULL, "documents")                                                       \
    X(eval_tokens, "", NULL, "tokens")                                                             \
    X(eval_supervised_tokens, "", NULL, "tokens")                                                  \
    X(trained_parameters, "", NULL, "parameters")                                                  \
    X(ranks, "", NULL, "processes")                                                                \
    X(threads, "", NULL, "threads")

enum gr_metric {
#define X(name, label, format, unit) GR_METRIC_##name,
    GR_METRIC_LIST(X)
#undef X
        GR_METRIC_COUNT
};
struct gr_metric_info {
    const char *name, *label, *format, *unit;
};
extern const struct gr_metric_info gr_metric_table[GR_METRIC_COUNT];

enum gr_event_kind {
    GR_EVENT_BEGIN, /* total_steps is known; metrics of the start */
    GR_EVENT_STEP,  /* metrics of a training step */
    GR_EVENT_EVAL,  /* metrics of an evaluation */
    GR_EVENT_END    /* the run is over */
};
struct gr_event {
    enum gr_event_kind kind;
    int trial; /* 0 in an ordinary run */
    int64_t step, total_steps;
    int64_t term;  /* number of this start of the run */
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

/* The queue and its thread start here.  Errors: ERR_DEVICE (no thread to be had). */
gr_status gr_events_create(struct gr_events **events);
/* Takes the sink over.  Before the first emit. */
void gr_events_add_sink(struct gr_events *events, struct gr_sink *sink);
/* Never blocks: a full queue drops the oldest GR_EVENT_STEP and counts it. */
void gr_events_emit(struct gr_events *events, const struct gr_event *event);
/* Waits until every sink has everything emitted so far on the disk. */
void gr_events_flush(struct gr_events *events);
int64_t gr_events_dropped(struct gr_events *events); /* events no sink saw */
void gr_events_destroy(struct gr_events *events);    /* flushes, joins, destroys the sinks */

/* On stderr: a progress bar where that is seen on a terminal (whose descriptor tells its width;
 * TERM is not "dumb"), plain lines where it is not (-1). */
struct gr_sink *gr_sink_terminal_create(int terminal);
/* One JSON object per event, appended to `path`.  Errors: ERR_USAGE (cannot be created). */
gr_status gr_sink_jsonl_create(struct gr_sink **sink, const char *path);
/* Appends to `kept` the lines of such a file (text; NULL: none) that stand where the run goes on
 * from `step`: whole ones up to it, but not those of a fenced writer, behind a later term's. */
void gr_jsonl_keep(struct gr_buffer *kept, const char *lines, int64_t step);

#endif
