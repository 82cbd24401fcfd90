/* The records of a file, one after the other: each line of a JSONL file, or each element of a file
 * that is one JSON array.  Holds one record at a time, whatever the size of the file.
 * records.c calls it; what a record means is no business of this file. */
#ifndef GR_DATA_RECORD_READER_H
#define GR_DATA_RECORD_READER_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

struct gr_record_reader {
    const char *path; /* borrowed */
    FILE *file;
    int64_t line;          /* of the next byte, from 1 */
    int64_t record_line;   /* where the record begins */
    bool is_array;         /* the file is one JSON array */
    bool ended;            /* array: its ] was read */
    int64_t records;       /* given out */
    struct gr_buffer text; /* of the record */
    char *place;           /* "FILE:LINE" of the record, for messages */
};

/* Errors: ERR_NOT_FOUND, ERR_DATA naming the file. */
gr_status gr_record_reader_open(struct gr_record_reader *reader, const char *path);
/* *record: the next object, the caller's to json_decref; NULL at the end.  Blank lines are skipped;
 * a file without a record is an error.  Errors: ERR_DATA at FILE:LINE (broken JSON, bad UTF-8, not
 * an object, anything after the array's end). */
gr_status gr_record_reader_next(struct gr_record_reader *reader, json_t **record);
void gr_record_reader_close(struct gr_record_reader *reader);

#endif
