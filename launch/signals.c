/* Signals of the program.  See signals.h. */
#include "launch/signals.h"

#include <signal.h>
#include <time.h>

static bool is_stop_requested;

static sigset_t stop_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    return set;
}

void gr_signals_init(void)
{
    signal(SIGXFSZ, SIG_IGN);
}

void gr_signals_hold_stop(void)
{
    sigset_t set = stop_signals();

    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool gr_stop_requested(void)
{
    const struct timespec at_once = {0};
    sigset_t set = stop_signals();

    while (sigtimedwait(&set, NULL, &at_once) > 0)
        is_stop_requested = true;
    return is_stop_requested;
}

void gr_signals_release_stop(void)
{
    sigset_t set = stop_signals();

    signal(SIGUSR1, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
