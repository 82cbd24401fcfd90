/* graft init: a run.yaml for a model and data, with the reason for each value beside it.  It goes
 * through the start of a run (trainer/run/dry_run.c), so what it writes trains, and what training
 * would refuse it refuses with the same words. */
#include "launch/cmd.h"
#include "launch/init_draft.h"

#include "data/store/store.h"
#include "data/token_store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"
#include "kernels/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const struct gr_option options[] = {
    {"output", 'o', GR_OPTION_TEXT, "FILE", "the file to write (run.yaml)", 0, 0},
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "give a key this value in the file", 0, 0},
    {0},
};

/* What the values are chosen by. */
enum {
    LONGEST_PACK = 4096, /* tokens; longer ones only if asked for: activations grow with it */
    SHORTEST_PACK = 256, /* products of fewer rows waste the processor */
    MOST_MICRO_BATCHES = 8,
    LEAST_EPOCH_STEPS = 16,  /* rather a smaller step than fewer of them */
    LEAST_STEPS = 30,        /* a run of fewer hardly moves */
    MOST_EPOCHS = 10,        /* more learn the data by heart */
    LEAST_SPLIT_COUNT = 200, /* documents from which a part is held out for evaluation */
};
static const double held_out = 0.05;

/* Small models learn at higher rates. */
static const struct {
    int64_t below_hidden; /* 0: any */
    double learning_rate;
} rates[] = {{256, 2e-3}, {1024, 5e-4}, {4096, 2e-4}, {0, 1e-4}};

bool gr_init_is_set(const struct gr_init_draft *d, const char *key)
{
    for (int64_t i = 0; i < d->set_count; i++) {
        if (strncmp(d->sets[i], key, strlen(key)) == 0 && d->sets[i][strlen(key)] == '=')
            return true;
    }
    return false;
}

/* ---- which file is for what --------------------------------------------------------------- */

/* Is one of the words in the file's name, as a word of its own? */
static bool is_named(const char *path, const char *const *words, int64_t count)
{
    const char *name = gr_path_name(path);

    for (int64_t i = 0; i < count; i++) {
        size_t length = strlen(words[i]);

        for (const char *at = name; *at != '\0'; at++) {
            bool begins = at == name || strchr("_-.", at[-1]) != NULL;

            if (begins && strncasecmp(at, words[i], length) == 0 &&
                strchr("_-.", at[length]) != NULL) /* or the end */
                return true;
        }
    }
    return false;
}

static void add_text(struct gr_text_list *list, const char *text)
{
    list->item = gr_realloc(list->item, list->count + 1, sizeof *list->item);
    list->item[list->count++] = gr_strdup(text);
}

/* By their names: a validation file evaluates; a test file does where there is no other, else it is
 * left for the end.  Without a file to train on, all are. */
static void sort_files(struct gr_init_draft *d, const struct gr_args *args)
{
    static const char *const eval_words[] = {"valid", "validation", "val", "eval", "dev"};
    static const char *const test_words[] = {"test"};
    int64_t count = gr_args_positional_count(args), evals = 0, trains = 0;

    for (int64_t i = 1; i < count; i++) {
        const char *path = gr_args_positional(args, i);
        bool is_eval = is_named(path, eval_words, GR_COUNT(eval_words));

        evals += is_eval;
        trains += !is_eval && !is_named(path, test_words, GR_COUNT(test_words));
    }
    for (int64_t i = 1; i < count; i++) {
        const char *path = gr_args_positional(args, i);
        bool is_eval = is_named(path, eval_words, GR_COUNT(eval_words));
        bool is_test = !is_eval && is_named(path, test_words, GR_COUNT(test_words));

        if (trains == 0 || (!is_eval && !is_test))
            add_text(&d->config.data.train, path);
        else if (is_eval || evals == 0)
            add_text(&d->config.data.eval, path);
        else
            gr_buffer_add_format(&d->left, "%s%s", d->left.length > 0 ? ", " : "", path);
    }
}

/* ---- choosing ----------------------------------------------------------------------------- */

/* "b" of "a/b/"; caller frees. */
static char *last_part(const char *path)
{
    size_t end = strlen(path), begin;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/';)
        begin--;
    return gr_strndup(path + begin, end - begin);
}

/* runs/MODEL-DATA, or with a number behind it: an existing one belongs to another run. */
static void choose_output(struct gr_init_draft *d)
{
    char *model = last_part(d->config.model), *data = last_part(d->config.data.train.item[0]);
    int stem = (int)strcspn(data + 1, ".") + 1; /* a leading point belongs to the name */

    d->config.output = gr_format("runs/%s-%.*s", model, stem, data);
    for (int i = 2; access(d->config.output, F_OK) == 0; i++) {
        gr_free(d->config.output);
        d->config.output = gr_format("runs/%s-%.*s-%d", model, stem, data, i);
    }
    gr_free(model);
    gr_free(data);
}

static void sort_lengths(struct gr_init_draft *d)
{
    const struct gr_documents *documents = &d->run.inputs.train;

    d->documents = documents->count;
    d->read_cut = documents->truncated_count;
    d->length = gr_documents_lengths(documents);
}

/* The least power of two that holds every document whole, or where some are longer than was read,
 * 99 in 100. */
static int64_t choose_length(const struct gr_init_draft *d)
{
    int64_t wanted = d->read_cut > 0 ? gr_init_length_of(d, 99) : gr_init_length_of(d, 100);
    int64_t length = SHORTEST_PACK;

    while (length < wanted)
        length *= 2;
    return length < d->longest_read ? length : d->longest_read;
}

/* Packs of the first epoch, from the order training would have them in. */
static gr_status count_packs(int64_t *packs, const struct gr_init_draft *d)
{
    gr_status status = GR_OK;
    struct gr_loader *loader = NULL;
    struct gr_loader_options one = {.max_length = d->config.data.max_length,
                                    .micro_batch_size = 1,
                                    .micro_batches = 1,
                                    .num_train_epochs = 1,
                                    .seed = (uint64_t)d->config.train.seed,
                                    .packing = d->config.data.packing,
                                    .shuffle = true};

    GR_TRY(gr_loader_create(&loader, &d->run.inputs.train, &one));
    *packs = gr_loader_total_steps(loader);
out:
    gr_loader_destroy(loader);
    return status;
}

static void choose_steps(struct gr_init_draft *d, int64_t packs)
{
    struct gr_config *c = &d->config;
    int64_t step_packs;

    if (!gr_init_is_set(d, "train.micro_batches")) {
        c->train.micro_batches = 1;
        while (c->train.micro_batches < MOST_MICRO_BATCHES &&
               packs >= 2 * c->train.micro_batches * c->train.micro_batch_size * LEAST_EPOCH_STEPS)
            c->train.micro_batches *= 2;
    }
    step_packs = c->train.micro_batches * c->train.micro_batch_size;
    d->epoch_steps = (packs + step_packs - 1) / step_packs;
    if (gr_init_is_set(d, "train.num_train_epochs"))
        return;
    c->train.num_train_epochs = d->epoch_steps >= GR_INIT_MANY_STEPS ? 1 : 3;
    while (c->train.num_train_epochs < MOST_EPOCHS &&
           c->train.num_train_epochs * d->epoch_steps < LEAST_STEPS)
        c->train.num_train_epochs++;
}

static void choose_rate(struct gr_init_draft *d)
{
    int64_t hidden = d->run.engine.model.config.hidden_size;
    int i = 0;

    while (rates[i].below_hidden > 0 && hidden >= rates[i].below_hidden)
        i++;
    if (!gr_init_is_set(d, "train.learning_rate"))
        d->config.train.learning_rate = rates[i].learning_rate;
}

/* As training does it, after the reading. */
static void choose_split(struct gr_init_draft *d)
{
    struct gr_inputs *in = &d->run.inputs;
    struct gr_config *c = &d->config;

    if (c->data.eval.count > 0 || gr_init_is_set(d, "data.eval_split") ||
        in->train.count < LEAST_SPLIT_COUNT)
        return;
    c->data.eval_split = held_out;
    gr_documents_hold_out(&in->eval, &in->train, held_out);
}

static gr_status choose(struct gr_init_draft *d)
{
    gr_status status = GR_OK;
    struct gr_inputs *in = &d->run.inputs;
    struct gr_config *c = &d->config;
    int64_t packs = 0;

    sort_lengths(d);
    if (!d->has_length)
        c->data.max_length = choose_length(d);
    gr_documents_cut(&in->train, c->data.max_length);
    choose_split(d);
    gr_documents_cut(&in->eval, c->data.max_length);
    GR_TRY(count_packs(&packs, d));
    choose_steps(d, packs);
    choose_rate(d);
    GR_TRY(gr_dry_run_plan(&d->run, 1));
    if (d->run.has_eval && !gr_init_is_set(d, "train.eval_steps"))
        c->train.eval_steps =
            d->run.total_steps > GR_INIT_EVALUATIONS ? d->run.total_steps / GR_INIT_EVALUATIONS : 1;
out:
    return status;
}

/* ---- the file ---------------------------------------------------------------------------- */

static gr_status fail_exists(const char *path)
{
    return gr_fail(GR_ERR_USAGE, path, "name another file with -o, or remove it",
                   "the file exists, and is not written over (found a file, expected none)");
}

/* Whole or not at all, and never over another. */
static gr_status put_new(const char *path, const struct gr_buffer *text)
{
    gr_status status = gr_store_put_path(path, text->data, (int64_t)text->length, true);

    if (status != GR_ERR_EXISTS)
        return status;
    gr_error_clear();
    return fail_exists(path);
}

/* ---- the command -------------------------------------------------------------------------- */

/* A token store was cut to a length, and is refused by runs of any other. */
static gr_status take_length(struct gr_init_draft *d, const struct gr_text_list *files)
{
    gr_status status = GR_OK;

    for (int64_t i = 0; i < files->count; i++) {
        int64_t length = 0;

        if (!gr_token_store_is(files->item[i]))
            continue;
        GR_TRY(gr_token_store_max_length(&length, files->item[i]));
        if (length > 0) {
            d->config.data.max_length = length;
            d->has_length = true;
        }
    }
out:
    return status;
}

/* The defaults, the arguments, what the user decides; and until something better is known the
 * longest pack there may be. */
static gr_status begin(struct gr_init_draft *d, const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_config *c = &d->config;
    struct gr_model_config model;

    gr_config_init(c);
    c->model = gr_strdup(gr_args_positional(args, 0));
    sort_files(d, args);
    for (int64_t i = 0; i < d->set_count; i++)
        GR_TRY(gr_config_set(c, d->sets[i]));
    if (c->output == NULL && c->data.train.count > 0)
        choose_output(d);
    GR_TRY(gr_config_check(c, "graft init", GR_CONFIG_TO_TRAIN));
    GR_TRY(gr_model_config_load(&model, c->model));
    d->has_length = gr_init_is_set(d, "data.max_length");
    if (!d->has_length) {
        c->data.max_length = model.max_position_embeddings < LONGEST_PACK
                                 ? model.max_position_embeddings
                                 : LONGEST_PACK;
        GR_TRY(take_length(d, &c->data.train));
        GR_TRY(take_length(d, &c->data.eval));
    }
    d->longest_read = c->data.max_length;
out:
    return status;
}

static void release(struct gr_init_draft *d)
{
    gr_dry_run_release(&d->run);
    gr_config_release(&d->config);
    gr_buffer_release(&d->yaml);
    gr_buffer_release(&d->left);
    gr_free(d->length);
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_init_draft d = {0};
    const char *path =
        gr_args_text(args, "output") == NULL ? "run.yaml" : gr_args_text(args, "output");

    d.sets = gr_args_list(args, "set", &d.set_count);
    if (access(path, F_OK) == 0) /* said before the work */
        return fail_exists(path);
    GR_TRY(begin(&d, args));
    GR_TRY(gr_dry_run_load(&d.run, &d.config, 1, true));
    GR_TRY(choose(&d));
    gr_init_write_yaml(&d);
    GR_TRY(put_new(path, &d.yaml));
    gr_note("written: %s; look at it, then: graft train %s", path, path);
out:
    release(&d);
    return status;
}

const struct gr_command gr_cmd_init = {
    .name = "init",
    .run = run,
    .usage = "MODEL DATA... [-o FILE] [--set KEY=VALUE]...",
    .summary = "write a commented run.yaml for a model and data files",
    .details =
        "MODEL is a Hugging Face directory, DATA are JSONL or JSON files, or stores of graft data\n"
        "prepare, which decide data.max_length.  Files named valid, val, eval or dev are for "
        "evaluation,\nand test where there are none; else a part of the data is held out.",
    .options = options,
    .is_alone = true,
    .least_positionals = 2,
    .most_positionals = 10000,
};
