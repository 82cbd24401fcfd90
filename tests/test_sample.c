/* The choice of the next token: its distribution against known probabilities, and its edges. */
#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/run/sample.h"

enum { COUNT = 8, DRAWS = 100000 };

static const float logits[COUNT] = {0.3f, 2.1f, -1, 1.5f, 2.0f, -3, 0.7f, 1.5f};

static int32_t draw(const struct gr_sampling *s, int64_t position)
{
    struct gr_candidate candidate[COUNT];

    return gr_sample(candidate, logits, COUNT, s, position);
}

/* p <- the probabilities by definition: sort, take until the sum is top_p, divide. */
static void probabilities(double p[COUNT], const struct gr_sampling *s)
{
    double sum = 0, kept = 0;
    bool taken[COUNT] = {false};

    for (int i = 0; i < COUNT; i++)
        sum += p[i] = exp((double)logits[i] / s->temperature);
    for (int n = 0; n < COUNT && (n == 0 || kept < s->top_p * sum); n++) {
        int best = -1;

        for (int i = 0; i < COUNT; i++) {
            if (!taken[i] && (best < 0 || p[i] > p[best]))
                best = i;
        }
        taken[best] = true;
        kept += p[best];
    }
    for (int i = 0; i < COUNT; i++)
        p[i] = taken[i] ? p[i] / kept : 0;
}

/* Pearson's chi-square over the tokens that can come; 30 is beyond the 99.9 % point of 7 degrees of
 * freedom (24.3), and of fewer.  The draws are fixed: this does not fail by chance. */
static void check_distribution(const struct gr_sampling *s, int expected_tokens)
{
    double p[COUNT], chi_square = 0;
    int64_t found[COUNT] = {0};
    int tokens = 0;

    probabilities(p, s);
    for (int64_t i = 0; i < DRAWS; i++)
        found[draw(s, i)]++;
    for (int i = 0; i < COUNT; i++) {
        double expected = p[i] * DRAWS, apart = (double)found[i] - expected;

        if (p[i] == 0)
            ASSERT_INT(found[i], 0);
        else
            chi_square += apart * apart / expected;
        tokens += p[i] > 0;
    }
    ASSERT_INT(tokens, expected_tokens);
    ASSERT_MSG(chi_square < 30, "temperature %g, top_p %g: chi-square %g", s->temperature, s->top_p,
               chi_square);
}

TEST(sample_temperature_gives_the_softmax)
{
    static const double temperatures[] = {0.5, 1, 3};

    for (int i = 0; i < 3; i++)
        check_distribution(
            &(struct gr_sampling){.temperature = temperatures[i], .top_p = 1, .seed = 5}, COUNT);
}

TEST(sample_top_p_gives_the_nucleus)
{
    static const struct {
        double top_p;
        int tokens;
    } cases[] = {{0.28, 1}, {0.5, 2}, {0.6, 3}, {0.8, 4}, {0.9, 5}, {0.97, 6}, {0.999, 8}};

    for (int64_t i = 0; i < GR_COUNT(cases); i++)
        check_distribution(
            &(struct gr_sampling){.temperature = 1, .top_p = cases[i].top_p, .seed = 6},
            cases[i].tokens);
}

TEST(sample_temperature_comes_before_top_p)
{
    check_distribution(&(struct gr_sampling){.temperature = 4, .top_p = 0.5, .seed = 7}, 4);
}

TEST(sample_cold_or_narrow_is_greedy)
{
    static const struct gr_sampling greedy[] = {
        {.temperature = 0, .top_p = 1},      {.temperature = 0, .top_p = 0},
        {.temperature = 1, .top_p = 0},      {.temperature = 100, .top_p = 1e-12},
        {.temperature = 1e-300, .top_p = 1}, {.temperature = 1e-3, .top_p = 1}};

    for (int64_t k = 0; k < GR_COUNT(greedy); k++) {
        for (int64_t i = 0; i < 1000; i++)
            ASSERT_INT(draw(&greedy[k], i), 1);
    }
}

TEST(sample_tie_takes_the_first)
{
    static const float tied[] = {1, 5, 2, 5, 5};
    struct gr_candidate candidate[5];

    for (int64_t i = 0; i < 100; i++) {
        ASSERT_INT(gr_sample(candidate, tied, 5, &(struct gr_sampling){0}, i), 1);
        ASSERT_INT(gr_sample(candidate, tied, 5, &(struct gr_sampling){.temperature = 1}, i), 1);
    }
}

TEST(sample_seed_and_position_decide)
{
    struct gr_sampling s = {.temperature = 3, .top_p = 1, .seed = 1}, other = s;
    int same_seed = 0, same_position = 0;

    other.seed = 2;
    for (int64_t i = 0; i < 1000; i++) {
        ASSERT_INT(draw(&s, i), draw(&s, i));
        same_seed += draw(&s, i) == draw(&other, i);
        same_position += draw(&s, i) == draw(&s, i + 1);
    }
    ASSERT(same_seed < 300 && same_position < 300);
}

TEST(sample_not_finite_is_told)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    static const struct gr_sampling ways[] = {{0}, {.temperature = 1, .top_p = 0.9}};
    struct gr_candidate candidate[3];

    for (int k = 0; k < 6; k++) {
        float bad[3] = {1, 2, 3};

        bad[k % 3] = values[k / 2];
        for (int w = 0; w < 2; w++)
            ASSERT_INT(gr_sample(candidate, bad, 3, &ways[w], 0), -1);
    }
}

/* A large vocabulary: what is left out before sorting is no part of the nucleus. */
TEST(sample_large_vocabulary_keeps_the_nucleus)
{
    enum { VOCAB = 2000 };
    static const double top_p = 0.9;
    float *wide = GR_NEW_ARRAY(float, VOCAB);
    struct gr_candidate *candidate = GR_NEW_ARRAY(struct gr_candidate, VOCAB);
    struct gr_sampling s = {.temperature = 1, .top_p = top_p, .seed = 3};
    double sum = 0, kept = 0;
    int64_t nucleus = 0, seen = 0;

    for (int64_t i = 0; i < VOCAB; i++) { /* falling: the nucleus is [0, nucleus) */
        wide[i] = -0.01f * (float)i;
        sum += exp((double)wide[i]);
    }
    while (kept < top_p * sum)
        kept += exp((double)wide[nucleus++]);
    for (int64_t i = 0; i < 5000; i++) {
        int32_t id = gr_sample(candidate, wide, VOCAB, &s, i);

        ASSERT(id < nucleus);
        seen = id > seen ? id : seen;
    }
    ASSERT_MSG(seen > nucleus - 5, "the last of %lld seen is %lld", (long long)nucleus,
               (long long)seen);
    gr_free(wide);
    gr_free(candidate);
}
