/* A run.yaml in the making: cmd_init.c chooses what stands in it, init_yaml.c writes it. */
#ifndef GR_LAUNCH_INIT_DRAFT_H
#define GR_LAUNCH_INIT_DRAFT_H

#include "trainer/run/dry_run.h"

enum {
    GR_INIT_MANY_STEPS = 500, /* an epoch of so many learns what there is to learn */
    GR_INIT_EVALUATIONS = 5
};

struct gr_init_draft {
    struct gr_config config;
    const char *const *sets; /* what the user decides */
    int64_t set_count;
    struct gr_dry_run run;
    int32_t *length; /* [documents] ascending; cut to what was read */
    int64_t documents;
    int64_t longest_read, read_cut; /* limit of the reading, and documents cut to it */
    bool has_length;                /* the user, or a token store, decides data.max_length */
    int64_t epoch_steps;
    struct gr_buffer yaml;
    struct gr_buffer left; /* names of data files that are left out */
};

/* The length that `percent` of the documents do not exceed. */
static inline int64_t gr_init_length_of(const struct gr_init_draft *d, int64_t percent)
{
    return d->length[(d->documents - 1) * percent / 100];
}

/* Whether the user gave the key a value. */
bool gr_init_is_set(const struct gr_init_draft *d, const char *key);

/* d->yaml <- the file.  Everything else is decided. */
void gr_init_write_yaml(struct gr_init_draft *d);

#endif
