/* Manifests as JSON, and the bytes they vouch for.  See manifest.h. */
#include "trainer/state/manifest.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/state/record.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum { FORMAT = 1 };

#define OBJECT_BYTES_MOST (INT64_C(1) << 50)

static const char damaged[] = "the object is damaged, or belongs to another run";

/* What JSON holds beside `format` and `objects`, in the order of the file. */
static const struct gr_record_field fields[] = {
#define FIELD(name, kind, member, least, most)                                                     \
    {                                                                                              \
        name, GR_RECORD_##kind, offsetof(struct gr_manifest, member), least, most                  \
    }
    FIELD("run_sha256", HASH, run_hash, 1, 0),
    FIELD("step", INT, at.step, 1, GR_STEP_MOST),
    FIELD("term", INT, term, 1, GR_TERM_MOST),
    FIELD("base_step", INT, base_step, 0, GR_STEP_MOST),
    FIELD("uuid", UUID, uuid, 1, 0),
    FIELD("unix_s", INT, unix_s, 0, INT64_MAX),
    FIELD("world_size", INT, at.world_size, 1, INT32_MAX),
    FIELD("epoch", INT, at.epoch, 0, GR_STEP_MOST),
    FIELD("epoch_first_step", INT, at.epoch_first_step, 0, GR_STEP_MOST),
    FIELD("best_step", INT, at.best_step, 0, GR_STEP_MOST),
    FIELD("best_loss", REAL, at.best_loss, 0, 0),
    FIELD("evals_since_best", INT, at.evals_since_best, 0, GR_STEP_MOST),
    FIELD("previous", NAME, previous, 0, 0),
    FIELD("previous_sha256", HASH, previous_hash, 0, 0),
#undef FIELD
};
static const struct gr_record_field object_fields[] = {
    {"name", GR_RECORD_FILE, offsetof(struct gr_manifest_object, name), 1, 0},
    {"bytes", GR_RECORD_INT, offsetof(struct gr_manifest_object, bytes), 0, OBJECT_BYTES_MOST},
    {"sha256", GR_RECORD_HASH, offsetof(struct gr_manifest_object, hash), 1, 0},
};

/* ---- out ------------------------------------------------------------------------------------ */

void gr_manifest_write(struct gr_buffer *bytes, struct gr_manifest *m)
{
    json_t *object = json_object(), *list = json_array();

    json_object_set_new(object, "format", json_integer(FORMAT));
    gr_record_write(object, m, fields, GR_COUNT(fields));
    json_object_set_new(object, "objects", list);
    for (int64_t i = 0; i < m->object_count; i++) {
        json_t *item = json_object();

        gr_record_write(item, &m->object[i], object_fields, GR_COUNT(object_fields));
        json_array_append_new(list, item);
    }
    gr_name_checkpoint(m->name, m->at.step, m->term);
    gr_record_seal(bytes, m->hash, object);
    json_decref(object);
}

/* ---- in ------------------------------------------------------------------------------------- */

static gr_status read_format(const char *place, const json_t *object)
{
    const json_t *format = json_object_get(object, "format");

    if (!json_is_integer(format))
        return gr_fail(GR_ERR_DATA, place, damaged, "the format of the manifest is no number");
    /* Its seal holds, so it is what somebody wrote: nothing to condemn. */
    if (json_integer_value(format) != FORMAT)
        return gr_fail(GR_ERR_USAGE, place, "another version of graft wrote it; use that one",
                       "the format of the manifest (found %lld, expected %d)",
                       (long long)json_integer_value(format), FORMAT);
    if (json_object_size(object) != (size_t)GR_COUNT(fields) + 2)
        return gr_fail(GR_ERR_DATA, place, damaged, "the members (found %zu, expected %" PRId64 ")",
                       json_object_size(object), GR_COUNT(fields) + 2);
    return GR_OK;
}

static gr_status read_objects(struct gr_manifest *m, const char *place, const json_t *list)
{
    gr_status status = GR_OK;
    size_t count = json_array_size(list); /* 0 if it is no list */

    if (count < 1 || count > GR_STATE_OBJECTS)
        return gr_fail(GR_ERR_DATA, place, damaged, "objects (found %zu of them, expected 1 to %d)",
                       count, GR_STATE_OBJECTS);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);

        if (json_object_size(item) != (size_t)GR_COUNT(object_fields))
            GR_TRY(gr_fail(GR_ERR_DATA, place, damaged,
                           "the members of object %zu (found %zu, expected %" PRId64 ")", i,
                           json_object_size(item), GR_COUNT(object_fields)));
        GR_TRY(gr_record_read(&m->object[i], place, item, object_fields, GR_COUNT(object_fields)));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(m->object[i].name, m->object[j].name) == 0)
                GR_TRY(gr_fail(GR_ERR_DATA, place, damaged, "there are two objects called %s",
                               m->object[i].name));
        }
    }
    m->object_count = (int64_t)count;
out:
    return status;
}

/* Members that each are in range may still not go together. */
static gr_status check_sense(const struct gr_manifest *m, const char *name, const char *place)
{
    int64_t step = 0, term = 0;
    const struct {
        bool is_wrong;
        const char *what;
    } rules[] = {
        {strcmp(m->name, name) != 0, "step and term are not those of its name"},
        {m->base_step >= m->at.step, "the step is not beyond the base of its term"},
        {m->at.epoch_first_step > m->at.step, "the epoch begins beyond the step"},
        {m->at.best_step > m->at.step, "the best step is beyond the step"},
        {!isfinite(m->at.best_loss), "the best loss is not finite"},
        {(m->previous[0] == '\0') != (m->previous_hash[0] == '\0'),
         "of the previous manifest only one of name and hash is given"},
        {m->previous[0] == '\0' && m->base_step != 0, "there is a base but no previous manifest"},
        {gr_name_parse_checkpoint(&step, &term, m->previous) &&
             (step >= m->at.step || step < m->base_step || term > m->term),
         "the previous manifest does not lie between the base and this step"},
    };

    for (int64_t i = 0; i < GR_COUNT(rules); i++) {
        if (rules[i].is_wrong)
            return gr_fail(GR_ERR_DATA, place, damaged, "%s", rules[i].what);
    }
    return GR_OK;
}

gr_status gr_manifest_read(struct gr_manifest *m, const struct gr_buffer *bytes, const char *name,
                           const char *place)
{
    gr_status status = GR_OK;
    json_t *object = NULL;

    memset(m, 0, sizeof *m);
    GR_TRY(gr_record_open(&object, m->hash, place, bytes));
    GR_TRY(read_format(place, object));
    GR_TRY(gr_record_read(m, place, object, fields, GR_COUNT(fields)));
    GR_TRY(read_objects(m, place, json_object_get(object, "objects")));
    gr_name_checkpoint(m->name, m->at.step, m->term);
    GR_TRY(check_sense(m, name, place));
out:
    json_decref(object);
    return status;
}

gr_status gr_manifest_get(struct gr_manifest *m, const struct gr_access *a, const char *name)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    char key[GR_KEY_BYTES];
    char *place = NULL;
    int reads = 0;

    gr_key_record(key, "ckpt", name);
    place = gr_access_place(a, key);
    do {
        status = gr_access_get(a, &bytes, key, GR_RECORD_BYTES_MOST + 1);
        if (status == GR_OK)
            status = gr_manifest_read(m, &bytes, name, place);
    } while (gr_access_reread(a, status, &reads));
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}

/* ---- the objects ---------------------------------------------------------------------------- */

static gr_status check_object(const struct gr_buffer *bytes, const struct gr_manifest_object *o,
                              const char *place)
{
    char hash[GR_SHA256_HEX_BYTES];

    if ((int64_t)bytes->length != o->bytes)
        return gr_fail(GR_ERR_DATA, place, damaged,
                       "the size (found %zu bytes%s, expected %" PRId64 ")", bytes->length,
                       (int64_t)bytes->length > o->bytes ? " or more" : "", o->bytes);
    gr_sha256_hex(hash, bytes->data, (int64_t)bytes->length);
    if (strcmp(hash, o->hash) != 0)
        return gr_fail(GR_ERR_DATA, place, damaged, "the SHA-256 (found %s, expected %s)", hash,
                       o->hash);
    return GR_OK;
}

static gr_status load_object(struct gr_buffer *bytes, const struct gr_access *a,
                             const struct gr_manifest *m, const struct gr_manifest_object *o)
{
    gr_status status = GR_OK;
    char key[GR_KEY_BYTES];
    char *place = NULL;
    int reads = 0;

    gr_key_object(key, m->name, m->uuid, o->name);
    place = gr_access_place(a, key);
    do {
        status = gr_access_get(a, bytes, key, o->bytes + 1);
        if (status == GR_OK) {
            status = check_object(bytes, o, place);
        } else if (status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = gr_fail(GR_ERR_DATA, place, damaged, "the object is missing");
        }
    } while (gr_access_reread(a, status, &reads));
    gr_free(place);
    return status;
}

gr_status gr_manifest_load(struct gr_checkpoint *c, const struct gr_access *a,
                           const struct gr_manifest *m)
{
    gr_status status = GR_OK;

    *c = m->at;
    c->object_count = m->object_count;
    for (int64_t i = 0; i < m->object_count; i++) {
        memcpy(c->object[i].name, m->object[i].name, sizeof c->object[i].name);
        GR_TRY(gr_failpoint(GR_FAILPOINT_RESUME_OBJECT));
        GR_TRY(load_object(&c->object[i].bytes, a, m, &m->object[i]));
    }
out:
    if (status != GR_OK)
        gr_checkpoint_release(c);
    return status;
}

static int64_t listed_bytes(const struct gr_store_list *list, const char *key)
{
    for (int64_t i = 0; i < list->count; i++) {
        if (strcmp(list->entry[i].key, key) == 0)
            return list->entry[i].bytes;
    }
    return -1;
}

gr_status gr_manifest_check_objects(const struct gr_manifest *m, const struct gr_access *a)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    char key[GR_KEY_BYTES];

    gr_key_object(key, m->name, m->uuid, "");
    GR_TRY(gr_access_list(a, &list, key));
    for (int64_t i = 0; i < m->object_count; i++) {
        gr_key_object(key, m->name, m->uuid, m->object[i].name);
        if (listed_bytes(&list, key) != m->object[i].bytes)
            GR_TRY(gr_fail(GR_ERR_NOT_FOUND, a->store->url, damaged,
                           "%s is not there as it was put (found %" PRId64
                           " bytes, expected %" PRId64 ")",
                           key, listed_bytes(&list, key), m->object[i].bytes));
    }
out:
    gr_store_list_release(&list);
    return status;
}

gr_status gr_manifest_check_place(const struct gr_manifest *m, const struct gr_access *a,
                                  const char *run_hash)
{
    gr_status status = GR_OK;
    struct gr_manifest previous;
    char key[GR_KEY_BYTES];
    char *place = NULL;

    gr_key_record(key, "ckpt", m->name);
    place = gr_access_place(a, key);
    if (strcmp(m->run_hash, run_hash) != 0)
        GR_TRY(gr_fail(GR_ERR_DATA, place, damaged,
                       "the manifest is of another run (found run_sha256 %s, expected %s)",
                       m->run_hash, run_hash));
    if (m->previous[0] == '\0')
        goto out;
    status = gr_manifest_get(&previous, a, m->previous);
    if (status == GR_ERR_NOT_FOUND || status == GR_ERR_DATA) {
        /* Collected, or damaged: that is told where it stands, and is no fault of this one. */
        gr_error_clear();
        status = GR_OK;
    } else if (status == GR_OK && strcmp(previous.run_hash, run_hash) == 0 &&
               strcmp(previous.hash, m->previous_hash) != 0) {
        status = gr_fail(GR_ERR_DATA, place, damaged,
                         "the chain is broken: %s is another manifest (found SHA-256 %s, expected "
                         "%s)",
                         m->previous, previous.hash, m->previous_hash);
    }
out:
    gr_free(place);
    return status;
}
