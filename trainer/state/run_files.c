/* run.json, the export and done.json.  See run_files.h. */
#include "trainer/state/run_files.h"

#include "data/hash.h"
#include "data/json.h"
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/model/peft_files.h"
#include "trainer/state/names.h"
#include "trainer/state/record.h"
#include "trainer/state/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static gr_status put_json(struct gr_store *store, const char *key, const json_t *object,
                          bool if_absent)
{
    char *text = json_dumps(object, JSON_SORT_KEYS | JSON_INDENT(2));
    char *line = gr_format("%s\n", text);
    gr_status status = if_absent
                           ? store->ops->put_if_absent(store, key, line, (int64_t)strlen(line))
                           : store->ops->put(store, key, line, (int64_t)strlen(line));

    free(text); /* jansson's allocation */
    gr_free(line);
    return status;
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

/* Checkpoints belong to the run.json they began with: a new one would condemn them all. */
static gr_status refuse_lost_identity(struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    struct gr_buffer bytes = {0};

    status = store->ops->get(store, &bytes, "run.json", 0, 1);
    if (status != GR_ERR_NOT_FOUND)
        goto out;
    gr_error_clear();
    GR_TRY(store->ops->list(store, &list, "ckpt/"));
    if (list.count > 0)
        GR_TRY(gr_fail(GR_ERR_CORRUPT, store->url, "put run.json back, or use another output",
                       "run.json is gone, but there are %lld checkpoints", (long long)list.count));
out:
    gr_store_list_release(&list);
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity)
{
    gr_status status = GR_OK;
    struct gr_state_clock clock = gr_state_real_clock();
    json_t *mine = describe(identity), *whole = json_copy(mine);
    char uuid[GR_STATE_UUID_BYTES];

    GR_TRY(refuse_lost_identity(store));
    clock.uuid(clock.context, uuid); /* tells this creation from another with the same identity */
    json_object_set_new(whole, "run_id", json_string(uuid));
    status = put_json(store, "run.json", whole, true);
    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        status = compare_identity(store, mine);
    }
out:
    json_decref(whole);
    json_decref(mine);
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

/* The exported files, in the order they are put. */
static const char *const exported[] = {"adapter/adapter_model.safetensors",
                                       "adapter/adapter_config.json"};

static void hash_bytes(json_t *hashes, const char *key, const struct gr_buffer *bytes)
{
    char hash[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hash, bytes->data, (int64_t)bytes->length);
    json_object_set_new(hashes, key, json_string(hash));
}

/* {"adapter/...": hash} of what would be exported; bytes[2] are filled. */
static json_t *pack(struct gr_buffer bytes[2], const struct gr_adapter *adapter,
                    const float *values, const char *base_model)
{
    json_t *hashes = json_object();

    gr_peft_write_weights(&bytes[0], adapter, values);
    gr_peft_write_config(&bytes[1], adapter, base_model);
    for (int i = 0; i < GR_COUNT(exported); i++)
        hash_bytes(hashes, exported[i], &bytes[i]);
    return hashes;
}

/* The hashes that done.json tells; NULL if there is no done.json.  Whole is the caller's, hashes
 * are part of it. */
static gr_status read_done(json_t **whole, json_t **hashes, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer text = {0};
    char *place = gr_format("%s/done.json", store->url);

    *whole = *hashes = NULL;
    status = store->ops->get(store, &text, "done.json", 0, GR_RECORD_BYTES_MOST);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
        goto out;
    }
    GR_TRY(status);
    *whole = json_loadb(text.data, text.length, 0, NULL);
    *hashes = json_object_get(*whole, "adapter_sha256");
    for (int i = 0; i < GR_COUNT(exported); i++) {
        const char *hash = json_string_value(json_object_get(*hashes, exported[i]));

        if (hash == NULL || !gr_name_is_hash(hash))
            GR_TRY(gr_fail(GR_ERR_DATA, place, "remove it and start again: the end is made anew",
                           "the file is damaged (expected what graft wrote there)"));
    }
out:
    if (status != GR_OK) {
        json_decref(*whole);
        *whole = *hashes = NULL;
    }
    gr_buffer_release(&text);
    gr_free(place);
    return status;
}

/* Whether the store holds these bytes under `key`. */
static gr_status is_there(bool *same, struct gr_store *store, const char *key, const char *hash,
                          int64_t bytes_most)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    char found[GR_SHA256_HEX_BYTES] = "";

    status = store->ops->get(store, &bytes, key, 0, bytes_most);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
    } else if (status == GR_OK) {
        gr_sha256_hex(found, bytes.data, (int64_t)bytes.length);
    }
    *same = strcmp(found, hash) == 0;
    gr_buffer_release(&bytes);
    return status;
}

/* More than an export of this adapter takes: what is larger is another file. */
static int64_t export_bytes_most(const struct gr_adapter *adapter)
{
    const int64_t per_tensor = 1024, rest = 1 << 20;

    return adapter->elements * (int64_t)sizeof(float) + 2 * adapter->count * per_tensor + rest;
}

gr_status gr_run_look(enum gr_run_end *end, struct gr_store *store,
                      const struct gr_adapter *adapter)
{
    gr_status status = GR_OK;
    json_t *done = NULL, *hashes = NULL;

    *end = GR_RUN_OPEN;
    GR_TRY(read_done(&done, &hashes, store));
    if (done != NULL)
        *end = GR_RUN_DONE;
    for (int i = 0; i < GR_COUNT(exported) && done != NULL; i++) {
        bool same = false;

        GR_TRY(is_there(&same, store, exported[i],
                        json_string_value(json_object_get(hashes, exported[i])),
                        export_bytes_most(adapter)));
        if (!same)
            *end = GR_RUN_EXPORT_DAMAGED;
    }
out:
    json_decref(done);
    return status;
}

gr_status gr_run_export_again(bool *is_it, struct gr_store *store, const struct gr_adapter *adapter,
                              const float *values, const char *base_model)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *done = NULL, *hashes = NULL, *mine = pack(bytes, adapter, values, base_model);

    *is_it = false;
    GR_TRY(read_done(&done, &hashes, store));
    *is_it = json_equal(mine, hashes);
    for (int i = 0; i < GR_COUNT(exported) && *is_it; i++)
        GR_TRY(store->ops->put(store, exported[i], bytes[i].data, (int64_t)bytes[i].length));
out:
    json_decref(done);
    json_decref(mine);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}

gr_status gr_run_claim_parent(struct gr_store *store, const float *values, int64_t elements)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    json_t *mine = json_object(), *theirs = NULL;
    char hash[GR_SHA256_HEX_BYTES], *place = gr_format("%s/parent.json", store->url);

    gr_sha256_hex(hash, values, elements * (int64_t)sizeof *values);
    json_object_set_new(mine, "values_sha256", json_string(hash));
    status = put_json(store, "parent.json", mine, true);
    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        GR_TRY(store->ops->get(store, &bytes, "parent.json", 0, GR_RECORD_BYTES_MOST));
        theirs = json_loadb(bytes.data, bytes.length, 0, NULL);
        GR_TRY(gr_fail(GR_ERR_USAGE, place,
                       "name the checkpoint: train.init_from: RUN@STEP, in another output",
                       "train.init_from is not what it was when the run began (found %s, expected "
                       "%s)",
                       hash, json_string_value(json_object_get(theirs, "values_sha256"))));
    }
out:
    json_decref(mine);
    json_decref(theirs);
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}

static gr_status check_finite(const struct gr_adapter *adapter, const float *values)
{
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];
        char name[64];

        gr_lora_matrix_name(name, m);
        for (int64_t e = m->a_begin; e < m->end; e++) {
            if (!isfinite(values[e]))
                return gr_fail(GR_ERR_DIVERGED, "train",
                               "start again with a lower train.learning_rate and another output",
                               "the finished adapter is not finite: %s", name);
        }
    }
    return GR_OK;
}

gr_status gr_run_export(struct gr_store *store, const char *folder,
                        const struct gr_adapter *adapter, const float *values,
                        const char *base_model)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *hashes = NULL;
    char *key = NULL;

    GR_TRY(check_finite(adapter, values));
    hashes = pack(bytes, adapter, values, base_model);
    for (int i = 0; i < GR_COUNT(exported); i++) {
        GR_TRY(gr_failpoint(i == 0 ? GR_FAILPOINT_EXPORT_WEIGHTS : GR_FAILPOINT_EXPORT_CONFIG));
        gr_free(key);
        key = gr_format("%s%s", folder, strchr(exported[i], '/'));
        GR_TRY(store->ops->put(store, key, bytes[i].data, (int64_t)bytes[i].length));
    }
out:
    gr_free(key);
    json_decref(hashes);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}

gr_status gr_run_put_done(struct gr_store *store, const struct gr_adapter *adapter,
                          const float *values, const char *base_model, int64_t step,
                          double final_loss)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes[2] = {{0}, {0}};
    json_t *done = json_object();
    enum gr_run_end end;
    char *place = gr_format("%s/done.json", store->url);

    json_object_set_new(done, "adapter_sha256", pack(bytes, adapter, values, base_model));
    json_object_set_new(done, "step", json_integer(step));
    if (isfinite(final_loss))
        json_object_set_new(done, "train_loss", json_real(final_loss));
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_BEFORE));
    status = put_json(store, "done.json", done, true);
    if (status == GR_ERR_EXISTS) { /* an earlier start got this far: the same adapter, or a bug */
        gr_error_clear();
        GR_TRY(gr_run_look(&end, store, adapter));
        if (end != GR_RUN_DONE)
            GR_TRY(gr_fail(GR_ERR_CORRUPT, place, "start again in another output",
                           "it tells of another adapter than this run's"));
        status = GR_OK;
    }
    GR_TRY(status);
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_AFTER));
out:
    gr_free(place);
    json_decref(done);
    gr_buffer_release(&bytes[0]);
    gr_buffer_release(&bytes[1]);
    return status;
}
