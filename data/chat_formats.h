/* What a chat format is made of: private to chat.c, which renders, and chat_formats.c, which lists.
 * In the texts of a format, {bos} and {eos} stand for the tokenizer's tokens of that name. */
#ifndef GR_DATA_CHAT_FORMATS_H
#define GR_DATA_CHAT_FORMATS_H

#include "data/chat.h"

/* A turn is  before content end after.  Content and end are the turn's two spans. */
struct gr_chat_turn {
    const char *before;
    const char *end;
    const char *after;
};

struct gr_chat_format {
    const char *name;
    const char *opening; /* before the first turn */
    struct gr_chat_turn turn[GR_CHAT_ROLE_COUNT];
    const char *system_preamble; /* between before and content of a system turn that comes first */
    const char *default_system;  /* content of the system turn that is put first where the
                                    conversation has none; NULL: no such turn */
    const char *generation;      /* what opens the assistant's turn when it is to be written */
    bool trim;           /* white space around contents is dropped, as by Python's strip() */
    bool alternate;      /* after the system turn: user, assistant, user, ... */
    bool system_in_user; /* the system turn is written inside the user turn that follows */
};

/* Ends with a format whose name is NULL. */
extern const struct gr_chat_format gr_chat_formats[];

/* A chat template that is known byte by byte. */
struct gr_chat_template {
    const char *sha256; /* of the template's text, lower-case hex */
    const char *format; /* name */
    const char *model;  /* whose template it is */
};
/* Ends with a template whose sha256 is NULL. */
extern const struct gr_chat_template gr_chat_templates[];

#endif
