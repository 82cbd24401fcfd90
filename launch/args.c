/* The option parser.  See args.h. */
#include "launch/args.h"

#include "kernels/base/alloc.h"
#include "kernels/base/nearest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The values given to one option, in the order given.  They point into argv. */
struct values {
    const char **item;
    int64_t count;
};

struct gr_args {
    const struct gr_command *command;
    int64_t option_count;
    struct values *given; /* [option_count] */
    struct values positionals;
    bool wants_help;
};

static void values_add(struct values *values, const char *item)
{
    values->item = gr_realloc(values->item, values->count + 1, sizeof *values->item);
    values->item[values->count++] = item;
}

/* ---- finding options ---- */

static int64_t count_options(const struct gr_option *options)
{
    int64_t count = 0;

    while (options != NULL && options[count].name != NULL)
        count++;
    return count;
}

/* -1: there is none. */
static int64_t find_name(const struct gr_args *args, const char *name, size_t length)
{
    for (int64_t i = 0; i < args->option_count; i++) {
        const char *known = args->command->options[i].name;

        if (strncmp(known, name, length) == 0 && known[length] == '\0')
            return i;
    }
    return -1;
}

static int64_t find_letter(const struct gr_args *args, char letter)
{
    for (int64_t i = 0; i < args->option_count; i++) {
        if (args->command->options[i].letter == letter)
            return i;
    }
    return -1;
}

static gr_status fail_unknown(const struct gr_args *args, const char *shown)
{
    const char **names = GR_NEW_ARRAY(const char *, args->option_count + 1);
    const char *nearest = NULL;
    char *typed = gr_strndup(shown + strspn(shown, "-"), strcspn(shown, "=") - strspn(shown, "-"));

    for (int64_t i = 0; i < args->option_count; i++)
        names[i] = args->command->options[i].name;
    names[args->option_count] = "help";
    nearest = gr_nearest(typed, names, args->option_count + 1);
    gr_fail(GR_ERR_USAGE, args->command->name, NULL, "unknown option %s", shown);
    if (nearest != NULL)
        gr_hint("did you mean --%s?", nearest);
    gr_free(typed);
    gr_free(names);
    return GR_ERR_USAGE;
}

/* ---- values ---- */

/* The whole text is a number in the option's range; integers have no point or exponent. */
static bool is_number_for(const struct gr_option *option, const char *text)
{
    const char *digits = option->kind == GR_OPTION_INTEGER ? "+-0123456789" : "+-.0123456789eE";
    char *end = NULL;
    double value = 0.0;

    if (text[0] == '\0' || strspn(text, digits) != strlen(text))
        return false;
    value = strtod(text, &end);
    return *end == '\0' && value >= option->least && value <= option->most;
}

/* "-o" or "--output", as it was typed. */
static int name_length(const char *shown)
{
    return shown[1] == '-' ? (int)strcspn(shown, "=") : 2;
}

/* 1000000 and 0.5; %g writes 1e+06. */
static void write_bound(char text[32], double bound)
{
    snprintf(text, 32, bound == floor(bound) && fabs(bound) < 1e16 ? "%.0f" : "%g", bound);
}

static gr_status fail_range(const struct gr_args *args, const struct gr_option *option,
                            const char *shown, const char *value)
{
    char least[32], most[32];

    write_bound(least, option->least);
    write_bound(most, option->most);
    return gr_fail(GR_ERR_USAGE, args->command->name, NULL,
                   "%.*s is wrong (found %s, expected %s from %s to %s)", name_length(shown), shown,
                   value, option->kind == GR_OPTION_INTEGER ? "an integer" : "a number", least,
                   most);
}

/* An empty text is one; an empty path is a variable that was not set. */
static bool may_be_empty(const struct gr_option *option)
{
    return option->kind == GR_OPTION_FLAG || strcmp(option->value, "TEXT") == 0;
}

/* shown: the option as it stands in argv. */
static gr_status add_value(struct gr_args *args, int64_t index, const char *shown,
                           const char *value)
{
    const struct gr_option *option = &args->command->options[index];
    bool is_number = option->kind == GR_OPTION_INTEGER || option->kind == GR_OPTION_REAL;

    if (option->kind != GR_OPTION_REPEATED && args->given[index].count > 0)
        return gr_fail(GR_ERR_USAGE, args->command->name, "give it once",
                       "--%s stands twice (found %s and %s, expected one value)", option->name,
                       args->given[index].item[0], value);
    if (is_number && !is_number_for(option, value))
        return fail_range(args, option, shown, value);
    if (value[0] == '\0' && !may_be_empty(option))
        return gr_fail(GR_ERR_USAGE, args->command->name, "a variable of the shell may be unset",
                       "%.*s is empty (found nothing, expected %s)", name_length(shown), shown,
                       option->value);
    values_add(&args->given[index], value);
    return GR_OK;
}

/* ---- reading argv ---- */

/* One option at argv[*i]; a value behind it moves *i on. */
static gr_status read_option(struct gr_args *args, int argc, char **argv, int *i)
{
    const char *shown = argv[*i];
    bool is_long = shown[1] == '-';
    size_t length = is_long ? strcspn(shown + 2, "=") : 1;
    const char *attached = is_long ? (shown[2 + length] == '=' ? shown + 3 + length : NULL)
                                   : (shown[2] != '\0' ? shown + 2 : NULL);
    int64_t index = is_long ? find_name(args, shown + 2, length) : find_letter(args, shown[1]);
    const struct gr_option *option = NULL;

    if (index < 0)
        return fail_unknown(args, shown);
    option = &args->command->options[index];
    if (option->kind == GR_OPTION_FLAG) {
        if (attached != NULL)
            return gr_fail(GR_ERR_USAGE, args->command->name, NULL,
                           "--%s takes no value (found %s)", option->name, attached);
        return add_value(args, index, shown, "");
    }
    if (attached != NULL)
        return add_value(args, index, shown, attached);
    if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0) {
        gr_fail(GR_ERR_USAGE, args->command->name, NULL,
                "--%s has no value (found %s, expected %s)", option->name,
                *i + 1 >= argc ? "nothing" : argv[*i + 1], option->value);
        gr_hint("a value that begins with -- is given as --%s=VALUE", option->name);
        return GR_ERR_USAGE;
    }
    (*i)++;
    return add_value(args, index, shown, argv[*i]);
}

/* Long usages have lines of their own, for which a hint is no place. */
static void hint_usage(const struct gr_command *command)
{
    if (strchr(command->usage, '\n') == NULL)
        gr_hint("usage: graft %s %s", command->name, command->usage);
    else
        gr_hint("graft %s --help shows what it takes", command->name);
}

static gr_status check_complete(const struct gr_args *args)
{
    const struct gr_command *command = args->command;

    for (int64_t i = 0; i < args->option_count; i++) {
        const struct gr_option *option = &command->options[i];

        if (option->kind == GR_OPTION_REQUIRED && args->given[i].count == 0) {
            gr_fail(GR_ERR_USAGE, command->name, NULL,
                    "--%s is missing (found nothing, expected %s)", option->name, option->value);
            hint_usage(command);
            return GR_ERR_USAGE;
        }
    }
    if (args->positionals.count < command->least_positionals) {
        gr_fail(GR_ERR_USAGE, command->name, NULL,
                "an argument is missing (found %" PRId64 ", expected %" PRId64 ")",
                args->positionals.count, command->least_positionals);
        hint_usage(command);
        return GR_ERR_USAGE;
    }
    if (args->positionals.count > command->most_positionals) {
        gr_fail(GR_ERR_USAGE, command->name, NULL, "too many arguments (found %s, expected %s)",
                args->positionals.item[command->most_positionals],
                command->most_positionals == 0 ? "options alone" : "no more");
        hint_usage(command);
        return GR_ERR_USAGE;
    }
    return GR_OK;
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static gr_status read_all(struct gr_args *args, int argc, char **argv)
{
    gr_status status = GR_OK;

    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i])) {
            args->wants_help = true;
            return GR_OK;
        }
    }
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            for (i++; i < argc; i++)
                values_add(&args->positionals, argv[i]);
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            GR_TRY(read_option(args, argc, argv, &i));
        } else {
            values_add(&args->positionals, argv[i]);
        }
    }
    status = check_complete(args);
out:
    return status;
}

gr_status gr_args_create(struct gr_args **args, const struct gr_command *command, int argc,
                         char **argv)
{
    gr_status status = GR_OK;

    *args = GR_NEW(struct gr_args);
    (*args)->command = command;
    (*args)->option_count = count_options(command->options);
    (*args)->given = GR_NEW_ARRAY(struct values, (*args)->option_count);
    status = read_all(*args, argc, argv);
    if (status != GR_OK) {
        if (gr_error_hint()[0] == '\0')
            gr_hint("graft %s --help lists its options", command->name);
        gr_args_destroy(*args);
        *args = NULL;
    }
    return status;
}

void gr_args_destroy(struct gr_args *args)
{
    if (args == NULL)
        return;
    for (int64_t i = 0; i < args->option_count; i++)
        gr_free(args->given[i].item);
    gr_free(args->given);
    gr_free(args->positionals.item);
    gr_free(args);
}

/* ---- what commands ask ---- */

static const struct values *values_of(const struct gr_args *args, const char *name,
                                      unsigned kinds_mask)
{
    int64_t index = find_name(args, name, strlen(name));

    GR_CHECK(index >= 0, "%s has no option --%s", args->command->name, name);
    GR_CHECK((kinds_mask >> args->command->options[index].kind & 1U) != 0,
             "--%s of %s is of another kind", name, args->command->name);
    return &args->given[index];
}

bool gr_args_wants_help(const struct gr_args *args)
{
    return args->wants_help;
}

bool gr_args_flag(const struct gr_args *args, const char *name)
{
    return values_of(args, name, 1U << GR_OPTION_FLAG)->count > 0;
}

const char *gr_args_text(const struct gr_args *args, const char *name)
{
    const struct values *given =
        values_of(args, name, 1U << GR_OPTION_TEXT | 1U << GR_OPTION_REQUIRED);

    return given->count > 0 ? given->item[0] : NULL;
}

int64_t gr_args_integer(const struct gr_args *args, const char *name, int64_t if_not_given)
{
    const struct values *given = values_of(args, name, 1U << GR_OPTION_INTEGER);

    return given->count > 0 ? (int64_t)strtoll(given->item[0], NULL, 10) : if_not_given;
}

double gr_args_real(const struct gr_args *args, const char *name, double if_not_given)
{
    const struct values *given = values_of(args, name, 1U << GR_OPTION_REAL);

    return given->count > 0 ? strtod(given->item[0], NULL) : if_not_given;
}

const char *const *gr_args_list(const struct gr_args *args, const char *name, int64_t *count)
{
    const struct values *given = values_of(args, name, 1U << GR_OPTION_REPEATED);

    *count = given->count;
    return given->item;
}

int64_t gr_args_positional_count(const struct gr_args *args)
{
    return args->positionals.count;
}

const char *gr_args_positional(const struct gr_args *args, int64_t i)
{
    return i < args->positionals.count ? args->positionals.item[i] : NULL;
}

/* ---- --help ---- */

static void add_option_help(struct gr_buffer *text, const struct gr_option *option)
{
    char letter[8] = "    ";
    char *left = NULL;

    if (option->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    left = gr_format("%s--%s%s%s%s", letter, option->name, option->value == NULL ? "" : " ",
                     option->value == NULL ? "" : option->value,
                     option->kind == GR_OPTION_REPEATED ? "..." : "");
    gr_buffer_add_format(text, "  %-28s %s\n", left, option->help);
    gr_free(left);
}

void gr_command_help(struct gr_buffer *text, const struct gr_command *command)
{
    static const struct gr_option help = {"help", 'h', GR_OPTION_FLAG, NULL, "print this", 0, 0};

    gr_buffer_add_format(text, "usage: graft %s%s%s\n\n%s\n\noptions:\n", command->name,
                         command->usage[0] == '\0' ? "" : " ", command->usage, command->summary);
    for (int64_t i = 0; i < count_options(command->options); i++)
        add_option_help(text, &command->options[i]);
    add_option_help(text, &help);
    if (command->details != NULL)
        gr_buffer_add_format(text, "\n%s\n", command->details);
    if (command->more_help != NULL) {
        gr_buffer_add_text(text, "\n");
        command->more_help(text);
    }
}
