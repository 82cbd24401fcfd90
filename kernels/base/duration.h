/* Durations for people. */
#ifndef GR_BASE_DURATION_H
#define GR_BASE_DURATION_H

/* How long something took or would take, as exactly as one wants to know: "0.35 s", "4.2 s",
 * "41 s", "12 min", "3 h 20 min".  Less than nothing counts as nothing.  Returns text. */
const char *gr_duration_words(char text[32], double seconds);
/* Time that runs while one looks at it: "0:07", "12:34", "1:02:03".  Returns text. */
const char *gr_duration_clock(char text[32], double seconds);

#endif
