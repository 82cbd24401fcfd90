/* Drawing a chart.  See chart.h.  Colours are classes of the page's style. */
#include "trainer/report/chart.h"

#include "kernels/base/alloc.h"
#include "trainer/report/html.h"

#include <math.h>
#include <stdlib.h>

/* In the units of the viewBox. */
enum { WIDTH = 760, HEIGHT = 250, LEFT = 62, RIGHT = 16, TOP = 14, BOTTOM = 44 };
enum { BUCKETS = 340, TICKS_X = 8, TICKS_Y = 6, MARKED_MOST = 60 };

void gr_points_add(struct gr_points *p, double step, double value)
{
    while (p->count > 0 && p->item[p->count - 1].step >= step)
        p->count--;
    if (p->count == p->capacity) {
        p->capacity = p->capacity == 0 ? 256 : 2 * p->capacity;
        p->item = gr_realloc(p->item, p->capacity, sizeof *p->item);
    }
    p->item[p->count++] = (struct gr_point){step, value};
}

void gr_points_release(struct gr_points *p)
{
    gr_free(p->item);
    *p = (struct gr_points){0};
}

/* Over a wider range only the powers of ten have ticks. */
static const double few_decades = 1e3;

/* ---- scales --------------------------------------------------------------------------------- */

struct axis {
    double least, most;
    bool is_log;             /* ticks at 1, 2 and 5 times the powers of ten */
    double first_tick, tick; /* ticks at first_tick, first_tick + tick, ... up to most */
    int exponent;            /* labels are values / 10^exponent */
    int decimals;
};

/* 1, 2 or 5 times a power of ten: the least that makes at most `ticks` of the range. */
static double nice_tick(double range, int ticks)
{
    static const double steps[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(range / ticks)));

    for (int64_t i = 0; i < GR_COUNT(steps); i++) {
        if (power * steps[i] * ticks >= range * (1 - 1e-9))
            return power * steps[i];
    }
    return power * 10;
}

static void set_ticks(struct axis *axis, int ticks)
{
    const double small = 0.01, large = 1e6;
    double size = fmax(fabs(axis->least), fabs(axis->most));

    axis->tick = nice_tick(axis->most - axis->least, ticks);
    axis->first_tick = ceil(axis->least / axis->tick - 1e-9) * axis->tick;
    if (size < small || size >= large)
        axis->exponent = (int)floor(log10(size) + 1e-9);
    axis->decimals = axis->exponent - (int)floor(log10(axis->tick) + 1e-9);
    axis->decimals = axis->decimals < 0 ? 0 : axis->decimals;
}

/* A loss that falls to a part of what it began with is told by its ratios. */
static bool set_log(struct axis *axis)
{
    const double much = 6, air = 1.08, tiny = 1e-300; /* whose powers of ten can be told apart */

    axis->is_log = axis->least > tiny && axis->most / axis->least >= much;
    if (!axis->is_log)
        return false;
    axis->least /= air;
    axis->most *= air;
    axis->tick = pow(10, floor(log10(axis->least)));
    axis->first_tick = axis->tick * 10;
    if (axis->most / axis->least > few_decades)
        return true;
    for (int64_t lead = 5; lead >= 1; lead -= lead == 5 ? 3 : 1) {
        if (axis->tick * (double)lead >= axis->least)
            axis->first_tick = axis->tick * (double)lead;
    }
    return true;
}

/* From 1 to 2 to 5 to 10 on a logarithmic axis. */
static double next_tick(const struct axis *axis, double value)
{
    double lead;

    if (!axis->is_log)
        return value + axis->tick;
    if (axis->most / axis->least > few_decades)
        return value * 10;
    lead = value / pow(10, floor(log10(value) + 1e-9));
    return value * (lead > 1.5 && lead < 3 ? 2.5 : 2);
}

/* The values' axis: as wide as the points, with a little air, and to the ticks next to them. */
static struct axis value_axis(const struct gr_chart *chart)
{
    struct axis axis = {.least = INFINITY, .most = -INFINITY};
    double air;

    for (int l = 0; l < GR_CHART_LINES; l++) {
        const struct gr_points *p = chart->line[l].points;

        for (int64_t i = 0; p != NULL && i < p->count; i++) {
            axis.least = fmin(axis.least, p->item[i].value);
            axis.most = fmax(axis.most, p->item[i].value);
        }
    }
    if (chart->may_be_log && set_log(&axis))
        return axis;
    if (chart->from_zero && axis.least > 0)
        axis.least = 0;
    air = fmax(0.04 * (axis.most - axis.least), 1e-3 * fabs(axis.most));
    air = air > 0 ? air : 1;
    axis.most += air;
    if (!(axis.least >= 0 && axis.least < air)) /* a scale from 0 begins there */
        axis.least -= air;
    set_ticks(&axis, TICKS_Y);
    return axis;
}

static struct axis step_axis(const struct gr_chart *chart)
{
    struct axis axis = {.least = INFINITY, .most = -INFINITY};

    for (int l = 0; l < GR_CHART_LINES; l++) {
        const struct gr_points *p = chart->line[l].points;

        if (p == NULL || p->count == 0)
            continue;
        axis.least = fmin(axis.least, p->item[0].step);
        axis.most = fmax(axis.most, p->item[p->count - 1].step);
    }
    if (axis.least > 0 && axis.least <= 0.1 * axis.most)
        axis.least = 0;
    if (axis.most - axis.least < 1) {
        axis.least -= 1;
        axis.most += 1;
    }
    set_ticks(&axis, TICKS_X);
    axis.tick = fmax(axis.tick, 1); /* there is no half a step */
    axis.first_tick = ceil(axis.least / axis.tick - 1e-9) * axis.tick;
    axis.exponent = axis.decimals = 0;
    return axis;
}

static double at_x(const struct axis *x, double step)
{
    return LEFT + (step - x->least) / (x->most - x->least) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct axis *y, double value)
{
    double part = y->is_log ? log(value / y->least) / log(y->most / y->least)
                            : (value - y->least) / (y->most - y->least);

    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
}

/* ---- drawing -------------------------------------------------------------------------------- */

static void add_label(struct gr_buffer *html, const struct axis *axis, double value)
{
    char count[32];

    value /= pow(10, axis->exponent);
    if (axis->is_log)
        gr_buffer_add_format(html, "%.6g", value);
    else if (axis->decimals == 0 && fabs(value) < 1e15)
        gr_buffer_add_text(html, gr_html_count(count, llround(value)));
    else
        gr_buffer_add_format(html, "%.*f", axis->decimals, fabs(value) < 1e-12 ? 0 : value);
}

static void add_axes(struct gr_buffer *html, const struct axis *x, const struct axis *y)
{
    int bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;

    for (double value = y->first_tick; value <= y->most; value = next_tick(y, value)) {
        double at = at_y(y, value);

        gr_buffer_add_format(html,
                             "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
                             "<text class=\"y\" x=\"%d\" y=\"%.1f\">",
                             LEFT, at, right, at, LEFT - 8, at + 4);
        add_label(html, y, value);
        gr_buffer_add_text(html, "</text>\n");
    }
    for (double step = x->first_tick; step <= x->most; step = next_tick(x, step)) {
        double at = at_x(x, step);

        gr_buffer_add_format(html,
                             "<line class=\"axis\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>"
                             "<text class=\"x\" x=\"%.1f\" y=\"%d\">",
                             at, bottom, at, bottom + 5, at, bottom + 19);
        add_label(html, x, step);
        gr_buffer_add_text(html, "</text>\n");
    }
    gr_buffer_add_format(html,
                         "<line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>"
                         "<text class=\"x\" x=\"%d\" y=\"%d\">step</text>\n",
                         LEFT, bottom, right, bottom, (LEFT + right) / 2, HEIGHT - 7);
}

static void add_restarts(struct gr_buffer *html, const struct gr_chart *chart, const struct axis *x)
{
    for (int64_t i = 0; i < chart->restarts; i++) {
        double at = at_x(x, chart->restart[i]);

        if (chart->restart[i] <= x->least || chart->restart[i] > x->most)
            continue;
        gr_buffer_add_format(html,
                             "<line class=\"restart\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\">"
                             "<title>taken up again after step %.0f</title></line>\n",
                             at, TOP, at, HEIGHT - BOTTOM, chart->restart[i]);
    }
}

/* Points that share a bucket, as one. */
struct bucket {
    double step, mean, least, most;
};

static int64_t make_buckets(struct bucket **buckets, const struct gr_points *p)
{
    int64_t count = 0, wanted = p->count > 2 * BUCKETS ? BUCKETS : p->count;
    double first = p->item[0].step, range = p->item[p->count - 1].step - first;
    int64_t last = -1;
    double in_bucket = 0;

    *buckets = GR_NEW_ARRAY(struct bucket, wanted + 1);
    for (int64_t i = 0; i < p->count; i++) {
        const struct gr_point *point = &p->item[i];
        int64_t number =
            wanted == p->count ? i : (int64_t)((double)wanted * ((point->step - first) / range));
        struct bucket *b;

        if (number != last) {
            (*buckets)[count++] = (struct bucket){0, 0, point->value, point->value};
            in_bucket = 0;
        }
        last = number;
        b = &(*buckets)[count - 1];
        in_bucket++;
        b->step += (point->step - b->step) / in_bucket;
        b->mean += (point->value - b->mean) / in_bucket;
        b->least = fmin(b->least, point->value);
        b->most = fmax(b->most, point->value);
    }
    return count;
}

static void add_band(struct gr_buffer *html, const struct bucket *b, int64_t count, int line,
                     const struct axis *x, const struct axis *y)
{
    gr_buffer_add_format(html, "<polygon class=\"band b%d\" points=\"", line);
    for (int64_t i = 0; i < count; i++)
        gr_buffer_add_format(html, "%.1f,%.1f ", at_x(x, b[i].step), at_y(y, b[i].most));
    for (int64_t i = count - 1; i >= 0; i--)
        gr_buffer_add_format(html, "%.1f,%.1f ", at_x(x, b[i].step), at_y(y, b[i].least));
    gr_buffer_add_text(html, "\"/>\n");
}

static void add_line(struct gr_buffer *html, const struct gr_chart *chart, int line,
                     const struct axis *x, const struct axis *y)
{
    const struct gr_points *p = chart->line[line].points;
    struct bucket *b = NULL;
    int64_t count;

    if (p == NULL || p->count == 0)
        return;
    count = make_buckets(&b, p);
    if (count < p->count)
        add_band(html, b, count, line, x, y);
    gr_buffer_add_format(html, "<polyline class=\"line l%d\" points=\"", line);
    for (int64_t i = 0; i < count; i++)
        gr_buffer_add_format(html, "%.1f,%.1f ", at_x(x, b[i].step), at_y(y, b[i].mean));
    gr_buffer_add_text(html, "\"/>\n");
    for (int64_t i = 0; i < count && p->count <= MARKED_MOST; i++)
        gr_buffer_add_format(html,
                             "<circle class=\"mark m%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\">"
                             "<title>step %.0f: %.6g</title></circle>\n",
                             line, at_x(x, b[i].step), at_y(y, b[i].mean), b[i].step, b[i].mean);
    gr_free(b);
}

static void add_caption(struct gr_buffer *html, const struct gr_chart *chart, const struct axis *y)
{
    gr_buffer_add_format(html, "<figcaption><b>%s</b>", chart->title);
    if (chart->unit[0] != '\0')
        gr_buffer_add_format(html, " <span class=\"unit\">%s</span>", chart->unit);
    if (y->is_log)
        gr_buffer_add_text(html, " <span class=\"unit\">(logarithmic)</span>");
    if (y->exponent != 0)
        gr_buffer_add_format(html, " <span class=\"unit\">&#215; 10<sup>%s%d</sup></span>",
                             y->exponent < 0 ? "&#8722;" : "", abs(y->exponent));
    for (int l = 0; l < GR_CHART_LINES; l++) {
        if (chart->line[l].points != NULL && chart->line[l].points->count > 0 &&
            chart->line[l].name != NULL)
            gr_buffer_add_format(html, " <span class=\"key k%d\">%s</span>", l,
                                 chart->line[l].name);
    }
    gr_buffer_add_text(html, "</figcaption>\n");
}

void gr_chart_add(struct gr_buffer *html, const struct gr_chart *chart)
{
    struct axis x, y;
    bool is_empty = true;

    for (int l = 0; l < GR_CHART_LINES; l++)
        is_empty = is_empty && (chart->line[l].points == NULL || chart->line[l].points->count == 0);
    if (is_empty)
        return;
    x = step_axis(chart);
    y = value_axis(chart);
    gr_buffer_add_text(html, "<figure>\n");
    add_caption(html, chart, &y);
    gr_buffer_add_format(html,
                         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                         "role=\"img\" aria-label=\"%s over steps\">\n",
                         WIDTH, HEIGHT, chart->title);
    add_axes(html, &x, &y);
    add_restarts(html, chart, &x);
    for (int l = 0; l < GR_CHART_LINES; l++)
        add_line(html, chart, l, &x, &y);
    gr_buffer_add_text(html, "</svg>\n</figure>\n");
}
