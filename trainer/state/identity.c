/* What a run is, and that it stays that.  See identity.h. */
#include "trainer/state/identity.h"

#include "data/hash.h"
#include "kernels/base/alloc.h"
#include "trainer/state/record.h"
#include "trainer/state/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gr_status gr_run_put_json(struct gr_store *store, const char *key, const json_t *object)
{
    char *text = json_dumps(object, JSON_SORT_KEYS | JSON_INDENT(2));
    char *line = gr_format("%s\n", text);
    gr_status status = store->ops->put_if_absent(store, key, line, (int64_t)strlen(line));

    free(text); /* jansson's allocation */
    gr_free(line);
    return status;
}

static json_t *describe(const struct gr_run_identity *id)
{
    struct gr_buffer keys = {0};
    json_t *object = json_object();

    gr_config_identity(&keys, id->config);
    json_object_set_new(object, "format", json_integer(1));
    json_object_set_new(object, "config", json_loads(keys.data, 0, NULL));
    json_object_set_new(object, "model_sha256", json_string(id->model_hash));
    json_object_set_new(object, "tokenizer_sha256", json_string(id->tokenizer_hash));
    json_object_set_new(object, "train_sha256", json_string(id->train_hash));
    json_object_set_new(object, "eval_sha256", json_string(id->eval_hash));
    json_object_set_new(object, "dtype", json_string(id->dtype));
    json_object_set_new(object, "total_steps", json_integer(id->total_steps));
    gr_buffer_release(&keys);
    return object;
}

/* JSON with the least digits that read back to the same value (0.0002, not
 * 0.00020000000000000001).  The caller frees it: jansson's allocation. */
static char *value_text(json_t *value)
{
    char *text = NULL;
    bool is_same = false;

    for (size_t digits = 6; digits <= 17 && !is_same; digits++) {
        json_t *back = NULL;

        free(text);
        text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        back = json_loads(text, JSON_DECODE_ANY, NULL);
        is_same = json_equal(back, value);
        json_decref(back);
    }
    return text;
}

/* Appends "name: found new, expected old" for each member that differs, descending into objects. */
static void add_differences(struct gr_buffer *text, const char *prefix, json_t *old, json_t *new)
{
    const char *key;
    json_t *value;

    json_object_foreach(new, key, value)
    {
        json_t *was = json_object_get(old, key);
        char *name = gr_format("%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", key);

        if (json_is_object(value) && json_is_object(was)) {
            add_differences(text, strcmp(name, "config") == 0 ? "" : name, was, value);
        } else if (was == NULL || !json_equal(was, value)) {
            char *before = was == NULL ? NULL : value_text(was);
            char *after = value_text(value);

            gr_buffer_add_format(text, "%s%s: found %s, expected %s", text->length == 0 ? "" : "; ",
                                 name, after, before == NULL ? "nothing" : before);
            free(before);
            free(after);
        }
        gr_free(name);
    }
}

static gr_status compare_identity(struct gr_store *store, json_t *mine)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0}, differences = {0};
    json_t *theirs = NULL;
    char *place = gr_format("%s/run.json", store->url);

    GR_TRY(store->ops->get(store, &bytes, "run.json", 0, GR_RECORD_BYTES_MOST));
    theirs = json_loadb(bytes.data, bytes.length, 0, NULL);
    if (!json_is_object(theirs))
        GR_TRY(gr_fail(GR_ERR_DATA, place, "use another output directory",
                       "the file is damaged (expected what graft wrote there)"));
    add_differences(&differences, "", theirs, mine);
    if (differences.length > 0)
        GR_TRY(gr_fail(GR_ERR_USAGE, place,
                       "a run keeps its configuration and data: use another output directory, or "
                       "what it was started with",
                       "another run stands here (%s)", differences.data));
out:
    json_decref(theirs);
    gr_buffer_release(&bytes);
    gr_buffer_release(&differences);
    gr_free(place);
    return status;
}

gr_status gr_run_identity_check(bool *is_there, struct gr_store *store,
                                const struct gr_run_identity *identity)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    struct gr_buffer bytes = {0};
    json_t *mine = describe(identity);

    *is_there = true;
    status = store->ops->get(store, &bytes, "run.json", 0, 1);
    if (status != GR_ERR_NOT_FOUND) {
        if (status == GR_OK)
            status = compare_identity(store, mine);
        goto out;
    }
    gr_error_clear();
    *is_there = false;
    GR_TRY(store->ops->list(store, &list, "ckpt/"));
    if (list.count >
        0) /* they belong to the run.json they began with: a new one would condemn them */
        GR_TRY(gr_fail(GR_ERR_CORRUPT, store->url, "put run.json back, or use another output",
                       "run.json is gone, but there are %lld checkpoints", (long long)list.count));
out:
    json_decref(mine);
    gr_store_list_release(&list);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity)
{
    gr_status status = GR_OK;
    struct gr_state_clock clock = gr_state_real_clock();
    json_t *whole = describe(identity);
    char uuid[GR_STATE_UUID_BYTES];
    bool is_there = false;

    GR_TRY(gr_run_identity_check(&is_there, store, identity));
    if (is_there)
        goto out;
    clock.uuid(clock.context, uuid); /* tells this creation from another with the same identity */
    json_object_set_new(whole, "run_id", json_string(uuid));
    status = gr_run_put_json(store, "run.json", whole);
    if (status == GR_ERR_EXISTS) { /* another start was quicker */
        gr_error_clear();
        status = gr_run_identity_check(&is_there, store, identity);
    }
out:
    json_decref(whole);
    return status;
}

gr_status gr_run_recorded_dtype(char word[16], struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    json_t *run = NULL;
    const char *found = NULL;

    word[0] = '\0';
    status = store->ops->get(store, &bytes, "run.json", 0, GR_RECORD_BYTES_MOST);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
        goto out;
    }
    GR_TRY(status);
    run = json_loadb(bytes.data, bytes.length, 0, NULL); /* damage is told when it is claimed */
    found = json_string_value(json_object_get(run, "dtype"));
    if (found != NULL)
        snprintf(word, 16, "%s", found);
out:
    json_decref(run);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_run_claim_parent(struct gr_store *store, const float *values, int64_t elements)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    json_t *mine = json_object(), *theirs = NULL;
    char hash[GR_SHA256_HEX_BYTES], *place = gr_format("%s/parent.json", store->url);
    const char *expected = NULL;

    gr_sha256_hex(hash, values, elements * (int64_t)sizeof *values);
    json_object_set_new(mine, "values_sha256", json_string(hash));
    status = gr_run_put_json(store, "parent.json", mine);
    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        GR_TRY(store->ops->get(store, &bytes, "parent.json", 0, GR_RECORD_BYTES_MOST));
        theirs = json_loadb(bytes.data, bytes.length, 0, NULL);
        expected = json_string_value(json_object_get(theirs, "values_sha256"));
        if (expected == NULL)
            GR_TRY(gr_fail(GR_ERR_DATA, place, "use another output directory",
                           "the file is damaged (expected what graft wrote there)"));
        GR_TRY(gr_fail(GR_ERR_USAGE, place,
                       "name the checkpoint: train.init_from: RUN@STEP, in another output",
                       "train.init_from is not what it was when the run began (found %s, expected "
                       "%s)",
                       hash, expected));
    }
out:
    json_decref(mine);
    json_decref(theirs);
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}
