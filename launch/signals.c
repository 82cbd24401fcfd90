/* Signals of the program.  See signals.h. */
#include "launch/signals.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t is_stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    is_stop_requested = 1;
}

static void set_handler(int signal_number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART; /* files and libraries need not know about it */
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

void gr_signals_init(void)
{
    set_handler(SIGXFSZ, SIG_IGN);
}

void gr_signals_catch_stop(void)
{
    set_handler(SIGUSR1, request_stop);
    set_handler(SIGTERM, request_stop);
    set_handler(SIGPIPE, SIG_IGN);
}

bool gr_stop_requested(void)
{
    return is_stop_requested != 0;
}
