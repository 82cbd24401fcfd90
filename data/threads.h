/* Work shared by a few threads for a moment: hashing files, converting weights.  Not for arithmetic
 * of the model, which has OpenMP. */
#ifndef GR_DATA_THREADS_H
#define GR_DATA_THREADS_H

/* Runs work(context) on `threads` threads at once, the caller's among them, and waits for all. They
 * share the work out themselves, by a counter in the context.  Where the system refuses a thread,
 * the others do its part. */
void gr_run_threads(int threads, void (*work)(void *context), void *context);

#endif
