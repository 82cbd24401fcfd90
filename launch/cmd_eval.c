/* graft eval: the loss of a model, with or without an adapter, over a file. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "launch/model_args.h"
#include "launch/print_json.h"
#include "trainer/model/peft_files.h"
#include "trainer/run/choices.h"
#include "trainer/run/eval.h"
#include "trainer/run/inputs.h"
#include "trainer/run/rank_check.h"

#include <math.h>
#include <stdio.h>

static const struct gr_option options[] = {
    GR_MODEL_OPTIONS,
    {"data", 0, GR_OPTION_REQUIRED, "FILE", "JSONL file to evaluate on", 0, 0},
    {"json", 0, GR_OPTION_FLAG, NULL, "print one JSON object", 0, 0},
    {"dump", 0, GR_OPTION_TEXT, "FILE.safetensors", "write tokens, labels and logits", 0, 0},
    {0},
};

/* JSON knows no infinity, and no NaN. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void print_json(const struct gr_sums *sums, double loss)
{
    json_t *object = json_pack("{s:o, s:o, s:I, s:I}", "eval_loss", number(loss), "perplexity",
                               number(exp(loss)), "supervised_tokens", (json_int_t)sums->supervised,
                               "tokens", (json_int_t)sums->tokens);

    gr_print_json(object);
    json_decref(object);
}

static void print_result(const struct gr_sums *sums, bool json)
{
    double loss = sums->loss / (double)sums->supervised;

    if (json)
        print_json(sums, loss);
    else
        printf("eval_loss %.6f  perplexity %.4f  supervised_tokens %lld  tokens %lld\n", loss,
               exp(loss), (long long)sums->supervised, (long long)sums->tokens);
}

/* What this rank does alone. */
static gr_status read_data(struct gr_inputs *inputs, struct gr_evaluator *evaluator,
                           struct gr_model_session *s)
{
    gr_status status = GR_OK;

    GR_TRY(gr_inputs_load(inputs, &s->config, &s->engine.model.config, gr_device_threads(s->dev)));
    GR_TRY(gr_evaluator_init(evaluator, &s->config, &inputs->eval, gr_comm_size(s->comm)));
out:
    return status;
}

/* Memory, and what computes, the same on all ranks. */
static gr_status prepare(struct gr_choices *choices, struct gr_evaluator *evaluator,
                         struct gr_model_session *s)
{
    gr_status status = GR_OK;

    GR_TRY(gr_choices_begin(choices, s->dev, s->comm, NULL));
    status = gr_model_session_prepare(s, gr_loader_rows(evaluator->loader));
    if (status == GR_OK && gr_comm_rank(s->comm) == gr_comm_io_rank(s->comm))
        status = gr_evaluator_rehearse(evaluator, &s->engine);
    GR_TRY(gr_comm_agree_status(s->comm, status, "start"));
    GR_TRY(gr_choices_settle(choices));
out:
    return status;
}

static gr_status evaluate(struct gr_model_session *s, const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_inputs inputs = {0};
    struct gr_evaluator evaluator = {0};
    struct gr_choices choices = {0};
    struct gr_sums sums = {0};
    char adapter_hash[GR_SHA256_HEX_BYTES] = "";
    const char *dump = gr_args_text(args, "dump");
    bool writes = gr_comm_rank(s->comm) == gr_comm_io_rank(s->comm);

    gr_text_list_set(&s->config.data.eval, gr_args_text(args, "data"));
    GR_TRY(gr_comm_agree_status(s->comm, read_data(&inputs, &evaluator, s), "inputs"));
    if (s->adapter != NULL)
        gr_peft_hash(adapter_hash, s->adapter, s->values);
    GR_TRY(gr_rank_check_same(&s->engine, &inputs, adapter_hash));
    GR_TRY(prepare(&choices, &evaluator, s));
    GR_TRY(gr_evaluate(&sums, &evaluator, &s->engine, 0));
    if (dump != NULL && writes)
        status = gr_evaluate_dump(&evaluator, &s->engine, dump);
    GR_TRY(gr_comm_agree_status(s->comm, status, "dump"));
    if (writes)
        print_result(&sums, gr_args_flag(args, "json"));
out:
    gr_choices_release(&choices);
    gr_evaluator_release(&evaluator);
    gr_inputs_release(&inputs);
    return status;
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_model_session session;

    GR_TRY(gr_model_session_configure(&session, args, false));
    GR_TRY(gr_model_session_open(&session, args));
    GR_TRY(evaluate(&session, args));
out:
    gr_model_session_close(&session, status);
    return status;
}

const struct gr_command gr_cmd_eval = {
    .name = "eval",
    .run = run,
    .usage = "--model DIR [--adapter DIR] --data FILE [--set KEY=VALUE]...\n"
             "       [--json] [--dump FILE.safetensors]",
    .summary = "print the loss of a model, with or without an adapter, on a file",
    .details = "eval_loss is the mean over all supervised tokens, perplexity its exponential, "
               "tokens those\nof all documents.  --json prints these four on one line: "
               "{\"eval_loss\": 2.5, \"perplexity\": 12.2,\n\"supervised_tokens\": 90, "
               "\"tokens\": 100}; what is not finite is null.\n"
               "The dump holds tokens, docs, labels, logits and row_loss of every supervised "
               "token.",
    .options = options,
};
