/* See ranks.h. */
#include "tests/ranks.h"

#include "tests/test.h"

#include <stdlib.h>

static struct gr_comm *comm;

static void leave(void)
{
    gr_comm_destroy(comm);
}

struct gr_comm *ranks_join(void)
{
    if (comm == NULL) {
        ASSERT_OK(gr_comm_create(&comm, 30.0));
        atexit(leave);
    }
    return comm;
}
