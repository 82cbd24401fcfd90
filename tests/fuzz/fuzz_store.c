/* See fuzz_store.h. */
#include "tests/fuzz/fuzz_store.h"

#include "kernels/base/alloc.h"

#include <string.h>

struct object {
    char *key;
    struct gr_buffer bytes;
};
struct memory_store {
    struct gr_store base;
    struct object *object; /* [count] sorted by key */
    int64_t count;
};

/* The place of the key, or where it would be. */
static int64_t place_of(const struct memory_store *m, const char *key)
{
    int64_t at = 0;

    while (at < m->count && strcmp(m->object[at].key, key) < 0)
        at++;
    return at;
}

static struct object *find(const struct memory_store *m, const char *key)
{
    int64_t at = place_of(m, key);

    return at < m->count && strcmp(m->object[at].key, key) == 0 ? &m->object[at] : NULL;
}

static gr_status list(struct gr_store *store, struct gr_store_list *found, const char *prefix)
{
    const struct memory_store *m = (const struct memory_store *)store;

    memset(found, 0, sizeof *found);
    found->entry = GR_NEW_ARRAY(struct gr_store_entry, m->count);
    for (int64_t i = 0; i < m->count; i++) {
        if (strncmp(m->object[i].key, prefix, strlen(prefix)) == 0)
            found->entry[found->count++] = (struct gr_store_entry){
                gr_strdup(m->object[i].key), (int64_t)m->object[i].bytes.length};
    }
    return GR_OK;
}

static gr_status get(struct gr_store *store, struct gr_buffer *bytes, const char *key,
                     int64_t offset, int64_t count)
{
    const struct object *o = find((struct memory_store *)store, key);
    int64_t there = 0;

    gr_buffer_clear(bytes);
    if (o == NULL)
        return gr_fail(GR_ERR_NOT_FOUND, key, NULL, "there is no such object");
    there = (int64_t)o->bytes.length > offset ? (int64_t)o->bytes.length - offset : 0;
    if (count >= 0 && count < there)
        there = count;
    if (there > 0)
        gr_buffer_add(bytes, o->bytes.data + offset, (size_t)there);
    return GR_OK;
}

static gr_status put(struct gr_store *store, const char *key, const void *bytes, int64_t count)
{
    struct memory_store *m = (struct memory_store *)store;
    int64_t at = place_of(m, key);

    if (find(m, key) == NULL) {
        m->object = gr_realloc(m->object, m->count + 1, sizeof *m->object);
        memmove(m->object + at + 1, m->object + at, (size_t)(m->count - at) * sizeof *m->object);
        m->object[at] = (struct object){.key = gr_strdup(key)};
        m->count++;
    }
    gr_buffer_clear(&m->object[at].bytes);
    gr_buffer_add(&m->object[at].bytes, bytes, (size_t)count);
    return GR_OK;
}

static gr_status put_if_absent(struct gr_store *store, const char *key, const void *bytes,
                               int64_t count)
{
    const struct object *o = find((struct memory_store *)store, key);

    if (o == NULL)
        return put(store, key, bytes, count);
    if ((int64_t)o->bytes.length == count && memcmp(o->bytes.data, bytes, (size_t)count) == 0)
        return GR_OK;
    return gr_fail(GR_ERR_EXISTS, key, NULL, "the object exists already");
}

static gr_status remove_key(struct gr_store *store, const char *key)
{
    struct memory_store *m = (struct memory_store *)store;
    struct object *o = find(m, key);

    if (o != NULL) {
        gr_free(o->key);
        gr_buffer_release(&o->bytes);
        m->count--;
        memmove(o, o + 1, (size_t)(m->count - (o - m->object)) * sizeof *o);
    }
    return GR_OK;
}

static void destroy(struct gr_store *store)
{
    struct memory_store *m = (struct memory_store *)store;

    for (int64_t i = 0; i < m->count; i++) {
        gr_free(m->object[i].key);
        gr_buffer_release(&m->object[i].bytes);
    }
    gr_free(m->object);
    gr_free(m);
}

static const struct gr_store_ops ops = {list, get, put, put_if_absent, remove_key, destroy};

struct gr_store *fuzz_store_open(void)
{
    struct memory_store *m = GR_NEW(struct memory_store);

    m->base = (struct gr_store){.ops = &ops, .url = "fuzz"};
    return &m->base;
}
