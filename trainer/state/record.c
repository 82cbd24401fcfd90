/* Sealing, opening and the fields of records.  See record.h. */
#include "trainer/state/record.h"

#include "data/json.h"
#include "kernels/base/alloc.h"
#include "trainer/state/names.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What stands behind the hashed bytes; %s is the hash. */
#define SEAL ",\n  \"sha256\": \"%s\"\n}\n"

enum {
    SEAL_BYTES = sizeof SEAL - 3 + GR_SHA256_HEX_BYTES - 1, /* without %s and the NUL */
    CLOSING_BYTES = sizeof "\n}" - 1,
};

static const char damaged[] = "the object is damaged, or belongs to another program";

/* ---- fields --------------------------------------------------------------------------------- */

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

/* Texts with a form: what the form is called, the bytes with the NUL, and the check. */
static const struct {
    const char *expected;
    int64_t size; /* 0: the field's `most` */
    bool (*is_right)(const char *text);
} text_kinds[] = {
    [GR_RECORD_HASH] = {"64 hexadecimal digits", GR_SHA256_HEX_BYTES, gr_name_is_hash},
    [GR_RECORD_UUID] = {"a UUID", GR_STATE_UUID_BYTES, gr_name_is_uuid},
    [GR_RECORD_NAME] = {"STEP-TERM", GR_CHECKPOINT_NAME_BYTES, gr_name_is_checkpoint},
    [GR_RECORD_FILE] = {"a file name", GR_STATE_NAME_BYTES, gr_name_is_file},
    [GR_RECORD_TEXT] = {"printable text", 0, is_printable},
};

static json_t *printable_text(const char *text)
{
    char *copy = gr_strdup(text);
    json_t *value = NULL;

    for (char *c = copy; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
    value = json_string(copy);
    gr_free(copy);
    return value;
}

void gr_record_write(json_t *object, const void *record, const struct gr_record_field *fields,
                     int64_t count)
{
    for (const struct gr_record_field *f = fields; f < fields + count; f++) {
        const void *member = (const char *)record + f->offset;
        json_t *value = NULL;

        if (f->kind == GR_RECORD_INT)
            value = json_integer(*(const int64_t *)member);
        else if (f->kind == GR_RECORD_REAL)
            value = json_real(*(const double *)member);
        else
            value = printable_text(member);
        GR_CHECK(value != NULL, "%s", f->name);
        json_object_set_new(object, f->name, value);
    }
}

static gr_status read_int(int64_t *member, const char *place, const json_t *value,
                          const struct gr_record_field *f)
{
    if (!json_is_integer(value))
        return gr_fail(GR_ERR_DATA, place, damaged, "%s (found %s, expected a whole number)",
                       f->name, gr_json_type_name(value));
    *member = json_integer_value(value);
    if (*member < f->least || *member > f->most)
        return gr_fail(GR_ERR_DATA, place, damaged,
                       "%s (found %" PRId64 ", expected %" PRId64 " to %" PRId64 ")", f->name,
                       *member, f->least, f->most);
    return GR_OK;
}

static gr_status read_text(char *member, const char *place, const json_t *value,
                           const struct gr_record_field *f)
{
    int64_t size = text_kinds[f->kind].size > 0 ? text_kinds[f->kind].size : f->most;
    const char *text = json_string_value(value);
    bool is_right = false;

    if (text != NULL && (int64_t)json_string_length(value) < size)
        is_right = text[0] == '\0' ? f->least == 0 : text_kinds[f->kind].is_right(text);
    if (!is_right)
        return gr_fail(GR_ERR_DATA, place, damaged, "%s (found %s%.80s, expected %s)", f->name,
                       text == NULL ? gr_json_type_name(value) : "", text == NULL ? "" : text,
                       text_kinds[f->kind].expected);
    memcpy(member, text, json_string_length(value) + 1);
    return GR_OK;
}

gr_status gr_record_read(void *record, const char *place, const json_t *object,
                         const struct gr_record_field *fields, int64_t count)
{
    gr_status status = GR_OK;

    for (const struct gr_record_field *f = fields; f < fields + count; f++) {
        void *member = (char *)record + f->offset;
        const json_t *value = json_object_get(object, f->name);

        if (f->kind == GR_RECORD_INT) {
            GR_TRY(read_int(member, place, value, f));
        } else if (f->kind == GR_RECORD_REAL) {
            if (!json_is_number(value))
                GR_TRY(gr_fail(GR_ERR_DATA, place, damaged, "%s (found %s, expected a number)",
                               f->name, gr_json_type_name(value)));
            *(double *)member = json_number_value(value);
        } else {
            GR_TRY(read_text(member, place, value, f));
        }
    }
out:
    return status;
}

/* ---- seal ----------------------------------------------------------------------------------- */

void gr_record_seal(struct gr_buffer *bytes, char hash[GR_SHA256_HEX_BYTES], const json_t *object)
{
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(17));

    GR_CHECK(text != NULL, "json_dumps");
    gr_buffer_clear(bytes);
    gr_buffer_add(bytes, text, strlen(text) - CLOSING_BYTES);
    free(text); /* jansson's allocation */
    gr_sha256_hex(hash, bytes->data, (int64_t)bytes->length);
    gr_buffer_add_format(bytes, SEAL, hash);
}

/* Whether the bytes end with the hash of those before it. */
static bool seal_holds(char hash[GR_SHA256_HEX_BYTES], const struct gr_buffer *bytes)
{
    char seal[SEAL_BYTES + 1];
    size_t hashed = bytes->length - SEAL_BYTES;

    gr_sha256_hex(hash, bytes->data, (int64_t)hashed);
    snprintf(seal, sizeof seal, SEAL, hash);
    return memcmp(bytes->data + hashed, seal, SEAL_BYTES) == 0;
}

gr_status gr_record_open(json_t **object, char hash[GR_SHA256_HEX_BYTES], const char *place,
                         const struct gr_buffer *bytes)
{
    gr_status status = GR_OK;
    json_error_t error;

    *object = NULL;
    if (bytes->length <= SEAL_BYTES || bytes->length > GR_RECORD_BYTES_MOST)
        return gr_fail(GR_ERR_DATA, place, damaged,
                       "the size of the record (found %zu bytes, expected %d to %d)", bytes->length,
                       SEAL_BYTES + 1, GR_RECORD_BYTES_MOST);
    if (!seal_holds(hash, bytes))
        return gr_fail(GR_ERR_DATA, place, damaged,
                       "the SHA-256 at the end is not that of the bytes before it");
    *object = json_loadb(bytes->data, bytes->length, JSON_REJECT_DUPLICATES, &error);
    if (*object == NULL)
        return gr_json_fail_syntax(place, 1, &error, damaged);
    if (!json_is_object(*object))
        GR_TRY(gr_fail(GR_ERR_DATA, place, damaged, "the record (found %s, expected an object)",
                       gr_json_type_name(*object)));
    json_object_del(*object, "sha256");
out:
    if (status != GR_OK) {
        json_decref(*object);
        *object = NULL;
    }
    return status;
}
