/* Reads the added tokens of a tokenizer.json.  See added_tokens.h. */
#include "data/tokenizer/added_tokens.h"

#include "kernels/base/alloc.h"

#include <string.h>

#define HINT_WRITE "write the file anew with save_pretrained() of transformers"

static const char *const keys[] = {
    "id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL,
};

/* A new node as the first child of `parent`. */
static int32_t add_node(struct gr_token_tree *tree, int32_t parent, unsigned char byte)
{
    int32_t node = tree->count++;

    if (tree->count > tree->capacity) {
        tree->capacity = tree->capacity == 0 ? 256 : tree->capacity * 2;
        tree->node = gr_realloc(tree->node, tree->capacity, sizeof *tree->node);
    }
    tree->node[node] = (struct gr_tree_node){.byte = byte, .token = -1};
    if (node > 0) {
        tree->node[node].sibling = tree->node[parent].child;
        tree->node[parent].child = node;
    }
    return node;
}

/* Of two tokens with the same text (after normalizing) the first counts. */
static void add_to_tree(struct gr_token_tree *tree, const char *text, int64_t length, int32_t token)
{
    int32_t node = 0;

    if (length == 0)
        return;
    if (tree->count == 0)
        add_node(tree, 0, 0);
    tree->starts[(unsigned char)text[0]] = true;
    for (int64_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        int32_t next = tree->node[node].child;

        while (next != 0 && tree->node[next].byte != byte)
            next = tree->node[next].sibling;
        node = next != 0 ? next : add_node(tree, node, byte);
    }
    if (tree->node[node].token < 0)
        tree->node[node].token = token;
}

/* The id that `tokenizers` gives a token, whatever the file says: the model's, or the next one. */
static int32_t expected_id(const struct gr_added_tokens *added, const struct gr_vocab *model,
                           const char *content, int64_t length)
{
    int32_t id = gr_vocab_id(model, content, length);
    int64_t next = model->count;

    if (id >= 0)
        return id;
    if (added->vocab.count > 0 && (added->vocab.id_limit > model->count || model->count == 0))
        next = added->vocab.id_limit;
    return (int32_t)next;
}

static gr_status check_token(const struct gr_added_tokens *added, const struct gr_vocab *model,
                             const char *content, int64_t length, int32_t id, const char *place)
{
    int32_t expected = expected_id(added, model, content, length);

    if (gr_vocab_id(&added->vocab, content, length) >= 0)
        return gr_fail(GR_ERR_DATA, place, HINT_WRITE, "token \"%s\" is there twice", content);
    if (id != expected)
        return gr_fail(GR_ERR_DATA, place, HINT_WRITE,
                       "token \"%s\" has an id that `tokenizers` would not give it (found %d, "
                       "expected %d)",
                       content, (int)id, (int)expected);
    if (gr_vocab_index(&added->vocab, id) >= 0)
        return gr_fail(GR_ERR_DATA, place, HINT_WRITE, "id %d is given to two tokens", (int)id);
    return GR_OK;
}

static gr_status read_token(struct gr_added_tokens *added, const struct gr_json *json,
                            const struct gr_vocab *model)
{
    struct gr_added_token token = {.normalized = true};
    const json_t *text = json_object_get(json->value, "content");
    const char *content = json_string_value(text);
    int64_t length = (int64_t)json_string_length(text);
    gr_status status;

    GR_TRY(gr_json_check_keys(json, keys));
    if (length == 0)
        GR_TRY(gr_json_wrong(json, "content", text, "a text"));
    GR_TRY(gr_json_id(&token.id, json, "id"));
    GR_TRY(gr_json_bool(&token.single_word, json, "single_word"));
    GR_TRY(gr_json_bool(&token.lstrip, json, "lstrip"));
    GR_TRY(gr_json_bool(&token.rstrip, json, "rstrip"));
    GR_TRY(gr_json_bool(&token.normalized, json, "normalized"));
    GR_TRY(gr_json_bool(&token.special, json, "special"));
    GR_TRY(check_token(added, model, content, length, token.id, json->place));
    gr_vocab_add(&added->vocab, content, length, token.id);
    added->token[added->count++] = token;
out:
    return status;
}

/* Special tokens come first, as they do in `tokenizers`. */
static void make_trees(struct gr_added_tokens *added, const struct gr_stage *normalizer)
{
    for (int64_t i = 0; i < 2 * added->count; i++) {
        int32_t index = (int32_t)(i % added->count);
        const struct gr_added_token *token = &added->token[index];
        int64_t length;
        const char *content = gr_vocab_text(&added->vocab, token->id, &length);

        if (token->special != (i < added->count))
            continue;
        if (token->normalized) {
            struct gr_text text;

            gr_text_init(&text, content, length);
            gr_stage_apply(normalizer, &text);
            add_to_tree(&added->normalized, text.bytes, text.length, index);
            gr_text_release(&text);
        } else {
            add_to_tree(&added->plain, content, length, index);
        }
    }
}

gr_status gr_added_tokens_read(struct gr_added_tokens *added, const struct gr_json *root,
                               const struct gr_vocab *model, const struct gr_stage *normalizer)
{
    const json_t *list = json_object_get(root->value, "added_tokens");
    char *place = gr_format("%s: added_tokens", root->place);
    gr_status status = GR_OK;

    if (!gr_json_has(root, "added_tokens"))
        goto out;
    if (!json_is_array(list))
        GR_TRY(gr_json_wrong(root, "added_tokens", list, "a list"));
    added->token = GR_NEW_ARRAY(struct gr_added_token, (int64_t)json_array_size(list) + 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct gr_json json = {json_array_get(list, i), place};

        GR_TRY(read_token(added, &json, model));
    }
    make_trees(added, normalizer);
out:
    gr_free(place);
    return status;
}

bool gr_added_tokens_is_special(const struct gr_added_tokens *added, int64_t id)
{
    int64_t index = gr_vocab_index(&added->vocab, id); /* tokens stand in the order of the vocab */

    return index >= 0 && added->token[index].special;
}

void gr_added_tokens_release(struct gr_added_tokens *added)
{
    gr_vocab_release(&added->vocab);
    gr_free(added->token);
    gr_free(added->plain.node);
    gr_free(added->normalized.node);
    memset(added, 0, sizeof *added);
}
