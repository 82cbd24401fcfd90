/* The floor: status messages, arenas, buffers, paths, durations, Philox. */
#include "kernels/base/alloc.h"
#include "kernels/base/arena.h"
#include "kernels/base/buffer.h"
#include "kernels/base/duration.h"
#include "kernels/base/files.h"
#include "kernels/base/philox.h"
#include "kernels/base/status.h"
#include "tests/test.h"

#include <math.h>

TEST(status_first_message_wins)
{
    ASSERT_INT(gr_fail(GR_ERR_DATA, "a.json", "mend it", "broken (found %d, expected %d)", 1, 2),
               GR_ERR_DATA);
    gr_fail(GR_ERR_USAGE, "later", NULL, "not this one");
    ASSERT_TEXT(gr_error_message(), "a.json: broken (found 1, expected 2)");
    ASSERT_TEXT(gr_error_hint(), "mend it");
    gr_error_clear();
    ASSERT(!gr_error_is_set());
}

TEST(status_message_stays_on_one_line)
{
    gr_fail(GR_ERR_DATA, "a\nb", NULL, "tensor \"%s\"",
            "x\x1b[2J\r\ty\x7f\xc3\xbc\xc2\x9b\xc2\xa0");
    ASSERT_TEXT(gr_error_message(), "a?b: tensor \"x?[2J??y?\xc3\xbc??\xc2\xa0\"");
    gr_error_clear();
}

TEST(status_exit_codes_are_those_of_the_contract)
{
    ASSERT_INT(gr_status_exit_code(GR_ERR_USAGE), 2);
    ASSERT_INT(gr_status_exit_code(GR_ERR_DIVERGED), 9);
    ASSERT_INT(gr_status_exit_code(GR_ERR_RETRY), 138);
}

TEST(arena_measure_then_carve_agree)
{
    static unsigned char memory[4096];
    struct gr_arena measure = {.name = "test"};
    struct gr_arena carve = {.name = "test", .base = memory, .capacity = sizeof memory};

    ASSERT(gr_arena_take(&measure, 10) == NULL);
    gr_arena_take(&measure, 300);
    ASSERT(gr_arena_take(&carve, 10) == memory);
    ASSERT(gr_arena_take(&carve, 300) == memory + GR_ARENA_ALIGN);
    ASSERT_INT(carve.used, measure.used);
}

TEST(buffer_grows_and_stays_terminated)
{
    struct gr_buffer b = {0};

    for (int i = 0; i < 100; i++)
        gr_buffer_add_format(&b, "%d,", i);
    ASSERT_INT(strlen(b.data), b.length);
    ASSERT(strncmp(b.data, "0,1,2,", 6) == 0);
    gr_buffer_release(&b);
}

TEST(path_is_cut_at_the_last_slash)
{
    static const struct {
        const char *path, *folder, *name;
    } rows[] = {
        {"a", ".", "a"},     {"a/b", "a", "b"}, {"a/b/c", "a/b", "c"}, {"/a", "/", "a"},
        {"/a/b", "/a", "b"}, {"./a", ".", "a"}, {"a/b/", "a/b", ""},   {"", ".", ""},
    };

    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        char *folder = gr_path_folder(rows[i].path);

        ASSERT_TEXT(folder, rows[i].folder);
        ASSERT_TEXT(gr_path_name(rows[i].path), rows[i].name);
        gr_free(folder);
    }
}

TEST(duration_is_as_exact_as_one_wants_to_know)
{
    static const struct {
        double seconds;
        const char *words, *clock;
    } rows[] = {
        {0, "0.00 s", "0:00"},
        {0.354, "0.35 s", "0:00"},
        {4.24, "4.2 s", "0:04"},
        {41.3, "41 s", "0:41"},
        {75, "75 s", "1:15"},
        {119.4, "119 s", "1:59"},
        {150, "3 min", "2:30"},
        {3599.6, "60 min", "1:00:00"},
        {3723, "62 min", "1:02:03"},
        {12000, "3 h 20 min", "3:20:00"},
        {360000, "100 h 0 min", "100:00:00"},
        {-1, "0.00 s", "0:00"},
        {NAN, "0.00 s", "0:00"},
    };
    char text[32];

    for (int64_t i = 0; i < GR_COUNT(rows); i++) {
        ASSERT_TEXT(gr_duration_words(text, rows[i].seconds), rows[i].words);
        ASSERT_TEXT(gr_duration_clock(text, rows[i].seconds), rows[i].clock);
    }
    gr_duration_words(text, INFINITY); /* they have room for it */
    gr_duration_clock(text, INFINITY);
}

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
TEST(philox_known_answers)
{
    struct gr_philox_block zero = gr_philox(0, 0, 0, 0, 0);
    struct gr_philox_block ones =
        gr_philox(UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);

    ASSERT_INT(zero.word[0], 0x6627e8d5u);
    ASSERT_INT(zero.word[1], 0xe169c58du);
    ASSERT_INT(zero.word[2], 0xbc57ac4cu);
    ASSERT_INT(zero.word[3], 0x9b00dbd8u);
    ASSERT_INT(ones.word[0], 0x408f276du);
}
