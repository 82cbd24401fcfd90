/* The doctor's look at a GPU.  See doctor_device.h.  First every op is compared with the CPU's.
 * Then our attention and cuDNN's are compared on a few shapes, in results and time; cuDNN's is used
 * from then on if it computes all of them, the same, and faster.  Where an op is wrong that is only
 * measured, and nothing is recorded. */
#include "launch/doctor_device.h"

#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "kernels/trial.h"
#include "launch/doctor_ops.h"
#include "launch/print_json.h"
#include "trainer/config.h"
#include "trainer/run/inputs.h"

#include <stdio.h>
#include <string.h>

/* Results in bf16 are about 1/256 apart where nothing is wrong; a wrong mask or scale is ten times
 * that. */
static const double apart_most = 0.02;
/* cuDNN must be this much faster, so that noise does not choose it. */
static const double worth_it = 0.97;

enum { SHAPES = 6, FEW_ROWS = 2048 };

struct report {
    struct gr_device *dev;
    int64_t rows;
    int runs;
    char libraries[1200];
    struct gr_doctor_ops ops;
    struct gr_ceilings ceilings;
    struct gr_attention_trial trial[SHAPES];
    enum gr_attention_kind uses;
    char verdict[600]; /* in words */
};

/* ---- finding out ---- */

/* Heads of 64 and 128, as Llama's 1B and 8B models have them; few where rows are few, which is no
 * measurement but a test. */
static void choose_shapes(struct report *r)
{
    const bool are_few = r->rows < FEW_ROWS;

    for (int i = 0; i < SHAPES; i++)
        r->trial[i] = (struct gr_attention_trial){.n = r->rows >> (2 - i / 2),
                                                  .documents = 1 << (i / 2),
                                                  .heads = are_few ? 2 : 32,
                                                  .kv_heads = are_few ? 1 : 8,
                                                  .head_dim = i % 2 == 0 ? 64 : 128,
                                                  .runs = r->runs};
}

static void judge(struct report *r)
{
    double own_ms = 0, cudnn_ms = 0, apart = 0;

    r->uses = GR_ATTENTION_OWN;
    if (r->ops.wrong > 0) {
        snprintf(r->verdict, sizeof r->verdict, "nothing is recorded: ops are wrong");
        return;
    }
    for (int i = 0; i < SHAPES; i++) {
        const struct gr_attention_trial *t = &r->trial[i];

        if (!t->is_cudnn) {
            snprintf(r->verdict, sizeof r->verdict, "ours: cuDNN does not compute it (%s)", t->why);
            return;
        }
        own_ms += t->own_ms[0] + t->own_ms[1];
        cudnn_ms += t->cudnn_ms[0] + t->cudnn_ms[1];
        apart = t->apart > apart ? t->apart : apart;
    }
    if (!(apart <= apart_most)) {
        snprintf(r->verdict, sizeof r->verdict,
                 "ours: cuDNN's results are not the same (%.2g apart, expected at most %.2g)",
                 apart, apart_most);
    } else if (cudnn_ms >= worth_it * own_ms) {
        snprintf(r->verdict, sizeof r->verdict,
                 "ours: cuDNN is not faster (%.2f ms in all, ours %.2f)", cudnn_ms, own_ms);
    } else {
        r->uses = GR_ATTENTION_CUDNN;
        snprintf(r->verdict, sizeof r->verdict,
                 "cuDNN's: the same results (%.2g apart), %.2f times as fast", apart,
                 own_ms / cudnn_ms);
    }
}

/* Figures of a trial, as they are recorded. */
static void add_figures(struct gr_buffer *text, const struct gr_attention_trial *t)
{
    gr_buffer_add_format(text, "rows %lld documents %lld heads %lld/%lld dim %lld own %.4f %.4f ms",
                         (long long)t->n, (long long)t->documents, (long long)t->heads,
                         (long long)t->kv_heads, (long long)t->head_dim, t->own_ms[0],
                         t->own_ms[1]);
    if (t->is_cudnn)
        gr_buffer_add_format(text, " cudnn %.4f %.4f ms apart %.2g", t->cudnn_ms[0], t->cudnn_ms[1],
                             t->apart);
    gr_buffer_add_format(text, "\n");
}

static gr_status record(const struct report *r)
{
    struct gr_buffer figures = {0};
    gr_status status;

    gr_buffer_add_format(&figures, "%s\n", r->verdict);
    for (int i = 0; i < SHAPES; i++)
        add_figures(&figures, &r->trial[i]);
    status = gr_device_record_attention(r->dev, r->uses, figures.data);
    gr_buffer_release(&figures);
    return status;
}

/* The cache folder is that of training without a configuration. */
static gr_status set_cache(struct report *r)
{
    struct gr_config config = {0};
    char *folder = NULL;
    gr_status status = GR_OK;

    GR_TRY(gr_config_resolve(&config, NULL, NULL, 0));
    GR_TRY(gr_cache_dir(&folder, &config));
    gr_device_set_cache(r->dev, folder);
out:
    gr_free(folder);
    gr_config_release(&config);
    return status;
}

/* ---- telling ---- */

/* "name: text" lines as rows of the doctor's table. */
static void print_libraries(const char *lines)
{
    while (*lines != '\0') {
        const size_t length = strcspn(lines, "\n");
        const char *colon = memchr(lines, ':', length);
        const int name = colon == NULL ? 0 : (int)(colon - lines);

        printf("ok       %-*.*s %.*s\n", 8, name, lines, (int)length - name - 2, lines + name + 2);
        lines += length + (lines[length] == '\n');
    }
}

/* A measured rate beside what the chip's data say. */
static void print_rate(const char *name, double rate, double peak, const char *unit)
{
    printf("ok       %-8s %.3g %s", name, rate * 1e-12, unit);
    if (peak > 0)
        printf(", %.0f %% of %.3g", 100 * rate / peak, peak * 1e-12);
    printf("\n");
}

static void print_trial(const struct gr_attention_trial *t)
{
    printf("%6lld %5lld %3lld/%-3lld %4lld ", (long long)t->n, (long long)t->documents,
           (long long)t->heads, (long long)t->kv_heads, (long long)t->head_dim);
    for (int way = 0; way < 2; way++)
        printf(" %8.3f %6.1f", t->own_ms[way], t->flop[way] / t->own_ms[way] * 1e-9);
    if (!t->is_cudnn) {
        printf("  none\n");
        return;
    }
    for (int way = 0; way < 2; way++)
        printf(" %8.3f %6.1f", t->cudnn_ms[way], t->flop[way] / t->cudnn_ms[way] * 1e-9);
    printf("  %.1e\n", t->apart);
}

static void print_text(const struct report *r)
{
    const struct gr_device_peak peak = gr_device_peak(r->dev);

    print_rate("product", r->ceilings.product_flop_per_s, peak.flop_per_s, "TF/s");
    print_rate("copy", r->ceilings.copy_bytes_per_s, peak.bytes_per_s, "TB/s");
    printf("\nattention, bf16, medians of %d\n", r->runs);
    printf("%26s%16s%16s%16s%16s\n", "", "ours: forward", "backward", "cuDNN: forward", "backward");
    printf("%6s %5s %7s %4s ", "rows", "docs", "heads", "dim");
    for (int i = 0; i < 4; i++)
        printf(" %8s %6s", "ms", "TF/s");
    printf("    apart\n");
    for (int i = 0; i < SHAPES; i++)
        print_trial(&r->trial[i]);
    printf("\n%-8s uses     %s\n", r->ops.wrong == 0 ? "ok" : "problem", r->verdict);
}

static json_t *trial_object(const struct gr_attention_trial *t)
{
    json_t *object =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:[f, f], s:[f, f]}", "rows", (json_int_t)t->n,
                  "documents", (json_int_t)t->documents, "heads", (json_int_t)t->heads, "kv_heads",
                  (json_int_t)t->kv_heads, "head_dim", (json_int_t)t->head_dim, "own_ms",
                  t->own_ms[0], t->own_ms[1], "flop", t->flop[0], t->flop[1]);

    if (t->is_cudnn)
        json_object_set_new(object, "cudnn_ms",
                            json_pack("[f, f]", t->cudnn_ms[0], t->cudnn_ms[1]));
    if (t->is_cudnn && t->apart < 1e300)
        json_object_set_new(object, "apart", json_real(t->apart));
    return object;
}

static void print_object(const struct report *r)
{
    json_t *all = json_array(), *object;

    for (int i = 0; i < SHAPES; i++)
        json_array_append_new(all, trial_object(&r->trial[i]));
    object =
        json_pack("{s:s, s:o, s:{s:I, s:f, s:f}, s:o, s:s, s:s}", "device", r->libraries, "ops",
                  gr_doctor_ops_object(&r->ops), "ceilings", "size", (json_int_t)r->ceilings.size,
                  "product_flop_per_s", r->ceilings.product_flop_per_s, "copy_bytes_per_s",
                  r->ceilings.copy_bytes_per_s, "attention", all, "uses",
                  r->uses == GR_ATTENTION_CUDNN ? "cudnn" : "own", "verdict", r->verdict);
    gr_print_json(object);
    json_decref(object);
}

/* Rates, and whose attention is used from now on. */
static gr_status measure(struct report *r)
{
    gr_status status = GR_OK;

    GR_TRY(set_cache(r));
    r->ceilings.size = r->rows;
    GR_TRY(gr_trial_ceilings(r->dev, &r->ceilings, r->runs));
    choose_shapes(r);
    for (int i = 0; i < SHAPES; i++)
        GR_TRY(gr_trial_attention(r->dev, &r->trial[i]));
    judge(r);
    if (r->ops.wrong == 0)
        GR_TRY(record(r));
out:
    return status;
}

gr_status gr_doctor_device(const char *kind, int64_t rows, bool is_json)
{
    struct report *r = GR_NEW(struct report);
    gr_status status = GR_OK;

    r->rows = rows / 256 * 256;
    r->runs = rows < FEW_ROWS ? 1 : 20;
    if (strcmp(kind, "cuda") != 0)
        GR_TRY(gr_fail(GR_ERR_USAGE, "--device", "only a GPU has a check of its own",
                       "unknown device (found %s, expected cuda)", kind));
    GR_TRY(gr_device_create(&r->dev, kind, 1, NULL));
    gr_device_describe(r->dev, r->libraries, (int64_t)sizeof r->libraries);
    if (!is_json)
        print_libraries(r->libraries);
    /* before there is a cache folder: nothing is timed and kept */
    GR_TRY(gr_doctor_ops_compare(&r->ops, r->dev, r->rows < FEW_ROWS));
    if (!is_json)
        gr_doctor_ops_print(&r->ops);
    GR_TRY(measure(r));
    if (is_json)
        print_object(r);
    else
        print_text(r);
    GR_TRY(gr_doctor_ops_judge(&r->ops));
out:
    gr_device_destroy(r->dev);
    gr_free(r);
    return status;
}
