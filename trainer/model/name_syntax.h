/* What an expression for module names may consist of. */
#ifndef GR_TRAINER_NAME_SYNTAX_H
#define GR_TRAINER_NAME_SYNTAX_H

#include <stdbool.h>
#include <stdint.h>

/* The first part of an expression that is not to be relied on. */
struct gr_name_syntax {
    int64_t begin, length; /* bytes of the expression; length 0: there is none */
};

/* Finds what Python's re does not have, or reads in another way than Oniguruma; `is_new`: also what
 * only some versions of Python have, or is too rare to be worth a doubt.  `is_inner`: the
 * expression will not stand at the beginning, where alone flags like (?i) may be.  What is merely
 * cut off, such as "(a", passes: compiling finds it. */
struct gr_name_syntax gr_name_syntax_check(const char *expression, bool is_new, bool is_inner);

#endif
