/* Unicode normalization of a piece of text with its sources: NFC, NFD, NFKC, NFKD, with the
 * alignment that `tokenizers` gives the characters that come out. */
#ifndef GR_DATA_TOKENIZER_UNICODE_H
#define GR_DATA_TOKENIZER_UNICODE_H

#include "data/tokenizer/text.h"

enum gr_unicode_form { GR_NFC, GR_NFD, GR_NFKC, GR_NFKD };

/* Appends the normalized bytes [piece.begin, piece.end) of `in` to `out`. */
void gr_unicode_normalize(struct gr_text *out, const struct gr_text *in, struct gr_piece piece,
                          enum gr_unicode_form form);

#endif
