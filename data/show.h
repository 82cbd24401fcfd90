/* Tokens as text for people, with what is supervised marked: printed before step 1 and by
 * `graft data show`, so that a wrong mask is seen before it costs anything. */
#ifndef GR_DATA_SHOW_H
#define GR_DATA_SHOW_H

#include "data/documents.h"
#include "data/loader.h"
#include "data/tokenizer/tokenizer.h"

enum gr_show_style {
    GR_SHOW_BRACKETS, /* [[supervised]] */
    GR_SHOW_COLOURS,  /* supervised green, the rest dim: for a terminal that may have colours */
};

/* Appends one document.  Special tokens are spelled out; control characters are written as \x1b, so
 * that data cannot steer a terminal.  Errors: ERR_DATA (an id the tokenizer does not have). */
gr_status gr_show_document(struct gr_buffer *text, const struct gr_tokenizer *tokenizer,
                           const struct gr_documents *documents, int64_t number,
                           enum gr_show_style style);
/* Appends the documents of the first pack of a batch, each under a line with its counts.  Errors:
 * as above. */
gr_status gr_show_first_pack(struct gr_buffer *text, const struct gr_tokenizer *tokenizer,
                             const struct gr_batch *batch, int64_t micro_batch_size,
                             enum gr_show_style style);

#endif
