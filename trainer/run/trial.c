/* Setting up a trial.  See trial.h. */
#include "trainer/run/trial.h"

#include "kernels/base/alloc.h"

#include <string.h>

static void copy_map(struct gr_name_map *to, const struct gr_pattern_map *from)
{
    to->count = from->count;
    to->key = GR_NEW_ARRAY(char *, from->count);
    to->value = GR_NEW_ARRAY(double, from->count);
    for (int64_t i = 0; i < from->count; i++) {
        to->key[i] = gr_strdup(from->item[i].pattern);
        to->value[i] = (double)from->item[i].value;
    }
}

void gr_lora_config_from(struct gr_lora_config *lora, const struct gr_config *config)
{
    const struct gr_text_list *targets = &config->lora.target_modules;

    *lora = (struct gr_lora_config){.r = config->lora.r,
                                    .lora_alpha = (double)config->lora.lora_alpha,
                                    .lora_dropout = config->lora.lora_dropout,
                                    .use_rslora = config->lora.use_rslora,
                                    .is_new = true};
    GR_CHECK(gr_lora_init_find(&lora->init, config->lora.init_lora_weights), "%s",
             config->lora.init_lora_weights);
    if (config->lora.target_modules_is_list) {
        lora->target_count = targets->count;
        lora->target_modules = GR_NEW_ARRAY(char *, targets->count);
        for (int64_t i = 0; i < targets->count; i++)
            lora->target_modules[i] = gr_strdup(targets->item[i]);
    } else {
        lora->target_regex = gr_strdup(targets->item[0]);
    }
    copy_map(&lora->rank_pattern, &config->lora.rank_pattern);
    copy_map(&lora->alpha_pattern, &config->lora.alpha_pattern);
}

static void add_span(struct gr_trial *trial, int64_t begin, int64_t end, const struct gr_config *c,
                     double ratio)
{
    trial->span[trial->spans] =
        (struct gr_adamw_span){.begin = begin, .end = end, .weight_decay = c->train.weight_decay};
    trial->span_ratio[trial->spans++] = ratio;
}

/* One span for all, or with LoRA+ one per matrix, since B's rate differs from A's. */
static void make_spans(struct gr_trial *trial, const struct gr_config *c)
{
    const struct gr_adapter *adapter = trial->adapter;
    double ratio = c->lora.loraplus_lr_ratio;

    trial->span = GR_NEW_ARRAY(struct gr_adamw_span, 2 * adapter->count);
    trial->span_ratio = GR_NEW_ARRAY(double, 2 * adapter->count);
    if (ratio == 1) {
        add_span(trial, 0, adapter->elements, c, 1);
        return;
    }
    for (int64_t i = 0; i < adapter->count; i++) {
        add_span(trial, adapter->matrix[i].a_begin, adapter->matrix[i].b_begin, c, 1);
        add_span(trial, adapter->matrix[i].b_begin, adapter->matrix[i].end, c, ratio);
    }
}

gr_status gr_trial_init(struct gr_trial *trial, const struct gr_config *config,
                        const struct gr_model_config *model, const struct gr_documents *documents,
                        int number, int64_t begin)
{
    gr_status status = GR_OK;
    struct gr_lora_config lora = {0};
    struct gr_loader_options options = {.max_length = config->data.max_length,
                                        .micro_batch_size = config->train.micro_batch_size,
                                        .micro_batches = config->train.micro_batches,
                                        .num_train_epochs = config->train.num_train_epochs,
                                        .max_steps = config->train.max_steps,
                                        .seed = (uint64_t)config->train.seed,
                                        .packing = config->data.packing,
                                        .shuffle = true};

    memset(trial, 0, sizeof *trial);
    trial->number = number;
    trial->seed = options.seed;
    GR_CHECK(gr_schedule_find(&trial->schedule, config->train.lr_scheduler_type), "%s",
             config->train.lr_scheduler_type);
    gr_lora_config_from(&lora, config);
    GR_TRY(gr_adapter_create(&trial->adapter, model, &lora));
    trial->begin = begin;
    trial->end = begin + trial->adapter->elements;
    make_spans(trial, config);
    GR_TRY(gr_loader_create(&trial->loader, documents, &options));
    GR_TRY(gr_batch_init(&trial->batch, trial->loader));
out:
    gr_lora_config_release(&lora);
    return status;
}

void gr_trial_bind_copy(struct gr_trial *trial)
{
    for (int i = 0; i < trial->spans && trial->adapter->copy.ndim != 0; i++)
        trial->span[i].copy =
            gr_tensor_rows(trial->adapter->copy, trial->span[i].begin, trial->span[i].end);
}

void gr_trial_release(struct gr_trial *trial)
{
    gr_batch_release(&trial->batch);
    gr_loader_destroy(trial->loader);
    gr_adapter_destroy(trial->adapter);
    gr_free(trial->span);
    gr_free(trial->span_ratio);
    memset(trial, 0, sizeof *trial);
}

double gr_trial_learning_rate(const struct gr_trial *trial, const struct gr_config *config,
                              int64_t step)
{
    int64_t total = gr_loader_total_steps(trial->loader);
    int64_t warmup = gr_schedule_warmup_steps(config->train.warmup_ratio, total);

    return config->train.learning_rate *
           gr_schedule_factor(trial->schedule, step - 1, warmup, total);
}
