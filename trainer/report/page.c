/* The page of a run.  See page.h.  Every foreign text goes through html.h. */
#include "trainer/report/page.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/duration.h"
#include "trainer/report/html.h"
#include "trainer/report/style.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- pieces --------------------------------------------------------------------------------- */

/* "2026-11-24 13:05 UTC" */
static const char *format_time(char text[32], double unix_s)
{
    time_t seconds = (time_t)unix_s;
    struct tm utc;

    snprintf(text, 32, "?");
    if (unix_s > 0 && unix_s < 1e11 && gmtime_r(&seconds, &utc) != NULL)
        strftime(text, 32, "%Y-%m-%d %H:%M UTC", &utc);
    return text;
}

/* A row of a table of facts; the value is foreign text. */
__attribute__((format(printf, 3, 4))) static void add_fact(struct gr_buffer *html, const char *name,
                                                           const char *format, ...)
{
    char *value;
    va_list args;

    va_start(args, format);
    value = gr_format_list(format, args);
    va_end(args);
    gr_buffer_add_format(html, "<tr><th>%s</th><td>", name);
    gr_html_add_text(html, value);
    gr_buffer_add_text(html, "</td></tr>\n");
    gr_free(value);
}

static void add_tile(struct gr_buffer *html, const char *name, const char *value)
{
    gr_buffer_add_format(html, "<div><b>%s</b><span>%s</span></div>\n", value, name);
}

/* ---- what is at the top --------------------------------------------------------------------- */

static void add_header(struct gr_buffer *html, const struct gr_run_record *r, const char *url)
{
    char time[32], count[32], of[32];
    int64_t step = gr_run_record_step(r);
    size_t length = strlen(url);
    const char *name;

    while (length > 1 && url[length - 1] == '/')
        length--;
    name = memrchr(url, '/', length);
    name = name == NULL || name + 1 == url + length ? url : name + 1;
    gr_buffer_add_text(html, "<header>\n<h1>");
    gr_html_add(html, name, (size_t)(url + length - name));
    gr_buffer_add_format(html, "</h1>\n<p><span class=\"state%s\">%s</span> after step %s of %s",
                         r->is_done ? " done" : "", r->is_done ? "finished" : "not finished",
                         gr_html_count(count, step), gr_html_count(of, r->total_steps));
    if (r->is_done && step < r->total_steps)
        gr_buffer_add_text(html, " (early stopping)");
    if (r->last_s > 0)
        gr_buffer_add_format(html, ", %s", format_time(time, r->last_s));
    if (!r->is_done && r->durable_step > 0)
        gr_buffer_add_format(html, "; the same command goes on from step %s",
                             gr_html_count(count, r->durable_step));
    gr_buffer_add_text(html, "</p>\n</header>\n");
}

/* Of a file that may hold any number. */
static int64_t whole(double value)
{
    const double most = 9e18;

    return llround(fmax(-most, fmin(value, most)));
}

static double mean_of_last(const struct gr_points *p, int64_t count)
{
    double sum = 0;
    int64_t from = p->count > count ? p->count - count : 0;

    for (int64_t i = from; i < p->count; i++)
        sum += p->item[i].value;
    return sum / (double)(p->count - from);
}

static void add_tiles(struct gr_buffer *html, const struct gr_run_record *r)
{
    const struct gr_points *loss = &r->metric[GR_METRIC_train_loss];
    struct gr_point best;
    char value[64], name[64], number[32];

    gr_buffer_add_text(html, "<div class=\"tiles\">\n");
    if (loss->count > 0) {
        int64_t count = loss->count < 10 ? loss->count : 10;

        snprintf(value, sizeof value, "%.4f", mean_of_last(loss, count));
        snprintf(name, sizeof name, "training loss, mean of the last %" PRId64 " logged", count);
        add_tile(html, name, value);
    }
    if (gr_run_record_best(&best, r)) {
        snprintf(value, sizeof value, "%.4f", best.value);
        snprintf(name, sizeof name, "best evaluation loss, step %s",
                 gr_html_count(number, (int64_t)best.step));
        add_tile(html, name, value);
    }
    if (r->tokens > 0)
        add_tile(html, r->logs_every_step ? "tokens trained on" : "tokens trained on, about",
                 gr_html_count(number, whole(r->tokens)));
    if (r->seconds > 0)
        add_tile(html, "time", gr_duration_words(number, r->seconds));
    if (r->seconds > 0 && r->tokens > 0)
        add_tile(html, "tokens/s on average", gr_html_count(number, whole(r->tokens / r->seconds)));
    gr_buffer_add_text(html, "</div>\n");
}

/* ---- curves --------------------------------------------------------------------------------- */

static void add_curves(struct gr_buffer *html, const struct gr_run_record *r)
{
    const struct gr_points *m = r->metric;
    double *restart = GR_NEW_ARRAY(double, r->starts);
    int64_t restarts = 0;
    size_t before = html->length;
    struct gr_chart charts[] = {
        {.title = "Loss",
         .unit = "per supervised token",
         .may_be_log = true,
         .line = {{&m[GR_METRIC_train_loss], "training"}, {&m[GR_METRIC_eval_loss], "evaluation"}}},
        {.title = "Learning rate",
         .unit = "",
         .from_zero = true,
         .line = {{&m[GR_METRIC_learning_rate], NULL}}},
        {.title = "Throughput",
         .unit = "tokens/s",
         .from_zero = true,
         .line = {{&m[GR_METRIC_tokens_per_s], NULL}}},
        {.title = "Gradient norm",
         .unit = "before clipping",
         .from_zero = true,
         .line = {{&m[GR_METRIC_grad_norm], NULL}}},
    };

    for (int64_t i = 0; i < r->starts; i++) {
        if (r->start[i].term.base_step > 0)
            restart[restarts++] = (double)r->start[i].term.base_step;
    }
    gr_buffer_add_text(html, "<h2>Curves</h2>\n");
    before = html->length;
    for (int64_t i = 0; i < GR_COUNT(charts); i++) {
        charts[i].restart = restart;
        charts[i].restarts = restarts;
        gr_chart_add(html, &charts[i]);
    }
    if (html->length == before)
        gr_buffer_add_text(html, "<p class=\"note\">No step has been logged.</p>\n");
    if (restarts > 0 && html->length > before)
        gr_buffer_add_text(html,
                           "<p class=\"note\">Dashed: the run was taken up again there.</p>\n");
    if (r->damaged_lines > 0)
        gr_buffer_add_format(html,
                             "<p class=\"note\">%" PRId64 " line%s of metrics.jsonl cannot be read "
                             "and %s left out.</p>\n",
                             r->damaged_lines, r->damaged_lines == 1 ? "" : "s",
                             r->damaged_lines == 1 ? "is" : "are");
    gr_free(restart);
}

/* ---- samples -------------------------------------------------------------------------------- */

static void add_sample_text(struct gr_buffer *html, const struct gr_sample *s,
                            enum gr_sample_text which, const char *name)
{
    if (s->text[which] == NULL)
        return;
    gr_buffer_add_format(html, "<div%s><h3>%s</h3><pre>",
                         which == GR_SAMPLE_AFTER ? " class=\"after\"" : "", name);
    gr_html_add_text(html, s->text[which]);
    gr_buffer_add_format(html, "%s</pre></div>\n", s->goes_on[which] ? "&#8230;" : "");
}

static void add_samples(struct gr_buffer *html, const struct gr_samples *samples)
{
    char step[32];

    if (samples == NULL || (samples->count == 0 && samples->why_none == NULL))
        return;
    gr_buffer_add_text(html, "<h2>Samples</h2>\n");
    if (samples->why_none != NULL) {
        gr_buffer_add_text(html, "<p class=\"note\">");
        gr_html_add_text(html, samples->why_none);
        gr_buffer_add_text(html, "</p>\n");
    }
    if (samples->count > 0)
        gr_buffer_add_format(html,
                             "<p class=\"note\">Prompts from the %s documents, continued with the "
                             "likeliest token each time: by the base model, and with the adapter "
                             "after step %s.</p>\n",
                             samples->from_eval ? "evaluation" : "training",
                             gr_html_count(step, samples->step));
    for (int64_t i = 0; i < samples->count; i++) {
        const struct gr_sample *s = &samples->item[i];

        gr_buffer_add_text(html, "<div class=\"sample\">\n");
        add_sample_text(html, s, GR_SAMPLE_PROMPT, "prompt");
        gr_buffer_add_text(html, "<div class=\"pair\">\n");
        add_sample_text(html, s, GR_SAMPLE_BEFORE, "before: base model");
        add_sample_text(html, s, GR_SAMPLE_AFTER, "after: with the adapter");
        gr_buffer_add_text(html, "</div>\n");
        add_sample_text(html, s, GR_SAMPLE_EXPECTED, "in the data");
        gr_buffer_add_text(html, "</div>\n");
    }
}

/* ---- facts ---------------------------------------------------------------------------------- */

static void add_list(struct gr_buffer *text, const struct gr_text_list *list)
{
    gr_buffer_clear(text);
    gr_buffer_add_text(text, "");
    for (int64_t i = 0; i < list->count; i++)
        gr_buffer_add_format(text, "%s%s", i > 0 ? ", " : "", list->item[i]);
}

/* "480 documents, 36,262 tokens, 11,215 of them (30.9 %) supervised" of three metrics in a row. */
static void add_data_counts(struct gr_buffer *html, const struct gr_event *begin,
                            enum gr_metric documents)
{
    char count[3][32];
    const double *value = begin->value + documents;

    if (!begin->has[documents] || value[0] <= 0)
        return;
    for (int i = 0; i < 3; i++)
        gr_html_count(count[i], whole(value[i]));
    add_fact(html, "", "%s documents, %s tokens, %s of them (%.1f %%) supervised", count[0],
             count[1], count[2], 100 * value[2] / value[1]);
}

static void add_data(struct gr_buffer *html, const struct gr_run_record *r,
                     const struct gr_event *begin)
{
    const struct gr_config *c = &r->config;
    struct gr_buffer text = {0};

    add_list(&text, &c->data.train);
    add_fact(html, "training data", "%s", text.data);
    if (begin != NULL)
        add_data_counts(html, begin, GR_METRIC_train_documents);
    add_list(&text, &c->data.eval);
    if (c->data.eval.count > 0)
        add_fact(html, "evaluation data", "%s", text.data);
    else if (c->data.eval_split > 0)
        add_fact(html, "evaluation data", "%.4g %% of the training documents, held out",
                 100 * c->data.eval_split);
    if (begin != NULL)
        add_data_counts(html, begin, GR_METRIC_eval_documents);
    add_fact(html, "packs", "%s, of at most %" PRId64 " tokens; too long: %s",
             c->data.packing ? "several documents each" : "one document each", c->data.max_length,
             c->data.too_long);
    gr_buffer_release(&text);
}

static void add_adapter(struct gr_buffer *html, const struct gr_run_record *r,
                        const struct gr_event *begin)
{
    const struct gr_config *c = &r->config;
    struct gr_buffer targets = {0};
    char count[32];

    add_list(&targets, &c->lora.target_modules);
    add_fact(html, "adapter", "%s, r %" PRId64 ", alpha %" PRId64 ", dropout %g%s, on %s",
             c->lora.use_rslora ? "rsLoRA" : "LoRA", c->lora.r, c->lora.lora_alpha,
             c->lora.lora_dropout,
             c->lora.rank_pattern.count + c->lora.alpha_pattern.count > 0 ? ", with patterns" : "",
             targets.data);
    if (c->lora.loraplus_lr_ratio != 1)
        add_fact(html, "LoRA+", "learning rate of B %g times that of A", c->lora.loraplus_lr_ratio);
    if (begin != NULL && begin->has[GR_METRIC_trained_parameters])
        add_fact(html, "trained parameters", "%s",
                 gr_html_count(count, whole(begin->value[GR_METRIC_trained_parameters])));
    if (c->train.init_from != NULL)
        add_fact(html, "started from", "%s", c->train.init_from);
    gr_buffer_release(&targets);
}

static void add_training(struct gr_buffer *html, const struct gr_run_record *r)
{
    const struct gr_config *c = &r->config;
    char count[2][32];

    add_fact(html, "steps", "%s of %s; %.2f epochs", gr_html_count(count[0], gr_run_record_step(r)),
             gr_html_count(count[1], r->total_steps), r->epoch);
    add_fact(html, "a step", "%" PRId64 " micro-batch%s of %" PRId64 " pack%s, over all ranks",
             c->train.micro_batches, c->train.micro_batches == 1 ? "" : "es",
             c->train.micro_batch_size, c->train.micro_batch_size == 1 ? "" : "s");
    add_fact(html, "learning rate", "%g, %s, warm-up %g %% of the steps", c->train.learning_rate,
             c->train.lr_scheduler_type, 100 * c->train.warmup_ratio);
    add_fact(html, "AdamW", "beta %g and %g, epsilon %g, weight decay %g", c->train.adam_beta1,
             c->train.adam_beta2, c->train.adam_epsilon, c->train.weight_decay);
    if (c->train.max_grad_norm > 0)
        add_fact(html, "gradient norm", "clipped at %g", c->train.max_grad_norm);
    else
        add_fact(html, "gradient norm", "not clipped");
    add_fact(html, "seed", "%" PRId64, c->train.seed);
}

static void add_facts(struct gr_buffer *html, const struct gr_run_record *r, const char *url)
{
    const struct gr_event *begin = gr_run_record_begin(r);

    gr_buffer_add_text(html, "<h2>What was trained on what</h2>\n<table class=\"facts\">\n");
    if (r->has_config) {
        add_fact(html, "model", "%s", r->config.model);
        add_data(html, r, begin);
        add_adapter(html, r, begin);
        add_training(html, r);
    }
    if (r->dtype != NULL)
        add_fact(html, "computed in", "%s", r->dtype);
    add_fact(html, "run directory", "%s", url);
    if (r->run_id != NULL)
        add_fact(html, "run", "%s", r->run_id);
    if (r->model_hash != NULL)
        add_fact(html, "model SHA-256", "%s", r->model_hash);
    gr_buffer_add_text(html, "</table>\n");
    if (!r->has_config)
        gr_buffer_add_text(html, "<p class=\"note\">config.yaml is missing, or not one that this "
                                 "version of graft reads.</p>\n");
}

static void add_starts(struct gr_buffer *html, const struct gr_run_record *r)
{
    char time[32], count[32];

    if (r->starts == 0)
        return;
    gr_buffer_add_text(html, "<h2>Starts</h2>\n<div class=\"scroll\"><table>\n<tr><th>term</th>"
                             "<th>when</th><th>from step</th><th>ranks</th><th>threads each</th>"
                             "<th>host</th><th>computes with</th></tr>\n");
    for (int64_t i = 0; i < r->starts; i++) {
        const struct gr_record_start *s = &r->start[i];

        gr_buffer_add_format(
            html, "<tr><td>%" PRId64 "</td><td>%s</td><td>%s</td><td>%" PRId64 "</td><td>",
            s->term.term, format_time(time, (double)s->term.unix_s),
            gr_html_count(count, s->term.base_step), s->term.world_size);
        if (s->begin.has[GR_METRIC_threads])
            gr_buffer_add_format(html, "%.0f", s->begin.value[GR_METRIC_threads]);
        gr_buffer_add_text(html, "</td><td>");
        gr_html_add_text(html, s->term.host);
        gr_buffer_add_text(html, "</td><td>");
        gr_html_add_text(html, s->term.kind);
        gr_buffer_add_text(html, "</td></tr>\n");
    }
    gr_buffer_add_text(html, "</table></div>\n");
}

static void add_config(struct gr_buffer *html, const struct gr_run_record *r)
{
    if (r->config_yaml.length == 0)
        return;
    gr_buffer_add_text(html, "<h2>Configuration</h2>\n<details><summary>config.yaml, every key"
                             "</summary><pre>");
    gr_html_add(html, r->config_yaml.data, r->config_yaml.length);
    gr_buffer_add_text(html, "</pre></details>\n");
}

void gr_report_page(struct gr_buffer *html, const struct gr_run_record *r,
                    const struct gr_samples *samples, const char *url, const char *program)
{
    char time[32];

    gr_buffer_add_text(html,
                       "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                       "<meta name=\"viewport\" content=\"width=device-width\"/>\n<title>");
    gr_html_add_text(html, url);
    gr_buffer_add_format(html, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", page_style);
    add_header(html, r, url);
    add_tiles(html, r);
    add_curves(html, r);
    add_samples(html, samples);
    add_facts(html, r, url);
    add_starts(html, r);
    add_config(html, r);
    gr_buffer_add_text(html, "<footer>Written by ");
    gr_html_add_text(html, program);
    gr_buffer_add_format(html, ", %s.</footer>\n</body>\n</html>\n",
                         format_time(time, gr_clock_unix_s()));
}
