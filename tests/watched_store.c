/* Requests on their way to a real store.  See watched_store.h. */
#include "tests/watched_store.h"

#include <string.h>

static struct gr_watched_store *watched(struct gr_store *store)
{
    return (struct gr_watched_store *)store;
}

/* Whether this is one of the requests; what should happen before it has happened. */
static bool meets(struct gr_watched_store *w, const char *kind, const char *key)
{
    if ((w->kind != NULL && strcmp(w->kind, kind) != 0) || w->seen >= w->times ||
        strncmp(key, w->prefix, strlen(w->prefix)) != 0)
        return false;
    w->seen++;
    if (w->before != NULL)
        w->before(w);
    return true;
}

static gr_status no_answer(const char *key)
{
    gr_error_clear();
    return gr_fail(GR_ERR_RETRY, key, NULL, "no answer");
}

/* One request: `call` unless it is dropped, its answer unless that is lost. */
#define SEND(kind, key, call)                                                                      \
    do {                                                                                           \
        bool is_met = meets(w, kind, key);                                                         \
        gr_status status = GR_OK;                                                                  \
                                                                                                   \
        if (!is_met || !w->drops)                                                                  \
            status = call;                                                                         \
        return is_met && (w->drops || w->loses) ? no_answer(key) : status;                         \
    } while (0)

static gr_status watched_list(struct gr_store *store, struct gr_store_list *list,
                              const char *prefix)
{
    struct gr_watched_store *w = watched(store);

    memset(list, 0, sizeof *list);
    if (meets(w, "list", prefix) && (w->drops || w->loses))
        return no_answer(prefix);
    return w->real->ops->list(w->real, list, prefix);
}

static gr_status watched_get(struct gr_store *store, struct gr_buffer *bytes, const char *key,
                             int64_t offset, int64_t count)
{
    struct gr_watched_store *w = watched(store);
    bool is_met = meets(w, "get", key);
    gr_status status = w->real->ops->get(w->real, bytes, key, offset, count);

    if (is_met && w->tears)
        bytes->length /= 2;
    return is_met && (w->drops || w->loses) ? no_answer(key) : status;
}

static gr_status watched_put(struct gr_store *store, const char *key, const void *bytes,
                             int64_t count)
{
    struct gr_watched_store *w = watched(store);

    SEND("put", key, w->real->ops->put(w->real, key, bytes, count));
}

/* As S3 does it: a name that is taken is taken, whoever took it. */
static gr_status put_if_absent(struct gr_store *real, const char *key, const void *bytes,
                               int64_t count)
{
    struct gr_buffer there = {0};
    gr_status status = real->ops->get(real, &there, key, 0, 1);

    gr_buffer_release(&there);
    gr_error_clear();
    if (status == GR_OK)
        return gr_fail(GR_ERR_EXISTS, key, NULL, "the name is taken");
    return real->ops->put_if_absent(real, key, bytes, count);
}

static gr_status watched_put_if_absent(struct gr_store *store, const char *key, const void *bytes,
                                       int64_t count)
{
    struct gr_watched_store *w = watched(store);

    SEND("put_if_absent", key, put_if_absent(w->real, key, bytes, count));
}

static gr_status watched_remove(struct gr_store *store, const char *key)
{
    struct gr_watched_store *w = watched(store);

    SEND("remove", key, w->real->ops->remove(w->real, key));
}

void gr_watched_store_init(struct gr_watched_store *w, struct gr_store *real)
{
    static const struct gr_store_ops ops = {
        .list = watched_list,
        .get = watched_get,
        .put = watched_put,
        .put_if_absent = watched_put_if_absent,
        .remove = watched_remove,
    };

    *w = (struct gr_watched_store){
        .base = {&ops, "watched"}, .real = real, .prefix = "", .times = 0};
}
