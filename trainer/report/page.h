/* report.html: one page that tells a run, without scripts and without anything from elsewhere. */
#ifndef GR_TRAINER_REPORT_PAGE_H
#define GR_TRAINER_REPORT_PAGE_H

#include "trainer/report/record.h"
#include "trainer/report/samples.h"

/* Appends the page.  samples: NULL for none; program: what wrote the page, "graft 0.1.0". */
void gr_report_page(struct gr_buffer *html, const struct gr_run_record *record,
                    const struct gr_samples *samples, const char *url, const char *program);

#endif
