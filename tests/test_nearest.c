/* Edit distance and "did you mean". */
#include "kernels/base/alloc.h"
#include "kernels/base/nearest.h"
#include "tests/test.h"

TEST(nearest_distance_counts_edits)
{
    static const struct {
        const char *a, *b;
        int distance;
    } rows[] = {
        {"", "", 0},           {"", "abc", 3},
        {"abc", "", 3},        {"train", "train", 0},
        {"train", "tran", 1},  {"tran", "train", 1},
        {"train", "brain", 1}, {"train", "trian", 1},
        {"ca", "abc", 3},      {"kitten", "sitting", 3},
    };

    for (int64_t i = 0; i < GR_COUNT(rows); i++)
        ASSERT_MSG(gr_edit_distance(rows[i].a, rows[i].b) == rows[i].distance,
                   "%s to %s is %d, expected %d", rows[i].a, rows[i].b,
                   gr_edit_distance(rows[i].a, rows[i].b), rows[i].distance);
}

TEST(nearest_distance_of_long_words_stays_in_its_rows)
{
    char a[2 * GR_NEAREST_MAX], b[2 * GR_NEAREST_MAX];

    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    a[sizeof a - 1] = b[sizeof b - 1] = '\0';
    ASSERT_INT(gr_edit_distance(a, b), GR_NEAREST_MAX);
}

TEST(nearest_is_the_first_of_the_least_distance_within_the_limit)
{
    static const char *const names[] = {"config", "brain", "train", "tokenize"};

    ASSERT_TEXT(gr_nearest("trian", names, 4), "train");
    ASSERT_TEXT(gr_nearest("xrain", names, 4), "brain");
    ASSERT_TEXT(gr_nearest("tokenise", names, 4), "tokenize");
    ASSERT(gr_nearest("generate", names, 4) == NULL);
    ASSERT(gr_nearest("", names, 4) == NULL);
    ASSERT(gr_nearest("train", names, 0) == NULL);
}
