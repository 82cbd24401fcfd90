/* Start: fence, choose the base, take the next term with it, load it.  See state.h.
 *
 * A base is taken only from a listing made behind a fence: a term that nobody commits in.  What was
 * called durable before the fence is in that listing, and a writer that commits after it finds the
 * fence when it looks again, and calls nothing durable.  So a start takes a term that is a fence
 * alone, lists, and takes the next one with the base; should that put be lost to another start, it
 * begins again.  A fence that a start which died has left serves as well, and before the first term
 * there is nobody to fence.  A base that proves bad when it is loaded costs one more term. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "kernels/base/log.h"
#include "trainer/state/history.h"
#include "trainer/state/internal.h"
#include "trainer/state/verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS_MOST = 1000 }; /* others who start at the same time each cost one */

/* ---- the base ------------------------------------------------------------------------------- */

/* Leaves the verdict that the failure just reported means, if the manifest is still there: one that
 * was collected meanwhile has no data, and that is nobody's fault. */
static gr_status judge(const struct gr_access *a, const char *name)
{
    gr_status status = GR_OK;
    struct gr_error error = gr_error_take();
    char key[GR_KEY_BYTES];
    bool is_there = false;

    gr_key_record(key, "ckpt", name);
    GR_TRY(gr_access_exists(a, &is_there, key));
    if (!is_there)
        goto out;
    gr_warn("checkpoint %s is bad: %s", name, error.message);
    GR_TRY(gr_verdict_put(a, name, error.message));
out:
    return status;
}

/* The next round lists again after a verdict or when a manifest went away. */
enum choice { CHOICE_BASE, CHOICE_NONE, CHOICE_AGAIN };

/* The newest live manifest that is not bad, as far as a manifest alone can tell. */
static gr_status choose(enum choice *choice, struct gr_manifest *m, struct gr_history *h,
                        const char *run_hash)
{
    gr_status status = GR_OK;
    const struct gr_access *a = h->access;

    *choice = CHOICE_NONE;
    for (int64_t i = 0; i < h->manifest_count; i++) {
        const struct gr_history_manifest *candidate = &h->manifest[i];
        bool is_live = false;

        if (candidate->is_bad)
            continue;
        GR_TRY(gr_history_is_live(&is_live, h, candidate));
        if (!is_live)
            continue;
        status = gr_manifest_get(m, a, candidate->name);
        if (status == GR_OK)
            status = gr_manifest_check_place(m, a, run_hash);
        *choice = status == GR_OK ? CHOICE_BASE : CHOICE_AGAIN;
        if (status == GR_ERR_DATA) {
            status = judge(a, candidate->name);
        } else if (status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = GR_OK;
        }
        goto out;
    }
out:
    return status;
}

/* What was missing when a verdict was made may be back: looks at the condemned once more, newest
 * first, and lifts the first verdict that no longer holds. */
static gr_status acquit(bool *is_lifted, struct gr_history *h, const char *run_hash)
{
    gr_status status = GR_OK;
    const struct gr_access *a = h->access;
    struct gr_checkpoint c = {0};
    struct gr_manifest m;

    *is_lifted = false;
    for (int64_t i = 0; i < h->manifest_count && !*is_lifted; i++) {
        const struct gr_history_manifest *condemned = &h->manifest[i];
        bool is_live = false;

        GR_TRY(gr_history_is_live(&is_live, h, condemned));
        if (!is_live || !condemned->is_bad)
            continue;
        status = gr_manifest_get(&m, a, condemned->name);
        if (status == GR_OK)
            status = gr_manifest_check_place(&m, a, run_hash);
        if (status == GR_OK)
            status = gr_manifest_load(&c, a, &m);
        if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = GR_OK;
            continue;
        }
        GR_TRY(status);
        gr_warn("checkpoint %s was called bad, but is good now", condemned->name);
        GR_TRY(gr_verdict_lift(a, condemned->name));
        *is_lifted = true;
    }
out:
    gr_checkpoint_release(&c);
    return status;
}

/* The newest term that has a base went on from one: then there was a checkpoint. */
static gr_status check_last_base(const struct gr_history *h)
{
    gr_status status = GR_OK;
    struct gr_term t = {.fence_only = 1};

    for (int64_t i = h->term_count - 1; i >= 0 && t.fence_only; i--) {
        status = gr_term_get(&t, h->access, h->term[i].term);
        if (status != GR_ERR_DATA && status != GR_ERR_NOT_FOUND)
            GR_TRY(status);
        if (status != GR_OK)
            t.fence_only = 1;
        gr_error_clear();
        status = GR_OK;
    }
    if (!t.fence_only && t.base_step > 0)
        GR_TRY(gr_fail(
            GR_ERR_CORRUPT, h->access->store->url,
            "train.resume: never starts anew, another output too",
            "the checkpoints are gone (found none, expected at least that of step %" PRId64 ")",
            t.base_step));
out:
    return status;
}

/* Without a base the beginning is right only if every manifest there is was given up by a start
 * that itself began there. */
static gr_status check_beginning(struct gr_history *h)
{
    gr_status status = GR_OK;

    if (h->manifest_count == 0)
        GR_TRY(check_last_base(h));
    for (int64_t i = 0; i < h->manifest_count; i++) {
        int64_t bound = 0;

        GR_TRY(gr_history_bound(&bound, h, h->manifest[i].term));
        if (bound > 0)
            GR_TRY(gr_fail(GR_ERR_CORRUPT, h->access->store->url,
                           "graft checkpoints verify tells what is wrong; train.resume: never "
                           "starts anew, another output too",
                           "none of the checkpoints is good (found %" PRId64
                           ", the newest at step %" PRId64 ")",
                           h->manifest_count, h->manifest[0].step));
    }
out:
    return status;
}

/* ---- the term ------------------------------------------------------------------------------- */

/* Whether the term in the store is, to the byte, the one we put. */
static gr_status read_back(bool *is_ours, const struct gr_access *a, const char *key,
                           const struct gr_buffer *expected)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};

    *is_ours = false;
    for (int i = 0; i < GR_ACCESS_READS && !*is_ours; i++) {
        status = gr_access_get(a, &bytes, key, (int64_t)expected->length + 1);
        if (status != GR_OK)
            break;
        *is_ours = bytes.length == expected->length &&
                   memcmp(bytes.data, expected->data, bytes.length) == 0;
    }
    gr_buffer_release(&bytes);
    if (status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

/* Takes the term after the newest: a fence alone, or with the base in s->last.  Another may be
 * faster; then it is not ours. */
static gr_status take_term(bool *is_ours, struct gr_state *s, const struct gr_history *h,
                           bool fence_only)
{
    gr_status status = GR_OK;
    const struct gr_access *a = h->access;
    const struct gr_state_options *o = &s->options;
    struct gr_term *t = &s->term;
    char key[GR_KEY_BYTES];

    *is_ours = false;
    memset(t, 0, sizeof *t);
    t->term = gr_history_newest_term(h) + 1;
    if (t->term > GR_TERM_MOST)
        GR_TRY(gr_fail(GR_ERR_DATA, s->store->url, "use another output",
                       "the run has no terms left (found term %" PRId64 ")", t->term - 1));
    o->clock.uuid(o->clock.context, t->uuid);
    t->unix_s = (int64_t)o->clock.unix_s(o->clock.context);
    t->pid = o->pid;
    t->world_size = o->world_size;
    t->fence_only = fence_only;
    t->base_step = s->last.step;
    snprintf(t->run_hash, sizeof t->run_hash, "%s", o->run_hash);
    snprintf(t->kind, sizeof t->kind, "%s", o->kind);
    snprintf(t->host, sizeof t->host, "%s", o->host);
    snprintf(t->base, sizeof t->base, "%s", s->last.name);
    snprintf(t->base_hash, sizeof t->base_hash, "%s", s->last.hash);
    gr_term_write(&s->record, t);
    gr_key_term(key, t->term);
    GR_TRY(gr_failpoint(GR_FAILPOINT_TERM_BEFORE));
    status = gr_access_put_if_absent(a, key, s->record.data, (int64_t)s->record.length);
    if (status == GR_ERR_EXISTS) { /* another's, or ours, put by a try whose answer was lost */
        gr_error_clear();
        status = GR_OK;
    }
    GR_TRY(status);
    GR_TRY(gr_failpoint(GR_FAILPOINT_TERM_AFTER));
    GR_TRY(read_back(is_ours, a, key, &s->record));
out:
    if (!*is_ours)
        t->term = 0;
    return status;
}

/* Whether nobody commits in the newest term: there is none, it is a fence, or it is ours. */
static gr_status is_fence(bool *fence, const struct gr_state *s, const struct gr_history *h)
{
    struct gr_term newest;
    int64_t number = gr_history_newest_term(h);
    gr_status status = GR_OK;

    *fence = number == s->term.term; /* 0: none */
    if (*fence)
        return GR_OK;
    status = gr_term_get(&newest, h->access, number);
    *fence = status == GR_OK && newest.fence_only;
    if (status != GR_ERR_DATA && status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

/* The kind of devices that wrote the base; "" if its term cannot be read. */
static gr_status read_kind_before(struct gr_state *s, const struct gr_access *a,
                                  const struct gr_manifest *base)
{
    struct gr_term before;
    gr_status status = gr_term_get(&before, a, base->term);

    s->kind_before[0] = '\0';
    if (status == GR_OK)
        memcpy(s->kind_before, before.kind, sizeof before.kind);
    if (status != GR_ERR_DATA && status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

/* ---- start ---------------------------------------------------------------------------------- */

static void warn_of_giving_up(const struct gr_state *s, const struct gr_history *h)
{
    if (s->term.term == 0 && h->manifest_count > 0) /* before our own first term: once */
        gr_warn("train.resume: never: %" PRId64 " checkpoints up to step %" PRId64
                " are given up; the first new save deletes those that are not pinned",
                h->manifest_count, h->manifest[0].step);
}

/* The base as *m.  CHOICE_NONE: the beginning. */
static gr_status choose_base(enum choice *choice, struct gr_manifest *m, const struct gr_state *s,
                             struct gr_history *h)
{
    gr_status status = GR_OK;

    bool is_lifted = false;

    *choice = CHOICE_NONE;
    if (s->options.fresh) {
        warn_of_giving_up(s, h);
        goto out;
    }
    GR_TRY(gr_failpoint(GR_FAILPOINT_RESUME_CHOOSE));
    GR_TRY(choose(choice, m, h, s->options.run_hash));
    if (*choice == CHOICE_NONE) {
        GR_TRY(acquit(&is_lifted, h, s->options.run_hash));
        if (is_lifted)
            *choice = CHOICE_AGAIN;
        else
            GR_TRY(check_beginning(h));
    }
out:
    return status;
}

/* One listing.  *is_done stays false when another must be made. */
static gr_status start_round(bool *is_done, struct gr_state *s, struct gr_checkpoint *found,
                             struct gr_history *h)
{
    gr_status status = GR_OK;
    enum choice choice = CHOICE_NONE;
    struct gr_manifest m;
    bool is_fenced = false, is_ours = false;

    memset(&s->last, 0, sizeof s->last);
    /* Asked before the fence too: where nothing is good, no term is taken. */
    GR_TRY(choose_base(&choice, &m, s, h));
    if (choice == CHOICE_AGAIN)
        goto out;
    GR_TRY(is_fence(&is_fenced, s, h));
    if (is_fenced && choice == CHOICE_BASE)
        s->last = gr_state_link_of(&m);
    GR_TRY(take_term(&is_ours, s, h, !is_fenced));
    if (!is_fenced || !is_ours)
        goto out;
    if (choice == CHOICE_BASE) {
        GR_TRY(read_kind_before(s, h->access, &m));
        status = gr_manifest_load(found, h->access, &m);
        if (status == GR_ERR_DATA) {
            status = judge(h->access, m.name);
            goto out;
        }
        GR_TRY(status);
        GR_TRY(gr_failpoint(GR_FAILPOINT_RESUME_STAGED));
    }
    *is_done = true;
out:
    return status;
}

gr_status gr_state_start(struct gr_state **state, struct gr_checkpoint *found,
                         struct gr_store *store, const struct gr_state_options *options)
{
    gr_status status = GR_OK;
    struct gr_state *s = GR_NEW(struct gr_state);
    struct gr_history history = {0};
    struct gr_access access;
    bool is_done = false;

    GR_CHECK(options->save_total_limit >= GR_STATE_LIMIT_LEAST, "%" PRId64,
             options->save_total_limit);
    GR_CHECK(gr_name_is_hash(options->run_hash), "%s", options->run_hash);
    *state = NULL;
    memset(found, 0, sizeof *found);
    s->store = store;
    s->options = *options;
    access = gr_state_access(s);
    for (int round = 0; !is_done; round++) {
        if (round == ROUNDS_MOST)
            GR_TRY(gr_fail(GR_ERR_RETRY, store->url, "is it started from many places at once?",
                           "no term could be taken in %d rounds", ROUNDS_MOST));
        gr_history_release(&history);
        GR_TRY(gr_history_read(&history, &access));
        GR_TRY(start_round(&is_done, s, found, &history));
    }
    GR_TRY(gr_term_check_fence(&access, s->term.term));
    *state = s; /* ownership moved to the caller */
    s = NULL;
out:
    gr_history_release(&history);
    if (status != GR_OK)
        gr_checkpoint_release(found);
    gr_state_destroy(s);
    return status;
}
