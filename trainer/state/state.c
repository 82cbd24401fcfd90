/* What is left of a writer's interface when start, save and collect are taken away.  See state.h.
 */
#include "trainer/state/state.h"

#include "kernels/base/alloc.h"
#include "trainer/state/internal.h"

#include <string.h>

void gr_checkpoint_release(struct gr_checkpoint *c)
{
    for (int64_t i = 0; i < c->object_count; i++)
        gr_buffer_release(&c->object[i].bytes);
    memset(c, 0, sizeof *c);
}

const struct gr_buffer *gr_checkpoint_object(const struct gr_checkpoint *c, const char *name)
{
    for (int64_t i = 0; i < c->object_count; i++) {
        if (strcmp(c->object[i].name, name) == 0)
            return &c->object[i].bytes;
    }
    return NULL;
}

struct gr_access gr_state_access(const struct gr_state *s)
{
    return (struct gr_access){
        .store = s->store, .clock = &s->options.clock, .patience_s = s->options.patience_s};
}

struct gr_state_link gr_state_link_of(const struct gr_manifest *m)
{
    struct gr_state_link link = {.step = m->at.step};

    memcpy(link.name, m->name, sizeof link.name);
    memcpy(link.hash, m->hash, sizeof link.hash);
    return link;
}

void gr_state_destroy(struct gr_state *state)
{
    if (state == NULL)
        return;
    gr_buffer_release(&state->record);
    gr_free(state);
}

int64_t gr_state_term(const struct gr_state *state)
{
    return state->term.term;
}

const char *gr_state_kind_before(const struct gr_state *state)
{
    return state->kind_before;
}

gr_status gr_state_check_fence(struct gr_state *state)
{
    struct gr_access access = gr_state_access(state);

    return gr_term_check_fence(&access, state->term.term);
}
