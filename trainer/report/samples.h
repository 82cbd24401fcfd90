/* Samples for the report: what the base model and the adapter say to a few prompts of the data, the
 * likeliest token each time.  Bounded in number, length and time. */
#ifndef GR_TRAINER_REPORT_SAMPLES_H
#define GR_TRAINER_REPORT_SAMPLES_H

#include "data/store/store.h"
#include "trainer/report/record.h"
#include "trainer/run/engine.h"
#include "trainer/run/inputs.h"

enum gr_sample_text {
    GR_SAMPLE_PROMPT,
    GR_SAMPLE_EXPECTED, /* what the document says there */
    GR_SAMPLE_BEFORE,   /* the base model */
    GR_SAMPLE_AFTER,    /* with the adapter */
    GR_SAMPLE_TEXTS
};
struct gr_sample {
    char *text[GR_SAMPLE_TEXTS];
    bool goes_on[GR_SAMPLE_TEXTS]; /* cut: by the length, or the time */
};
struct gr_samples {
    struct gr_sample *item;
    int64_t count;
    bool from_eval; /* of the evaluation's documents, not of those trained on */
    int64_t step;   /* after so many the adapter is */
    char *why_none; /* one sentence; NULL: no reason to tell */
};
void gr_samples_release(struct gr_samples *samples);

struct gr_samples_options {
    int64_t count;  /* 0: none are made */
    double seconds; /* after so many no more tokens are made */
};

/* The engine has its weights and is not prepared, or has retired; adapter and its values
 * (elements).  Errors: those of generation; what was made before stays. */
gr_status gr_samples_make(struct gr_samples *samples, struct gr_engine *engine,
                          const struct gr_inputs *inputs, struct gr_adapter *adapter,
                          const float *values, const struct gr_samples_options *options);

/* The same for a run directory: reads the model, the data and the adapter of the finished run, or
 * of its newest good checkpoint.  The paths are those of its configuration.
 * Errors: of all those parts, and ERR_NOT_FOUND when there is no checkpoint yet. */
gr_status gr_samples_of_run(struct gr_samples *samples, struct gr_store *store,
                            const struct gr_run_record *record,
                            const struct gr_samples_options *options);

#endif
