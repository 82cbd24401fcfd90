/* What was read from which file: the counts behind a set of documents.  Readers fill it, the token
 * store keeps it, and whoever loads the documents tells the user. */
#ifndef GR_DATA_SOURCES_H
#define GR_DATA_SOURCES_H

#include "kernels/base/status.h"

#include <jansson.h>
#include <stdint.h>

/* Texts are owned. */
struct gr_source {
    char *path;
    char *sha256;      /* of the file (data/hash.h); "" where nobody asked */
    char *format;      /* of its records: "messages" */
    char *chat_format; /* "" where the format needs none */
    char *ignored;     /* keys of the records that no reader looked at, "a, b"; mostly "" */
    int64_t records;
    int64_t documents;
    int64_t tokens;
    int64_t supervised;
    int64_t cut;          /* documents cut to max_length */
    int64_t dropped_long; /* left out because they are longer */
    int64_t dropped_bare; /* left out because no token of theirs is supervised */
};

/* In the order of the files; a zeroed struct is an empty list. */
struct gr_sources {
    struct gr_source *item;
    int64_t count;
};

/* A new one at the end, all counts 0; valid until the next is added. */
struct gr_source *gr_sources_add(struct gr_sources *sources, const char *path);
/* Appends those of `from`, which is empty then. */
void gr_sources_move(struct gr_sources *sources, struct gr_sources *from);
void gr_sources_release(struct gr_sources *sources);
/* *text becomes a copy of `value`. */
void gr_source_set(char **text, const char *value);

/* One note to the user, or two or three where something was cut, dropped or ignored. */
void gr_source_note(const struct gr_source *source, int64_t max_length);

/* ERR_DATA when no source has a supervised token, naming the last file. */
gr_status gr_sources_check_learned(const struct gr_sources *sources, int64_t max_length);

/* An array with an object for each source, whose keys are the members. */
json_t *gr_sources_to_json(const struct gr_sources *sources);
/* Appends.  Errors: ERR_DATA at `place`. */
gr_status gr_sources_from_json(struct gr_sources *sources, const json_t *json, const char *place);

#endif
