/* The model against the plain rule on random small vocabularies: of all pairs the one of lowest
 * rank, the leftmost of those, until none is left.  Cutting into words, the cache, and the two ways
 * to merge must not show.  Then texts of a megabyte without a space, of every kind. */
#include "data/tokenizer/text.h"
#include "data/tokenizer/word_cache.h"
#include "kernels/base/philox.h"
#include "tests/tokenizer_helpers.h"

#include <stdlib.h>
#include <unistd.h>

enum { MOST_TOKENS = 64, MOST_SYMBOLS = 4096, TOKEN_BYTES = 24 };

/* A model as its own tokenizer.json has it; merge m makes token[merged[m]]. */
struct model {
    char token[MOST_TOKENS][TOKEN_BYTES];
    int count;
    int merge[MOST_TOKENS][2], merged[MOST_TOKENS], merges;
    bool unknown, fuses, ignores_merges; /* token 0 is <unk> */
};

struct symbols {
    int id[MOST_SYMBOLS];
    int64_t begin[MOST_SYMBOLS], end[MOST_SYMBOLS];
    int count;
};

static uint32_t draw(uint32_t *state, uint32_t below)
{
    struct gr_philox_block b = gr_philox(11, (*state)++, 0, 0, 0);

    return b.word[0] % below;
}

static int token_of(const struct model *m, const char *text, int64_t length)
{
    for (int i = 0; i < m->count; i++) {
        if ((int64_t)strlen(m->token[i]) == length &&
            memcmp(m->token[i], text, (size_t)length) == 0)
            return i;
    }
    return -1;
}

/* Letters, punctuation, marks and a character of two bytes; '?' and U+00E8 never have a token. */
static const char *const characters[] = {"a",        "b", ",",       "1", "\xE2\x96\x81",
                                         "\xC3\xA9", "?", "\xC3\xA8"};

static struct model random_model(uint32_t *state)
{
    struct model m = {.unknown = draw(state, 2) == 0,
                      .fuses = draw(state, 2) == 0,
                      .ignores_merges = draw(state, 4) == 0};

    snprintf(m.token[m.count++], TOKEN_BYTES, "<unk>");
    for (int i = 0; i < 6; i++) {
        if (draw(state, 8) > 0)
            snprintf(m.token[m.count++], TOKEN_BYTES, "%s", characters[i]);
    }
    for (int tries = 0; tries < 40 && m.count < MOST_TOKENS; tries++) {
        int left = 1 + (int)draw(state, (uint32_t)m.count - 1);
        int right = 1 + (int)draw(state, (uint32_t)m.count - 1);
        char text[2 * TOKEN_BYTES];

        snprintf(text, sizeof text, "%s%s", m.token[left], m.token[right]);
        if (strlen(text) > 16 || token_of(&m, text, (int64_t)strlen(text)) >= 0)
            continue;
        m.merge[m.merges][0] = left;
        m.merge[m.merges][1] = right;
        m.merged[m.merges++] = m.count;
        memcpy(m.token[m.count++], text, strlen(text) + 1);
    }
    return m;
}

static struct gr_tokenizer *tokenizer_of(const struct model *m)
{
    struct gr_buffer vocab = {0}, merges = {0};
    char *options = gr_format("\"unk_token\": %s, \"fuse_unk\": %s, \"ignore_merges\": %s,",
                              m->unknown ? "\"<unk>\"" : "null", m->fuses ? "true" : "false",
                              m->ignores_merges ? "true" : "false");
    struct gr_tokenizer *tokenizer;

    for (int i = 0; i < m->count; i++)
        gr_buffer_add_format(&vocab, "%s\"%s\": %d", i == 0 ? "" : ", ", m->token[i], i);
    for (int i = 0; i < m->merges; i++)
        gr_buffer_add_format(&merges, "%s[\"%s\", \"%s\"]", i == 0 ? "" : ", ",
                             m->token[m->merge[i][0]], m->token[m->merge[i][1]]);
    tokenizer = make_tokenizer(
        &(struct tokenizer_json){.vocab = vocab.data, .merges = merges.data, .model = options});
    gr_buffer_release(&vocab);
    gr_buffer_release(&merges);
    gr_free(options);
    return tokenizer;
}

static void add_symbol(struct symbols *s, int id, int64_t begin, int64_t end)
{
    s->id[s->count] = id;
    s->begin[s->count] = begin;
    s->end[s->count++] = end;
}

/* Unknown characters are one token each, or together where they fuse, or nothing. */
static void start(struct symbols *s, const struct model *m, const char *text, int64_t length)
{
    bool after_unknown = false;
    int64_t count;

    s->count = 0;
    for (int64_t at = 0; at < length; at += count) {
        int id;

        count = gr_char_bytes(text[at]);
        id = token_of(m, text + at, count);
        if (id >= 0)
            add_symbol(s, id, at, at + count);
        else if (m->unknown && m->fuses && after_unknown)
            s->end[s->count - 1] = at + count;
        else if (m->unknown)
            add_symbol(s, 0, at, at + count);
        after_unknown = id < 0;
    }
}

/* The merge of symbols i and i + 1, m->merges if none. */
static int merge_at(const struct model *m, const struct symbols *s, int i)
{
    int found = 0;

    while (found < m->merges &&
           (m->merge[found][0] != s->id[i] || m->merge[found][1] != s->id[i + 1]))
        found++;
    return found;
}

static void encode_plainly(struct symbols *s, const struct model *m, const char *text,
                           int64_t length)
{
    int whole = m->ignores_merges ? token_of(m, text, length) : -1;

    start(s, m, text, length);
    if (whole >= 0) {
        s->count = 0;
        add_symbol(s, whole, 0, length);
    }
    for (;;) {
        int best = 0, rank = m->merges;

        for (int i = 0; i + 1 < s->count; i++) {
            int found = merge_at(m, s, i);

            best = found < rank ? i : best;
            rank = found < rank ? found : rank;
        }
        if (rank == m->merges)
            break;
        s->id[best] = m->merged[rank];
        s->end[best] = s->end[best + 1];
        s->count--;
        for (int i = best + 1; i < s->count; i++) {
            s->id[i] = s->id[i + 1];
            s->begin[i] = s->begin[i + 1];
            s->end[i] = s->end[i + 1];
        }
    }
}

static void check_text(const struct gr_tokenizer *tokenizer, const struct model *m,
                       const struct gr_buffer *text)
{
    static struct symbols expected;
    struct gr_encoding found = {0};

    encode_plainly(&expected, m, text->data, (int64_t)text->length);
    ASSERT_OK(gr_tokenizer_encode(tokenizer, &found, text->data, text->length, true));
    ASSERT_MSG(found.count == expected.count, "\"%s\" has %d tokens, expected %d", text->data,
               (int)found.count, expected.count);
    for (int i = 0; i < expected.count; i++)
        ASSERT_MSG((int)found.ids[i] == expected.id[i] && found.begin[i] == expected.begin[i] &&
                       found.end[i] == expected.end[i],
                   "token %d of \"%s\" is \"%s\" [%d, %d), expected \"%s\" [%d, %d)", i, text->data,
                   m->token[found.ids[i]], (int)found.begin[i], (int)found.end[i],
                   m->token[expected.id[i]], (int)expected.begin[i], (int)expected.end[i]);
    gr_encoding_release(&found);
}

TEST(bpe_random_models_as_the_plain_rule)
{
    enum { MODELS = 150, TEXTS = 60 };
    uint32_t state = 1;

    for (int i = 0; i < MODELS; i++) {
        struct model m = random_model(&state);
        struct gr_tokenizer *tokenizer = tokenizer_of(&m);

        for (int t = 0; t < TEXTS; t++) {
            struct gr_buffer text = {0};
            uint32_t most = t % 10 == 9 ? 400 : 40, kinds = 2 + draw(&state, 7);
            uint32_t length = 1 + draw(&state, most);

            while (length-- > 0)
                gr_buffer_add_text(&text, characters[draw(&state, kinds)]);
            check_text(tokenizer, &m, &text);
            check_text(tokenizer, &m, &text); /* now from the cache */
            gr_buffer_release(&text);
        }
        gr_tokenizer_destroy(tokenizer);
    }
}

/* ---- the cache ---- */

/* Word i: its number in a base of bytes, longer for some; its tokens follow from i. */
static int64_t word_bytes(char bytes[GR_WORD_CACHE_LONGEST], int i)
{
    int64_t length = 4 + (i % 50 == 0 ? 200 : i % 9);

    memset(bytes, 'x', GR_WORD_CACHE_LONGEST);
    for (int k = 0; k < 4; k++)
        bytes[k] = (char)(i >> 8 * k & 0xFF);
    return length;
}

TEST(word_cache_full_starts_anew_and_never_mixes_words)
{
    enum { WORDS = 300000, LATELY = 1000 };
    struct gr_word_cache cache = {0};
    char bytes[GR_WORD_CACHE_LONGEST];
    int64_t found = 0;
    uint32_t hash;

    for (int i = 0; i < WORDS; i++) {
        struct gr_word_token token[3] = {{i, 0, 1}, {i + 1, 1, 2}, {i + 2, 2, 3}};
        int64_t length = word_bytes(bytes, i);

        ASSERT(gr_word_cache_find(&cache, &hash, bytes, length) == NULL);
        gr_word_cache_keep(&cache, hash, bytes, length, token, i % 4);
        for (int back = i; back >= 0 && back > i - LATELY; back -= 100) {
            const struct gr_cached_word *word;

            length = word_bytes(bytes, back);
            word = gr_word_cache_find(&cache, &hash, bytes, length);
            if (word == NULL)
                continue;
            found++;
            ASSERT_INT(word->length, length);
            ASSERT_INT(word->count, back % 4);
            ASSERT(word->count == 0 || (word->token[0].id == back && word->token[0].end == 1));
        }
    }
    ASSERT(found > 9 * (int64_t)WORDS); /* of ten for each */
    gr_word_cache_release(&cache);
}

/* ---- no square ---- */

/* Texts in which a part of some tokenizer could look at everything for each character. */
static const char *const units[] = {
    "qxjkvz",
    " ",
    "7",
    "\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD", /* thumbs up, medium skin */
    "<|",
    "<|im_",
    "a",
    "\n ",
    "x\xCC\x81", /* does not compose */
    "\xE6\x97\xA5",
    "\xEE\x80\x80",
    "\xE2\x96\x81",
    "</s> ",
};

/* A square takes hours: that it ends is the assertion, and that it got to the end in order. */
TEST(bpe_megabyte_of_one_kind_takes_no_square)
{
    enum { BYTES = 1000000 };
    static const char *const names[] = {"llama-3.1", "qwen2.5", "llama-2"};

    for (int64_t n = 0; n < GR_COUNT(names); n++) {
        char *path =
            gr_format("%s/../shared/fixtures/tokenizers/%s", getenv("GRAFT_SOURCE_DIR"), names[n]);
        struct gr_tokenizer *tokenizer = NULL;
        struct gr_encoding encoding = {0};

        if (access(path, R_OK) != 0)
            SKIP("no %s", path);
        ASSERT_OK(gr_tokenizer_create(&tokenizer, path));
        for (int64_t u = 0; u < GR_COUNT(units); u++) {
            struct gr_buffer text = {0};
            int64_t begin = 0;

            while (text.length < BYTES)
                gr_buffer_add_text(&text, units[u]);
            ASSERT_OK(gr_tokenizer_encode(tokenizer, &encoding, text.data, text.length, false));
            for (int64_t i = 0; i < encoding.count; i++) {
                ASSERT(encoding.begin[i] >= begin);
                begin = encoding.begin[i];
            }
            ASSERT_INT(encoding.end[encoding.count - 1], (int64_t)text.length);
            gr_buffer_release(&text);
        }
        gr_encoding_release(&encoding);
        gr_tokenizer_destroy(tokenizer);
        gr_free(path);
    }
}
