/* One case of tests/golden run through graft's model. */
#ifndef GR_TESTS_GOLDEN_CASE_H
#define GR_TESTS_GOLDEN_CASE_H

#include "data/safetensors.h"
#include "trainer/model/peft_files.h"
#include "trainer/model/transformer.h"

/* How the case is run. */
struct gr_golden_how {
    int threads;
    enum gr_dtype dtype;
    bool joined; /* weights and adapter are one matrix per group */
};

struct gr_golden {
    struct gr_safetensors truth;
    struct gr_device *dev;
    struct gr_model model;
    struct gr_adapter *adapter;
    struct gr_pass *pass;
    struct gr_arena weights, fixed, step;
    struct gr_batch batch;
    gr_tensor gradient;
    /* found by gr_golden_run: largest difference over the truth's largest value */
    double logits_error, loss_error, gradient_error;
    char worst_gradient[160];
    /* per adapter tensor [2 * adapter->count]: ||g - g64|| / ||g64||, over that of PEFT in bf16 */
    double *bf16_ratio;
};

/* Whether GRAFT_TEST_DEVICE says so: then the emulated plug-in or a real one, which computes in
 * bf16 alone. */
bool gr_golden_is_cuda(void);
/* On the CPU, or where the tests run on CUDA there.  Any failure fails the test. */
void gr_golden_open(struct gr_golden *golden, const char *name, struct gr_golden_how how);
void gr_golden_run(struct gr_golden *golden);
void gr_golden_close(struct gr_golden *golden);

#endif
