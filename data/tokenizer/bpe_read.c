/* Reads a BPE model: vocabulary, merges, options.  See bpe.h. */
#include "data/tokenizer/bpe.h"

#include "data/tokenizer/bytelevel.h"
#include "data/tokenizer/strict_json.h"
#include "kernels/base/alloc.h"

#include <stdio.h>
#include <string.h>

static const char *const model_keys[] = {
    "type",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "vocab",
    "merges",
    NULL,
};

static void put_merge(struct gr_bpe *bpe, struct gr_merge merge)
{
    uint64_t i = gr_bpe_pair_place(merge.pair, bpe->merge_slots);
    uint64_t bit = gr_bpe_pair_place(merge.pair, bpe->may_merge_bits);

    while (bpe->merge[i].rank >= 0 && bpe->merge[i].pair != merge.pair)
        i = (i + 1) & ((uint64_t)bpe->merge_slots - 1);
    bpe->merge[i] = merge;
    bpe->may_merge[bit / 64] |= (uint64_t)1 << bit % 64;
}

static gr_status read_vocab(struct gr_bpe *bpe, const struct gr_json *model)
{
    struct gr_vocab *vocab = &bpe->vocab;
    struct gr_json list = {0};
    struct gr_buffer text = {0};
    const char *key;
    json_t *value;
    gr_status status;

    GR_TRY(gr_json_need(model, "vocab"));
    GR_TRY(gr_json_object(&list, model, "vocab"));
    json_object_foreach(list.value, key, value)
    {
        int32_t id;

        GR_TRY(gr_json_id(&id, &list, key));
        if (gr_vocab_index(vocab, id) >= 0)
            GR_TRY(gr_fail(GR_ERR_DATA, list.place, "the file is damaged: fetch it again",
                           "id %d is given to two tokens, one is \"%s\"", (int)id, key));
        gr_json_key(&text, key);
        gr_vocab_add(vocab, text.data, (int64_t)text.length, id);
        if (bpe->longest < (int64_t)text.length)
            bpe->longest = (int64_t)text.length;
    }
out:
    gr_buffer_release(&text);
    gr_json_release(&list);
    return status;
}

/* A merge is "left right" in older files, ["left", "right"] in newer ones. */
static bool split_merge(const json_t *json, const char *part[2], int64_t length[2])
{
    const char *text = json_string_value(json);
    const char *space = text == NULL ? NULL : strchr(text, ' ');

    if (json_array_size(json) == 2) {
        for (size_t i = 0; i < 2; i++) {
            part[i] = json_string_value(json_array_get(json, i));
            length[i] = (int64_t)json_string_length(json_array_get(json, i));
        }
        return part[0] != NULL && part[1] != NULL;
    }
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return false;
    part[0] = text;
    length[0] = space - text;
    part[1] = space + 1;
    length[1] = (int64_t)strlen(part[1]);
    return true;
}

static gr_status add_merge(struct gr_bpe *bpe, const struct gr_json *model, const json_t *json,
                           int64_t rank, struct gr_buffer *joined)
{
    const char *part[2];
    int64_t length[2];
    int32_t id[2], merged;

    if (!split_merge(json, part, length))
        return gr_json_wrong(model, "a merge", json, "\"left right\" or [\"left\", \"right\"]");
    gr_buffer_clear(joined);
    for (int i = 0; i < 2; i++) {
        id[i] = gr_vocab_id(&bpe->vocab, part[i], length[i]);
        gr_buffer_add(joined, part[i], (size_t)length[i]);
    }
    merged = gr_vocab_id(&bpe->vocab, joined->data, (int64_t)joined->length);
    if (id[0] < 0 || id[1] < 0 || merged < 0)
        return gr_json_wrong(model, "a merge", json, "two tokens of the vocab that make a third");
    put_merge(bpe, (struct gr_merge){gr_bpe_pair(id[0], id[1]), (int32_t)rank, merged});
    return GR_OK;
}

static gr_status read_merges(struct gr_bpe *bpe, const struct gr_json *model)
{
    const json_t *list = json_object_get(model->value, "merges");
    struct gr_buffer joined = {0};
    gr_status status = GR_OK;

    if (!json_is_array(list))
        return gr_json_wrong(model, "merges", list, "a list");
    bpe->merge_slots = 1024;
    while (bpe->merge_slots < 3 * (int64_t)json_array_size(list) / 2)
        bpe->merge_slots *= 2;
    bpe->may_merge_bits = 8 * bpe->merge_slots;
    bpe->may_merge = GR_NEW_ARRAY(uint64_t, bpe->may_merge_bits / 64);
    bpe->merge = GR_NEW_ARRAY(struct gr_merge, bpe->merge_slots);
    for (int64_t i = 0; i < bpe->merge_slots; i++)
        bpe->merge[i].rank = -1;
    for (size_t i = 0; i < json_array_size(list); i++)
        GR_TRY(add_merge(bpe, model, json_array_get(list, i), (int64_t)i, &joined));
out:
    gr_buffer_release(&joined);
    return status;
}

/* Options that would change the tokens in ways graft does not follow. */
static gr_status refuse_others(const struct gr_json *model)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = "BPE"; /* the oldest files have no type */
    double dropout = 0;
    gr_status status;

    GR_TRY(gr_json_text(&type, model, "type"));
    if (strcmp(type, "BPE") != 0)
        GR_TRY(gr_fail(GR_ERR_DATA, model->place,
                       "graft reads the BPE tokenizers of common decoder models",
                       "type \"%s\" is not supported (expected BPE)", type));
    GR_TRY(gr_json_check_keys(model, model_keys));
    GR_TRY(gr_json_number(&dropout, model, "dropout"));
    if (dropout != 0)
        GR_TRY(gr_fail(GR_ERR_DATA, model->place, "set it to null",
                       "dropout is not supported: it makes tokens random (found %g, expected null)",
                       dropout));
    for (int i = 0; i < 2; i++) {
        const char *affix = "";

        GR_TRY(gr_json_text(&affix, model, affixes[i]));
        if (affix[0] != '\0')
            GR_TRY(gr_fail(GR_ERR_DATA, model->place,
                           "graft reads the BPE tokenizers of common decoder models",
                           "%s \"%s\" is not supported (expected null)", affixes[i], affix));
    }
out:
    return status;
}

/* The tokens of single bytes as a byte-level vocabulary writes them. */
static void find_spelling(struct gr_bpe *bpe)
{
    bpe->spells = true;
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        int64_t length = gr_char_write(text, gr_byte_level_char((unsigned char)byte));

        bpe->spelled_id[byte] = gr_vocab_id(&bpe->vocab, text, length);
        bpe->spells = bpe->spells && bpe->spelled_id[byte] >= 0;
    }
}

/* Two characters with tokens stand in two symbols, or in one that a merge made; only those merges
 * are in question whose tokens end and start with them. */
static void find_joins(struct gr_bpe *bpe, const char *left, int64_t length, const char *right)
{
    unsigned char a = (unsigned char)left[length - 1], b = (unsigned char)right[0];
    bool marks = length >= GR_WORD_MARK_BYTES &&
                 gr_is_word_mark(left + length - GR_WORD_MARK_BYTES, GR_WORD_MARK_BYTES);

    if (a < 128 && b < 128)
        bpe->joins[a][b / 64] |= (uint64_t)1 << b % 64;
    if (b == (unsigned char)GR_WORD_MARK[0] && !marks &&
        gr_is_word_mark(right, (int64_t)strlen(right)))
        bpe->cuts_at_marks = false;
}

/* A character without a token may be part of a run of them, which is one token: never cut there. */
static void find_words(struct gr_bpe *bpe)
{
    int64_t length = 0;
    const char *unknown = gr_vocab_text(&bpe->vocab, bpe->unknown_id, &length);
    bool has_token[128];

    bpe->cuts_words = !bpe->ignore_merges;
    bpe->cuts_at_marks = gr_vocab_id(&bpe->vocab, GR_WORD_MARK, GR_WORD_MARK_BYTES) >= 0 &&
                         (unknown == NULL || strstr(unknown, GR_WORD_MARK) == NULL);
    for (int a = 0; a < 128; a++)
        has_token[a] = gr_vocab_id(&bpe->vocab, &(char){(char)a}, 1) >= 0;
    for (int a = 0; a < 128; a++) {
        for (int b = 0; b < 128; b++)
            bpe->joins[a][b / 64] |= (uint64_t) !(has_token[a] && has_token[b]) << b % 64;
    }
    for (int64_t i = 0; i < bpe->merge_slots; i++) {
        uint64_t pair = bpe->merge[i].pair;
        const char *left = gr_vocab_text(&bpe->vocab, (int64_t)(pair >> 32), &length);

        if (bpe->merge[i].rank >= 0 && length > 0)
            find_joins(bpe, left, length,
                       gr_vocab_text(&bpe->vocab, (uint32_t)pair, &(int64_t){0}));
    }
}

static gr_status read_options(struct gr_bpe *bpe, const struct gr_json *model)
{
    const char *unknown = NULL;
    gr_status status;

    GR_TRY(gr_json_bool(&bpe->fuse_unknown, model, "fuse_unk"));
    GR_TRY(gr_json_bool(&bpe->byte_fallback, model, "byte_fallback"));
    GR_TRY(gr_json_bool(&bpe->ignore_merges, model, "ignore_merges"));
    GR_TRY(gr_json_text(&unknown, model, "unk_token"));
    bpe->unknown_id =
        unknown == NULL ? -1 : gr_vocab_id(&bpe->vocab, unknown, (int64_t)strlen(unknown));
    if (unknown != NULL && bpe->unknown_id < 0)
        GR_TRY(gr_fail(GR_ERR_DATA, model->place, "the file is damaged: fetch it again",
                       "unk_token \"%s\" is not in the vocab", unknown));
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        int count = snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);

        bpe->byte_id[byte] = gr_vocab_id(&bpe->vocab, text, count);
    }
    find_spelling(bpe);
out:
    return status;
}

gr_status gr_bpe_read(struct gr_bpe *bpe, const struct gr_json *root)
{
    struct gr_json model = {0};
    gr_status status;

    GR_TRY(gr_json_need(root, "model"));
    GR_TRY(gr_json_object(&model, root, "model"));
    GR_TRY(refuse_others(&model));
    GR_TRY(read_vocab(bpe, &model));
    GR_TRY(read_options(bpe, &model));
    GR_TRY(read_merges(bpe, &model));
    find_words(bpe);
out:
    gr_json_release(&model);
    return status;
}

void gr_bpe_release(struct gr_bpe *bpe)
{
    gr_vocab_release(&bpe->vocab);
    gr_free(bpe->merge);
    gr_free(bpe->may_merge);
    memset(bpe, 0, sizeof *bpe);
}
