/* graft data: what a run would read.  prepare tokenizes ahead of time; show prints documents with
 * their supervised text marked; info counts.  The reading is trainer/run/inputs.c, as in training.
 */
#include "launch/cmd.h"

#include "data/show.h"
#include "kernels/base/alloc.h"
#include "kernels/base/env.h"
#include "launch/print_json.h"
#include "trainer/run/device_config.h"
#include "trainer/run/inputs.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct gr_option options[] = {
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key, after the file and the environment", 0,
     0},
    {"output", 'o', GR_OPTION_TEXT, "DIR",
     "of prepare: write train.h5 and eval.h5 there, not into the cache", 0, 0},
    {"count", 'n', GR_OPTION_INTEGER, "N", "of show: documents to print (3)", 1, 1e9},
    {"from", 0, GR_OPTION_INTEGER, "N", "of show: the first of them (1)", 1, 1e15},
    {"eval", 0, GR_OPTION_FLAG, NULL, "of show: those of data.eval or data.eval_split", 0, 0},
    {"json", 0, GR_OPTION_FLAG, NULL, "of info: one JSON object", 0, 0},
    {0},
};

/* What the actions work on. */
struct job {
    const struct gr_args *args;
    struct gr_config config;
    struct gr_model_config model;
    struct gr_inputs inputs;
};

static gr_status load(struct job *job)
{
    return gr_inputs_load(&job->inputs, &job->config, &job->model, gr_threads(&job->config, 1));
}

/* ---- prepare ------------------------------------------------------------------------------ */

static void say_prepared(const struct gr_prepared *store)
{
    printf("%s %s%s\n", store->list, store->path, store->was_there ? " (was there)" : "");
}

static gr_status prepare(struct job *job)
{
    return gr_inputs_prepare(&job->config, &job->model, gr_threads(&job->config, 1),
                             gr_args_text(job->args, "output"), say_prepared);
}

/* ---- show --------------------------------------------------------------------------------- */

/* "-- document 3 of 40: data.jsonl, 9 tokens, 8 supervised", then its text. */
static gr_status show_one(const struct gr_inputs *in, const struct gr_documents *d,
                          const struct gr_sources *sources, int64_t number)
{
    gr_status status = GR_OK;
    bool colours = isatty(STDOUT_FILENO) == 1 && gr_env(GR_ENV_NO_COLOR) == NULL;
    const struct gr_document *one = &d->document[number];
    struct gr_buffer text = {0};
    long long supervised = 0;

    for (int64_t t = one->offset; t < one->offset + one->length; t++)
        supervised += d->labels[t];
    GR_TRY(gr_show_document(&text, in->tokenizer, d, number,
                            colours ? GR_SHOW_COLOURS : GR_SHOW_BRACKETS));
    printf("-- document %lld of %lld: %s, %d tokens, %lld supervised\n%s\n", (long long)number + 1,
           (long long)d->count, sources->item[one->source].path, one->length, supervised,
           text.data);
out:
    gr_buffer_release(&text);
    return status;
}

static gr_status show(struct job *job)
{
    gr_status status = GR_OK;
    const struct gr_inputs *in = &job->inputs;
    bool is_eval = gr_args_flag(job->args, "eval");
    const struct gr_documents *d = is_eval ? &in->eval : &in->train;
    const struct gr_sources *sources = &in->train_sources;
    int64_t from = gr_args_integer(job->args, "from", 1) - 1;
    int64_t count = gr_args_integer(job->args, "count", 3);

    GR_TRY(load(job));
    if (is_eval && in->eval_sources.count > 0)
        sources = &in->eval_sources; /* else they are split from the training data */
    if (is_eval && d->count == 0)
        GR_TRY(
            gr_fail(GR_ERR_USAGE, "--eval", "name files in data.eval, or set data.eval_split",
                    "there is nothing to evaluate on (found no evaluation data, expected some)"));
    if (from >= d->count)
        GR_TRY(gr_fail(GR_ERR_USAGE, "--from",
                       "documents are numbered from 1, in the order of the files",
                       "there is no such document (found %lld, expected at most %lld)",
                       (long long)from + 1, (long long)d->count));
    for (int64_t i = from; i < d->count && i - from < count; i++)
        GR_TRY(show_one(in, d, sources, i));
out:
    return status;
}

/* ---- info --------------------------------------------------------------------------------- */

/* Tokens per document. */
struct lengths {
    long long min, median, p95, max;
    double mean;
};

static struct lengths measure(const struct gr_documents *d)
{
    struct lengths lengths = {0};
    int32_t *sorted = gr_documents_lengths(d);

    if (d->count > 0)
        lengths = (struct lengths){.min = sorted[0],
                                   .median = sorted[(d->count - 1) / 2],
                                   .p95 = sorted[(d->count - 1) * 95 / 100],
                                   .max = sorted[d->count - 1],
                                   .mean = (double)d->token_count / (double)d->count};
    gr_free(sorted);
    return lengths;
}

/* One of the two sets of documents. */
struct part {
    const char *name;
    const struct gr_documents *documents;
    const struct gr_sources *sources;
    const char *hash;
};

static json_t *part_json(const struct part *p)
{
    struct lengths l = measure(p->documents);

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:{s:I, s:f, s:I, s:I, s:I}, s:s, s:o}", "documents",
        (json_int_t)p->documents->count, "tokens", (json_int_t)p->documents->token_count,
        "supervised", (json_int_t)p->documents->supervised_count, "cut",
        (json_int_t)p->documents->truncated_count, "dropped",
        (json_int_t)p->documents->dropped_count, "lengths", "min", (json_int_t)l.min, "mean",
        l.mean, "median", (json_int_t)l.median, "p95", (json_int_t)l.p95, "max", (json_int_t)l.max,
        "sha256", p->hash, "sources", gr_sources_to_json(p->sources));
}

static void print_part(const struct part *p)
{
    const struct gr_documents *d = p->documents;
    struct lengths l = measure(d);

    printf("%s: %lld documents, %lld tokens, %lld supervised (%.1f %%), %lld cut, %lld left out\n",
           p->name, (long long)d->count, (long long)d->token_count, (long long)d->supervised_count,
           100.0 * (double)d->supervised_count / (double)(d->token_count > 0 ? d->token_count : 1),
           (long long)d->truncated_count, (long long)d->dropped_count);
    printf("  lengths    min %lld, mean %.1f, median %lld, 95 %% %lld, max %lld\n", l.min, l.mean,
           l.median, l.p95, l.max);
    for (int64_t i = 0; i < p->sources->count; i++) {
        const struct gr_source *s = &p->sources->item[i];

        printf("  source     %s: %lld records of format %s%s%s\n             sha256 %s\n", s->path,
               (long long)s->records, s->format, s->chat_format[0] != '\0' ? ", chat format " : "",
               s->chat_format, s->sha256);
    }
}

static void print_json(const struct gr_inputs *in, const struct part *parts, int64_t count)
{
    json_t *object = json_object();

    json_object_set_new(object, "tokenizer_sha256", json_string(in->tokenizer_hash));
    for (int64_t i = 0; i < count; i++)
        json_object_set_new(object, parts[i].name, part_json(&parts[i]));
    gr_print_json(object);
    json_decref(object);
}

static gr_status info(struct job *job)
{
    gr_status status = GR_OK;
    const struct gr_inputs *in = &job->inputs;
    const struct part parts[] = {{"train", &in->train, &in->train_sources, in->train_hash},
                                 {"eval", &in->eval, &in->eval_sources, in->eval_hash}};

    GR_TRY(load(job));
    if (gr_args_flag(job->args, "json")) {
        print_json(in, parts, in->eval.count > 0 ? 2 : 1);
        goto out;
    }
    for (int i = 0; i < (in->eval.count > 0 ? 2 : 1); i++)
        print_part(&parts[i]);
    printf("tokenizer: %s\n           sha256 %s\n", job->config.model, in->tokenizer_hash);
out:
    return status;
}

/* ---- the command -------------------------------------------------------------------------- */

static const struct action {
    const char *name;
    gr_status (*run)(struct job *job);
} actions[] = {{"prepare", prepare}, {"show", show}, {"info", info}};

static gr_status find_action(const struct action **action, const char *name)
{
    *action = NULL;
    for (int64_t i = 0; i < GR_COUNT(actions); i++) {
        if (strcmp(actions[i].name, name) == 0)
            *action = &actions[i];
    }
    if (*action == NULL)
        return gr_fail(GR_ERR_USAGE, "graft data", "graft data --help tells more",
                       "unknown action (found %s, expected prepare, show or info)", name);
    return GR_OK;
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    const struct action *action = NULL;
    const char *file = gr_args_positional(args, 1);
    int64_t set_count = 0;
    const char *const *sets = gr_args_list(args, "set", &set_count);
    struct job job = {.args = args};

    GR_TRY(find_action(&action, gr_args_positional(args, 0)));
    GR_TRY(gr_config_resolve(&job.config, file, sets, set_count));
    GR_TRY(gr_config_check(&job.config, file, GR_CONFIG_TO_READ));
    GR_TRY(gr_model_config_load(&job.model, job.config.model));
    GR_TRY(action->run(&job));
out:
    gr_inputs_release(&job.inputs);
    gr_config_release(&job.config);
    return status;
}

const struct gr_command gr_cmd_data = {
    .name = "data",
    .run = run,
    .usage = "prepare run.yaml [-o DIR] [--set KEY=VALUE]...\n"
             "       graft data show run.yaml [-n N] [--from N] [--eval] [--set KEY=VALUE]...\n"
             "       graft data info run.yaml [--json] [--set KEY=VALUE]...",
    .summary = "tokenize ahead of time, look at what is supervised, count",
    .details = "  prepare  tokenizes data.train and data.eval into the cache, from where every run "
               "with the\n"
               "           same data, tokenizer and settings takes them; with -o into DIR/train.h5 "
               "and\n"
               "           DIR/eval.h5, which data.train and data.eval take in place of the text\n"
               "  show     prints documents, [[supervised]] text marked\n"
               "  info     prints counts, lengths and the hashes of what was read\n"
               "\n"
               "A token store is HDF5: /tokens (u32), /labels (u8) and /documents {offset i64, "
               "length i32,\n"
               "source i32, weight f32}, uncompressed, with FILE.sha256 beside it.  One that "
               "another program\n"
               "wrote is taken with data.format: tokens.",
    .options = options,
    .is_alone = true,
    .least_positionals = 2,
    .most_positionals = 2,
};
