/* The names of the protocol: keys of terms, manifests and objects, and what they tell.  Pure. */
#ifndef GR_TRAINER_STATE_NAMES_H
#define GR_TRAINER_STATE_NAMES_H

#include "trainer/state/state.h"

#define GR_STEP_MOST INT64_C(999999999999)
#define GR_TERM_MOST INT64_C(99999999)

enum { GR_KEY_BYTES = 192 }; /* of every key of the protocol, with the NUL */

void gr_name_checkpoint(char name[GR_CHECKPOINT_NAME_BYTES], int64_t step, int64_t term);
/* "000000000100-00000003" and nothing else, step and term >= 1; what it tells is optional. */
bool gr_name_parse_checkpoint(int64_t *step, int64_t *term, const char *name);

void gr_key_term(char key[GR_KEY_BYTES], int64_t term);
bool gr_key_parse_term(int64_t *term, const char *key);
/* "ckpt/NAME.json" for folder "ckpt"; verdicts and pins have the same form. */
void gr_key_record(char key[GR_KEY_BYTES], const char *folder, const char *name);
bool gr_key_parse_record(char name[GR_CHECKPOINT_NAME_BYTES], const char *folder, const char *key);
/* "objects/NAME-UUID/" followed by an object's name. */
void gr_key_object(char key[GR_KEY_BYTES], const char *name, const char *uuid, const char *object);
/* "objects/NAME-...": whose data it is. */
bool gr_key_parse_object(char name[GR_CHECKPOINT_NAME_BYTES], const char *key);

bool gr_name_is_checkpoint(const char *text);
bool gr_name_is_hash(const char *text);
bool gr_name_is_uuid(const char *text);
bool gr_name_is_file(const char *text);

#endif
