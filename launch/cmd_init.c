/* graft init: a run.yaml for a model and data, with the reason for each value beside it.  It goes
 * through the start of a run (trainer/run/dry_run.c), so what it writes trains, and what training
 * would refuse it refuses with the same words. */
#include "launch/cmd.h"

#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "trainer/run/dry_run.h"

#include <stdarg.h>
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
    MANY_STEPS = 500,        /* an epoch of so many learns what there is to learn */
    LEAST_STEPS = 30,        /* a run of fewer hardly moves */
    MOST_EPOCHS = 10,        /* more learn the data by heart */
    LEAST_SPLIT_COUNT = 200, /* documents from which a part is held out for evaluation */
    EVALUATIONS = 5
};
static const double held_out = 0.05;

/* Small models learn at higher rates. */
static const struct {
    int64_t below_hidden; /* 0: any */
    double learning_rate;
} rates[] = {{256, 2e-3}, {1024, 5e-4}, {4096, 2e-4}, {0, 1e-4}};

struct draft {
    struct gr_config config;
    const char *const *sets; /* what the user decides */
    int64_t set_count;
    struct gr_dry_run run;
    int32_t *length; /* [documents] ascending; cut to what was read */
    int64_t documents;
    int64_t longest_read, read_cut; /* limit of the reading, and documents cut to it */
    int64_t epoch_steps;
    struct gr_buffer yaml;
    struct gr_buffer left; /* names of data files that are left out */
};

static bool is_set(const struct draft *d, const char *key)
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
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;

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
static void sort_files(struct draft *d, const struct gr_args *args)
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
static void choose_output(struct draft *d)
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

static void sort_lengths(struct draft *d)
{
    const struct gr_documents *documents = &d->run.inputs.train;

    d->documents = documents->count;
    d->read_cut = documents->truncated_count;
    d->length = gr_documents_lengths(documents);
}

/* The length that `percent` of the documents do not exceed. */
static int64_t length_of(const struct draft *d, int64_t percent)
{
    return d->length[(d->documents - 1) * percent / 100];
}

/* The least power of two that holds every document whole, or where some are longer than was read,
 * 99 in 100. */
static int64_t choose_length(const struct draft *d)
{
    int64_t wanted = d->read_cut > 0 ? length_of(d, 99) : length_of(d, 100);
    int64_t length = SHORTEST_PACK;

    while (length < wanted)
        length *= 2;
    return length < d->longest_read ? length : d->longest_read;
}

/* Packs of the first epoch, from the order training would have them in. */
static gr_status count_packs(int64_t *packs, const struct draft *d)
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

static void choose_steps(struct draft *d, int64_t packs)
{
    struct gr_config *c = &d->config;
    int64_t step_packs;

    if (!is_set(d, "train.micro_batches")) {
        c->train.micro_batches = 1;
        while (c->train.micro_batches < MOST_MICRO_BATCHES &&
               packs >= 2 * c->train.micro_batches * c->train.micro_batch_size * LEAST_EPOCH_STEPS)
            c->train.micro_batches *= 2;
    }
    step_packs = c->train.micro_batches * c->train.micro_batch_size;
    d->epoch_steps = (packs + step_packs - 1) / step_packs;
    if (is_set(d, "train.num_train_epochs"))
        return;
    c->train.num_train_epochs = d->epoch_steps >= MANY_STEPS ? 1 : 3;
    while (c->train.num_train_epochs < MOST_EPOCHS &&
           c->train.num_train_epochs * d->epoch_steps < LEAST_STEPS)
        c->train.num_train_epochs++;
}

static void choose_rate(struct draft *d)
{
    int64_t hidden = d->run.engine.model.config.hidden_size;
    int i = 0;

    while (rates[i].below_hidden > 0 && hidden >= rates[i].below_hidden)
        i++;
    if (!is_set(d, "train.learning_rate"))
        d->config.train.learning_rate = rates[i].learning_rate;
}

/* As training does it, after the reading. */
static void choose_split(struct draft *d)
{
    struct gr_inputs *in = &d->run.inputs;
    struct gr_config *c = &d->config;

    if (c->data.eval.count > 0 || is_set(d, "data.eval_split") ||
        in->train.count < LEAST_SPLIT_COUNT)
        return;
    c->data.eval_split = held_out;
    gr_documents_hold_out(&in->eval, &in->train, held_out);
}

static gr_status choose(struct draft *d)
{
    gr_status status = GR_OK;
    struct gr_inputs *in = &d->run.inputs;
    struct gr_config *c = &d->config;
    int64_t packs = 0;

    sort_lengths(d);
    if (!is_set(d, "data.max_length"))
        c->data.max_length = choose_length(d);
    gr_documents_cut(&in->train, c->data.max_length);
    choose_split(d);
    gr_documents_cut(&in->eval, c->data.max_length);
    GR_TRY(count_packs(&packs, d));
    choose_steps(d, packs);
    choose_rate(d);
    GR_TRY(gr_dry_run_plan(&d->run, 1));
    if (d->run.has_eval && !is_set(d, "train.eval_steps"))
        c->train.eval_steps =
            d->run.total_steps > EVALUATIONS ? d->run.total_steps / EVALUATIONS : 1;
out:
    return status;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* A comment, each line of it; what is in it may come from a file's name. */
static void comment(struct draft *d, const char *indent, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void comment(struct draft *d, const char *indent, const char *format, ...)
{
    char text[1000];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *line = text, *end; line != NULL; line = end) {
        end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        gr_buffer_add_format(&d->yaml, "%s# %s\n", indent, line);
    }
}

static void key(struct draft *d, const char *name)
{
    if (strchr(name, '.') != NULL)
        gr_buffer_add_text(&d->yaml, "  ");
    gr_config_print_key(&d->yaml, &d->config, name);
    gr_buffer_add_text(&d->yaml, "\n");
}

/* The user's own keys of a section, beyond those that stand there already. */
static void keys_set(struct draft *d, const char *section, const char *const *written)
{
    for (int64_t i = 0; i < d->set_count; i++) {
        char *name = gr_strndup(d->sets[i], strcspn(d->sets[i], "="));
        bool is_new = strncmp(name, section, strlen(section)) == 0;

        for (int64_t k = 0; is_new && written[k] != NULL; k++)
            is_new = strcmp(name, written[k]) != 0;
        for (int64_t k = 0; is_new && k < i; k++) /* given twice */
            is_new =
                strncmp(d->sets[k], name, strlen(name)) != 0 || d->sets[k][strlen(name)] != '=';
        if (is_new)
            key(d, name);
        gr_free(name);
    }
}

static void write_sources(struct draft *d, const struct gr_sources *sources)
{
    for (int64_t i = 0; i < sources->count; i++) {
        const struct gr_source *s = &sources->item[i];

        comment(d, "  ", "%.200s: %lld documents, format %s%s%s", s->path, (long long)s->documents,
                s->format, s->chat_format[0] != '\0' ? " as chat format " : "", s->chat_format);
    }
}

/* Documents that max_length cuts. */
static int64_t cut_count(const struct draft *d)
{
    int64_t count = d->config.data.max_length == d->longest_read ? d->read_cut : 0;

    for (int64_t i = 0; i < d->documents; i++)
        count += d->length[i] > d->config.data.max_length;
    return count;
}

static void write_eval(struct draft *d)
{
    if (d->config.data.eval.count > 0) {
        comment(d, "  ", "Evaluated on, never trained on.");
        write_sources(d, &d->run.inputs.eval_sources);
        key(d, "data.eval");
    } else if (d->config.data.eval_split > 0) {
        comment(d, "  ", "No file is for evaluation: %lld documents are held out from training.",
                (long long)d->run.inputs.eval.count);
        key(d, "data.eval_split");
    } else {
        comment(d, "  ", "Few documents: none is held out.  `eval: [FILE]` evaluates on others.");
    }
    if (d->left.length > 0)
        comment(d, "  ", "Left for `graft eval` at the end: %.400s", d->left.data);
}

static void write_data(struct draft *d)
{
    static const char *const written[] = {"data.train", "data.eval", "data.eval_split",
                                          "data.max_length", NULL};
    int64_t cut = cut_count(d);

    gr_buffer_add_text(&d->yaml, "\ndata:\n");
    write_sources(d, &d->run.inputs.train_sources);
    key(d, "data.train");
    write_eval(d);
    comment(d, "  ",
            "Tokens of a pack.  Half the documents have up to %lld, 95 in 100 up to %lld, the "
            "longest %lld%s.",
            (long long)length_of(d, 50), (long long)length_of(d, 95), (long long)length_of(d, 100),
            d->read_cut > 0 ? " or more" : "");
    if (cut > 0)
        comment(d, "  ", "%lld of %lld are cut.", (long long)cut, (long long)d->documents);
    key(d, "data.max_length");
    keys_set(d, "data.", written);
}

static void write_lora(struct draft *d)
{
    static const char *const written[] = {"lora.r", "lora.lora_alpha", NULL};

    gr_buffer_add_text(&d->yaml, "\nlora:\n");
    comment(d, "  ", "%lld trained parameters in all linears but the head.",
            (long long)d->run.plan.elements);
    key(d, "lora.r");
    comment(d, "  ",
            "The adapter's output is scaled by lora_alpha / r: 2 suits the learning rate.");
    key(d, "lora.lora_alpha");
    keys_set(d, "lora.", written);
}

static void write_train(struct draft *d)
{
    static const char *const written[] = {"train.micro_batches", "train.num_train_epochs",
                                          "train.learning_rate", "train.eval_steps", NULL};

    gr_buffer_add_text(&d->yaml, "\ntrain:\n");
    comment(d, "  ",
            "Packs of a step, over all processes; there can be as many processes.  An epoch has "
            "%lld steps.",
            (long long)d->epoch_steps);
    key(d, "train.micro_batches");
    comment(d, "  ", "%s",
            d->epoch_steps >= MANY_STEPS ? "Once is enough for so much data."
                                         : "More than once, since the data is small.");
    key(d, "train.num_train_epochs");
    comment(d, "  ",
            "The usual rate for LoRA and a hidden size of %lld.  Lower it if the loss jumps.",
            (long long)d->run.engine.model.config.hidden_size);
    key(d, "train.learning_rate");
    if (d->run.has_eval) {
        comment(d, "  ", "About %d times in the %lld steps of the run.", EVALUATIONS,
                (long long)d->run.total_steps);
        key(d, "train.eval_steps");
    }
    keys_set(d, "train.", written);
}

static void write_rest(struct draft *d)
{
    static const char *const sections[] = {"device.", "dist."}, *const none[] = {NULL};

    for (int64_t i = 0; i < GR_COUNT(sections); i++) {
        size_t before;

        gr_buffer_add_format(&d->yaml, "\n%.*s:\n", (int)strlen(sections[i]) - 1, sections[i]);
        before = d->yaml.length;
        keys_set(d, sections[i], none);
        if (d->yaml.length == before) { /* an empty section is none */
            d->yaml.length -= strlen(sections[i]) + 2;
            d->yaml.data[d->yaml.length] = '\0';
        }
    }
}

static void write_yaml(struct draft *d)
{
    const struct gr_model_config *c = &d->run.engine.model.config;
    double parameters =
        (double)(d->run.plan.weight_bytes / gr_dtype_bytes(d->run.engine.model.dtype));
    double mib = (double)gr_memory_plan_host(&d->run.plan, 1) / (1024 * 1024);

    comment(d, "",
            "Start it with: graft train FILE, or mpirun -n 2 --bind-to none graft train FILE.\n"
            "`graft config` explains every key; those that are not here have their defaults.\n"
            "Relative paths begin where graft is started.");
    gr_buffer_add_text(&d->yaml, "\n");
    comment(d, "", "%s, %.1f M parameters, %lld tokens of context.  The run takes about %.0f MiB.",
            c->model_type, parameters * 1e-6, (long long)c->max_position_embeddings, mib);
    key(d, "model");
    comment(d, "", "Checkpoints, metrics and the finished adapter: a folder of this run alone.");
    key(d, "output");
    write_data(d);
    write_lora(d);
    write_train(d);
    write_rest(d);
}

static gr_status fail_exists(const char *path)
{
    return gr_fail(GR_ERR_USAGE, path, "name another file with -o, or remove it",
                   "the file exists, and is not written over (found a file, expected none)");
}

/* Whole or not at all, and never over another. */
static gr_status put_new(const char *path, const struct gr_buffer *text)
{
    gr_status status = GR_OK;
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    char *folder = slash == NULL   ? gr_strdup(".")
                   : slash == path ? gr_strdup("/")
                                   : gr_strndup(path, (size_t)(slash - path));
    struct gr_store *store = NULL;

    GR_TRY(gr_store_open(&store, folder));
    status = store->ops->put_if_absent(store, name, text->data, (int64_t)text->length);
    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        status = fail_exists(path);
    }
out:
    gr_store_close(store);
    gr_free(folder);
    return status;
}

/* ---- the command -------------------------------------------------------------------------- */

/* The defaults, the arguments, what the user decides; and until something better is known the
 * longest pack there may be. */
static gr_status begin(struct draft *d, const struct gr_args *args)
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
    if (!is_set(d, "data.max_length"))
        c->data.max_length = model.max_position_embeddings < LONGEST_PACK
                                 ? model.max_position_embeddings
                                 : LONGEST_PACK;
    d->longest_read = c->data.max_length;
out:
    return status;
}

static void release(struct draft *d)
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
    struct draft d = {0};
    const char *path =
        gr_args_text(args, "output") == NULL ? "run.yaml" : gr_args_text(args, "output");

    d.sets = gr_args_list(args, "set", &d.set_count);
    if (access(path, F_OK) == 0) /* said before the work */
        return fail_exists(path);
    GR_TRY(begin(&d, args));
    GR_TRY(gr_dry_run_load(&d.run, &d.config, 1, true));
    GR_TRY(choose(&d));
    write_yaml(&d);
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
        "MODEL is a Hugging Face directory, DATA are JSONL or JSON files.  Those named valid, "
        "val, eval\nor dev are for evaluation, and test where there are none; else a part of "
        "the data is held out.",
    .options = options,
    .is_alone = true,
    .least_positionals = 2,
    .most_positionals = 10000,
};
