/* A folder in /tmp for tests of data: a tokenizer with one token per byte, so that bytes can be
 * counted by hand, and a data file. */
#ifndef GR_TESTS_DATA_FOLDER_H
#define GR_TESTS_DATA_FOLDER_H

#include "data/records.h"

#include <jansson.h>

/* Ids of its special tokens; the id of any other token is its byte. */
enum { BOS = 256, EOS, IM_START, IM_END };

struct data_folder {
    char folder[64];
    char *data; /* path of the data file */
    struct gr_tokenizer *tokenizer;
    struct gr_documents documents;
    struct gr_records_options options;
};

/* Writes the tokenizer and reads it; options are those of an empty configuration. */
void data_folder_begin(struct data_folder *f);
/* Takes the folder away, but for files the test wrote beside these. */
void data_folder_end(struct data_folder *f);
/* The caller's to free. */
char *data_folder_path(const struct data_folder *f, const char *name);
/* Takes over the reference to `json`. */
void data_folder_write_json(const struct data_folder *f, const char *name, json_t *json);
void write_text(const char *path, const char *text);
/* Reads `text` as the data file; the documents of an earlier reading are gone. */
gr_status data_folder_read(struct data_folder *f, const char *text);

#endif
