/* What the commands that run a model without training it have in common: --model, --adapter, --set,
 * and from them an engine ready to evaluate. */
#ifndef GR_LAUNCH_MODEL_ARGS_H
#define GR_LAUNCH_MODEL_ARGS_H

#include "launch/args.h"
#include "trainer/run/engine.h"

#define GR_MODEL_OPTIONS                                                                           \
    {"model", 0, GR_OPTION_REQUIRED, "DIR", "Hugging Face model directory", 0, 0},                 \
        {"adapter", 0, GR_OPTION_TEXT, "DIR", "PEFT adapter directory", 0, 0},                     \
    {                                                                                              \
        "set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key of data, device or dist", 0, 0       \
    }

struct gr_model_session {
    struct gr_config config;
    struct gr_comm *comm;
    struct gr_device *dev;
    struct gr_engine engine;
    struct gr_adapter *adapter; /* NULL: the base model alone */
    float *values;              /* the adapter's, host memory */
};

/* First the configuration: defaults, environment, --set, then --model.  A max_length that was not
 * set is the model's context where that is shorter (as_long_as_model: in any case).  Errors: those
 * of the configuration, and of the model's config.json. */
gr_status gr_model_session_configure(struct gr_model_session *session, const struct gr_args *args,
                                     bool as_long_as_model);
/* Then the weights, for texts of data.max_length tokens; all ranks return the same.  Errors: those
 * of the parts: job, device, model, adapter. */
gr_status gr_model_session_open(struct gr_model_session *session, const struct gr_args *args);
/* Then memory for passes of `rows` rows; or for generation, as gr_engine_prepare_generate.  Errors:
 * ERR_DEVICE. */
gr_status gr_model_session_prepare(struct gr_model_session *session, int64_t rows);
gr_status gr_model_session_prepare_generate(struct gr_model_session *session, int64_t prompt_tokens,
                                            int64_t text_tokens);
/* status: of the command, see gr_job_leave. */
void gr_model_session_close(struct gr_model_session *session, gr_status status);

#endif
