/* Edit distance by the optimal string alignment recurrence.  See nearest.h. */
#include "kernels/base/nearest.h"

#include <stddef.h>
#include <string.h>

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int length_of(const char *text)
{
    return (int)strnlen(text, GR_NEAREST_MAX);
}

int gr_edit_distance(const char *a, const char *b)
{
    int rows[3][GR_NEAREST_MAX + 1];
    int *before = rows[0], *above = rows[1], *row = rows[2]; /* rows i-2, i-1 and i */
    int na = length_of(a), nb = length_of(b);

    for (int j = 0; j <= nb; j++)
        above[j] = before[j] = j;
    for (int i = 1; i <= na; i++) {
        int *oldest = before;

        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int replaced = above[j - 1] + (a[i - 1] != b[j - 1]);

            row[j] = min_int(replaced, min_int(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_int(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = oldest;
    }
    return above[nb];
}

int gr_edit_limit(const char *typed)
{
    int length = length_of(typed);

    return length < 5 ? 1 : length / 3;
}

const char *gr_nearest(const char *typed, const char *const *candidates, int64_t count)
{
    const char *nearest = NULL;
    int least = gr_edit_limit(typed) + 1;

    for (int64_t i = 0; i < count; i++) {
        int distance = gr_edit_distance(typed, candidates[i]);

        if (distance < least) {
            least = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}
