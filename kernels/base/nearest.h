/* "Did you mean": the known name nearest to what was typed.  For hints in messages about unknown
 * keys, options and commands. */
#ifndef GR_BASE_NEAREST_H
#define GR_BASE_NEAREST_H

#include <stdint.h>

/* Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
 * Words longer than GR_NEAREST_MAX bytes are cut to it. */
enum { GR_NEAREST_MAX = 63 };
int gr_edit_distance(const char *a, const char *b);

/* A distance that still looks like a slip for a word of this length: 1 below 5 letters, then a
 * third of them. */
int gr_edit_limit(const char *typed);

/* The first candidate of the least distance within the limit, or NULL. */
const char *gr_nearest(const char *typed, const char *const *candidates, int64_t count);

#endif
