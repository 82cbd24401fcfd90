/* Seconds as text.  See duration.h. */
#include "kernels/base/duration.h"

#include <math.h>
#include <stdio.h>

/* What a long long holds with room to spare; NaN and less than nothing are 0. */
static double sane(double seconds)
{
    return fmin(fmax(seconds, 0), 1e12);
}

const char *gr_duration_words(char text[32], double seconds)
{
    long long minutes;

    seconds = sane(seconds);
    minutes = llround(seconds / 60);
    if (seconds < 1)
        snprintf(text, 32, "%.2f s", seconds);
    else if (seconds < 120)
        snprintf(text, 32, "%.*f s", seconds < 10 ? 1 : 0, seconds);
    else if (minutes < 120)
        snprintf(text, 32, "%lld min", minutes);
    else
        snprintf(text, 32, "%lld h %lld min", minutes / 60, minutes % 60);
    return text;
}

const char *gr_duration_clock(char text[32], double seconds)
{
    long long s = llround(sane(seconds));

    if (s < 3600)
        snprintf(text, 32, "%lld:%02lld", s / 60, s % 60);
    else
        snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    return text;
}
