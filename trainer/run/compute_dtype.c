/* Resolving device.dtype.  See compute_dtype.h. */
#include "trainer/run/compute_dtype.h"

#include "trainer/model/weights.h"
#include "trainer/run/memory_plan.h"
#include "trainer/state/identity.h"

#include <string.h>

/* word, dtype; the words as config_fields.h has them */
#define DTYPE_WORDS(X)                                                                             \
    X("f32", GR_F32)                                                                               \
    X("bf16", GR_BF16)

/* false: no such word */
static bool find_word(enum gr_dtype *dtype, const char *word)
{
#define X(text, value)                                                                             \
    if (strcmp(word, text) == 0) {                                                                 \
        *dtype = value;                                                                            \
        return true;                                                                               \
    }
    DTYPE_WORDS(X)
#undef X
    return false;
}

const char *gr_compute_dtype_word(enum gr_dtype dtype)
{
#define X(text, value)                                                                             \
    if (dtype == (value))                                                                          \
        return text;
    DTYPE_WORDS(X)
#undef X
    GR_CHECK(false, "%s", gr_dtype_name(dtype));
    return "";
}

enum gr_dtype gr_compute_dtype_choose(const struct gr_config *config, bool prefers_bf16,
                                      int64_t f32_bytes, int64_t memory_bytes)
{
    enum gr_dtype dtype = prefers_bf16 || f32_bytes > memory_bytes ? GR_BF16 : GR_F32;

    find_word(&dtype, config->device.dtype);
    return dtype;
}

/* What run.json of the output says; *is_there false: there is none. */
static gr_status read_recorded(enum gr_dtype *dtype, bool *is_there, const char *output)
{
    gr_status status = GR_OK;
    struct gr_store *store = NULL;
    char word[16] = "";

    *is_there = false;
    if (output == NULL || !gr_store_is_there(output))
        return GR_OK;
    GR_TRY(gr_store_open(&store, output));
    GR_TRY(gr_run_recorded_dtype(word, store));
    *is_there = find_word(dtype, word);
out:
    gr_store_close(store);
    return status;
}

static gr_status check_device(enum gr_dtype dtype, const struct gr_device *dev)
{
    if (strcmp(gr_device_name(dev), "cuda") != 0 || dtype == GR_BF16)
        return GR_OK;
    return gr_fail(GR_ERR_USAGE, "device.dtype",
                   "--set device.backend=cpu, or begin another output with device.dtype: bf16",
                   "the CUDA backend computes in bf16 (found %s)", gr_compute_dtype_word(dtype));
}

gr_status gr_compute_dtype_resolve(enum gr_dtype *dtype, const struct gr_config *config,
                                   const struct gr_device *dev)
{
    gr_status status = GR_OK;
    struct gr_model_config model;
    int64_t memory = config->device.memory > 0 ? config->device.memory : gr_memory_machine();
    bool is_recorded = false;

    if (find_word(dtype, config->device.dtype))
        return check_device(*dtype, dev);
    GR_TRY(read_recorded(dtype, &is_recorded, config->output));
    if (is_recorded)
        return check_device(*dtype, dev);
    GR_TRY(gr_model_config_load(&model, config->model));
    *dtype =
        gr_compute_dtype_choose(config, gr_device_prefers_bf16(dev),
                                gr_dtype_bytes(GR_F32) * gr_weights_parameters(&model), memory);
out:
    return status;
}

gr_status gr_compute_dtype_agree(enum gr_dtype *dtype, const struct gr_config *config,
                                 const struct gr_device *dev, struct gr_comm *comm)
{
    gr_status status = GR_OK;
    int root = gr_comm_io_rank(comm);

    if (gr_comm_rank(comm) == root)
        status = gr_compute_dtype_resolve(dtype, config, dev);
    GR_TRY(gr_comm_agree_status(comm, status, "dtype"));
    GR_TRY(gr_comm_broadcast(comm, root, dtype, (int64_t)sizeof *dtype, "dtype"));
out:
    return status;
}
