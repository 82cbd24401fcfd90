/* One case of tests/golden run through graft's model. */
#ifndef GR_TESTS_GOLDEN_CASE_H
#define GR_TESTS_GOLDEN_CASE_H

#include "data/safetensors.h"
#include "trainer/model/peft_files.h"
#include "trainer/model/transformer.h"

struct gr_golden {
    struct gr_safetensors truth;
    struct gr_device *dev;
    struct gr_model model;
    struct gr_adapter *adapter;
    struct gr_pass *pass;
    struct gr_arena fixed, step;
    struct gr_batch batch;
    gr_tensor gradient;
    /* found by gr_golden_run: largest difference over the truth's largest value */
    double logits_error, loss_error, gradient_error;
    char worst_gradient[160];
    /* per adapter tensor [2 * adapter->count]: ||g - g64|| / ||g64||, over that of PEFT in bf16 */
    double *bf16_ratio;
};

/* Any failure fails the test. */
void gr_golden_open(struct gr_golden *golden, const char *name, int threads, enum gr_dtype dtype);
void gr_golden_run(struct gr_golden *golden);
void gr_golden_close(struct gr_golden *golden);

#endif
