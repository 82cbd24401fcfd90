/* Listings of a run, and the rule which manifests are live.  See history.h. */
#include "trainer/state/history.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "trainer/state/manifest.h"
#include "trainer/state/term.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_READ = -1 };

/* ---- listing -------------------------------------------------------------------------------- */

static gr_status list_terms(struct gr_history *h)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};

    GR_TRY(gr_access_list(h->access, &list, "term/"));
    h->term = GR_NEW_ARRAY(struct gr_history_term, list.count);
    for (int64_t i = 0; i < list.count; i++) { /* sorted by key: by number */
        struct gr_history_term *t = &h->term[h->term_count];

        t->base_step = NOT_READ;
        h->term_count += gr_key_parse_term(&t->term, list.entry[i].key);
    }
out:
    gr_store_list_release(&list);
    return status;
}

static int newest_first(const void *a, const void *b)
{
    return strcmp(((const struct gr_history_manifest *)b)->name,
                  ((const struct gr_history_manifest *)a)->name);
}

static gr_status list_manifests(struct gr_history *h)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};

    GR_TRY(gr_access_list(h->access, &list, "ckpt/"));
    h->manifest = GR_NEW_ARRAY(struct gr_history_manifest, list.count);
    for (int64_t i = 0; i < list.count; i++) {
        struct gr_history_manifest *m = &h->manifest[h->manifest_count];

        if (gr_key_parse_record(m->name, "ckpt", list.entry[i].key) &&
            gr_name_parse_checkpoint(&m->step, &m->term, m->name))
            h->manifest_count++;
    }
    if (h->manifest_count > 0)
        qsort(h->manifest, (size_t)h->manifest_count, sizeof *h->manifest, newest_first);
out:
    gr_store_list_release(&list);
    return status;
}

/* Sets the flag at `offset` of every manifest whose name stands in `folder`, clears the others'. */
static gr_status list_flags(struct gr_history *h, const char *folder, size_t offset)
{
    gr_status status = GR_OK;
    struct gr_store_list list = {0};
    char prefix[GR_KEY_BYTES], name[GR_CHECKPOINT_NAME_BYTES];

    snprintf(prefix, sizeof prefix, "%s/", folder);
    GR_TRY(gr_access_list(h->access, &list, prefix));
    for (int64_t i = 0; i < h->manifest_count; i++)
        *(bool *)((char *)&h->manifest[i] + offset) = false;
    for (int64_t i = 0; i < list.count; i++) {
        const struct gr_history_manifest *m = NULL;

        if (gr_key_parse_record(name, folder, list.entry[i].key))
            m = gr_history_find(h, name);
        if (m != NULL)
            *(bool *)((char *)&h->manifest[m - h->manifest] + offset) = true;
    }
out:
    gr_store_list_release(&list);
    return status;
}

gr_status gr_history_read_pins(struct gr_history *h)
{
    return list_flags(h, "pin", offsetof(struct gr_history_manifest, is_pinned));
}

gr_status gr_history_read(struct gr_history *h, const struct gr_access *a)
{
    gr_status status = GR_OK;

    memset(h, 0, sizeof *h);
    h->access = a;
    /* Terms first: whatever a term listed here has committed by now is in the second list. */
    GR_TRY(list_terms(h));
    GR_TRY(list_manifests(h));
    GR_TRY(list_flags(h, "bad", offsetof(struct gr_history_manifest, is_bad)));
    GR_TRY(gr_history_read_pins(h));
out:
    if (status != GR_OK)
        gr_history_release(h);
    return status;
}

void gr_history_release(struct gr_history *h)
{
    gr_free(h->manifest);
    gr_free(h->term);
    memset(h, 0, sizeof *h);
}

/* ---- questions ------------------------------------------------------------------------------ */

int64_t gr_history_newest_term(const struct gr_history *h)
{
    return h->term_count == 0 ? 0 : h->term[h->term_count - 1].term;
}

const struct gr_history_manifest *gr_history_find(const struct gr_history *h, const char *name)
{
    for (int64_t i = 0; i < h->manifest_count; i++) {
        if (strcmp(h->manifest[i].name, name) == 0)
            return &h->manifest[i];
    }
    return NULL;
}

/* The base of a term whose object is damaged, as its own manifests tell it.  Without them it has
 * committed nothing that a manifest of another term could contradict: no bound. */
static gr_status base_from_manifests(int64_t *base_step, const struct gr_history *h, int64_t term)
{
    gr_status status = GR_OK;
    struct gr_manifest m;

    *base_step = INT64_MAX;
    for (int64_t i = 0; i < h->manifest_count && *base_step == INT64_MAX; i++) {
        if (h->manifest[i].term != term)
            continue;
        status = gr_manifest_get(&m, h->access, h->manifest[i].name);
        if (status == GR_OK)
            *base_step = m.base_step;
        else if (status != GR_ERR_DATA && status != GR_ERR_NOT_FOUND)
            return status;
        gr_error_clear();
    }
    return GR_OK;
}

static gr_status read_base(struct gr_history_term *t, const struct gr_history *h)
{
    struct gr_term term;
    gr_status status = gr_term_get(&term, h->access, t->term);

    if (status == GR_OK)
        t->base_step = term.fence_only ? INT64_MAX : term.base_step;
    if (status != GR_ERR_DATA && status != GR_ERR_NOT_FOUND)
        return status;
    gr_warn("%s; going on without it", gr_error_message());
    gr_error_clear();
    return base_from_manifests(&t->base_step, h, t->term);
}

gr_status gr_history_bound(int64_t *bound, struct gr_history *h, int64_t term)
{
    gr_status status = GR_OK;

    *bound = INT64_MAX;
    for (int64_t i = h->term_count - 1; i >= 0 && h->term[i].term > term; i--) {
        if (h->term[i].base_step == NOT_READ)
            GR_TRY(read_base(&h->term[i], h));
        if (h->term[i].base_step < *bound)
            *bound = h->term[i].base_step;
    }
out:
    return status;
}

gr_status gr_history_is_live(bool *is_live, struct gr_history *h,
                             const struct gr_history_manifest *m)
{
    int64_t bound = 0;
    gr_status status = gr_history_bound(&bound, h, m->term);

    *is_live = status == GR_OK && m->step <= bound;
    return status;
}
