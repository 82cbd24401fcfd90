/* Opening a model for a command.  See model_args.h. */
#include "launch/model_args.h"

#include "kernels/base/alloc.h"
#include "launch/job.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/device_config.h"
#include "trainer/run/device_peers.h"

#include <string.h>

/* Only a max_length that was asked for and is longer than the model's context is an error. */
static gr_status fit_length(struct gr_config *config, const struct gr_args *args,
                            bool as_long_as_model)
{
    gr_status status = GR_OK;
    struct gr_model_config model;
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);

    for (int64_t i = 0; i < set_count; i++) {
        if (strncmp(sets[i], "data.max_length=", strlen("data.max_length=")) == 0)
            return GR_OK;
    }
    GR_TRY(gr_model_config_load(&model, config->model));
    if (as_long_as_model || config->data.max_length > model.max_position_embeddings)
        config->data.max_length = model.max_position_embeddings;
out:
    return status;
}

static bool is_key(const char *set, const char *key)
{
    size_t length = strlen(key);

    return strncmp(set, key, length) == 0 && (set[length] == '=' || key[length - 1] == '.');
}

/* A key that changes nothing here would be taken for one that does. */
static gr_status check_sets(const char *const *sets, int64_t count)
{
    static const char *const sections[] = {"data.", "device.", "dist."};
    static const char *const files[] = {"data.train", "data.eval", "data.eval_split"};

    for (int64_t i = 0; i < count; i++) {
        bool has_effect = false;

        for (int64_t s = 0; s < GR_COUNT(sections); s++)
            has_effect = has_effect || is_key(sets[i], sections[s]);
        for (int64_t f = 0; f < GR_COUNT(files); f++)
            if (is_key(sets[i], files[f]))
                return gr_fail(GR_ERR_USAGE, "--set",
                               "graft eval --data FILE evaluates a whole file; training takes all "
                               "keys",
                               "the key has no effect here (found %s, expected one that says how "
                               "data is read)",
                               files[f]);
        if (!has_effect)
            return gr_fail(GR_ERR_USAGE, "--set",
                           "--model and --adapter say what is computed; training takes all keys",
                           "the key has no effect here (found %.*s, expected one of data, device "
                           "or dist)",
                           (int)strcspn(sets[i], "="), sets[i]);
    }
    return GR_OK;
}

gr_status gr_model_session_configure(struct gr_model_session *s, const struct gr_args *args,
                                     bool as_long_as_model)
{
    gr_status status = GR_OK;
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);

    memset(s, 0, sizeof *s);
    GR_TRY(gr_config_resolve(&s->config, NULL, sets, set_count));
    GR_TRY(check_sets(sets, set_count));
    gr_text_list_clear(&s->config.data.train); /* of a run's environment */
    gr_text_list_clear(&s->config.data.eval);
    s->config.data.eval_split = 0;
    gr_free(s->config.model);
    s->config.model = gr_strdup(gr_args_text(args, "model"));
    GR_TRY(gr_job_join(&s->comm, (double)s->config.dist.timeout_seconds));
    GR_TRY(gr_comm_agree_status(s->comm, fit_length(&s->config, args, as_long_as_model), "start"));
out:
    return status;
}

gr_status gr_model_session_open(struct gr_model_session *s, const struct gr_args *args)
{
    gr_status status = GR_OK;
    const char *adapter = gr_args_text(args, "adapter");

    status = gr_device_open(&s->dev, &s->config, gr_comm_local_rank(s->comm),
                            gr_comm_local_size(s->comm));
    GR_TRY(gr_comm_agree_status(s->comm, status, "device"));
    GR_TRY(gr_device_meet(s->dev, s->comm));
    status = gr_engine_load_model(&s->engine, &s->config, s->dev, s->comm);
    if (status == GR_OK && adapter != NULL)
        status = gr_peft_read(&s->adapter, &s->values, &s->engine.model.config, adapter);
    GR_TRY(gr_comm_agree_status(s->comm, status, "start"));
out:
    return status;
}

static gr_status set_adapter(struct gr_model_session *s)
{
    return s->adapter == NULL ? GR_OK : gr_engine_set_adapter(&s->engine, s->values, 0);
}

gr_status gr_model_session_prepare(struct gr_model_session *s, int64_t rows)
{
    gr_status status = GR_OK;

    GR_TRY(gr_engine_prepare_eval(&s->engine, s->adapter, rows));
    GR_TRY(set_adapter(s));
out:
    return status;
}

gr_status gr_model_session_prepare_generate(struct gr_model_session *s, int64_t prompt_tokens,
                                            int64_t text_tokens)
{
    gr_status status = GR_OK;

    GR_TRY(gr_engine_prepare_generate(&s->engine, s->adapter, prompt_tokens, text_tokens));
    GR_TRY(set_adapter(s));
out:
    return status;
}

void gr_model_session_close(struct gr_model_session *s, gr_status status)
{
    gr_engine_release(&s->engine);
    gr_device_destroy(s->dev);
    gr_job_leave(s->comm, status);
    gr_adapter_destroy(s->adapter);
    gr_free(s->values);
    gr_config_release(&s->config);
}
