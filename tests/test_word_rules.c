/* Each word rule against its own regular expression in Oniguruma: the same matches in every text.
 */
#include "data/tokenizer/pattern.h"
#include "data/tokenizer/text.h"
#include "kernels/base/alloc.h"
#include "kernels/base/philox.h"
#include "tests/test.h"

struct twins {
    struct gr_pattern rule, regex;
};

/* In a group the expression is not recognised, and means the same. */
static struct twins twins_create(const struct gr_word_rule *rule)
{
    struct twins twins = {0};
    char *group = gr_format("(?:%s)", rule->regex);

    onig_initialize((OnigEncoding[]){ONIG_ENCODING_UTF8}, 1);
    ASSERT_OK(gr_pattern_set_regex(&twins.rule, rule->regex, strlen(rule->regex), "test"));
    ASSERT_OK(gr_pattern_set_regex(&twins.regex, group, strlen(group), "test"));
    ASSERT(twins.rule.rule == rule && twins.rule.regex == NULL);
    ASSERT(twins.regex.rule == NULL && twins.regex.regex != NULL);
    gr_free(group);
    return twins;
}

static void twins_release(struct twins *twins)
{
    gr_pattern_release(&twins->rule);
    gr_pattern_release(&twins->regex);
}

static void check_same(const struct twins *twins, const char *text, int64_t length)
{
    struct gr_scan rule = {0}, regex = {0};
    bool more = true;

    gr_scan_begin(&rule, &twins->rule, text, length);
    gr_scan_begin(&regex, &twins->regex, text, length);
    while (more) {
        bool found = gr_scan_next(&rule);

        more = gr_scan_next(&regex);
        ASSERT_MSG(found == more && (!more || (rule.begin == regex.begin && rule.end == regex.end)),
                   "%s\n  in \"%.*s\": rule %d [%lld, %lld), regex %d [%lld, %lld)",
                   twins->rule.rule->regex, (int)length, text, found, (long long)rule.begin,
                   (long long)rule.end, more, (long long)regex.begin, (long long)regex.end);
    }
    ASSERT(!regex.gave_up);
    gr_scan_release(&rule);
    gr_scan_release(&regex);
}

static void add(struct gr_buffer *text, int32_t code)
{
    char bytes[4];

    gr_buffer_add(text, bytes, (size_t)gr_char_write(bytes, code));
}

/* The character among others of every class, at both ends of a text too. */
static void check_character(const struct twins *twins, int32_t code)
{
    static const char around[] = "a  1 .\n 'sx' \r12a1234\t.'e '\xC3\xA9\xE6\x97\xA5";
    struct gr_buffer text = {0};

    add(&text, code);
    for (const char *at = around; *at != '\0'; at += gr_char_bytes(*at)) {
        gr_buffer_add(&text, at, (size_t)gr_char_bytes(*at));
        add(&text, code);
    }
    add(&text, code);
    check_same(twins, text.data, (int64_t)text.length);
    gr_buffer_release(&text);
}

static bool is_surrogate(int32_t code)
{
    return code >= 0xD800 && code <= 0xDFFF;
}

/* All characters of the first planes' alphabets, all where the class changes, and some of the rest.
 */
TEST(word_rules_every_kind_of_character_as_the_regex)
{
    enum { ALPHABETS = 0x600, STRIDE = 61 };

    for (const struct gr_word_rule *rule = gr_word_rules; rule->regex != NULL; rule++) {
        struct twins twins = twins_create(rule);
        const uint8_t *classes = twins.rule.classes;

        for (int32_t code = 0; code < 0x110000; code++) {
            bool edge = code > 0 && classes[code] != classes[code - 1];

            if (is_surrogate(code) || (code > ALPHABETS && !edge && code % STRIDE != 0))
                continue;
            check_character(&twins, code);
            if (edge && !is_surrogate(code - 1))
                check_character(&twins, code - 1);
        }
        twins_release(&twins);
    }
}

/* What the rules tell apart, and neighbours of it. */
static int32_t random_code(uint64_t *number)
{
    static const int32_t likely[] = {
        '\'', '\'', 's',    'S',    't',    'r',    'R',     'e',   'E',    'v',    'm',      'l',
        'L',  'd',  ' ',    ' ',    ' ',    '\t',   '\n',    '\n',  '\r',   '\v',   0x1C,     0x85,
        0xA0, 0xAD, 0x17F,  0x212A, 0x2028, 0x3000, 0x200B,  0x301, '1',    '2',    0xB2,     0x663,
        '.',  '_',  0x2019, 0x149,  0x65E5, 0xAC00, 0x1F600, 0x378, 0xE000, 0xFB06, 0x10FFFF, 0,
    };
    uint64_t drawn = *number;

    *number /= GR_COUNT(likely) + 1;
    drawn %= GR_COUNT(likely) + 1;
    if (drawn < (uint64_t)GR_COUNT(likely))
        return likely[drawn];
    drawn = *number % 0x3000; /* or any of the first blocks */
    *number /= 0x3000;
    return (int32_t)drawn;
}

TEST(word_rules_random_text_as_the_regex)
{
    enum { TEXTS = 30000 };

    for (const struct gr_word_rule *rule = gr_word_rules; rule->regex != NULL; rule++) {
        struct twins twins = twins_create(rule);

        for (uint32_t i = 0; i < TEXTS; i++) {
            struct gr_buffer text = {0};
            uint32_t length = 1 + i % 12;

            for (uint32_t at = 0; at < length; at++) {
                struct gr_philox_block b = gr_philox(7, i, at, 0, 0);
                uint64_t number = (uint64_t)b.word[1] << 32 | b.word[0];

                add(&text, random_code(&number));
            }
            check_same(&twins, text.data, (int64_t)text.length);
            gr_buffer_release(&text);
        }
        twins_release(&twins);
    }
}
