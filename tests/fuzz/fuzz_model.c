/* A model's directory and an adapter's are refused, or mean something graft can compute.  Parts:
 * their files, of the model config.json, model.safetensors and model.safetensors.index.json, of the
 * adapter adapter_config.json and adapter_model.safetensors. */
#include "data/model_files.h"
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/model/peft_files.h"

#include <string.h>

static const char *const files[] = {"config.json", "model.safetensors",
                                    "model.safetensors.index.json", "adapter_config.json",
                                    "adapter_model.safetensors"};

static void read_weights(void)
{
    struct gr_model_files model = {0};
    gr_status status = gr_model_files_open(&model, fuzz_folder());

    fuzz_end(status);
    for (int64_t i = 0; i < model.count && status == GR_OK; i++) {
        const struct gr_model_tensor *tensor = &model.tensor[i];

        FUZZ_ASSERT(gr_model_files_find(&model, tensor->entry->name) == tensor);
        FUZZ_ASSERT(tensor->entry->bytes == 0 || gr_model_tensor_data(tensor) != NULL);
    }
    gr_model_files_close(&model);
}

/* An adapter for what the model is, if it is small: its size is no business of the file's. */
static void read_adapter(const struct gr_model_config *model)
{
    const int64_t most = 1 << 10;
    struct gr_lora_config config = {0};
    struct gr_adapter *adapter = NULL;
    float *values = NULL;
    gr_status status = gr_peft_read_config(&config, fuzz_folder());

    fuzz_end(status);
    if (status == GR_OK && model->layers <= 8 && model->hidden_size <= most &&
        model->intermediate_size <= most && model->heads * model->head_dim <= most &&
        config.r <= 16 && config.rank_pattern.count == 0) {
        struct gr_buffer bytes = {0};

        status = gr_peft_read(&adapter, &values, model, fuzz_folder());
        fuzz_end(status);
        if (status == GR_OK) {
            gr_peft_write_config(&bytes, adapter, "base");
            gr_peft_write_weights(&bytes, adapter, values);
        }
        gr_buffer_release(&bytes);
    }
    gr_adapter_destroy(adapter);
    gr_free(values);
    gr_lora_config_release(&config);
}

static void check_config(const struct gr_model_config *c)
{
    float cos_table[256], sin_table[256];

    FUZZ_ASSERT(c->vocab_size > 0 && c->hidden_size > 0 && c->intermediate_size > 0);
    FUZZ_ASSERT(c->layers > 0 && c->kv_heads > 0 && c->heads % c->kv_heads == 0);
    FUZZ_ASSERT(c->head_dim > 0 && c->head_dim % 2 == 0);
    FUZZ_ASSERT(c->eos_count >= 0 && c->eos_count <= GR_MODEL_MAX_EOS);
    FUZZ_ASSERT(c->rms_norm_eps >= 0 && c->sliding_window >= 0);
    if (c->head_dim <= 64)
        gr_rope_table(cos_table, sin_table, c, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    struct gr_model_config config;
    gr_status status;

    for (int i = 0; i < GR_COUNT(files); i++)
        fuzz_write_part(files[i], fuzz_find(part, count, files[i]));
    read_weights();
    status = gr_model_config_load(&config, fuzz_folder());
    fuzz_end(status);
    if (status == GR_OK) {
        check_config(&config);
        read_adapter(&config);
    }
    return 0;
}
