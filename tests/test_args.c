/* The option parser: every form it takes, every message it gives. */
#include "kernels/base/alloc.h"
#include "launch/args.h"
#include "tests/test.h"

static const struct gr_option options[] = {
    {"model", 'm', GR_OPTION_REQUIRED, "DIR", "the model", 0, 0},
    {"out", 'o', GR_OPTION_TEXT, "FILE", "where to write", 0, 0},
    {"json", 0, GR_OPTION_FLAG, NULL, "as JSON", 0, 0},
    {"set", 0, GR_OPTION_REPEATED, "KEY=VALUE", "set a key", 0, 0},
    {"seed", 0, GR_OPTION_INTEGER, "N", "seed", 0, 100},
    {"top-p", 0, GR_OPTION_REAL, "X", "nucleus", 0, 1},
    {"count", 'n', GR_OPTION_INTEGER, "N", "how many", 1, 1e6},
    {"rate", 0, GR_OPTION_REAL, "X", "how fast", 0.25, 1},
    {"prompt", 0, GR_OPTION_TEXT, "TEXT", "what to say", 0, 0},
    {0},
};
static const struct gr_command command = {
    .name = "try",
    .usage = "--model DIR FILE [FILE]",
    .summary = "try it",
    .details = "Details.",
    .options = options,
    .least_positionals = 1,
    .most_positionals = 2,
};

static const char options_hint[] = "graft try --help lists its options";

enum { MOST_ARGUMENTS = 16 };

/* Reads a list of words that ends with NULL. */
static gr_status read_words(struct gr_args **args, const char *const *words)
{
    static char storage[MOST_ARGUMENTS][64];
    char *argv[MOST_ARGUMENTS];
    int argc = 0;

    for (; words[argc] != NULL; argc++) {
        ASSERT(argc < MOST_ARGUMENTS && strlen(words[argc]) < sizeof storage[argc]);
        argv[argc] = strcpy(storage[argc], words[argc]);
    }
    return gr_args_create(args, &command, argc, argv);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_refused(const char *const *words, const char *message, const char *hint)
{
    struct gr_args *args = NULL;

    ASSERT_INT(read_words(&args, words), GR_ERR_USAGE);
    ASSERT(args == NULL);
    ASSERT_TEXT(gr_error_message(), message);
    ASSERT_TEXT(gr_error_hint(), hint);
    gr_error_clear();
}

TEST(args_every_form_of_an_option_is_read)
{
    struct gr_args *args = NULL;
    const char *const *sets = NULL;
    int64_t count = 0;

    ASSERT_OK(read_words(&args, WORDS("a", "--model=m=1", "-o", "x", "--json", "--set", "k=v", "-",
                                      "--set=l=w", "--seed=7", "--top-p", "0.5")));
    ASSERT_TEXT(gr_args_text(args, "model"), "m=1");
    ASSERT_TEXT(gr_args_text(args, "out"), "x");
    ASSERT(gr_args_flag(args, "json"));
    sets = gr_args_list(args, "set", &count);
    ASSERT_INT(count, 2);
    ASSERT_TEXT(sets[0], "k=v");
    ASSERT_TEXT(sets[1], "l=w");
    ASSERT_INT(gr_args_integer(args, "seed", 1), 7);
    ASSERT(gr_args_real(args, "top-p", 1.0) == 0.5);
    ASSERT_INT(gr_args_positional_count(args), 2);
    ASSERT_TEXT(gr_args_positional(args, 0), "a");
    ASSERT_TEXT(gr_args_positional(args, 1), "-");
    ASSERT(gr_args_positional(args, 2) == NULL);
    gr_args_destroy(args);
}

TEST(args_options_not_given_have_their_defaults)
{
    struct gr_args *args = NULL;
    int64_t count = 1;

    ASSERT_OK(read_words(&args, WORDS("a", "-mX")));
    ASSERT_TEXT(gr_args_text(args, "model"), "X");
    ASSERT(gr_args_text(args, "out") == NULL);
    ASSERT(!gr_args_flag(args, "json"));
    gr_args_list(args, "set", &count);
    ASSERT_INT(count, 0);
    ASSERT_INT(gr_args_integer(args, "seed", 42), 42);
    ASSERT(gr_args_real(args, "top-p", 0.25) == 0.25);
    ASSERT(!gr_args_wants_help(args));
    gr_args_destroy(args);
}

TEST(args_after_two_dashes_everything_is_positional)
{
    struct gr_args *args = NULL;

    ASSERT_OK(read_words(&args, WORDS("--model", "m", "--", "--help", "-o")));
    ASSERT(!gr_args_wants_help(args));
    ASSERT_TEXT(gr_args_positional(args, 0), "--help");
    ASSERT_TEXT(gr_args_positional(args, 1), "-o");
    gr_args_destroy(args);
}

TEST(args_value_may_begin_with_one_dash_or_be_attached)
{
    struct gr_args *args = NULL;

    ASSERT_OK(read_words(&args, WORDS("--model", "-x", "--out=--y", "a")));
    ASSERT_TEXT(gr_args_text(args, "model"), "-x");
    ASSERT_TEXT(gr_args_text(args, "out"), "--y");
    gr_args_destroy(args);
}

TEST(args_help_wins_over_what_is_wrong)
{
    struct gr_args *args = NULL;

    ASSERT_OK(read_words(&args, WORDS("--nonsense", "-h")));
    ASSERT(gr_args_wants_help(args));
    gr_args_destroy(args);
}

TEST(args_unknown_option_is_refused_with_the_nearest)
{
    expect_refused(WORDS("--modle", "m", "a"), "try: unknown option --modle",
                   "did you mean --model?");
    expect_refused(WORDS("--jsn=1", "a"), "try: unknown option --jsn=1", "did you mean --json?");
    expect_refused(WORDS("--hepl", "a"), "try: unknown option --hepl", "did you mean --help?");
    expect_refused(WORDS("--help-me", "a"), "try: unknown option --help-me", options_hint);
    expect_refused(WORDS("-x"), "try: unknown option -x", options_hint);
    expect_refused(WORDS("--mode", "m", "a"), "try: unknown option --mode",
                   "did you mean --model?");
}

TEST(args_missing_or_superfluous_value_is_refused)
{
    expect_refused(WORDS("a", "--model"), "try: --model has no value (found nothing, expected DIR)",
                   "a value that begins with -- is given as --model=VALUE");
    expect_refused(WORDS("a", "--model", "--json"),
                   "try: --model has no value (found --json, expected DIR)",
                   "a value that begins with -- is given as --model=VALUE");
    expect_refused(WORDS("a", "--json=yes"), "try: --json takes no value (found yes)",
                   options_hint);
    expect_refused(WORDS("a", "--out", "x", "-o", "y"),
                   "try: --out stands twice (found x and y, expected one value)", "give it once");
}

TEST(args_bounds_of_a_number_belong_to_its_range)
{
    struct gr_args *args = NULL;

    ASSERT_OK(read_words(&args, WORDS("a", "-mX", "--seed=0", "--top-p=1")));
    ASSERT_INT(gr_args_integer(args, "seed", 5), 0);
    ASSERT(gr_args_real(args, "top-p", 0.5) == 1.0);
    gr_args_destroy(args);
    ASSERT_OK(read_words(&args, WORDS("a", "-mX", "--seed=100", "--top-p=0")));
    ASSERT_INT(gr_args_integer(args, "seed", 5), 100);
    ASSERT(gr_args_real(args, "top-p", 0.5) == 0.0);
    gr_args_destroy(args);
}

TEST(args_number_that_is_wrong_is_refused)
{
    expect_refused(WORDS("--seed", "-1"),
                   "try: --seed is wrong (found -1, expected an integer from 0 to 100)",
                   options_hint);
    expect_refused(WORDS("--seed", "101"),
                   "try: --seed is wrong (found 101, expected an integer from 0 to 100)",
                   options_hint);
    expect_refused(WORDS("--seed", "1.5"),
                   "try: --seed is wrong (found 1.5, expected an integer from 0 to 100)",
                   options_hint);
    expect_refused(WORDS("--top-p=nan"),
                   "try: --top-p is wrong (found nan, expected a number from 0 to 1)",
                   options_hint);
    expect_refused(WORDS("--top-p="),
                   "try: --top-p is wrong (found , expected a number from 0 to 1)", options_hint);
    expect_refused(WORDS("--top-p=0x1"),
                   "try: --top-p is wrong (found 0x1, expected a number from 0 to 1)",
                   options_hint);
}

TEST(args_range_is_told_in_digits_and_by_the_name_typed)
{
    expect_refused(WORDS("-n", "0"),
                   "try: -n is wrong (found 0, expected an integer from 1 to 1000000)",
                   options_hint);
    expect_refused(WORDS("-n0"),
                   "try: -n is wrong (found 0, expected an integer from 1 to 1000000)",
                   options_hint);
    expect_refused(WORDS("--count=0"),
                   "try: --count is wrong (found 0, expected an integer from 1 to 1000000)",
                   options_hint);
    expect_refused(WORDS("--rate", "9"),
                   "try: --rate is wrong (found 9, expected a number from 0.25 to 1)",
                   options_hint);
}

TEST(args_empty_value_is_refused_unless_it_is_a_text)
{
    struct gr_args *args = NULL;

    expect_refused(WORDS("a", "--model="), "try: --model is empty (found nothing, expected DIR)",
                   "a variable of the shell may be unset");
    expect_refused(WORDS("a", "-m", ""), "try: -m is empty (found nothing, expected DIR)",
                   "a variable of the shell may be unset");
    expect_refused(WORDS("a", "--set", ""),
                   "try: --set is empty (found nothing, expected KEY=VALUE)",
                   "a variable of the shell may be unset");
    ASSERT_OK(read_words(&args, WORDS("a", "-mX", "--prompt", "")));
    ASSERT_TEXT(gr_args_text(args, "prompt"), "");
    gr_args_destroy(args);
}

TEST(args_that_are_incomplete_or_too_many_are_refused)
{
    const char *usage = "usage: graft try --model DIR FILE [FILE]";

    expect_refused(WORDS("a"), "try: --model is missing (found nothing, expected DIR)", usage);
    expect_refused(WORDS("--model", "m"), "try: an argument is missing (found 0, expected 1)",
                   usage);
    expect_refused(WORDS("--model", "m", "a", "b", "c"),
                   "try: too many arguments (found c, expected no more)", usage);
}

TEST(args_help_text_lists_every_option)
{
    struct gr_buffer text = {0};

    gr_command_help(&text, &command);
    ASSERT_TEXT(text.data, "usage: graft try --model DIR FILE [FILE]\n"
                           "\n"
                           "try it\n"
                           "\n"
                           "options:\n"
                           "  -m, --model DIR              the model\n"
                           "  -o, --out FILE               where to write\n"
                           "      --json                   as JSON\n"
                           "      --set KEY=VALUE...       set a key\n"
                           "      --seed N                 seed\n"
                           "      --top-p X                nucleus\n"
                           "  -n, --count N                how many\n"
                           "      --rate X                 how fast\n"
                           "      --prompt TEXT            what to say\n"
                           "  -h, --help                   print this\n"
                           "\n"
                           "Details.\n");
    gr_buffer_release(&text);
}

TEST(args_destroy_of_nothing_is_legal)
{
    gr_args_destroy(NULL);
    ASSERT(!gr_error_is_set());
}
