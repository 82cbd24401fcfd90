/* What `graft checkpoints` asks: list, verify, find, load, pin, unpin, remove.  See state.h.
 * Works beside a running writer: everything it deletes or keeps goes by the order that collect.c
 * and pins agree on.  Requests are sent once; the user sends them again. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "trainer/state/collect.h"
#include "trainer/state/manifest.h"
#include "trainer/state/record.h"
#include "trainer/state/verdict.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- list and verify ------------------------------------------------------------------------ */

gr_status gr_state_run_hash(char hash[GR_SHA256_HEX_BYTES], struct gr_store *store)
{
    struct gr_buffer bytes = {0};
    gr_status status = store->ops->get(store, &bytes, "run.json", 0, -1);

    if (status == GR_OK)
        gr_sha256_hex(hash, bytes.data, (int64_t)bytes.length);
    gr_buffer_release(&bytes);
    return status;
}

/* A failure that is about the bytes becomes the row's verdict. */
static gr_status to_verdict(struct gr_checkpoint_row *row, gr_status status)
{
    if (status != GR_ERR_DATA && status != GR_ERR_USAGE)
        return status;
    gr_free(row->bad);
    row->bad = gr_strdup(gr_error_message());
    gr_error_clear();
    return GR_OK;
}

/* Reads the manifest into the row; `run_hash` not NULL: and judges all bytes of a live one. */
static gr_status read_manifest(struct gr_checkpoint_row *row, int64_t *best_step,
                               const struct gr_access *a, const char *run_hash)
{
    gr_status status = GR_OK;
    struct gr_manifest m;
    struct gr_checkpoint c = {0};

    GR_TRY(gr_manifest_get(&m, a, row->name));
    for (int64_t i = 0; i < m.object_count; i++)
        row->bytes += m.object[i].bytes;
    row->unix_s = (double)m.unix_s;
    if (run_hash != NULL && row->is_live) {
        GR_TRY(gr_manifest_check_place(&m, a, run_hash));
        GR_TRY(gr_manifest_load(&c, a, &m));
    }
    if (row->is_live && row->bad == NULL && *best_step < 0)
        *best_step = m.at.best_step; /* what the newest good one says */
out:
    gr_checkpoint_release(&c);
    return status;
}

/* *is_gone: it was collected meanwhile. */
static gr_status fill_row(struct gr_checkpoint_row *row, bool *is_gone, int64_t *best_step,
                          struct gr_history *h, const struct gr_history_manifest *m,
                          const char *run_hash)
{
    gr_status status = GR_OK;

    *is_gone = false;
    memset(row, 0, sizeof *row);
    memcpy(row->name, m->name, sizeof row->name);
    row->step = m->step;
    row->term = m->term;
    row->is_pinned = m->is_pinned;
    GR_TRY(gr_history_is_live(&row->is_live, h, m));
    if (m->is_bad && run_hash == NULL)
        GR_TRY(gr_verdict_get(&row->bad, h->access, m->name));
    status = read_manifest(row, best_step, h->access, run_hash);
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        *is_gone = true;
        status = GR_OK;
    }
    status = to_verdict(row, status);
out:
    return status;
}

static gr_status list(struct gr_checkpoint_rows *rows, struct gr_store *store, const char *run_hash)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_history history = {0};
    int64_t best_step = -1;

    memset(rows, 0, sizeof *rows);
    GR_TRY(gr_history_read(&history, &access));
    rows->row = GR_NEW_ARRAY(struct gr_checkpoint_row, history.manifest_count);
    for (int64_t i = 0; i < history.manifest_count; i++) {
        struct gr_checkpoint_row *row = &rows->row[rows->count++];
        bool is_gone = false;

        GR_TRY(fill_row(row, &is_gone, &best_step, &history, &history.manifest[i], run_hash));
        if (is_gone) {
            gr_free(row->bad);
            rows->count--;
        }
    }
    for (int64_t i = 0; i < rows->count; i++)
        rows->row[i].is_best = rows->row[i].is_live && rows->row[i].step == best_step;
out:
    gr_history_release(&history);
    if (status != GR_OK)
        gr_checkpoint_rows_release(rows);
    return status;
}

gr_status gr_state_list(struct gr_checkpoint_rows *rows, struct gr_store *store)
{
    return list(rows, store, NULL);
}

gr_status gr_state_verify(struct gr_checkpoint_rows *rows, struct gr_store *store)
{
    gr_status status = GR_OK;
    char run_hash[GR_SHA256_HEX_BYTES];

    memset(rows, 0, sizeof *rows);
    GR_TRY(gr_state_run_hash(run_hash, store));
    GR_TRY(list(rows, store, run_hash));
out:
    return status;
}

const struct gr_checkpoint_row *gr_checkpoint_rows_newest(const struct gr_checkpoint_rows *rows)
{
    for (int64_t i = 0; i < rows->count; i++) {
        if (rows->row[i].is_live && rows->row[i].bad == NULL)
            return &rows->row[i];
    }
    return NULL;
}

void gr_checkpoint_rows_release(struct gr_checkpoint_rows *rows)
{
    for (int64_t i = 0; i < rows->count; i++)
        gr_free(rows->row[i].bad);
    gr_free(rows->row);
    memset(rows, 0, sizeof *rows);
}

/* ---- one checkpoint ------------------------------------------------------------------------- */

static gr_status fail_not_found(const struct gr_store *store, const char *which)
{
    gr_error_clear();
    return gr_fail(GR_ERR_NOT_FOUND, store->url, "graft checkpoints ls lists them",
                   "there is no checkpoint %s", which);
}

static gr_status find_step(char name[GR_CHECKPOINT_NAME_BYTES], struct gr_history *h, int64_t step)
{
    gr_status status = GR_OK;

    for (int64_t i = 0; i < h->manifest_count; i++) {
        bool is_live = false;

        if (h->manifest[i].step != step)
            continue;
        GR_TRY(gr_history_is_live(&is_live, h, &h->manifest[i]));
        if (is_live) {
            memcpy(name, h->manifest[i].name, GR_CHECKPOINT_NAME_BYTES);
            goto out;
        }
    }
    status = GR_ERR_NOT_FOUND;
out:
    return status;
}

gr_status gr_state_find(char name[GR_CHECKPOINT_NAME_BYTES], struct gr_store *store,
                        const char *which)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_history history = {0};
    size_t digits = strspn(which, "0123456789");
    bool is_step = digits > 0 && digits <= 12 && which[digits] == '\0';

    if (!is_step && !gr_name_is_checkpoint(which))
        GR_TRY(gr_fail(GR_ERR_USAGE, which, "graft checkpoints ls lists them",
                       "a checkpoint is called by its step or its name (found %s, expected one "
                       "like 100 or 000000000100-00000001)",
                       which));
    GR_TRY(gr_history_read(&history, &access));
    if (is_step)
        status = find_step(name, &history, strtoll(which, NULL, 10));
    else if (gr_history_find(&history, which) == NULL)
        status = GR_ERR_NOT_FOUND;
    else
        memcpy(name, which, GR_CHECKPOINT_NAME_BYTES);
    if (status == GR_ERR_NOT_FOUND)
        status = fail_not_found(store, which);
out:
    gr_history_release(&history);
    return status;
}

gr_status gr_state_load(struct gr_checkpoint *c, struct gr_store *store, const char *name)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_manifest m;
    char run_hash[GR_SHA256_HEX_BYTES];

    memset(c, 0, sizeof *c);
    GR_TRY(gr_state_run_hash(run_hash, store));
    GR_TRY(gr_manifest_get(&m, &access, name));
    GR_TRY(gr_manifest_check_place(&m, &access, run_hash));
    GR_TRY(gr_manifest_load(c, &access, &m));
out:
    return status;
}

/* ---- pins ----------------------------------------------------------------------------------- */

/* The manifest is still there, and so is its data: a put that comes very late may bring a collected
 * manifest back without any. */
static gr_status check_pinned(const struct gr_access *a, const struct gr_manifest *m)
{
    gr_status status = GR_OK;
    char key[GR_KEY_BYTES];
    bool is_there = false;

    gr_key_record(key, "ckpt", m->name);
    GR_TRY(gr_access_exists(a, &is_there, key));
    if (!is_there)
        GR_TRY(fail_not_found(a->store, m->name));
    GR_TRY(gr_manifest_check_objects(m, a));
out:
    return status;
}

gr_status gr_state_pin(struct gr_store *store, const char *name)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_buffer bytes = {0};
    struct gr_manifest m;
    struct gr_error error = {0};
    char key[GR_KEY_BYTES], pin[GR_KEY_BYTES];

    gr_key_record(key, "ckpt", name);
    gr_key_record(pin, "pin", name);
    status = gr_access_get(&access, &bytes, key, GR_RECORD_BYTES_MOST + 1);
    if (status == GR_ERR_NOT_FOUND)
        status = fail_not_found(store, name);
    GR_TRY(status);
    GR_TRY(gr_manifest_read(&m, &bytes, name, key));
    /* The pin holds the manifest, which a collector that dies in the wrong moment may not put back.
     */
    GR_TRY(gr_access_put(&access, pin, bytes.data, (int64_t)bytes.length));
    status = check_pinned(&access, &m);
    if (status == GR_ERR_NOT_FOUND) {
        error = gr_error_take();
        GR_TRY(store->ops->remove(store, pin));
        gr_error_put(&error);
        status = GR_ERR_NOT_FOUND;
    }
out:
    gr_buffer_release(&bytes);
    return status;
}

gr_status gr_state_unpin(struct gr_store *store, const char *name)
{
    char pin[GR_KEY_BYTES];

    gr_key_record(pin, "pin", name);
    return store->ops->remove(store, pin);
}

/* ---- remove --------------------------------------------------------------------------------- */

static gr_status fail_needed(const char *name, enum gr_collect_reason reason)
{
    static const char *const words[] = {
        [GR_COLLECT_NOT_NEEDED] = "just pinned",
        [GR_COLLECT_PINNED] = "pinned",
        [GR_COLLECT_BEST] = "the best that one of the three newest tells of",
        [GR_COLLECT_NEWEST] = "among the three newest good ones",
    };

    return gr_fail(GR_ERR_USAGE, name, "unpin it first, or let the run get further",
                   "the checkpoint stays (found it %s, expected an older one)", words[reason]);
}

gr_status gr_state_remove(struct gr_store *store, const char *name)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_history history = {0};
    const struct gr_history_manifest *m = NULL;
    enum gr_collect_reason *reasons = NULL, reason = GR_COLLECT_NOT_NEEDED;
    bool was_pinned = false;

    GR_TRY(gr_history_read(&history, &access));
    m = gr_history_find(&history, name);
    if (m == NULL)
        GR_TRY(fail_not_found(store, name));
    reasons = GR_NEW_ARRAY(enum gr_collect_reason, history.manifest_count);
    GR_TRY(gr_collect_reasons(reasons, &history, GR_STATE_LIMIT_LEAST));
    reason = reasons[m - history.manifest];
    if (reason == GR_COLLECT_NOT_NEEDED)
        GR_TRY(gr_collect_checkpoint(&was_pinned, &history, name, 0));
    if (reason != GR_COLLECT_NOT_NEEDED || was_pinned)
        status = fail_needed(name, reason);
out:
    gr_free(reasons);
    gr_history_release(&history);
    return status;
}
