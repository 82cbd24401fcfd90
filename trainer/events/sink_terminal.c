/* Progress for people, on stderr: a bar on a terminal's last line, redrawn in place; elsewhere one
 * plain line per event.  Evaluations stay above the bar.  The bar steps aside for messages
 * (base/log.h); both sides hold stderr's lock while they write. */
#include "kernels/base/alloc.h"
#include "kernels/base/duration.h"
#include "kernels/base/env.h"
#include "kernels/base/log.h"
#include "trainer/events/events.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MIN_CELLS = 12, MAX_CELLS = 40, GAP = 2 };

enum style { PLAIN, DIM, GREEN };
static const char *const style_codes[] = {[PLAIN] = "", [DIM] = "\x1b[2m", [GREEN] = "\x1b[32m"};
static const char style_end[] = "\x1b[0m", to_line_start[] = "\r", clear_to_line_end[] = "\x1b[K";

/* How the bar's cells look: done, the first one to do, to do. */
struct cells {
    const char *done, *tip, *left;
};
static const struct cells cells_utf8 = {"━", "╺", "━"}, cells_ascii = {"=", ">", "-"};

enum { FIELD_STEP, FIELD_LOSS, FIELD_RATE, FIELD_SPEED, FIELD_TIME, FIELD_COUNT };

struct terminal {
    struct gr_sink sink;
    int fd; /* its width is asked; -1: none */
    bool has_bar, has_colour;
    const struct cells *cells;
    struct gr_event event;  /* last of the training, for a redraw */
    double begin_s;         /* this start of the run: when, */
    int64_t begin_step;     /* and after which step */
    bool is_begun;          /* begin_s and begin_step are known; a bar has an event to draw */
    bool is_drawn;          /* the bar is on the terminal */
    int width[FIELD_COUNT]; /* of the widest value so far: what follows it must not jump about */
    size_t length;
    char line[2048]; /* twice what MAX_CELLS cells and all fields need */
};

/* One "label value unit" of the bar. */
struct field {
    const char *label, *unit;
    int keep;  /* on a narrow terminal the lowest goes first; 0: not there */
    int width; /* of the value, padded on the left; negative: on the right */
    char value[32];
};

__attribute__((format(printf, 3, 4))) static void add(struct terminal *t, enum style style,
                                                      const char *format, ...)
{
    bool coloured = t->has_colour && style != PLAIN;
    va_list args;
    int length;

    if (coloured)
        add(t, PLAIN, "%s", style_codes[style]);
    va_start(args, format);
    length = vsnprintf(t->line + t->length, sizeof t->line - t->length, format, args);
    va_end(args);
    GR_CHECK(length >= 0 && (size_t)length < sizeof t->line - t->length, "%s", t->line);
    t->length += (size_t)length;
    if (coloured)
        add(t, PLAIN, "%s", style_end);
}

static void print_line(struct terminal *t)
{
    fwrite(t->line, 1, t->length, stderr);
    fflush(stderr);
    t->length = 0;
}

static int terminal_columns(const struct terminal *t)
{
    struct winsize size = {0};

    return ioctl(t->fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* format, unit: NULL for those of the metric. */
static void set_metric(struct field *field, const struct gr_event *event, enum gr_metric metric,
                       const char *format, const char *unit, int keep)
{
    const struct gr_metric_info *info = &gr_metric_table[metric];

    field->label = info->label;
    field->unit = unit == NULL ? info->unit : unit;
    field->keep = event->has[metric] ? keep : 0;
    snprintf(field->value, sizeof field->value, format == NULL ? info->format : format,
             event->value[metric]);
}

/* Time left at the pace since the begin; at the end the time it took. */
static void set_time(struct field *field, const struct terminal *t, const struct gr_event *e,
                     int keep)
{
    int64_t done = e->step - t->begin_step, left = e->total_steps - e->step;
    double seconds = e->unix_s - t->begin_s;
    bool at_end = e->kind == GR_EVENT_END;

    if (!at_end && done > 0)
        seconds = seconds / (double)done * (double)left;
    field->label = at_end ? "in" : "eta";
    field->unit = "";
    field->keep = at_end || done > 0 ? keep : 0;
    gr_duration_clock(field->value, seconds);
}

static int field_columns(const struct field *f)
{
    size_t label = strlen(f->label), unit = strlen(f->unit), value = strlen(f->value);

    value = value < (size_t)abs(f->width) ? (size_t)abs(f->width) : value;
    return GAP + (int)(label + (label > 0) + value + (unit > 0) + unit);
}

static void add_field(struct terminal *t, const struct field *f)
{
    add(t, PLAIN, "%*s", GAP, "");
    if (f->label[0] != '\0')
        add(t, DIM, "%s ", f->label);
    add(t, PLAIN, "%*s", f->width, f->value);
    if (f->unit[0] != '\0')
        add(t, DIM, " %s", f->unit);
}

static void add_cells(struct terminal *t, int cells)
{
    const struct gr_event *e = &t->event;
    int done =
        e->total_steps > 0 ? (int)((double)cells * (double)e->step / (double)e->total_steps) : 0;
    const char *const kinds[] = {t->cells->done, t->cells->tip, t->cells->left};
    const int counts[] = {done, done < cells, cells - done - (done < cells)};

    for (int kind = 0; kind < 3; kind++) {
        if (t->has_colour)
            add(t, PLAIN, "%s", style_codes[kind == 0 ? GREEN : DIM]);
        for (int i = 0; i < counts[kind]; i++)
            add(t, PLAIN, "%s", kinds[kind]);
        if (t->has_colour)
            add(t, PLAIN, "%s", style_end);
    }
}

static int fields_columns(const struct field fields[FIELD_COUNT])
{
    int columns = 0;

    for (int i = 0; i < FIELD_COUNT; i++)
        columns += fields[i].keep > 0 ? field_columns(&fields[i]) : 0;
    return columns;
}

/* Fills the fields and leaves out what the columns have no room for. */
static void choose_fields(struct field fields[FIELD_COUNT], struct terminal *t, int columns)
{
    const struct gr_event *e = &t->event;

    memset(fields, 0, FIELD_COUNT * sizeof *fields);
    fields[FIELD_STEP] = (struct field){.label = "", .unit = "", .keep = FIELD_COUNT};
    snprintf(fields[FIELD_STEP].value, sizeof fields[FIELD_STEP].value, "%" PRId64 "/%" PRId64,
             e->step, e->total_steps);
    set_metric(&fields[FIELD_LOSS], e, GR_METRIC_train_loss, NULL, NULL, 3);
    set_metric(&fields[FIELD_RATE], e, GR_METRIC_learning_rate, "%.2e", NULL, 1);
    set_metric(&fields[FIELD_SPEED], e, GR_METRIC_tokens_per_s, NULL, "tok/s", 2);
    set_time(&fields[FIELD_TIME], t, e, 4);
    t->width[FIELD_STEP] = 2 * snprintf(NULL, 0, "%" PRId64, e->total_steps) + 1;
    for (int i = 0; i < FIELD_COUNT; i++) {
        int length = fields[i].keep > 0 ? (int)strlen(fields[i].value) : 0;

        t->width[i] = length > t->width[i] ? length : t->width[i];
        fields[i].width = i == FIELD_TIME ? -t->width[i] : t->width[i]; /* the last stays left */
    }
    for (int keep = 1; keep < FIELD_COUNT; keep++) {
        for (int i = 0; i < FIELD_COUNT; i++) {
            if (fields[i].keep == keep && fields_columns(fields) + MIN_CELLS > columns)
                fields[i].keep = 0;
        }
    }
}

/* "━━━━━━━━━━━━╺━━━━━━━━━━━━  48/125  loss 2.1034  lr 1.80e-04  1523 tok/s  eta 2:31" */
static void draw_bar(void *bar)
{
    struct terminal *t = bar;
    struct field fields[FIELD_COUNT];
    int columns = terminal_columns(t) - 1; /* a full line would wrap */
    int room;

    if (!t->is_begun)
        return;
    choose_fields(fields, t, columns);
    room = columns - fields_columns(fields);
    add(t, PLAIN, "%s", to_line_start);
    if (room >= MIN_CELLS)
        add_cells(t, room < MAX_CELLS ? room : MAX_CELLS);
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (fields[i].keep > 0)
            add_field(t, &fields[i]);
    }
    add(t, PLAIN, "%s", clear_to_line_end);
    print_line(t);
    t->is_drawn = true;
}

static void clear_bar(void *bar)
{
    struct terminal *t = bar;

    if (!t->is_drawn)
        return;
    add(t, PLAIN, "%s%s", to_line_start, clear_to_line_end);
    print_line(t);
    t->is_drawn = false;
}

/* The bar stays above what comes next. */
static void leave_bar(struct terminal *t)
{
    if (t->is_drawn) {
        add(t, PLAIN, "\n");
        print_line(t);
    }
    t->is_drawn = t->is_begun = false;
}

/* "step 10/125  loss 2.1034  lr 0.00018  grad_norm 0.53  1523 tokens/s", and without a bar "eta
 * 1:15"
 */
static void print_event(struct terminal *t, const struct gr_event *event)
{
    struct field time = {0};

    if (event->trial != 0)
        add(t, PLAIN, "trial %d  ", event->trial);
    add(t, PLAIN, "step %" PRId64 "/%" PRId64, event->step, event->total_steps);
    for (int metric = 0; metric < GR_METRIC_COUNT; metric++) {
        struct field field = {0};

        if (!event->has[metric] || gr_metric_table[metric].format == NULL)
            continue;
        set_metric(&field, event, (enum gr_metric)metric, NULL, NULL, 1);
        add_field(t, &field);
    }
    if (!t->has_bar && event->kind == GR_EVENT_STEP && t->is_begun)
        set_time(&time, t, event, 1);
    if (time.keep > 0)
        add_field(t, &time);
    add(t, PLAIN, "\n");
    print_line(t);
}

static void write_plain(struct terminal *t, const struct gr_event *event)
{
    if (event->kind == GR_EVENT_STEP || event->kind == GR_EVENT_EVAL)
        print_event(t, event);
}

static void write_bar(struct terminal *t, const struct gr_event *event)
{
    if (event->kind == GR_EVENT_EVAL) {
        clear_bar(t);
        print_event(t, event);
        draw_bar(t);
        return;
    }
    if (event->kind == GR_EVENT_END) { /* keeps the last step's metrics */
        t->event.kind = GR_EVENT_END;
        t->event.unix_s = event->unix_s;
    } else {
        t->event = *event;
    }
    draw_bar(t);
    if (event->kind == GR_EVENT_END)
        leave_bar(t);
}

static gr_status terminal_write(struct gr_sink *sink, const struct gr_event *event)
{
    struct terminal *t = (struct terminal *)sink;

    flockfile(stderr);
    if (!t->is_begun && event->kind != GR_EVENT_EVAL) {
        t->begin_s = event->unix_s;
        t->begin_step = event->step;
        t->is_begun = true;
    }
    if (t->has_bar)
        write_bar(t, event);
    else
        write_plain(t, event);
    funlockfile(stderr);
    return GR_OK;
}

static gr_status terminal_flush(struct gr_sink *sink)
{
    (void)sink; /* stderr has no buffer */
    return GR_OK;
}

static void terminal_destroy(struct gr_sink *sink)
{
    struct terminal *t = (struct terminal *)sink;

    flockfile(stderr);
    leave_bar(t);
    funlockfile(stderr);
    if (t->has_bar)
        gr_log_set_bar(NULL, NULL, NULL);
    gr_free(t);
}

static bool speaks_utf8(void)
{
    const char *locale = gr_env(GR_ENV_LC_ALL);

    if (locale == NULL)
        locale = gr_env(GR_ENV_LC_CTYPE);
    if (locale == NULL)
        locale = gr_env(GR_ENV_LANG);
    return locale != NULL &&
           (strcasestr(locale, "utf-8") != NULL || strcasestr(locale, "utf8") != NULL);
}

struct gr_sink *gr_sink_terminal_create(int terminal)
{
    static const struct gr_sink_ops ops = {.name = "terminal",
                                           .write = terminal_write,
                                           .flush = terminal_flush,
                                           .destroy = terminal_destroy};
    const char *term = gr_env(GR_ENV_TERM);
    struct terminal *t = GR_NEW(struct terminal);

    t->sink.ops = &ops;
    t->fd = terminal;
    t->has_bar = terminal >= 0 && (term == NULL || strcmp(term, "dumb") != 0);
    t->has_colour = t->has_bar && gr_env(GR_ENV_NO_COLOR) == NULL;
    t->cells = speaks_utf8() ? &cells_utf8 : &cells_ascii;
    if (t->has_bar)
        gr_log_set_bar(clear_bar, draw_bar, t);
    return &t->sink;
}
