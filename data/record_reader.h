/* The records of a file, one after the other: each line of a JSONL file, or each element of a file
 * that is one JSON array.  The file is mapped; a record is a place in it until it is parsed, which
 * any thread may do.  records.c calls it; what a record means is no business of this file. */
#ifndef GR_DATA_RECORD_READER_H
#define GR_DATA_RECORD_READER_H

#include "data/file_map.h"

#include <jansson.h>
#include <stdint.h>

/* The text of one record, in the map. */
struct gr_record_text {
    const char *bytes;
    int64_t length; /* 0: there are no more */
    int64_t line;   /* where it begins, from 1 */
};

struct gr_record_reader {
    const char *path; /* borrowed */
    struct gr_file_map map;
    int64_t at;      /* the next byte */
    int64_t kept;    /* where what may stay in memory begins */
    int64_t line;    /* of it */
    bool is_array;   /* the file is one JSON array */
    bool ended;      /* array: its ] was read */
    int64_t records; /* given out */
};

/* Errors: ERR_NOT_FOUND, ERR_DATA naming the file. */
gr_status gr_record_reader_open(struct gr_record_reader *reader, const char *path);
/* *text: the next record.  Blank lines are skipped; a file without a record is an error.
 * Errors: ERR_DATA at FILE:LINE (an array without end, anything after it). */
gr_status gr_record_reader_next(struct gr_record_reader *reader, struct gr_record_text *text);
/* *record: the object that the text is, the caller's to json_decref.  `place` is its FILE:LINE.
 * Errors: ERR_DATA there (broken JSON, bad UTF-8, not an object). */
gr_status gr_record_parse(json_t **record, const struct gr_record_reader *reader,
                          const struct gr_record_text *text, const char *place);
/* What was read up to here is not needed any more: it need not stay in memory. */
void gr_record_reader_forget(struct gr_record_reader *reader);
void gr_record_reader_close(struct gr_record_reader *reader);

#endif
