/* Holding out documents for evaluation. */
#include "data/documents.h"
#include "kernels/base/alloc.h"
#include "tests/test.h"

/* Document i has the tokens i, i + 1, ..., i % 5 + 2 of them, the even ones supervised. */
static void fill(struct gr_documents *d, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t tokens[8];
        uint8_t labels[8];
        int32_t length = (int32_t)(i % 5) + 2;

        for (int32_t t = 0; t < length; t++) {
            tokens[t] = (uint32_t)(i + t);
            labels[t] = tokens[t] % 2 == 0;
        }
        gr_documents_add(d, tokens, labels, length, (int32_t)i);
    }
}

/* What fill() made, in ascending order; its documents are marked in `seen`. */
static void assert_whole(const struct gr_documents *d, int *seen)
{
    int64_t tokens = 0, supervised = 0, last = -1;

    for (int64_t i = 0; i < d->count; i++) {
        const struct gr_document *one = &d->document[i];

        ASSERT(one->source > last);
        last = one->source;
        seen[last]++;
        ASSERT_INT(one->offset, tokens);
        ASSERT_INT(one->length, last % 5 + 2);
        for (int32_t t = 0; t < one->length; t++) {
            ASSERT_INT(d->tokens[tokens], last + t);
            ASSERT_INT(d->labels[tokens], t > 0 && (last + t) % 2 == 0);
            supervised += d->labels[tokens++];
        }
    }
    ASSERT_INT(d->token_count, tokens);
    ASSERT_INT(d->supervised_count, supervised);
}

TEST(documents_held_out_are_every_one_on_one_side)
{
    static const struct {
        int64_t count;
        double fraction;
        int64_t held;
    } cases[] = {{1000, 0.1, 100}, {1000, 0.999, 999}, {10, 0.25, 3},
                 {10, 0.01, 1},    {2, 0.9, 1},        {3000, 0.5, 1500}};

    for (int64_t c = 0; c < GR_COUNT(cases); c++) {
        struct gr_documents d = {0}, held = {0};
        int *seen = GR_NEW_ARRAY(int, cases[c].count);

        fill(&d, cases[c].count);
        gr_documents_hold_out(&held, &d, cases[c].fraction);
        ASSERT_INT(held.count, cases[c].held);
        ASSERT_INT(d.count, cases[c].count - cases[c].held);
        assert_whole(&d, seen);
        assert_whole(&held, seen);
        for (int64_t i = 0; i < cases[c].count; i++)
            ASSERT_INT(seen[i], 1);
        gr_documents_release(&d);
        gr_documents_release(&held);
        gr_free(seen);
    }
}

TEST(documents_held_out_at_0_or_of_one_are_none)
{
    struct gr_documents d = {0}, held = {0};

    fill(&d, 1);
    gr_documents_hold_out(&held, &d, 0.5);
    ASSERT_INT(held.count, 0);
    fill(&d, 9);
    gr_documents_hold_out(&held, &d, 0);
    ASSERT_INT(held.count, 0);
    ASSERT_INT(d.count, 10);
    gr_documents_release(&d);
}

/* The choice is part of what a run is: it must stay as it is.  And it is spread over the file. */
TEST(documents_held_out_are_these)
{
    static const int32_t expected[] = {8, 15, 17, 19}; /* by a Philox in Python */
    struct gr_documents d = {0}, held = {0};
    int64_t low = 0;

    fill(&d, 20);
    gr_documents_hold_out(&held, &d, 0.2);
    ASSERT_INT(held.count, 4);
    for (int64_t i = 0; i < held.count; i++)
        ASSERT_INT(held.document[i].source, expected[i]);
    gr_documents_release(&d);
    gr_documents_release(&held);
    fill(&d, 1000);
    gr_documents_hold_out(&held, &d, 0.2);
    for (int64_t i = 0; i < held.count; i++)
        low += held.document[i].source < 500;
    ASSERT(low > 70 && low < 130);
    gr_documents_release(&d);
    gr_documents_release(&held);
}

/* There is room for more after a part has gone. */
TEST(documents_can_be_added_after_some_were_held_out)
{
    struct gr_documents d = {0}, held = {0};
    uint32_t tokens[3] = {7, 8, 9};
    uint8_t labels[3] = {1, 1, 1};

    fill(&d, 5000);
    gr_documents_hold_out(&held, &d, 0.9);
    for (int i = 0; i < 5000; i++)
        gr_documents_add(&d, tokens, labels, 3, 0);
    ASSERT_INT(d.count, 5500);
    ASSERT_INT(d.tokens[d.token_count - 1], 9);
    gr_documents_release(&d);
    gr_documents_release(&held);
}

/* As reading them with that limit, tokens left where they are. */
TEST(documents_cut_lose_what_is_longer_and_those_without_labels)
{
    struct gr_documents d = {0};
    int64_t next = 0;

    fill(&d, 100);
    gr_documents_cut(&d, 2);
    for (int64_t i = 0; i < 100; i++) { /* the second token alone may have a label: i + 1 even */
        if (i % 2 == 0)
            continue;
        ASSERT_INT(d.document[next].source, i);
        ASSERT_INT(d.document[next].length, 2);
        ASSERT_INT(d.tokens[d.document[next].offset], i);
        next++;
    }
    ASSERT_INT(d.count, next);
    ASSERT_INT(d.supervised_count, next);
    gr_documents_cut(&d, 1); /* no label is left */
    ASSERT_INT(d.count, 0);
    ASSERT_INT(d.supervised_count, 0);
    gr_documents_release(&d);
}
