/* Runs in scratch folders.  See state_case.h. */
#include "tests/state_case.h"

#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"

#include <stdlib.h>

enum { OBJECT_BYTES = 300 };

/* ---- the world ------------------------------------------------------------------------------ */

static double unix_s(void *context)
{
    return ((struct gr_state_case *)context)->unix_s;
}

static double monotonic_s(void *context)
{
    return ((struct gr_state_case *)context)->monotonic_s;
}

static void sleep_s(void *context, double seconds)
{
    ((struct gr_state_case *)context)->monotonic_s += seconds;
}

static void uuid(void *context, char text[GR_STATE_UUID_BYTES])
{
    struct gr_state_case *sc = context;

    snprintf(text, GR_STATE_UUID_BYTES, "00000000-0000-4000-8000-%012d",
             (int)(++sc->uuid_count % 1000000));
}

void gr_state_case_init(struct gr_state_case *sc)
{
    static const char run_json[] = "{\"format\": 1}\n";

    gr_test_enter_folder();
    memset(sc, 0, sizeof *sc);
    ASSERT_OK(gr_store_open(&sc->store, "run"));
    ASSERT_OK(sc->store->ops->put_if_absent(sc->store, "run.json", run_json, sizeof run_json - 1));
    ASSERT_OK(gr_state_run_hash(sc->run_hash, sc->store));
    sc->unix_s = 1.7e9;
    sc->options = (struct gr_state_options){
        .run_hash = sc->run_hash,
        .kind = "test device",
        .host = "test.host",
        .pid = 1,
        .world_size = 1,
        .save_total_limit = GR_STATE_LIMIT_LEAST,
        .patience_s = 5,
        .clock = {unix_s, monotonic_s, sleep_s, uuid, sc},
    };
}

void gr_state_case_release(struct gr_state_case *sc)
{
    gr_store_close(sc->store);
}

/* ---- starts and saves ----------------------------------------------------------------------- */

static void fill(struct gr_checkpoint *c, int64_t step)
{
    static const char *const names[] = {"adapter_model.safetensors", "optimizer.safetensors"};

    c->object_count = GR_COUNT(names);
    for (int64_t i = 0; i < GR_COUNT(names); i++) {
        struct gr_state_object *o = &c->object[i];

        snprintf(o->name, sizeof o->name, "%s", names[i]);
        gr_buffer_clear(&o->bytes);
        for (int64_t j = 0; j < OBJECT_BYTES; j++) {
            char byte = (char)(step * 31 + i * 7 + j);

            gr_buffer_add(&o->bytes, &byte, 1);
        }
    }
}

static void assert_content(const struct gr_checkpoint *found, int64_t step)
{
    struct gr_checkpoint expected = {0};

    ASSERT_INT(found->step, step);
    ASSERT_INT(found->object_count, step == 0 ? 0 : 2);
    fill(&expected, step);
    for (int64_t i = 0; i < found->object_count; i++) {
        const struct gr_buffer *bytes = gr_checkpoint_object(found, expected.object[i].name);

        ASSERT(bytes != NULL);
        ASSERT_INT(bytes->length, OBJECT_BYTES);
        ASSERT(memcmp(bytes->data, expected.object[i].bytes.data, OBJECT_BYTES) == 0);
    }
    gr_checkpoint_release(&expected);
}

struct gr_state *gr_state_case_start(struct gr_state_case *sc, int64_t step)
{
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};

    ASSERT_OK(gr_state_start(&state, &found, sc->store, &sc->options));
    assert_content(&found, step);
    gr_checkpoint_release(&found);
    return state;
}

void gr_state_case_start_fails(struct gr_state_case *sc, gr_status expected, const char *words)
{
    struct gr_state *state = NULL;
    struct gr_checkpoint found = {0};
    gr_status status = gr_state_start(&state, &found, sc->store, &sc->options);

    ASSERT_TEXT(gr_status_name(status), gr_status_name(expected));
    ASSERT(state == NULL && found.object_count == 0);
    ASSERT_MSG(strstr(gr_error_message(), words) != NULL, "message \"%s\" lacks \"%s\"",
               gr_error_message(), words);
    gr_error_clear();
}

gr_status gr_state_case_save(struct gr_state *state, int64_t step, int64_t best_step)
{
    gr_status status = GR_OK;
    struct gr_checkpoint c = {.step = step,
                              .epoch = 1,
                              .epoch_first_step = 5,
                              .best_step = best_step,
                              .best_loss = 0.1,
                              .evals_since_best = 2};

    fill(&c, step);
    status = gr_state_save(state, &c);
    gr_checkpoint_release(&c);
    return status;
}

void gr_state_case_run_to(struct gr_state_case *sc, int64_t last)
{
    struct gr_state *state = gr_state_case_start(sc, 0);

    for (int64_t step = 10; step <= last; step += 10)
        ASSERT_OK(gr_state_case_save(state, step, 0));
    gr_state_destroy(state);
}

/* ---- what lies in the store ----------------------------------------------------------------- */

void gr_state_case_keys(struct gr_state_case *sc, const char *prefix, const char *expected)
{
    struct gr_store_list list;
    struct gr_buffer keys = {0};

    ASSERT_OK(sc->store->ops->list(sc->store, &list, prefix));
    gr_buffer_add_text(&keys, "");
    for (int64_t i = 0; i < list.count; i++)
        gr_buffer_add_format(&keys, "%s ", list.entry[i].key + strlen(prefix));
    ASSERT_TEXT(keys.data, expected);
    gr_store_list_release(&list);
    gr_buffer_release(&keys);
}

int64_t gr_state_case_count(struct gr_state_case *sc, const char *prefix)
{
    struct gr_store_list list;
    int64_t count = 0;

    ASSERT_OK(sc->store->ops->list(sc->store, &list, prefix));
    count = list.count;
    gr_store_list_release(&list);
    return count;
}

bool gr_state_case_has(struct gr_state_case *sc, const char *key)
{
    return gr_state_case_count(sc, key) == 1;
}

char *gr_state_case_object_path(struct gr_state_case *sc, const char *name, const char *object)
{
    struct gr_store_list list;
    char *prefix = gr_format("objects/%s-", name);
    char *path = NULL;

    ASSERT_OK(sc->store->ops->list(sc->store, &list, prefix));
    for (int64_t i = 0; i < list.count; i++) {
        if (path == NULL && strstr(list.entry[i].key, object) != NULL)
            path = gr_format("run/%s", list.entry[i].key);
    }
    ASSERT_MSG(path != NULL, "%s has no %s", name, object);
    gr_store_list_release(&list);
    gr_free(prefix);
    return path;
}

void gr_state_case_flip(const char *path, long offset)
{
    FILE *file = fopen(path, "r+b");
    int byte = 0;

    ASSERT_MSG(file != NULL, "%s", path);
    ASSERT(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET) == 0);
    byte = fgetc(file);
    ASSERT(byte != EOF && fseek(file, -1, SEEK_CUR) == 0);
    ASSERT(fputc(byte ^ 4, file) != EOF && fclose(file) == 0);
}
