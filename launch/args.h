/* One form of arguments for every command: a table of options in, the values out.
 *
 *   --name value   --name=value   -n value   --flag   --set k=v --set k=v   --   positionals
 *
 * Options and positionals mix in any order; `-` is a positional; after `--` everything is.  The
 * value of `--name value` may not begin with `--` (that is a forgotten value: write --name=--x). */
#ifndef GR_LAUNCH_ARGS_H
#define GR_LAUNCH_ARGS_H

#include "kernels/base/buffer.h"
#include "kernels/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum gr_option_kind {
    GR_OPTION_FLAG,     /* --json */
    GR_OPTION_TEXT,     /* --model DIR */
    GR_OPTION_INTEGER,  /* --seed N, in [least, most] */
    GR_OPTION_REAL,     /* --temperature X, in [least, most] */
    GR_OPTION_REPEATED, /* --set K=V, any number of times */
    GR_OPTION_REQUIRED  /* --model DIR that must be there */
};

/* A row of a command's table; a row without a name ends it. */
struct gr_option {
    const char *name; /* without dashes */
    char letter;      /* of -o; 0: none */
    enum gr_option_kind kind;
    const char *value; /* what --help calls the value: "DIR"; only a "TEXT" may be empty */
    const char *help;
    double least, most; /* of INTEGER and REAL */
};

struct gr_args;

/* A command: what main.c dispatches to.  Its file defines it; main.c lists it. */
struct gr_command {
    const char *name;
    gr_status (*run)(const struct gr_args *args);
    const char *usage;   /* what follows the name: "run.yaml [--set k=v]..." */
    const char *summary; /* one line, without full stop */
    const char *details; /* paragraphs for --help, or NULL */
    const struct gr_option *options;
    int64_t least_positionals, most_positionals;
    void (*more_help)(struct gr_buffer *text); /* appended to --help; NULL: nothing */
    bool is_alone; /* refuses several ranks: each would print the whole result into one stdout */
};

/* Reads the arguments behind the command's name.  *args is NULL on failure.
 * Errors: ERR_USAGE. */
gr_status gr_args_create(struct gr_args **args, const struct gr_command *command, int argc,
                         char **argv);
void gr_args_destroy(struct gr_args *args);

/* --help or -h stood among the arguments: nothing else was checked. */
bool gr_args_wants_help(const struct gr_args *args);
/* Usage, summary, options and details as text. */
void gr_command_help(struct gr_buffer *text, const struct gr_command *command);

/* Values.  A name that is not in the table, or of another kind, is a bug. */
bool gr_args_flag(const struct gr_args *args, const char *name);
const char *gr_args_text(const struct gr_args *args, const char *name); /* NULL: not given */
int64_t gr_args_integer(const struct gr_args *args, const char *name, int64_t if_not_given);
double gr_args_real(const struct gr_args *args, const char *name, double if_not_given);
const char *const *gr_args_list(const struct gr_args *args, const char *name, int64_t *count);

int64_t gr_args_positional_count(const struct gr_args *args);
const char *gr_args_positional(const struct gr_args *args, int64_t i); /* NULL: not given */

#endif
