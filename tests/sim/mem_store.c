/* The sorted map, and the faults of its operations.  See mem_store.h. */
#include "tests/sim/mem_store.h"

#include "kernels/base/alloc.h"

#include <stdio.h>
#include <string.h>

struct object {
    char *key;
    struct gr_buffer bytes;
};
struct sim_bucket {
    struct sim_world *world;
    struct object *object; /* sorted by key */
    int64_t count;
    sim_watcher *watcher;
    void *watcher_context;
};
struct sim_store {
    struct gr_store base; /* first: a gr_store is one */
    struct sim_bucket *bucket;
    struct sim_process *process;
    struct sim_faults faults;
    int64_t operations;
};

/* ---- the map ----------------------------------------------------------------------------- */

struct sim_bucket *sim_bucket_create(struct sim_world *world)
{
    struct sim_bucket *bucket = GR_NEW(struct sim_bucket);

    bucket->world = world;
    return bucket;
}

void sim_bucket_destroy(struct sim_bucket *bucket)
{
    if (bucket == NULL)
        return;
    for (int64_t i = 0; i < bucket->count; i++) {
        gr_free(bucket->object[i].key);
        gr_buffer_release(&bucket->object[i].bytes);
    }
    gr_free(bucket->object);
    gr_free(bucket);
}

void sim_bucket_watch(struct sim_bucket *bucket, sim_watcher *watcher, void *context)
{
    bucket->watcher = watcher;
    bucket->watcher_context = context;
}

int64_t sim_bucket_count(const struct sim_bucket *bucket)
{
    return bucket->count;
}

const char *sim_bucket_key(const struct sim_bucket *bucket, int64_t index)
{
    return bucket->object[index].key;
}

/* Where the key is, or would be. */
static int64_t position_of(const struct sim_bucket *bucket, const char *key)
{
    int64_t low = 0, high = bucket->count;

    while (low < high) {
        int64_t middle = (low + high) / 2;

        if (strcmp(bucket->object[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct sim_bucket *bucket, int64_t position, const char *key)
{
    return position < bucket->count && strcmp(bucket->object[position].key, key) == 0;
}

const struct gr_buffer *sim_bucket_find(const struct sim_bucket *bucket, const char *key)
{
    int64_t position = position_of(bucket, key);

    return is_at(bucket, position, key) ? &bucket->object[position].bytes : NULL;
}

void sim_bucket_damage(struct sim_bucket *bucket, const char *key, int64_t bit)
{
    int64_t position = position_of(bucket, key);

    GR_CHECK(is_at(bucket, position, key), "no %s", key);
    bucket->object[position].bytes.data[bit / 8] ^= (char)(1 << bit % 8);
}

static void tell(struct sim_bucket *bucket, const char *who, const char *key)
{
    if (bucket->watcher != NULL)
        bucket->watcher(bucket->watcher_context, who, key);
}

/* The effect of the three operations that have one. */

static void effect_put(struct sim_bucket *bucket, const char *who, const char *key,
                       const void *bytes, int64_t count)
{
    int64_t position = position_of(bucket, key);
    struct object *object = NULL;

    if (!is_at(bucket, position, key)) {
        bucket->object = gr_realloc(bucket->object, bucket->count + 1, sizeof *bucket->object);
        memmove(&bucket->object[position + 1], &bucket->object[position],
                (size_t)(bucket->count - position) * sizeof *bucket->object);
        bucket->object[position] = (struct object){.key = gr_strdup(key)};
        bucket->count++;
    }
    object = &bucket->object[position];
    gr_buffer_clear(&object->bytes);
    gr_buffer_add(&object->bytes, bytes, (size_t)count);
    tell(bucket, who, key);
}

static gr_status effect_put_if_absent(struct sim_bucket *bucket, const char *who, const char *key,
                                      const void *bytes, int64_t count)
{
    const struct gr_buffer *there = sim_bucket_find(bucket, key);

    if (there == NULL) {
        effect_put(bucket, who, key, bytes, count);
        return GR_OK;
    }
    return there->length == (size_t)count && memcmp(there->data, bytes, (size_t)count) == 0
               ? GR_OK
               : GR_ERR_EXISTS;
}

static void effect_remove(struct sim_bucket *bucket, const char *who, const char *key)
{
    int64_t position = position_of(bucket, key);

    if (!is_at(bucket, position, key))
        return;
    gr_free(bucket->object[position].key);
    gr_buffer_release(&bucket->object[position].bytes);
    bucket->count--;
    memmove(&bucket->object[position], &bucket->object[position + 1],
            (size_t)(bucket->count - position) * sizeof *bucket->object);
    tell(bucket, who, key);
}

void sim_bucket_put(struct sim_bucket *bucket, const char *key, const char *text)
{
    effect_put(bucket, "the world", key, text, (int64_t)strlen(text));
}

/* ---- puts that arrive later -------------------------------------------------------------- */

struct late_put {
    struct sim_bucket *bucket;
    bool if_absent;
    int64_t count;
    int64_t key_bytes; /* with the NUL */
    char content[];    /* the key, then the bytes */
};

static void late_put_arrives(struct sim_world *world, void *context)
{
    struct late_put *put = context;
    const char *bytes = put->content + put->key_bytes;
    gr_status status = GR_OK;

    if (put->if_absent)
        status = effect_put_if_absent(put->bucket, "late", put->content, bytes, put->count);
    else
        effect_put(put->bucket, "late", put->content, bytes, put->count);
    sim_trace(world, NULL, "late put of %s arrives: %s", put->content, gr_status_name(status));
}

static void send_late_put(struct sim_store *s, const char *key, const void *bytes, int64_t count,
                          bool if_absent)
{
    size_t key_bytes = strlen(key) + 1;
    struct late_put *put = gr_alloc((int64_t)sizeof *put + (int64_t)key_bytes + count, 1);

    put->bucket = s->bucket;
    put->if_absent = if_absent;
    put->count = count;
    put->key_bytes = (int64_t)key_bytes;
    memcpy(put->content, key, key_bytes);
    memcpy(put->content + key_bytes, bytes, (size_t)count);
    sim_after(s->bucket->world, sim_random(s->bucket->world, s->faults.late_ns) + 1,
              late_put_arrives, put);
}

/* ---- operations -------------------------------------------------------------------------- */

static gr_status no_answer(const struct sim_store *s, const char *verb, const char *key,
                           const char *fault)
{
    sim_trace(s->bucket->world, s->process, "%s %s: %s", verb, key, fault);
    return gr_fail(GR_ERR_RETRY, "sim:", NULL, "no answer (%s %s)", verb, key);
}

static void maybe_stall(struct sim_store *s, int per_mille, const char *verb, const char *key,
                        const char *when)
{
    struct sim_world *world = s->bucket->world;

    if (sim_is_dead(s->process) || !sim_chance(world, per_mille))
        return;
    sim_trace(world, s->process, "%s %s: sleeps %s it", verb, key, when);
    if (s->faults.asleep != NULL)
        s->faults.asleep(s->faults.asleep_context);
    sim_wait(s->process, sim_random(world, s->faults.stall_ns) + 1);
    sim_trace(world, s->process, "wakes up");
}

/* The way there: time passes, the process may die, the request may be refused. */
static gr_status before(struct sim_store *s, const char *verb, const char *key)
{
    struct sim_world *world = s->bucket->world;

    s->operations++;
    if (sim_is_dead(s->process)) {
        sim_wait(s->process, 1); /* counts: who never gives up is found */
        return gr_fail(GR_ERR_RETRY, "sim:", NULL, "the process is dead (%s %s)", verb, key);
    }
    maybe_stall(s, s->faults.stall, verb, key, "before");
    sim_wait(s->process, sim_random(world, s->faults.latency_ns) + 1);
    if (!sim_is_dead(s->process) && s->operations == s->faults.crash_at && sim_chance(world, 500)) {
        sim_trace(world, s->process, "%s %s: CRASH before it", verb, key);
        sim_crash(s->process);
    }
    if (sim_is_dead(s->process))
        return gr_fail(GR_ERR_RETRY, "sim:", NULL, "the process is dead (%s %s)", verb, key);
    return sim_chance(world, s->faults.fail) ? no_answer(s, verb, key, "fails") : GR_OK;
}

/* The way back of an operation that took effect and says `status`. */
static gr_status after(struct sim_store *s, const char *verb, const char *key, gr_status status)
{
    struct sim_world *world = s->bucket->world;

    sim_trace(world, s->process, "%s %s%s%s", verb, key, status == GR_OK ? "" : ": ",
              status == GR_OK ? "" : gr_status_name(status));
    sim_wait(s->process, sim_random(world, s->faults.latency_ns) + 1);
    maybe_stall(s, s->faults.stall, verb, key, "after");
    if (!sim_is_dead(s->process) && s->operations == s->faults.crash_at) {
        sim_trace(world, s->process, "%s %s: CRASH after it", verb, key);
        sim_crash(s->process);
    }
    if (sim_is_dead(s->process))
        return gr_fail(GR_ERR_RETRY, "sim:", NULL, "the process is dead (%s %s)", verb, key);
    if (sim_chance(world, s->faults.lose_answer))
        return no_answer(s, verb, key, "took effect, its answer is lost");
    if (status != GR_OK)
        gr_fail(status, "sim:", NULL, "%s of %s refused", verb, key);
    return status;
}

static struct sim_store *as_sim_store(struct gr_store *store)
{
    return (struct sim_store *)store;
}

static gr_status sim_list(struct gr_store *store, struct gr_store_list *list, const char *prefix)
{
    struct sim_store *s = as_sim_store(store);
    struct sim_bucket *bucket = s->bucket;
    gr_status status = GR_OK;

    memset(list, 0, sizeof *list);
    GR_TRY(before(s, "list", prefix));
    for (int64_t i = position_of(bucket, prefix); i < bucket->count; i++) {
        const struct object *object = &bucket->object[i];

        if (strncmp(object->key, prefix, strlen(prefix)) != 0)
            break;
        list->entry = gr_realloc(list->entry, list->count + 1, sizeof *list->entry);
        list->entry[list->count++] = (struct gr_store_entry){
            .key = gr_strdup(object->key), .bytes = (int64_t)object->bytes.length};
    }
    GR_TRY(after(s, "list", prefix, GR_OK));
out:
    if (status != GR_OK)
        gr_store_list_release(list);
    return status;
}

static gr_status sim_get(struct gr_store *store, struct gr_buffer *bytes, const char *key,
                         int64_t offset, int64_t count)
{
    struct sim_store *s = as_sim_store(store);
    const struct gr_buffer *there = NULL;
    gr_status status = GR_OK;

    gr_buffer_clear(bytes);
    GR_TRY(before(s, "get", key));
    there = sim_bucket_find(s->bucket, key);
    if (there != NULL) {
        int64_t left = (int64_t)there->length > offset ? (int64_t)there->length - offset : 0;

        if (count < 0 || count > left)
            count = left;
        gr_buffer_add(bytes, count == 0 ? "" : there->data + offset, (size_t)count);
    }
    status = after(s, "get", key, there == NULL ? GR_ERR_NOT_FOUND : GR_OK);
out:
    if (status != GR_OK)
        gr_buffer_clear(bytes);
    return status;
}

static gr_status put(struct gr_store *store, const char *verb, const char *key, const void *bytes,
                     int64_t count, bool if_absent)
{
    struct sim_store *s = as_sim_store(store);
    struct sim_world *world = s->bucket->world;
    const char *who = sim_name(s->process);
    gr_status status = GR_OK;

    if (if_absent)
        maybe_stall(s, s->faults.stall_before_put_if_absent, verb, key, "before");
    GR_TRY(before(s, verb, key));
    if (sim_chance(world, s->faults.late_put)) {
        send_late_put(s, key, bytes, count, if_absent);
        return no_answer(s, verb, key, "on its way still, no answer");
    }
    if (if_absent)
        status = effect_put_if_absent(s->bucket, who, key, bytes, count);
    else
        effect_put(s->bucket, who, key, bytes, count);
    if (sim_chance(world, s->faults.duplicate_put))
        send_late_put(s, key, bytes, count, if_absent);
    status = after(s, verb, key, status);
out:
    return status;
}

static gr_status sim_put(struct gr_store *store, const char *key, const void *bytes, int64_t count)
{
    return put(store, "put", key, bytes, count, false);
}

static gr_status sim_put_if_absent(struct gr_store *store, const char *key, const void *bytes,
                                   int64_t count)
{
    return put(store, "put-if-absent", key, bytes, count, true);
}

static gr_status sim_remove(struct gr_store *store, const char *key)
{
    struct sim_store *s = as_sim_store(store);
    gr_status status = GR_OK;

    GR_TRY(before(s, "remove", key));
    effect_remove(s->bucket, sim_name(s->process), key);
    status = after(s, "remove", key, GR_OK);
out:
    return status;
}

static void sim_destroy(struct gr_store *store)
{
    gr_free(as_sim_store(store));
}

static const struct gr_store_ops sim_ops = {
    .list = sim_list,
    .get = sim_get,
    .put = sim_put,
    .put_if_absent = sim_put_if_absent,
    .remove = sim_remove,
    .destroy = sim_destroy,
};

struct gr_store *sim_store_open(struct sim_bucket *bucket, struct sim_process *process,
                                const struct sim_faults *faults)
{
    struct sim_store *s = GR_NEW(struct sim_store);

    s->base = (struct gr_store){.ops = &sim_ops, .url = "sim:"};
    s->bucket = bucket;
    s->process = process;
    s->faults = *faults;
    return &s->base;
}
