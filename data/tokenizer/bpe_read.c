/* Reads a BPE model: vocabulary, merges, options.  See bpe.h. */
#include "data/tokenizer/bpe.h"

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

struct gr_merge *gr_bpe_merge_slot(const struct gr_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    uint64_t mask = (uint64_t)bpe->merge_slots - 1;
    uint64_t i = pair * 0x9E3779B97F4A7C15u >> 20 & mask;

    while (bpe->merge[i].rank >= 0 && bpe->merge[i].pair != pair)
        i = (i + 1) & mask;
    return &bpe->merge[i];
}

static gr_status read_vocab(struct gr_vocab *vocab, const struct gr_json *model)
{
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
    *gr_bpe_merge_slot(bpe, id[0], id[1]) =
        (struct gr_merge){(uint64_t)id[0] << 32 | (uint32_t)id[1], (int32_t)rank, merged};
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
    while (bpe->merge_slots < 2 * (int64_t)json_array_size(list))
        bpe->merge_slots *= 2;
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
    GR_TRY(read_vocab(&bpe->vocab, &model));
    GR_TRY(read_options(bpe, &model));
    GR_TRY(read_merges(bpe, &model));
out:
    gr_json_release(&model);
    return status;
}

void gr_bpe_release(struct gr_bpe *bpe)
{
    gr_vocab_release(&bpe->vocab);
    gr_free(bpe->merge);
    memset(bpe, 0, sizeof *bpe);
}
