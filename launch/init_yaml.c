/* The values that `graft init` chose, as a run.yaml with the reason for each beside it.  See
 * init_draft.h. */
#include "launch/init_draft.h"

#include "kernels/base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A comment, each line of it; what is in it may come from a file's name. */
static void comment(struct gr_init_draft *d, const char *indent, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void comment(struct gr_init_draft *d, const char *indent, const char *format, ...)
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

static void key(struct gr_init_draft *d, const char *name)
{
    if (strchr(name, '.') != NULL)
        gr_buffer_add_text(&d->yaml, "  ");
    gr_config_print_key(&d->yaml, &d->config, name);
    gr_buffer_add_text(&d->yaml, "\n");
}

/* The user's own keys of a section, beyond those that stand there already. */
static void keys_set(struct gr_init_draft *d, const char *section, const char *const *written)
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

static void write_sources(struct gr_init_draft *d, const struct gr_sources *sources)
{
    for (int64_t i = 0; i < sources->count; i++) {
        const struct gr_source *s = &sources->item[i];

        comment(d, "  ", "%.200s: %lld documents, format %s%s%s", s->path, (long long)s->documents,
                s->format, s->chat_format[0] != '\0' ? " as chat format " : "", s->chat_format);
    }
}

/* Documents that max_length cuts. */
static int64_t cut_count(const struct gr_init_draft *d)
{
    int64_t count = d->config.data.max_length == d->longest_read ? d->read_cut : 0;

    for (int64_t i = 0; i < d->documents; i++)
        count += d->length[i] > d->config.data.max_length;
    return count;
}

static void write_eval(struct gr_init_draft *d)
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

static void write_data(struct gr_init_draft *d)
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
            (long long)gr_init_length_of(d, 50), (long long)gr_init_length_of(d, 95),
            (long long)gr_init_length_of(d, 100), d->read_cut > 0 ? " or more" : "");
    if (cut > 0)
        comment(d, "  ", "%lld of %lld are cut.", (long long)cut, (long long)d->documents);
    key(d, "data.max_length");
    keys_set(d, "data.", written);
}

static void write_lora(struct gr_init_draft *d)
{
    static const char *const written[] = {"lora.r", "lora.lora_alpha", NULL};

    gr_buffer_add_text(&d->yaml, "\nlora:\n");
    comment(d, "  ", "%lld trained parameters%s.", (long long)d->run.plan.elements,
            gr_init_is_set(d, "lora.target_modules") ? "" : " in all linears but the head");
    key(d, "lora.r");
    comment(d, "  ", "The adapter's output is scaled by lora_alpha / %s.",
            d->config.lora.use_rslora ? "sqrt(r)" : "r");
    key(d, "lora.lora_alpha");
    keys_set(d, "lora.", written);
}

static void write_train(struct gr_init_draft *d)
{
    static const char *const written[] = {"train.micro_batches", "train.num_train_epochs",
                                          "train.learning_rate", "train.eval_steps", NULL};

    gr_buffer_add_text(&d->yaml, "\ntrain:\n");
    comment(d, "  ",
            "Packs of a step, over all processes; there can be as many processes.  An epoch has "
            "%lld steps.",
            (long long)d->epoch_steps);
    key(d, "train.micro_batches");
    if (!gr_init_is_set(d, "train.num_train_epochs"))
        comment(d, "  ", "%s",
                d->epoch_steps >= GR_INIT_MANY_STEPS ? "Once is enough for so much data."
                                                     : "More than once, since the data is small.");
    key(d, "train.num_train_epochs");
    if (!gr_init_is_set(d, "train.learning_rate"))
        comment(d, "  ",
                "The usual rate for LoRA and a hidden size of %lld.  Lower it if the loss jumps.",
                (long long)d->run.engine.model.config.hidden_size);
    key(d, "train.learning_rate");
    if (d->run.has_eval) {
        if (gr_init_is_set(d, "train.eval_steps"))
            comment(d, "  ", "The run has %lld steps.", (long long)d->run.total_steps);
        else
            comment(d, "  ", "About %d times in the %lld steps of the run.", GR_INIT_EVALUATIONS,
                    (long long)d->run.total_steps);
        key(d, "train.eval_steps");
    }
    keys_set(d, "train.", written);
}

static void write_rest(struct gr_init_draft *d)
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

void gr_init_write_yaml(struct gr_init_draft *d)
{
    const struct gr_model_config *c = &d->run.engine.model.config;
    double parameters = (double)gr_weights_parameters(c);
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
