/* Save: objects, fence, manifest.  See state.h.
 *
 * Nothing is visible before the manifest is put, and nothing is durable before it was read back.
 * An answer that got lost is settled by sending the same bytes again: the name is then taken by
 * ours, which is success, or by another's, which means that we are fenced. */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "trainer/state/internal.h"

#include <inttypes.h>
#include <string.h>

static struct gr_manifest describe(const struct gr_state *s, const struct gr_checkpoint *c)
{
    const struct gr_state_clock *clock = &s->options.clock;
    struct gr_manifest m = {
        .at = *c,
        .term = s->term.term,
        .base_step = s->term.base_step,
        .unix_s = (int64_t)clock->unix_s(clock->context),
        .object_count = c->object_count,
    };

    m.at.world_size = s->options.world_size;
    if (c->best_step == 0)
        m.at.best_loss = 0;
    gr_name_checkpoint(m.name, c->step, m.term);
    clock->uuid(clock->context, m.uuid);
    memcpy(m.run_hash, s->term.run_hash, sizeof m.run_hash);
    memcpy(m.previous, s->last.name, sizeof m.previous);
    memcpy(m.previous_hash, s->last.hash, sizeof m.previous_hash);
    for (int64_t i = 0; i < c->object_count; i++) {
        const struct gr_state_object *from = &c->object[i];
        struct gr_manifest_object *to = &m.object[i];

        GR_CHECK(gr_name_is_file(from->name), "%s", from->name);
        memcpy(to->name, from->name, sizeof to->name);
        to->bytes = (int64_t)from->bytes.length;
        gr_sha256_hex(to->hash, from->bytes.data, to->bytes);
    }
    return m;
}

/* ---- objects -------------------------------------------------------------------------------- */

static gr_status put_objects(const struct gr_access *a, const struct gr_manifest *m,
                             const struct gr_checkpoint *c)
{
    gr_status status = GR_OK;
    char key[GR_KEY_BYTES];

    for (int64_t i = 0; i < c->object_count; i++) {
        GR_TRY(gr_failpoint(GR_FAILPOINT_SAVE_OBJECT));
        gr_key_object(key, m->name, m->uuid, c->object[i].name);
        GR_TRY(gr_access_put(a, key, c->object[i].bytes.data, m->object[i].bytes));
    }
out:
    return status;
}

static gr_status check_objects(const struct gr_access *a, const struct gr_manifest *m)
{
    gr_status status = gr_manifest_check_objects(m, a);
    struct gr_error error = {0};

    if (status != GR_ERR_NOT_FOUND)
        return status;
    error = gr_error_take();
    return gr_fail(GR_ERR_RETRY, NULL, "the store does not keep what it promised", "%s",
                   error.message);
}

/* ---- the manifest --------------------------------------------------------------------------- */

/* Puts it, the fence read again right before each try.  ERR_EXISTS: the name is taken. */
static gr_status put_manifest(const struct gr_access *a, const struct gr_manifest *m,
                              const struct gr_buffer *bytes)
{
    gr_status status = GR_OK;
    char key[GR_KEY_BYTES];
    struct gr_access_tries tries = {0};

    gr_key_record(key, "ckpt", m->name);
    do {
        GR_TRY(gr_term_check_fence(a, m->term));
        GR_TRY(gr_failpoint(GR_FAILPOINT_MANIFEST_BEFORE));
        status = a->store->ops->put_if_absent(a->store, key, bytes->data, (int64_t)bytes->length);
    } while (gr_access_again(a, status, &tries));
out:
    return status;
}

/* The manifest in the store must be ours. */
static gr_status read_back(const struct gr_access *a, const struct gr_manifest *m)
{
    struct gr_manifest found;
    gr_status status = gr_manifest_get(&found, a, m->name);

    if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        return gr_fail(GR_ERR_RETRY, a->store->url, "the store does not keep what it promised",
                       "the manifest of step %" PRId64 " was put but cannot be read back",
                       m->at.step);
    }
    if (status == GR_OK && strcmp(found.hash, m->hash) != 0)
        return gr_fail(GR_ERR_FENCED, a->store->url,
                       "the other one goes on with the run; nothing is to be done here",
                       "another writer has committed step %" PRId64 " in term %" PRId64, m->at.step,
                       m->term);
    return status;
}

gr_status gr_state_save(struct gr_state *state, const struct gr_checkpoint *c)
{
    gr_status status = GR_OK;
    struct gr_access access = gr_state_access(state);
    struct gr_manifest m;

    GR_CHECK(c->object_count >= 1 && c->object_count <= GR_STATE_OBJECTS, "%" PRId64,
             c->object_count);
    GR_CHECK(c->step >= state->last.step, "step %" PRId64 " after %" PRId64, c->step,
             state->last.step);
    if (c->step == state->last.step) /* the base, or what this term committed last */
        return gr_term_check_fence(&access, state->term.term);
    GR_TRY(gr_failpoint(GR_FAILPOINT_SAVE_BEGIN));
    m = describe(state, c);
    GR_TRY(put_objects(&access, &m, c));
    GR_TRY(check_objects(&access, &m));
    gr_manifest_write(&state->record, &m);
    GR_TRY(gr_failpoint(GR_FAILPOINT_SAVE_FENCE));
    status = put_manifest(&access, &m, &state->record);
    if (status == GR_ERR_EXISTS)
        gr_error_clear();
    else if (status != GR_OK)
        goto out;
    GR_TRY(gr_failpoint(GR_FAILPOINT_MANIFEST_AFTER));
    GR_TRY(read_back(&access, &m));
    /* A start may have come between fence and manifest, with a base before this step. */
    GR_TRY(gr_term_check_fence(&access, m.term));
    state->last = gr_state_link_of(&m);
    GR_TRY(gr_failpoint(GR_FAILPOINT_SAVE_DURABLE));
out:
    return status;
}
