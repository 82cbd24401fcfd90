/* Collect: delete what nothing needs any more.  See state.h.
 *
 * First the manifest, then its data, so that never a manifest stands without data; the fence is
 * asked before each of the two.  Pins are listed again in between: one that came meanwhile gets its
 * manifest back. */
#include "trainer/state/collect.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/state/history.h"
#include "trainer/state/internal.h"
#include "trainer/state/record.h"

#include <string.h>

#define ORPHAN_LIFETIME_S (24.0 * 3600)

/* ---- one checkpoint ------------------------------------------------------------------------- */

static gr_status remove_key(const struct gr_access *a, const char *key)
{
    return a->store->ops->remove(a->store, key);
}

/* The data of every attempt at this step and term. */
static gr_status remove_objects(const struct gr_access *a, const char *name)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    char prefix[GR_KEY_BYTES];

    gr_key_object(prefix, name, "", ""); /* "objects/NAME-/" */
    prefix[strlen(prefix) - 1] = '\0';
    GR_TRY(gr_access_list(a, &list, prefix));
    for (int64_t i = 0; i < list.count; i++) {
        GR_TRY(remove_key(a, list.entry[i].key));
        GR_TRY(gr_failpoint(GR_FAILPOINT_GC_DATA));
    }
out:
    gr_store_list_release(&list);
    return status;
}

static gr_status check_writer(const struct gr_access *a, int64_t term)
{
    return term == 0 ? GR_OK : gr_term_check_fence(a, term);
}

gr_status gr_collect_checkpoint(bool *was_pinned, struct gr_history *h, const char *name,
                                int64_t term)
{
    gr_status status = GR_OK;
    const struct gr_access *a = h->access;
    struct gr_buffer manifest = {0};
    char key[GR_KEY_BYTES], verdict[GR_KEY_BYTES];

    *was_pinned = false;
    gr_key_record(key, "ckpt", name);
    gr_key_record(verdict, "bad", name);
    status = gr_access_get(a, &manifest, key, GR_RECORD_BYTES_MOST + 1);
    if (status == GR_ERR_NOT_FOUND) { /* another one is at it */
        gr_error_clear();
        status = GR_OK;
        goto out;
    }
    GR_TRY(status);
    GR_TRY(check_writer(a, term));
    GR_TRY(remove_key(a, key));
    GR_TRY(gr_failpoint(GR_FAILPOINT_GC_MANIFEST));
    GR_TRY(gr_history_read_pins(h));
    *was_pinned = gr_history_find(h, name)->is_pinned;
    if (*was_pinned && manifest.length <= GR_RECORD_BYTES_MOST) { /* else it never was one */
        GR_TRY(gr_access_put_if_absent(a, key, manifest.data, (int64_t)manifest.length));
        goto out;
    }
    GR_TRY(check_writer(a, term));
    GR_TRY(remove_objects(a, name));
    GR_TRY(remove_key(a, verdict));
out:
    gr_buffer_release(&manifest);
    return status;
}

/* ---- pins whose manifest is missing --------------------------------------------------------- */

/* A collector may die between deleting a manifest and seeing that it was just pinned.  Pins hold
 * the manifest: where its data is still there it comes back. */
static gr_status restore_pinned(const struct gr_access *a, const char *pin, const char *name)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    struct gr_manifest m;
    char key[GR_KEY_BYTES];

    gr_key_record(key, "ckpt", name);
    GR_TRY(gr_access_get(a, &bytes, pin, GR_RECORD_BYTES_MOST + 1));
    GR_TRY(gr_manifest_read(&m, &bytes, name, pin));
    GR_TRY(gr_manifest_check_objects(&m, a));
    GR_TRY(gr_access_put_if_absent(a, key, bytes.data, (int64_t)bytes.length));
out:
    gr_buffer_release(&bytes);
    if (status != GR_ERR_NOT_FOUND && status != GR_ERR_DATA && status != GR_ERR_EXISTS)
        return status;
    gr_error_clear(); /* unpinned, another's, without data, back already: nothing to do */
    return GR_OK;
}

static gr_status restore_all_pinned(const struct gr_access *a)
{
    gr_status status = GR_OK;
    struct gr_store_list pins = {0};
    char name[GR_CHECKPOINT_NAME_BYTES], key[GR_KEY_BYTES];

    GR_TRY(gr_access_list(a, &pins, "pin/"));
    for (int64_t i = 0; i < pins.count; i++) {
        bool is_there = false;

        if (!gr_key_parse_record(name, "pin", pins.entry[i].key))
            continue;
        gr_key_record(key, "ckpt", name);
        GR_TRY(gr_access_exists(a, &is_there, key));
        if (!is_there)
            GR_TRY(restore_pinned(a, pins.entry[i].key, name));
    }
out:
    gr_store_list_release(&pins);
    return status;
}

/* ---- what stays ----------------------------------------------------------------------------- */

/* The best that manifest `newest` tells of; a manifest that cannot be read tells of none. */
static gr_status keep_best(enum gr_collect_reason *reason, struct gr_history *h, int64_t newest)
{
    gr_status status = GR_OK;
    struct gr_manifest m = {0};

    status = gr_manifest_get(&m, h->access, h->manifest[newest].name);
    if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        return GR_OK;
    }
    GR_TRY(status);
    for (int64_t i = newest; i < h->manifest_count; i++) {
        bool is_live = false;

        if (h->manifest[i].step != m.at.best_step || reason[i] != GR_COLLECT_NOT_NEEDED)
            continue;
        GR_TRY(gr_history_is_live(&is_live, h, &h->manifest[i]));
        if (is_live)
            reason[i] = GR_COLLECT_BEST;
    }
out:
    return status;
}

gr_status gr_collect_reasons(enum gr_collect_reason *reason, struct gr_history *h, int64_t limit)
{
    gr_status status = GR_OK;
    int64_t newest = 0;

    for (int64_t i = 0; i < h->manifest_count; i++)
        reason[i] = h->manifest[i].is_pinned ? GR_COLLECT_PINNED : GR_COLLECT_NOT_NEEDED;
    for (int64_t i = 0; i < h->manifest_count && newest < limit; i++) {
        bool is_live = false;

        GR_TRY(gr_history_is_live(&is_live, h, &h->manifest[i]));
        if (!is_live || h->manifest[i].is_bad)
            continue;
        reason[i] = GR_COLLECT_NEWEST;
        newest++;
        GR_TRY(keep_best(reason, h, i));
    }
out:
    return status;
}

/* ---- orphans -------------------------------------------------------------------------------- */

/* Whether data of this term without a manifest is garbage: of our own at once, as there is no save
 * under way; of an earlier one a day after its successor began. */
static gr_status is_over(bool *over, const struct gr_state *s, const struct gr_access *a,
                         int64_t term)
{
    gr_status status = GR_OK;
    const struct gr_state_clock *clock = &s->options.clock;
    struct gr_term next;

    *over = term == s->term.term;
    if (term >= s->term.term)
        goto out;
    status = gr_term_get(&next, a, term + 1);
    if (status == GR_ERR_NOT_FOUND || status == GR_ERR_DATA) { /* then no earlier than ours */
        gr_error_clear();
        next = s->term;
        status = GR_OK;
    }
    GR_TRY(status);
    *over = clock->unix_s(clock->context) - (double)next.unix_s > ORPHAN_LIFETIME_S;
out:
    return status;
}

/* Data is listed before manifests: what is committed in between has one. */
static gr_status collect_orphans(const struct gr_state *s, const struct gr_access *a,
                                 const struct gr_store_list *objects, const struct gr_history *h)
{
    gr_status status = GR_OK;
    char name[GR_CHECKPOINT_NAME_BYTES], before[GR_CHECKPOINT_NAME_BYTES] = "";
    int64_t step = 0, term = 0;
    bool is_orphan = false;

    for (int64_t i = 0; i < objects->count; i++) {
        if (!gr_key_parse_object(name, objects->entry[i].key))
            continue;
        if (strcmp(name, before) != 0) {
            memcpy(before, name, sizeof before);
            gr_name_parse_checkpoint(&step, &term, name);
            is_orphan = gr_history_find(h, name) == NULL;
            if (is_orphan)
                GR_TRY(is_over(&is_orphan, s, a, term));
            if (is_orphan)
                GR_TRY(gr_term_check_fence(a, s->term.term));
        }
        if (is_orphan)
            GR_TRY(remove_key(a, objects->entry[i].key));
    }
out:
    return status;
}

gr_status gr_state_collect(struct gr_state *state)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = state->store};
    struct gr_store_list objects = {0};
    struct gr_history history = {0};
    enum gr_collect_reason *reason = NULL;
    bool was_pinned = false;

    GR_TRY(gr_term_check_fence(&access, state->term.term));
    GR_TRY(gr_access_list(&access, &objects, "objects/"));
    GR_TRY(restore_all_pinned(&access));
    GR_TRY(gr_history_read(&history, &access));
    reason = GR_NEW_ARRAY(enum gr_collect_reason, history.manifest_count);
    GR_TRY(gr_collect_reasons(reason, &history, state->options.save_total_limit));
    GR_TRY(collect_orphans(state, &access, &objects, &history));
    for (int64_t i = history.manifest_count - 1; i >= 0; i--) { /* the oldest first */
        const char *name = history.manifest[i].name;

        if (reason[i] == GR_COLLECT_NOT_NEEDED && strcmp(name, state->term.base) != 0 &&
            strcmp(name, state->last.name) != 0)
            GR_TRY(gr_collect_checkpoint(&was_pinned, &history, name, state->term.term));
    }
out:
    gr_free(reason);
    gr_history_release(&history);
    gr_store_list_release(&objects);
    return status;
}
