/* Threads for a moment.  See threads.h. */
#include "data/threads.h"

#include "kernels/base/alloc.h"

#include <pthread.h>

struct job {
    void (*work)(void *context);
    void *context;
};

static void *run_job(void *argument)
{
    const struct job *job = argument;

    job->work(job->context);
    return NULL;
}

void gr_run_threads(int threads, void (*work)(void *context), void *context)
{
    struct job job = {work, context};
    pthread_t *other = GR_NEW_ARRAY(pthread_t, threads);
    int started = 0;

    while (started < threads - 1 && pthread_create(&other[started], NULL, run_job, &job) == 0)
        started++;
    work(context);
    for (int i = 0; i < started; i++)
        pthread_join(other[i], NULL);
    gr_free(other);
}
