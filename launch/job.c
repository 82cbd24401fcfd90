/* A command's way into its job and out of it.  See job.h. */
#include "launch/job.h"

#include "kernels/base/log.h"

gr_status gr_job_join(struct gr_comm **comm, double timeout_seconds)
{
    gr_status status = gr_comm_create(comm, timeout_seconds);

    if (status == GR_OK)
        gr_log_speaks(gr_comm_rank(*comm) == gr_comm_io_rank(*comm));
    return status;
}

void gr_job_leave(struct gr_comm *comm, gr_status status)
{
    if (gr_comm_is_broken(comm)) { /* who noticed says so: the one that speaks may be gone */
        if (gr_error_is_set())
            gr_print_error();
        gr_comm_abort(comm, gr_status_exit_code(status));
    }
    gr_comm_destroy(comm);
}
