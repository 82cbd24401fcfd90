/* What the tests of both layouts share: a model of tests/golden on a device, weights and adapter
 * joined or composed. */
#ifndef GR_TESTS_LAYOUT_H
#define GR_TESTS_LAYOUT_H

#include "tests/engine_rig.h"

#include <stdio.h>
#include <stdlib.h>

/* By the environment, for what is prepared from here on: joined where it can be, or not. */
static inline void choose_layout(bool joined)
{
    if (joined)
        unsetenv("GRAFT_LORA_LAYOUT");
    else
        setenv("GRAFT_LORA_LAYOUT", "composed", 1);
}

enum { OPEN_KEYS = 4 };

/* In bf16, one micro-batch a step; keys: of the configuration besides, the rest NULL. */
static inline void open_model(struct engine_rig *r, const char *backend, const char *model,
                              const char *const keys[OPEN_KEYS])
{
    char path[512];
    const char *all[OPEN_KEYS + 4] = {path, "device.dtype=bf16", "train.micro_batches=1"};

    snprintf(path, sizeof path, "model=%s/tests/golden/%s", getenv("GRAFT_SOURCE_DIR"), model);
    for (int i = 0; i < OPEN_KEYS; i++)
        all[3 + i] = keys[i];
    engine_rig_open(r, backend, all);
}

#endif
