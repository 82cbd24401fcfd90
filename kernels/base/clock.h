/* Time.  Never used to decide what is computed, only to report and to pace. */
#ifndef GR_BASE_CLOCK_H
#define GR_BASE_CLOCK_H

#include <stdint.h>

int64_t gr_clock_ns(void);     /* monotonic */
int64_t gr_processor_ns(void); /* that this process's threads have used */
double gr_clock_unix_s(void);  /* seconds since 1970, for people and files */
void gr_sleep_ns(int64_t ns);

#endif
