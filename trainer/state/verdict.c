/* Verdicts on checkpoints.  See verdict.h. */
#include "trainer/state/verdict.h"

#include "kernels/base/alloc.h"
#include "trainer/state/names.h"
#include "trainer/state/record.h"

#include <stddef.h>
#include <stdio.h>

enum { REASON_BYTES = 1024 };

struct verdict {
    char reason[REASON_BYTES];
    int64_t unix_s;
};
static const struct gr_record_field fields[] = {
    {"reason", GR_RECORD_TEXT, offsetof(struct verdict, reason), 0, REASON_BYTES},
    {"unix_s", GR_RECORD_INT, offsetof(struct verdict, unix_s), 0, INT64_MAX},
};

gr_status gr_verdict_put(const struct gr_access *a, const char *name, const char *reason)
{
    gr_status status = GR_OK;
    struct verdict v = {.unix_s = (int64_t)a->clock->unix_s(a->clock->context)};
    struct gr_buffer bytes = {0};
    json_t *object = json_object();
    char key[GR_KEY_BYTES], hash[GR_SHA256_HEX_BYTES];

    snprintf(v.reason, sizeof v.reason, "%s", reason);
    gr_record_write(object, &v, fields, GR_COUNT(fields));
    gr_record_seal(&bytes, hash, object);
    gr_key_record(key, "bad", name);
    status = gr_access_put(a, key, bytes.data, (int64_t)bytes.length);
    json_decref(object);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_verdict_get(char **reason, const struct gr_access *a, const char *name)
{
    gr_status status = GR_OK;
    struct verdict v = {0};
    struct gr_buffer bytes = {0};
    json_t *object = NULL;
    char key[GR_KEY_BYTES], hash[GR_SHA256_HEX_BYTES];

    *reason = NULL;
    gr_key_record(key, "bad", name);
    status = gr_access_get(a, &bytes, key, GR_RECORD_BYTES_MOST + 1);
    if (status == GR_OK)
        status = gr_record_open(&object, hash, key, &bytes);
    if (status == GR_OK)
        status = gr_record_read(&v, key, object, fields, GR_COUNT(fields));
    if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        snprintf(v.reason, sizeof v.reason, "marked bad; the reason cannot be read");
        status = GR_OK;
    }
    if (status == GR_OK)
        *reason = gr_strdup(v.reason);
    json_decref(object);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_verdict_lift(const struct gr_access *a, const char *name)
{
    char key[GR_KEY_BYTES];

    gr_key_record(key, "bad", name);
    return a->store->ops->remove(a->store, key);
}
