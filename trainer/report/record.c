/* Reading a run directory.  See record.h. */
#include "trainer/report/record.h"

#include "data/json.h"
#include "kernels/base/alloc.h"
#include "trainer/state/record.h"

#include <math.h>
#include <string.h>

/* A value beyond is no metric: no axis could show it. */
static const double value_most = 1e30;
static const int64_t metrics_bytes_most = INT64_C(4) << 30;

/* ERR_NOT_FOUND is no failure: *bytes stays empty. */
static gr_status get_if_there(struct gr_buffer *bytes, struct gr_store *store, const char *key,
                              int64_t bytes_most)
{
    gr_status status = store->ops->get(store, bytes, key, 0, bytes_most);

    if (status != GR_ERR_NOT_FOUND)
        return status;
    gr_error_clear();
    return GR_OK;
}

/* ---- run.json, done.json, config.yaml ------------------------------------------------------- */

static char *copy_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text == NULL ? NULL : gr_strdup(text);
}

static gr_status read_run(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    struct gr_json run = {0};
    char *place = gr_format("%s/run.json", store->url);

    status = store->ops->get(store, &bytes, "run.json", 0, GR_RECORD_BYTES_MOST);
    if (status == GR_ERR_NOT_FOUND)
        gr_hint("give the run's output directory");
    GR_TRY(status);
    GR_TRY(gr_json_parse(&run, bytes.data, (int64_t)bytes.length, place));
    r->run_id = copy_text(run.value, "run_id");
    r->dtype = copy_text(run.value, "dtype");
    r->model_hash = copy_text(run.value, "model_sha256");
    GR_TRY(gr_json_int(&r->total_steps, &run, "total_steps", 0, GR_STEP_MOST));
out:
    gr_json_release(&run);
    gr_buffer_release(&bytes);
    gr_free(place);
    return status;
}

static gr_status read_done(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    struct gr_json done = {0};

    GR_TRY(get_if_there(&bytes, store, "done.json", GR_RECORD_BYTES_MOST));
    r->is_done = bytes.length > 0;
    if (!r->is_done)
        goto out;
    if (gr_json_parse(&done, bytes.data, (int64_t)bytes.length, "done.json") != GR_OK ||
        gr_json_int(&r->done_step, &done, "step", 0, GR_STEP_MOST) != GR_OK)
        gr_error_clear();
out:
    gr_json_release(&done);
    gr_buffer_release(&bytes);
    return status;
}

int64_t gr_run_record_step(const struct gr_run_record *record)
{
    return record->done_step > 0 ? record->done_step : record->last_step;
}

static gr_status read_config(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    char *place = gr_format("%s/config.yaml", store->url);

    GR_TRY(get_if_there(&r->config_yaml, store, "config.yaml", GR_RECORD_BYTES_MOST));
    if (r->config_yaml.length == 0)
        goto out;
    r->has_config =
        gr_config_load_text(&r->config, &r->config_yaml, place) == GR_OK && r->config.model != NULL;
    if (!r->has_config) /* of another version, or damaged: the rest can be told all the same */
        gr_error_clear();
out:
    gr_free(place);
    return status;
}

/* ---- terms and checkpoints ------------------------------------------------------------------ */

static gr_status read_starts(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_access access = {.store = store};
    struct gr_store_list list = {0};

    GR_TRY(store->ops->list(store, &list, "term/"));
    r->start = GR_NEW_ARRAY(struct gr_record_start, list.count);
    for (int64_t i = 0; i < list.count; i++) {
        struct gr_record_start *s = &r->start[r->starts];
        int64_t term = 0;

        if (!gr_key_parse_term(&term, list.entry[i].key))
            continue;
        s->begin.kind = GR_EVENT_STEP;
        status = gr_term_get(&s->term, &access, term);
        if (status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) { /* one start untold */
            gr_error_clear();
            status = GR_OK;
            continue;
        }
        GR_TRY(status);
        r->starts += s->term.fence_only == 0;
    }
out:
    gr_store_list_release(&list);
    return status;
}

static gr_status read_checkpoints(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_checkpoint_rows rows = {0};
    const struct gr_checkpoint_row *newest;

    GR_TRY(gr_state_list(&rows, store));
    newest = gr_checkpoint_rows_newest(&rows);
    r->durable_step = newest == NULL ? 0 : newest->step;
out:
    gr_checkpoint_rows_release(&rows);
    return status;
}

/* ---- metrics.jsonl -------------------------------------------------------------------------- */

static bool get_number(double *value, const json_t *line, const char *key)
{
    const json_t *number = json_object_get(line, key);

    *value = json_number_value(number);
    return json_is_number(number) && fabs(*value) < value_most;
}

static struct gr_record_start *find_start(struct gr_run_record *r, int64_t term)
{
    for (int64_t i = 0; i < r->starts; i++) {
        if (r->start[i].term.term == term)
            return &r->start[i];
    }
    return NULL;
}

static void note_time(struct gr_run_record *r, struct gr_record_start *start, double unix_s)
{
    r->last_s = fmax(r->last_s, unix_s);
    if (start == NULL)
        return;
    start->first_s = start->first_s == 0 ? unix_s : start->first_s;
    start->last_s = fmax(start->last_s, unix_s);
}

/* False: not a line of ours. */
static bool add_event(struct gr_run_record *r, const json_t *line)
{
    const char *kind = json_string_value(json_object_get(line, "event"));
    int64_t step = json_integer_value(json_object_get(line, "step"));
    int64_t term = json_integer_value(json_object_get(line, "term"));
    struct gr_record_start *start = find_start(r, term);
    double value = 0;

    if (kind == NULL || !json_is_integer(json_object_get(line, "step")) || step < 0 ||
        step > GR_STEP_MOST || !get_number(&value, line, "time"))
        return false;
    if (json_integer_value(json_object_get(line, "trial")) != 0 || term < r->term)
        return true;
    r->term = term;
    note_time(r, start, value);
    r->last_step = step;
    if (get_number(&value, line, "epoch") && step > 0)
        r->epoch = value;
    if (strcmp(kind, "begin") == 0 && start != NULL)
        start->begin = (struct gr_event){.kind = GR_EVENT_BEGIN, .step = step};
    for (int m = 0; m < GR_METRIC_COUNT; m++) {
        if (!get_number(&value, line, gr_metric_table[m].name))
            continue;
        if (strcmp(kind, "begin") != 0)
            gr_points_add(&r->metric[m], (double)step, value);
        else if (start != NULL)
            gr_event_set(&start->begin, (enum gr_metric)m, value);
    }
    return true;
}

static void add_line(struct gr_run_record *r, const char *line, size_t length)
{
    json_t *object = json_loadb(line, length, 0, NULL);

    if (!json_is_object(object) || !add_event(r, object))
        r->damaged_lines++;
    json_decref(object);
}

static gr_status read_metrics(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    size_t end;

    GR_TRY(get_if_there(&bytes, store, "metrics.jsonl", metrics_bytes_most));
    for (size_t begin = 0; begin < bytes.length; begin = end + 1) {
        const char *newline = memchr(bytes.data + begin, '\n', bytes.length - begin);

        end = newline == NULL ? bytes.length : (size_t)(newline - bytes.data);
        add_line(r, bytes.data + begin, end - begin);
    }
out:
    gr_buffer_release(&bytes);
    return status;
}

/* Each logged step stands for those since the one before it. */
static void add_up(struct gr_run_record *r)
{
    const struct gr_points *speed = &r->metric[GR_METRIC_tokens_per_s];
    const struct gr_points *time = &r->metric[GR_METRIC_step_time_ms];
    double before = 0;

    for (int64_t i = 0; i < r->starts; i++)
        r->seconds += r->start[i].last_s - r->start[i].first_s;
    for (int64_t i = 0; i < speed->count && speed->count == time->count; i++) {
        r->tokens +=
            speed->item[i].value * time->item[i].value * 1e-3 * (speed->item[i].step - before);
        before = speed->item[i].step;
    }
    r->logs_every_step = speed->count > 0 && (double)speed->count == before;
}

gr_status gr_run_record_read(struct gr_run_record *r, struct gr_store *store)
{
    gr_status status = GR_OK;

    memset(r, 0, sizeof *r);
    gr_config_init(&r->config);
    GR_TRY(read_run(r, store));
    GR_TRY(read_done(r, store));
    GR_TRY(read_config(r, store));
    GR_TRY(read_starts(r, store));
    if (!r->is_done)
        GR_TRY(read_checkpoints(r, store));
    GR_TRY(read_metrics(r, store));
    add_up(r);
out:
    return status;
}

void gr_run_record_release(struct gr_run_record *r)
{
    gr_free(r->run_id);
    gr_free(r->dtype);
    gr_free(r->model_hash);
    gr_config_release(&r->config);
    gr_buffer_release(&r->config_yaml);
    gr_free(r->start);
    for (int m = 0; m < GR_METRIC_COUNT; m++)
        gr_points_release(&r->metric[m]);
    memset(r, 0, sizeof *r);
}

const struct gr_event *gr_run_record_begin(const struct gr_run_record *r)
{
    for (int64_t i = r->starts - 1; i >= 0; i--) {
        if (r->start[i].begin.kind == GR_EVENT_BEGIN)
            return &r->start[i].begin;
    }
    return NULL;
}

bool gr_run_record_best(struct gr_point *best, const struct gr_run_record *r)
{
    const struct gr_points *evals = &r->metric[GR_METRIC_eval_loss];

    for (int64_t i = 0; i < evals->count; i++) {
        if (i == 0 || evals->item[i].value < best->value)
            *best = evals->item[i];
    }
    return evals->count > 0;
}
