/* Passing an open file with SCM_RIGHTS.  See fd_share.h. */
#include "data/fd_share.h"

#include "data/hash.h"
#include "kernels/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { RETRY_NS = 10000000 }; /* between attempts where nothing can be waited on */

#define HINT_PEERS "see what the other processes of this host said; then start the job again"

static gr_status fail_errno(const char *name, const char *verb, int error)
{
    return gr_fail(GR_ERR_RETRY, name, HINT_PEERS, "the local socket cannot be %s (%s)", verb,
                   strerror(error));
}

/* Names may be long; socket addresses may not: they carry the hash. */
static socklen_t make_address(struct sockaddr_un *address, const char *name)
{
    char hex[GR_SHA256_HEX_BYTES];
    int length = 0;

    gr_sha256_hex(hex, name, (int64_t)strlen(name));
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    /* The first byte stays 0: an abstract name. */
    length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "graft-%s", hex);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static bool is_same_user(int connection)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t length = sizeof peer;

    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           peer.uid == geteuid();
}

/* False when the deadline passes before there is something to read or accept. */
static bool wait_readable(int fd, int64_t deadline_ns)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    int64_t left_ns = 0;
    int ready = 0;

    do {
        left_ns = deadline_ns - gr_clock_ns();
        ready = poll(&wanted, 1, left_ns <= 0 ? 0 : (int)(left_ns / 1000000 % 3600000) + 1);
    } while (ready <= 0 && left_ns > 0);
    return ready > 0;
}

/* ---- giving ----------------------------------------------------------------------------- */

gr_status gr_fd_offer_open(int *listener, const char *name, int peers, int64_t deadline_ns)
{
    gr_status status = GR_OK;
    struct sockaddr_un address;
    socklen_t length = make_address(&address, name);
    int error = 0;

    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*listener < 0)
        return fail_errno(name, "opened", errno);
    do {
        error = bind(*listener, (const struct sockaddr *)&address, length) == 0 ? 0 : errno;
        if (error == EADDRINUSE)
            gr_sleep_ns(RETRY_NS);
    } while (error == EADDRINUSE && gr_clock_ns() < deadline_ns);
    if (error == 0)
        error = listen(*listener, peers) == 0 ? 0 : errno;
    if (error != 0) {
        status = fail_errno(name, "named", error);
        close(*listener);
        *listener = -1;
    }
    return status;
}

/* One byte that carries the file.  Returns an errno or 0. */
static int send_file(int connection, int fd)
{
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(connection, &message, MSG_NOSIGNAL) == 1 ? 0 : errno;
}

gr_status gr_fd_offer(int listener, const char *name, int fd, int peers, int64_t deadline_ns)
{
    for (int given = 0; given < peers;) {
        int connection = -1, error = 0;

        if (!wait_readable(listener, deadline_ns))
            return gr_fail(GR_ERR_RETRY, name, HINT_PEERS,
                           "local processes did not come in time (found %d, expected %d)", given,
                           peers);
        connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        error = connection < 0 ? errno : 0;
        if (error == ECONNABORTED || error == EAGAIN || error == EINTR) /* it went away again */
            continue;
        if (error != 0)
            return fail_errno(name, "accepted from", error);
        if (is_same_user(connection)) {
            error = send_file(connection, fd);
            given++;
        }
        close(connection);
        if (error != 0)
            return fail_errno(name, "written to", error);
    }
    return GR_OK;
}

/* ---- taking ----------------------------------------------------------------------------- */

/* Returns an errno or 0. */
static int connect_once(int *connection, const char *name)
{
    struct sockaddr_un address;
    socklen_t length = make_address(&address, name);
    int error = 0;

    *connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*connection < 0)
        return errno;
    if (connect(*connection, (const struct sockaddr *)&address, length) == 0)
        return 0;
    error = errno;
    close(*connection);
    *connection = -1;
    return error;
}

/* Returns an errno or 0; ECONNRESET when the other side closed without a file. */
static int receive_file(int connection, int *fd)
{
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = NULL;
    ssize_t count = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);

    if (count < 0)
        return errno;
    header = CMSG_FIRSTHDR(&message);
    if (count != 1 || header == NULL || header->cmsg_level != SOL_SOCKET ||
        header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof *fd))
        return ECONNRESET;
    memcpy(fd, CMSG_DATA(header), sizeof *fd);
    return 0;
}

gr_status gr_fd_take(int *fd, const char *name, int64_t deadline_ns)
{
    gr_status status = GR_OK;
    int connection = -1;
    int error = connect_once(&connection, name);

    *fd = -1;
    /* Nobody has the name yet, or too many queue at the moment. */
    while ((error == ECONNREFUSED || error == EAGAIN) && gr_clock_ns() < deadline_ns) {
        gr_sleep_ns(RETRY_NS);
        error = connect_once(&connection, name);
    }
    if (error == ECONNREFUSED || error == EAGAIN)
        GR_TRY(gr_fail(GR_ERR_RETRY, name, HINT_PEERS,
                       "the first process of this host did not offer its file in time"));
    if (error != 0)
        GR_TRY(fail_errno(name, "connected to", error));
    if (!is_same_user(connection))
        GR_TRY(gr_fail(GR_ERR_USAGE, name, "choose another run directory",
                       "another user of this host holds the local socket"));
    if (!wait_readable(connection, deadline_ns))
        GR_TRY(gr_fail(GR_ERR_RETRY, name, HINT_PEERS,
                       "the first process of this host was not ready in time"));
    error = receive_file(connection, fd);
    if (error == ECONNRESET)
        status = gr_fail(GR_ERR_RETRY, name, HINT_PEERS, "the first process of this host gave up");
    else if (error != 0)
        status = fail_errno(name, "read from", error);
out:
    if (connection >= 0)
        close(connection);
    return status;
}
