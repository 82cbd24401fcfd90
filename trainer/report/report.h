/* The report of a run: report.html in its directory, an export that no part of the commit protocol
 * looks at.  `graft train` writes it at the end of a run, `graft report` at any time. */
#ifndef GR_TRAINER_REPORT_H
#define GR_TRAINER_REPORT_H

#include "trainer/report/samples.h"

struct gr_report_options {
    const char *program; /* who writes it: "graft 0.1.0" */
    const char *path;    /* where to; NULL: the run directory */
    struct gr_samples_options samples;
};

/* Reads the run directory, makes samples if the model is there, writes the page.  Samples that
 * cannot be made are a sentence on the page and a warning.
 * Errors: those of gr_run_record_read, and what the place it goes to refuses. */
gr_status gr_report_of_run(struct gr_store *store, const struct gr_report_options *options);

/* The end of a training: the I/O rank's engine, with its adapter.  First the page, then, which may
 * take options->samples.seconds, the page with samples.  The engine retires.  A failure is a
 * warning: the run is finished. */
void gr_report_after_training(struct gr_store *store, struct gr_engine *engine,
                              const struct gr_inputs *inputs,
                              const struct gr_report_options *options);

#endif
