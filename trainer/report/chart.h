/* A chart as inline SVG: lines over steps, with axes, units and readable ticks.  However many
 * points there are, the picture has a few hundred: what lies within a pixel or two is drawn as its
 * mean, with a band from the least to the most. */
#ifndef GR_TRAINER_REPORT_CHART_H
#define GR_TRAINER_REPORT_CHART_H

#include "kernels/base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

struct gr_point {
    double step, value;
};
/* Ascending by step, values finite.  A zeroed struct is empty. */
struct gr_points {
    struct gr_point *item;
    int64_t count, capacity;
};
/* A point of a step that is there already, and all after it, give way to it. */
void gr_points_add(struct gr_points *points, double step, double value);
void gr_points_release(struct gr_points *points);

enum { GR_CHART_LINES = 2 };
struct gr_chart_line {
    const struct gr_points *points; /* NULL or empty: left out */
    const char *name;               /* "training" */
};
struct gr_chart {
    const char *title; /* "Loss"; text of ours, written as it is */
    const char *unit;  /* behind the title; "" for none */
    bool from_zero;    /* the axis of the values begins at 0 */
    bool may_be_log;   /* the axis is logarithmic where the values span much */
    struct gr_chart_line line[GR_CHART_LINES];
    const double *restart; /* [restarts] steps at which the run was taken up again */
    int64_t restarts;
};

/* Appends a <figure>; nothing when no line has a point. */
void gr_chart_add(struct gr_buffer *html, const struct gr_chart *chart);

#endif
