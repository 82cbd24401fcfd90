/* Requests sent again while there is patience, and the real clock.  See access.h. */
#include "trainer/state/access.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"

#include <stdio.h>
#include <sys/random.h>

#define FIRST_PAUSE_S   0.1
#define LONGEST_PAUSE_S 20.0

/* ---- the real clock ----------------------------------------------------------------------- */

static double real_unix_s(void *context)
{
    (void)context;
    return gr_clock_unix_s();
}

static double real_monotonic_s(void *context)
{
    (void)context;
    return (double)gr_clock_ns() * 1e-9;
}

static void real_sleep_s(void *context, double seconds)
{
    (void)context;
    gr_sleep_ns((int64_t)(seconds * 1e9));
}

/* Version 4 of RFC 9562: random but for six bits. */
static void real_uuid(void *context, char text[GR_STATE_UUID_BYTES])
{
    unsigned char b[16] = {0};
    ssize_t count = getrandom(b, sizeof b, 0);

    (void)context;
    GR_CHECK(count == (ssize_t)sizeof b, "%zd", count);
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(text, GR_STATE_UUID_BYTES,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
}

struct gr_state_clock gr_state_real_clock(void)
{
    return (struct gr_state_clock){
        .unix_s = real_unix_s,
        .monotonic_s = real_monotonic_s,
        .sleep_s = real_sleep_s,
        .uuid = real_uuid,
    };
}

/* ---- patience ----------------------------------------------------------------------------- */

bool gr_access_again(const struct gr_access *a, gr_status status, struct gr_access_tries *tries)
{
    double now_s = 0, left_s = 0;

    if (status != GR_ERR_RETRY || a->clock == NULL)
        return false;
    now_s = a->clock->monotonic_s(a->clock->context);
    if (tries->pause_s == 0)
        tries->until_s = now_s + a->patience_s;
    left_s = tries->until_s - now_s;
    if (left_s <= 0)
        return false;
    tries->pause_s = tries->pause_s == 0 ? FIRST_PAUSE_S : 2 * tries->pause_s;
    if (tries->pause_s > LONGEST_PAUSE_S)
        tries->pause_s = LONGEST_PAUSE_S;
    a->clock->sleep_s(a->clock->context, tries->pause_s < left_s ? tries->pause_s : left_s);
    gr_error_clear();
    return true;
}

bool gr_access_reread(const struct gr_access *a, gr_status status, int *reads)
{
    if (status != GR_ERR_DATA || ++*reads == GR_ACCESS_READS)
        return false;
    if (a->clock != NULL)
        a->clock->sleep_s(a->clock->context, FIRST_PAUSE_S);
    gr_error_clear();
    return true;
}

/* ---- requests ----------------------------------------------------------------------------- */

gr_status gr_access_list(const struct gr_access *a, struct gr_store_list *list, const char *prefix)
{
    gr_status status = GR_OK;
    struct gr_access_tries tries = {0};

    do
        status = a->store->ops->list(a->store, list, prefix);
    while (gr_access_again(a, status, &tries));
    return status;
}

gr_status gr_access_get(const struct gr_access *a, struct gr_buffer *bytes, const char *key,
                        int64_t count)
{
    gr_status status = GR_OK;
    struct gr_access_tries tries = {0};

    do
        status = a->store->ops->get(a->store, bytes, key, 0, count);
    while (gr_access_again(a, status, &tries));
    return status;
}

gr_status gr_access_put(const struct gr_access *a, const char *key, const void *bytes,
                        int64_t count)
{
    gr_status status = GR_OK;
    struct gr_access_tries tries = {0};

    do
        status = a->store->ops->put(a->store, key, bytes, count);
    while (gr_access_again(a, status, &tries));
    return status;
}

gr_status gr_access_put_if_absent(const struct gr_access *a, const char *key, const void *bytes,
                                  int64_t count)
{
    gr_status status = GR_OK;
    struct gr_access_tries tries = {0};

    do
        status = a->store->ops->put_if_absent(a->store, key, bytes, count);
    while (gr_access_again(a, status, &tries));
    return status;
}

gr_status gr_access_exists(const struct gr_access *a, bool *exists, const char *key)
{
    struct gr_buffer bytes = {0};
    gr_status status = gr_access_get(a, &bytes, key, 1);

    *exists = status == GR_OK;
    gr_buffer_release(&bytes);
    if (status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

char *gr_access_place(const struct gr_access *a, const char *key)
{
    return gr_format("%s/%s", a->store->url, key);
}
