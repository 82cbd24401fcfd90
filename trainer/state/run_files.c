/* run.json, the export and done.json.  See run_files.h. */
#include "trainer/state/run_files.h"

#include "data/hash.h"
#include "data/json.h"
#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/model/peft_files.h"

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

    GR_TRY(store->ops->get(store, &bytes, "run.json", 0, -1));
    theirs = json_loadb(bytes.data, bytes.length, 0, NULL);
    if (theirs == NULL)
        GR_TRY(gr_fail(GR_ERR_DATA, place, "use another output directory", "not JSON"));
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

gr_status gr_run_identity_claim(struct gr_store *store, const struct gr_run_identity *identity)
{
    json_t *mine = describe(identity);
    gr_status status = put_json(store, "run.json", mine, true);

    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        status = compare_identity(store, mine);
    }
    json_decref(mine);
    return status;
}

gr_status gr_run_is_done(bool *is_done, struct gr_store *store)
{
    struct gr_buffer bytes = {0};
    gr_status status = store->ops->get(store, &bytes, "done.json", 0, -1);

    *is_done = status == GR_OK;
    gr_buffer_release(&bytes);
    if (status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

/* Puts one exported file and notes its hash. */
static gr_status export(struct gr_store *store, json_t *hashes, const char *key,
                        const struct gr_buffer *bytes)
{
    char hash[65];

    gr_sha256_hex(hash, bytes->data, (int64_t)bytes->length);
    json_object_set_new(hashes, key, json_string(hash));
    return store->ops->put(store, key, bytes->data, (int64_t)bytes->length);
}

gr_status gr_run_finish(struct gr_store *store, const struct gr_adapter *adapter,
                        const float *values, const char *base_model, int64_t step,
                        double final_loss)
{
    gr_status status = GR_OK;
    struct gr_buffer weights = {0}, config = {0};
    json_t *done = json_object(), *hashes = json_object();

    json_object_set_new(done, "adapter_sha256", hashes);
    json_object_set_new(done, "step", json_integer(step));
    json_object_set_new(done, "train_loss", json_real(final_loss));
    gr_peft_write_weights(&weights, adapter, values);
    gr_peft_write_config(&config, adapter, base_model);
    GR_TRY(gr_failpoint(GR_FAILPOINT_EXPORT_WEIGHTS));
    GR_TRY(export(store, hashes, "adapter/adapter_model.safetensors", &weights));
    GR_TRY(gr_failpoint(GR_FAILPOINT_EXPORT_CONFIG));
    GR_TRY(export(store, hashes, "adapter/adapter_config.json", &config));
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_BEFORE));
    GR_TRY(put_json(store, "done.json", done, false));
    GR_TRY(gr_failpoint(GR_FAILPOINT_DONE_AFTER));
out:
    json_decref(done);
    gr_buffer_release(&weights);
    gr_buffer_release(&config);
    return status;
}
