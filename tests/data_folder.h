/* A folder for tests of data: a tokenizer with one token per byte, so that bytes can be
 * counted by hand, and a data file. */
#ifndef GR_TESTS_DATA_FOLDER_H
#define GR_TESTS_DATA_FOLDER_H

#include "data/records.h"

#include <jansson.h>

/* Ids of its special tokens; the id of any other token is its byte. */
enum { BOS = 256, EOS, IM_START, IM_END };

struct data_folder {
    const char *data; /* path of the data file */
    struct gr_tokenizer *tokenizer;
    struct gr_documents documents;
    struct gr_records_options options;
};

/* Enters a new folder, writes the tokenizer into it and reads it; the options are those of an empty
 * configuration. */
void data_folder_begin(struct data_folder *f);
void data_folder_end(struct data_folder *f);
/* Takes over the reference to `json`. */
void write_json(const char *path, json_t *json);
/* Appends what the files hold, and says what was read, as the start of a run does. */
gr_status read_records(struct gr_documents *documents, const struct gr_tokenizer *tokenizer,
                       const char *const *files, int64_t count,
                       const struct gr_records_options *options);
/* Reads `text` as the data file; the documents of an earlier reading are gone. */
gr_status data_folder_read(struct data_folder *f, const char *text);

#endif
