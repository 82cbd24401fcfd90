/* Terms as JSON, and the question whether ours is still the last.  See term.h. */
#include "trainer/state/term.h"

#include "kernels/base/alloc.h"
#include "trainer/state/record.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum { FORMAT = 1 };

static const char damaged[] = "the object is damaged, or belongs to another run";

static const struct gr_record_field fields[] = {
#define FIELD(name, kind, member, least, most)                                                     \
    {                                                                                              \
        name, GR_RECORD_##kind, offsetof(struct gr_term, member), least, most                      \
    }
    FIELD("run_sha256", HASH, run_hash, 1, 0),
    FIELD("term", INT, term, 1, GR_TERM_MOST),
    FIELD("uuid", UUID, uuid, 1, 0),
    FIELD("unix_s", INT, unix_s, 0, INT64_MAX),
    FIELD("kind", TEXT, kind, 0, GR_TERM_TEXT_BYTES),
    FIELD("host", TEXT, host, 0, GR_TERM_TEXT_BYTES),
    FIELD("pid", INT, pid, 0, INT64_MAX),
    FIELD("world_size", INT, world_size, 1, INT32_MAX),
    FIELD("fence_only", INT, fence_only, 0, 1),
    FIELD("base", NAME, base, 0, 0),
    FIELD("base_sha256", HASH, base_hash, 0, 0),
    FIELD("base_step", INT, base_step, 0, GR_STEP_MOST),
#undef FIELD
};

void gr_term_write(struct gr_buffer *bytes, const struct gr_term *t)
{
    char hash[GR_SHA256_HEX_BYTES];
    json_t *object = json_object();

    json_object_set_new(object, "format", json_integer(FORMAT));
    gr_record_write(object, t, fields, GR_COUNT(fields));
    gr_record_seal(bytes, hash, object);
    json_decref(object);
}

static gr_status read_term(struct gr_term *t, const struct gr_buffer *bytes, int64_t term,
                           const char *place)
{
    gr_status status = GR_OK;
    char hash[GR_SHA256_HEX_BYTES];
    json_t *object = NULL;
    int64_t base_step = 0, base_term = 0;

    memset(t, 0, sizeof *t);
    GR_TRY(gr_record_open(&object, hash, place, bytes));
    if (json_integer_value(json_object_get(object, "format")) != FORMAT ||
        json_object_size(object) != (size_t)GR_COUNT(fields) + 1)
        GR_TRY(gr_fail(GR_ERR_DATA, place, damaged, "the format of the term is unknown"));
    GR_TRY(gr_record_read(t, place, object, fields, GR_COUNT(fields)));
    gr_name_parse_checkpoint(&base_step, &base_term, t->base);
    if (t->term != term || t->base_step != base_step ||
        (t->base[0] == '\0') != (t->base_hash[0] == '\0') ||
        (t->fence_only == 1 && t->base[0] != '\0'))
        GR_TRY(gr_fail(GR_ERR_DATA, place, damaged,
                       "the members do not go with each other or with the name"));
out:
    json_decref(object);
    return status;
}

gr_status gr_term_get(struct gr_term *t, const struct gr_access *a, int64_t term)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    char key[GR_KEY_BYTES];
    char *place = NULL;
    int reads = 0;

    gr_key_term(key, term);
    place = gr_access_place(a, key);
    do {
        status = gr_access_get(a, &bytes, key, GR_RECORD_BYTES_MOST + 1);
        if (status == GR_OK)
            status = read_term(t, &bytes, term, place);
    } while (gr_access_reread(a, status, &reads));
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}

gr_status gr_term_check_fence(const struct gr_access *a, int64_t term)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    int64_t newest = term;

    GR_TRY(gr_access_list(a, &list, "term/")); /* not only the next one: there may be a gap */
    for (int64_t i = 0; i < list.count; i++) {
        int64_t other = 0;

        if (gr_key_parse_term(&other, list.entry[i].key) && other > newest)
            newest = other;
    }
    if (newest > term)
        status = gr_fail(GR_ERR_FENCED, a->store->url,
                         "the other one goes on with the run; nothing is to be done here",
                         "another start took the run over (found term %" PRId64
                         ", expected %" PRId64 " to be the last)",
                         newest, term);
out:
    gr_store_list_release(&list);
    return status;
}
