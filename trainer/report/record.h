/* What a run directory tells about its run: read for the report, at any time, whether the run is
 * finished, going on or dead.  Reads only; what is missing or damaged is left out and counted. */
#ifndef GR_TRAINER_REPORT_RECORD_H
#define GR_TRAINER_REPORT_RECORD_H

#include "data/store/store.h"
#include "trainer/config.h"
#include "trainer/events/events.h"
#include "trainer/report/chart.h"
#include "trainer/state/term.h"

/* One start of the run. */
struct gr_record_start {
    struct gr_term term;    /* from its term object */
    struct gr_event begin;  /* its first line of metrics; kind STEP: there is none */
    double first_s, last_s; /* of its lines */
};

struct gr_run_record {
    char *run_id, *dtype, *model_hash; /* of run.json; NULL: not told */
    int64_t total_steps;

    bool has_config; /* config.yaml can be read */
    struct gr_config config;
    struct gr_buffer config_yaml; /* as it stands there */

    struct gr_record_start
        *start; /* [starts] that went on from a checkpoint or from the beginning */
    int64_t starts;

    struct gr_points metric[GR_METRIC_COUNT]; /* those of steps and evaluations */
    int64_t last_step;                        /* of the metrics */
    double last_s;                            /* when that was; 0: no metrics */
    double epoch;
    double seconds; /* spent between the first and the last line of each start */
    double tokens;  /* trained on: exact where every step was logged, else from those that were */
    bool logs_every_step;
    int64_t damaged_lines;
    int64_t term; /* of the last line: one of a lower term behind it is a fenced writer's */

    bool is_done;         /* done.json is there */
    int64_t done_step;    /* what it says; 0: it cannot be read */
    int64_t durable_step; /* where the next start goes on; not looked for when the run is done */
};

/* Errors: ERR_NOT_FOUND when there is no run.json, ERR_DATA when it is damaged, and what the store
 * refuses.  *record must be released even then. */
gr_status gr_run_record_read(struct gr_run_record *record, struct gr_store *store);
void gr_run_record_release(struct gr_run_record *record);

/* How far the run has come: what done.json says, or else the metrics. */
int64_t gr_run_record_step(const struct gr_run_record *record);
/* The start whose metrics were written last; NULL: there is none. */
const struct gr_event *gr_run_record_begin(const struct gr_run_record *record);
/* The evaluation that was the best so far; false: there was none. */
bool gr_run_record_best(struct gr_point *best, const struct gr_run_record *record);

#endif
