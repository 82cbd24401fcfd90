/* A run directory of any content: reported, looked at, listed, verified, resumed, saved into and
 * collected.
 * Parts: its objects by key.  Records (term/, ckpt/, bad/) end before their seal, which is put
 * here;
 * @KEY@ in an object is replaced by the hash of that object, if it stands before. */
#include "data/hash.h"
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_store.h"
#include "trainer/report/page.h"
#include "trainer/run/snapshot.h"
#include "trainer/state/identity.h"
#include "trainer/state/names.h"
#include "trainer/state/run_files.h"

#include <stdio.h>
#include <string.h>

/* ---- the directory ------------------------------------------------------------------------ */

struct hashes {
    char key[FUZZ_PARTS][FUZZ_NAME_BYTES];
    char hash[FUZZ_PARTS][GR_SHA256_HEX_BYTES];
    int count;
};

static const char *hash_of(const struct hashes *h, const char *key, size_t length)
{
    for (int i = 0; i < h->count; i++) {
        if (strlen(h->key[i]) == length && memcmp(h->key[i], key, length) == 0)
            return h->hash[i];
    }
    return NULL;
}

/* bytes <- the part, with the hashes it asks for. */
static void fill_in(struct gr_buffer *bytes, const struct fuzz_part *part, const struct hashes *h)
{
    const char *at = part->bytes, *end = part->bytes + part->count;

    gr_buffer_clear(bytes);
    gr_buffer_add(bytes, "", 0);
    while (at < end) {
        const char *next = at[0] == '@' ? memchr(at + 1, '@', (size_t)(end - at - 1)) : NULL;
        const char *hash = next == NULL ? NULL : hash_of(h, at + 1, (size_t)(next - at - 1));

        if (hash != NULL)
            gr_buffer_add_text(bytes, hash);
        else
            gr_buffer_add(bytes, at, 1);
        at = hash != NULL ? next + 1 : at + 1;
    }
}

static bool is_record(const char *key)
{
    return strncmp(key, "term/", 5) == 0 || strncmp(key, "ckpt/", 5) == 0 ||
           strncmp(key, "bad/", 4) == 0;
}

static struct gr_store *make_run(const struct fuzz_part *part, int count)
{
    struct gr_store *store = fuzz_store_open();
    struct hashes *h = GR_NEW(struct hashes);
    struct gr_buffer bytes = {0};

    for (int i = 0; i < count; i++) {
        if (part[i].name[0] == '\0')
            continue;
        fill_in(&bytes, &part[i], h);
        memcpy(h->key[h->count], part[i].name, sizeof h->key[0]);
        gr_sha256_hex(h->hash[h->count], bytes.data, (int64_t)bytes.length);
        if (is_record(part[i].name))
            gr_buffer_add_format(&bytes, ",\n  \"sha256\": \"%s\"\n}\n", h->hash[h->count]);
        h->count++;
        store->ops->put(store, part[i].name, bytes.data, (int64_t)bytes.length);
    }
    gr_buffer_release(&bytes);
    gr_free(h);
    return store;
}

/* ---- who reads it ------------------------------------------------------------------------- */

static struct gr_adapter *the_adapter(void)
{
    static struct gr_adapter *adapter;
    const struct gr_model_config model = {.model_type = "llama",
                                          .vocab_size = 8,
                                          .hidden_size = 4,
                                          .intermediate_size = 4,
                                          .layers = 1,
                                          .heads = 1,
                                          .kv_heads = 1,
                                          .head_dim = 4};
    char *modules[] = {"q_proj"};
    const struct gr_lora_config config = {
        .r = 1, .lora_alpha = 1, .target_modules = modules, .target_count = 1};

    if (adapter == NULL)
        GR_CHECK(gr_adapter_create(&adapter, &model, &config) == GR_OK, "%s", gr_error_message());
    return adapter;
}

static void read_run_files(struct gr_store *store)
{
    struct gr_config config;
    const struct gr_run_identity identity = {.config = &config,
                                             .model_hash = "m",
                                             .tokenizer_hash = "t",
                                             .train_hash = "d",
                                             .eval_hash = "",
                                             .dtype = "f32",
                                             .total_steps = 2};
    const float values[8] = {0};
    enum gr_run_end end;
    struct gr_run_result lost;
    bool is_it = false;
    char word[16];

    gr_config_init(&config);
    fuzz_end(gr_run_recorded_dtype(word, store));
    fuzz_end(gr_run_identity_claim(store, &identity));
    fuzz_end(gr_run_look(&end, store, the_adapter()));
    fuzz_end(gr_run_export_again(&is_it, store, the_adapter(), values, "base"));
    fuzz_end(gr_run_lost_best(&lost, store));
    fuzz_end(gr_run_claim_parent(store, values, 8));
    gr_config_release(&config);
}

/* The page of any directory with a run.json: of some megabytes at most, whatever the values are. */
static void report(struct gr_store *store)
{
    const size_t page_most = (size_t)4 << 20;
    struct gr_run_record record;
    struct gr_buffer html = {0};
    gr_status status = gr_run_record_read(&record, store);

    fuzz_end(status);
    if (status == GR_OK) {
        gr_report_page(&html, &record, NULL, "fuzz", "fuzz");
        FUZZ_ASSERT(html.length < page_most);
    }
    gr_buffer_release(&html);
    gr_run_record_release(&record);
}

static void unpack(const struct gr_checkpoint *c)
{
    struct gr_snapshot snapshot;

    gr_snapshot_init(&snapshot, the_adapter()->elements);
    fuzz_end(gr_snapshot_unpack(&snapshot, c, the_adapter()));
    gr_snapshot_release(&snapshot);
}

static void read_checkpoints(struct gr_store *store)
{
    struct gr_checkpoint_rows rows = {0};

    fuzz_end(gr_state_verify(&rows, store));
    gr_checkpoint_rows_release(&rows);
    fuzz_end(gr_state_list(&rows, store));
    for (int64_t i = 0; i < rows.count; i++) {
        struct gr_checkpoint c = {0};
        char name[GR_CHECKPOINT_NAME_BYTES];
        gr_status status = gr_state_load(&c, store, rows.row[i].name);

        fuzz_end(status);
        if (status == GR_OK)
            unpack(&c);
        gr_checkpoint_release(&c);
        fuzz_end(gr_state_find(name, store, rows.row[i].name));
        fuzz_end(gr_state_pin(store, rows.row[i].name));
        if (i % 2 == 0)
            fuzz_end(gr_state_unpin(store, rows.row[i].name));
    }
    gr_checkpoint_rows_release(&rows);
}

/* ---- who writes into it ------------------------------------------------------------------- */

static double now;

static double seconds(void *context)
{
    (void)context;
    return now;
}

static void sleep_s(void *context, double duration)
{
    (void)context;
    now += duration;
}

static void uuid(void *context, char text[GR_STATE_UUID_BYTES])
{
    (void)context;
    snprintf(text, GR_STATE_UUID_BYTES, "00000000-0000-4000-8000-%012d", (int)now % 1000000);
    now += 1;
}

/* What was saved is the newest, whatever lay there. */
static void save(struct gr_state *state, struct gr_store *store, int64_t step)
{
    struct gr_checkpoint c = {.step = step, .object_count = 1}, again = {0};
    char name[GR_CHECKPOINT_NAME_BYTES];
    gr_status status;

    snprintf(c.object[0].name, sizeof c.object[0].name, "object");
    gr_buffer_add_text(&c.object[0].bytes, "bytes");
    status = gr_state_save(state, &c);
    fuzz_end(status);
    if (status == GR_OK) {
        fuzz_end(gr_state_collect(state));
        gr_name_checkpoint(name, step, gr_state_term(state));
        GR_CHECK(gr_state_load(&again, store, name) == GR_OK, "%s", gr_error_message());
    }
    gr_checkpoint_release(&again);
    gr_checkpoint_release(&c);
}

static void resume(struct gr_store *store)
{
    char run_hash[GR_SHA256_HEX_BYTES];
    const struct gr_state_options options = {.run_hash = run_hash,
                                             .kind = "fuzz",
                                             .host = "fuzz",
                                             .pid = 1,
                                             .world_size = 1,
                                             .save_total_limit = GR_STATE_LIMIT_LEAST,
                                             .patience_s = 5,
                                             .clock = {seconds, seconds, sleep_s, uuid, NULL}};
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};
    gr_status status = gr_state_run_hash(run_hash, store);

    now = 1.7e9;
    fuzz_end(status);
    if (status == GR_OK) {
        status = gr_state_start(&state, &found, store, &options);
        fuzz_end(status);
    }
    if (status == GR_OK) {
        if (found.step > 0)
            unpack(&found);
        if (found.step < GR_STEP_MOST)
            save(state, store, found.step + 1);
    }
    gr_checkpoint_release(&found);
    gr_state_destroy(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    struct gr_store *store = make_run(part, count);

    report(store);
    read_run_files(store);
    read_checkpoints(store);
    resume(store);
    resume(store); /* from what the first one left */
    gr_store_close(store);
    return 0;
}
