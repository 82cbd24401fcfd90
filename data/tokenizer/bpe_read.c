/* Reads a BPE model: vocabulary, merges, options.  See bpe.h. */
#include "data/tokenizer/bpe.h"

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

static gr_status read_vocab(struct gr_vocab *vocab, const json_t *model, const char *place)
{
    const json_t *list = json_object_get(model, "vocab");
    struct gr_buffer text = {0};
    const char *key;
    json_t *value;
    gr_status status = GR_OK;

    if (!json_is_object(list))
        return gr_json_wrong(list, "vocab", "an object", place);
    json_object_foreach((json_t *)list, key, value)
    {
        int32_t id;

        (void)value;
        GR_TRY(gr_json_get_id(&id, GR_VOCAB_ID_LIMIT, list, key, place));
        if (gr_vocab_index(vocab, id) >= 0)
            GR_TRY(gr_fail(GR_ERR_DATA, place, NULL, "id %d is given to two tokens, one is \"%s\"",
                           (int)id, key));
        gr_json_key_text(&text, key);
        gr_vocab_add(vocab, text.data, (int64_t)text.length, id);
    }
out:
    gr_buffer_release(&text);
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

static gr_status add_merge(struct gr_bpe *bpe, const json_t *json, int64_t rank,
                           struct gr_buffer *joined, const char *place)
{
    const char *part[2];
    int64_t length[2];
    int32_t id[2], merged;

    if (!split_merge(json, part, length))
        return gr_json_wrong(json, "a merge", "\"left right\" or [\"left\", \"right\"]", place);
    gr_buffer_clear(joined);
    for (int i = 0; i < 2; i++) {
        id[i] = gr_vocab_id(&bpe->vocab, part[i], length[i]);
        gr_buffer_add(joined, part[i], (size_t)length[i]);
    }
    merged = gr_vocab_id(&bpe->vocab, joined->data, (int64_t)joined->length);
    if (id[0] < 0 || id[1] < 0 || merged < 0)
        return gr_json_wrong(json, "a merge", "two tokens that make a third of the vocab", place);
    *gr_bpe_merge_slot(bpe, id[0], id[1]) =
        (struct gr_merge){(uint64_t)id[0] << 32 | (uint32_t)id[1], (int32_t)rank, merged};
    return GR_OK;
}

static gr_status read_merges(struct gr_bpe *bpe, const json_t *model, const char *place)
{
    const json_t *list = json_object_get(model, "merges");
    struct gr_buffer joined = {0};
    gr_status status = GR_OK;

    if (!json_is_array(list))
        return gr_json_wrong(list, "merges", "a list", place);
    bpe->merge_slots = 1024;
    while (bpe->merge_slots < 2 * (int64_t)json_array_size(list))
        bpe->merge_slots *= 2;
    bpe->merge = GR_NEW_ARRAY(struct gr_merge, bpe->merge_slots);
    for (int64_t i = 0; i < bpe->merge_slots; i++)
        bpe->merge[i].rank = -1;
    for (size_t i = 0; i < json_array_size(list); i++)
        GR_TRY(add_merge(bpe, json_array_get(list, i), (int64_t)i, &joined, place));
out:
    gr_buffer_release(&joined);
    return status;
}

/* Options that would change the tokens in ways graft does not follow. */
static gr_status refuse_others(const json_t *model, const char *place)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type, *text;
    int64_t length;
    gr_status status;

    GR_TRY(gr_json_check_keys(model, model_keys, place));
    GR_TRY(gr_json_get_text(&type, &length, model, "type", place));
    if (type != NULL && strcmp(type, "BPE") != 0) /* the oldest files have no type */
        GR_TRY(gr_fail(GR_ERR_DATA, place,
                       "graft reads the BPE tokenizers of common decoder models",
                       "type \"%s\" is not supported (known: BPE)", type));
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        GR_TRY(gr_fail(GR_ERR_DATA, place, "set it to null",
                       "dropout is not supported: it makes tokens random"));
    for (int i = 0; i < 2; i++) {
        GR_TRY(gr_json_get_text(&text, &length, model, affixes[i], place));
        if (length > 0)
            GR_TRY(
                gr_fail(GR_ERR_DATA, place, NULL, "%s \"%s\" is not supported", affixes[i], text));
    }
out:
    return status;
}

static gr_status read_options(struct gr_bpe *bpe, const json_t *model, const char *place)
{
    const char *unknown;
    int64_t length;
    gr_status status;

    GR_TRY(gr_json_get_bool(&bpe->fuse_unknown, false, model, "fuse_unk", place));
    GR_TRY(gr_json_get_bool(&bpe->byte_fallback, false, model, "byte_fallback", place));
    GR_TRY(gr_json_get_bool(&bpe->ignore_merges, false, model, "ignore_merges", place));
    GR_TRY(gr_json_get_text(&unknown, &length, model, "unk_token", place));
    bpe->unknown_id = unknown == NULL ? -1 : gr_vocab_id(&bpe->vocab, unknown, length);
    if (unknown != NULL && bpe->unknown_id < 0)
        GR_TRY(gr_fail(GR_ERR_DATA, place, NULL, "unk_token \"%s\" is not in the vocab", unknown));
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        int count = snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);

        bpe->byte_id[byte] = gr_vocab_id(&bpe->vocab, text, count);
    }
out:
    return status;
}

gr_status gr_bpe_read(struct gr_bpe *bpe, const json_t *root, const char *file)
{
    const json_t *model = json_object_get(root, "model");
    char *place = gr_format("%s: model", file);
    gr_status status;

    if (!json_is_object(model))
        GR_TRY(gr_fail(GR_ERR_DATA, place, "this is not a tokenizer.json of `tokenizers`",
                       "is missing"));
    GR_TRY(refuse_others(model, place));
    GR_TRY(read_vocab(&bpe->vocab, model, place));
    GR_TRY(read_options(bpe, model, place));
    GR_TRY(read_merges(bpe, model, place));
out:
    gr_free(place);
    return status;
}

void gr_bpe_release(struct gr_bpe *bpe)
{
    gr_vocab_release(&bpe->vocab);
    gr_free(bpe->merge);
    memset(bpe, 0, sizeof *bpe);
}
