/* Not a test: what test_comm_lost starts under mpirun.  helper_lost_peer HOW: the ranks exchange in
 * rounds until the last rank does HOW: stop (SIGSTOP), kill (SIGKILL), bug (a GR_CHECK fails),
 * astray (goes on to another phase), or all (nobody does; everybody leaves well). */
#include "kernels/base/log.h"
#include "trainer/run/comm.h"

#include <signal.h>
#include <string.h>

enum { ROUNDS = 5, BYTES = 6 << 20 };

static gr_status rounds(struct gr_comm *comm, const char *how)
{
    static char sent[BYTES], received[BYTES];
    int last = gr_comm_size(comm) - 1, peer = gr_comm_rank(comm) ^ 1;
    gr_status status = GR_OK;

    for (int round = 0; round < ROUNDS; round++) {
        bool astray = false;

        if (gr_comm_rank(comm) == last && round == ROUNDS / 2) {
            if (strcmp(how, "stop") == 0)
                raise(SIGSTOP);
            if (strcmp(how, "kill") == 0)
                raise(SIGKILL);
            GR_CHECK(strcmp(how, "bug") != 0, "on purpose");
            astray = strcmp(how, "astray") == 0;
        }
        GR_TRY(gr_comm_exchange(comm, peer, received, BYTES, sent, BYTES,
                                astray ? "saving" : "gradients"));
    }
out:
    return status;
}

int main(int argc, char **argv)
{
    struct gr_comm *comm = NULL;
    gr_status status = GR_OK;

    GR_TRY(gr_comm_create(&comm, 2.0));
    GR_TRY(rounds(comm, argc > 1 ? argv[1] : "all"));
out:
    if (status != GR_OK) {
        gr_print_error();
        gr_comm_abort(comm, gr_status_exit_code(status));
    }
    gr_comm_destroy(comm);
    return 0;
}
