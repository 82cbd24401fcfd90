/* Writes a Hugging Face model directory with random weights and a byte tokenizer, for tests that
 * need a shape rather than a skill.
 *   tool_random_model DIR key=value...      keys: those of config.json, and seed, dtype (F32,
 * BF16); model_type llama, mistral, qwen2 or qwen3.  The tokenizer has 256 bytes and <s>, </s>, so
 * vocab_size is at least 258. */
#include "data/safetensors.h"
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *option(int argc, char **argv, const char *key, const char *if_absent)
{
    size_t length = strlen(key);

    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], key, length) == 0 && argv[i][length] == '=')
            return argv[i] + length + 1;
    }
    return if_absent;
}

struct builder {
    struct gr_safetensors_item item[4096];
    int64_t count;
    uint64_t seed;
    enum gr_dtype dtype;
};

static void add(struct builder *b, const char *name, int64_t rows, int64_t columns)
{
    GR_CHECK(b->count < GR_COUNT(b->item), "%s", name);
    b->item[b->count++] = (struct gr_safetensors_item){.name = gr_strdup(name),
                                                       .dtype = b->dtype,
                                                       .ndim = columns > 0 ? 2 : 1,
                                                       .dim = {rows, columns}};
}

/* has_bias: of q, k and v, as Qwen2 has them. */
static void add_layer(struct builder *b, int64_t layer, int64_t c, int64_t f, int64_t q, int64_t kv,
                      int64_t head_dim, const char *type)
{
    bool has_bias = strcmp(type, "qwen2") == 0;
    const struct {
        const char *name;
        int64_t rows, columns;
        bool biased;
    } tensors[] = {
        {"input_layernorm", c, 0, false},         {"self_attn.q_proj", q, c, has_bias},
        {"self_attn.k_proj", kv, c, has_bias},    {"self_attn.v_proj", kv, c, has_bias},
        {"self_attn.o_proj", c, q, false},        {"post_attention_layernorm", c, 0, false},
        {"mlp.gate_proj", f, c, false},           {"mlp.up_proj", f, c, false},
        {"mlp.down_proj", c, f, false},           {"self_attn.q_norm", head_dim, 0, false},
        {"self_attn.k_norm", head_dim, 0, false},
    };
    int64_t count = GR_COUNT(tensors) - (strcmp(type, "qwen3") == 0 ? 0 : 2);

    for (int64_t i = 0; i < count; i++) {
        char *name = gr_format("model.layers.%lld.%s.", (long long)layer, tensors[i].name);
        char *weight = gr_format("%sweight", name), *bias = gr_format("%sbias", name);

        add(b, weight, tensors[i].rows, tensors[i].columns);
        if (tensors[i].biased)
            add(b, bias, tensors[i].rows, 0);
        gr_free(name);
        gr_free(weight);
        gr_free(bias);
    }
}

/* Norms (one dimension) around 1, biases around 0, matrices with a standard deviation of about
 * 0.7 / sqrt(columns). */
static void make_values(float *values, const struct builder *b,
                        const struct gr_safetensors_item *item)
{
    int64_t count = gr_safetensors_item_bytes(item) / gr_dtype_bytes(item->dtype);
    float bound = item->ndim == 2 ? 1.2f / sqrtf((float)item->dim[1]) : 0.3f;
    float mean = item->ndim == 1 && strstr(item->name, ".bias") == NULL ? 1 : 0;
    struct gr_philox_block block = {{0}};

    for (int64_t i = 0; i < count; i++) {
        if (i % 4 == 0)
            block = gr_philox(b->seed, (uint32_t)(i / 4), (uint32_t)(item - b->item), 0, 0);
        values[i] = (2 * gr_uniform(block.word[i % 4]) - 1) * bound + mean;
    }
    if (item->dtype == GR_BF16) { /* cut, not rounded: any bf16 will do */
        uint16_t *half = (uint16_t *)values;

        for (int64_t i = 0; i < count; i++) {
            uint32_t bits;

            memcpy(&bits, &values[i], sizeof bits);
            half[i] = (uint16_t)(bits >> 16);
        }
    }
}

/* One tensor after the other: a model may be larger than memory. */
static gr_status write_weights(const char *path, const struct builder *b)
{
    const struct gr_safetensors_item *item = NULL;
    struct gr_buffer header = {0};
    float *values = NULL;
    FILE *file = fopen(path, "wb");
    bool is_written = file != NULL;

    gr_safetensors_write_header(&header, b->item, b->count, NULL);
    is_written = is_written && fwrite(header.data, 1, header.length, file) == header.length;
    while (is_written && (item = gr_safetensors_next(b->item, b->count, item)) != NULL) {
        size_t bytes = (size_t)gr_safetensors_item_bytes(item);

        values = gr_realloc(values, gr_mul((int64_t)bytes, item->dtype == GR_F32 ? 1 : 2), 1);
        make_values(values, b, item);
        is_written = fwrite(values, 1, bytes, file) == bytes;
    }
    if (file != NULL && fclose(file) != 0)
        is_written = false;
    gr_buffer_release(&header);
    gr_free(values);
    return is_written ? GR_OK
                      : gr_fail(GR_ERR_DATA, path, "is the disk full?", "cannot be written");
}

static gr_status put(const char *dir, const char *name, const char *text)
{
    char *path = gr_format("%s/%s", dir, name);
    gr_status status = gr_store_put_path(path, text, (int64_t)strlen(text), false);

    gr_free(path);
    return status;
}

/* Byte-level BPE without merges: one token per byte, spelled as GPT-2 does. */
static char *tokenizer_json(void)
{
    json_t *vocab = json_object();
    char *text = NULL, *vocab_text = NULL;
    int next = 256;

    for (int byte = 0; byte < 256; byte++) {
        bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        int point = is_printable ? byte : next++;
        char utf8[3] = {(char)(point < 128 ? point : 0xC0 | point >> 6),
                        (char)(point < 128 ? 0 : 0x80 | (point & 63)), 0};

        json_object_set_new(vocab, utf8, json_integer(byte));
    }
    json_object_set_new(vocab, "<s>", json_integer(256));
    json_object_set_new(vocab, "</s>", json_integer(257));
    vocab_text = json_dumps(vocab, JSON_COMPACT);
    text = gr_format(
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":["
        "{\"id\":256,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,\"special\":true},"
        "{\"id\":257,\"content\":\"</s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,\"special\":true}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
        "\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
        "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":%s,"
        "\"merges\":[]}}\n",
        vocab_text);
    free(vocab_text);
    json_decref(vocab);
    return text;
}

static const char *architecture_of(const char *type)
{
    static const char *const names[][2] = {{"mistral", "MistralForCausalLM"},
                                           {"qwen2", "Qwen2ForCausalLM"},
                                           {"qwen3", "Qwen3ForCausalLM"}};

    for (int64_t i = 0; i < GR_COUNT(names); i++) {
        if (strcmp(names[i][0], type) == 0)
            return names[i][1];
    }
    return "LlamaForCausalLM";
}

int main(int argc, char **argv)
{
    static struct builder b;
    const char *dir = argc > 1 ? argv[1] : "";
    int64_t c = atoll(option(argc, argv, "hidden_size", "64"));
    int64_t f = atoll(option(argc, argv, "intermediate_size", "128"));
    int64_t heads = atoll(option(argc, argv, "num_attention_heads", "4"));
    int64_t kv_heads = atoll(option(argc, argv, "num_key_value_heads", "2"));
    int64_t head_dim = atoll(option(argc, argv, "head_dim", "16"));
    int64_t layers = atoll(option(argc, argv, "num_hidden_layers", "2"));
    int64_t vocab = atoll(option(argc, argv, "vocab_size", "258"));
    const char *type = option(argc, argv, "model_type", "llama");
    const char *window = option(argc, argv, "sliding_window", "null");
    gr_status status = GR_OK;
    char *text = NULL, *path = gr_format("%s/model.safetensors", dir);

    b.seed = (uint64_t)atoll(option(argc, argv, "seed", "1"));
    b.dtype = strcmp(option(argc, argv, "dtype", "F32"), "BF16") == 0 ? GR_BF16 : GR_F32;
    add(&b, "model.embed_tokens.weight", vocab, c);
    for (int64_t layer = 0; layer < layers; layer++)
        add_layer(&b, layer, c, f, heads * head_dim, kv_heads * head_dim, head_dim, type);
    add(&b, "model.norm.weight", c, 0);
    text = gr_format("{\"architectures\": [\"%s\"], \"model_type\": \"%s\", "
                     "\"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_attention_heads\": "
                     "%lld, \"num_key_value_heads\": %lld, \"head_dim\": %lld, "
                     "\"num_hidden_layers\": %lld, \"vocab_size\": %lld, "
                     "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, "
                     "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", "
                     "\"sliding_window\": %s, \"tie_word_embeddings\": true, \"bos_token_id\": "
                     "256, \"eos_token_id\": "
                     "257}\n",
                     architecture_of(type), type, (long long)c, (long long)f, (long long)heads,
                     (long long)kv_heads, (long long)head_dim, (long long)layers, (long long)vocab,
                     window);
    GR_TRY(put(dir, "config.json", text));
    GR_TRY(write_weights(path, &b)); /* the folder is there now */
    gr_free(text);
    text = tokenizer_json();
    GR_TRY(put(dir, "tokenizer.json", text));
    GR_TRY(put(dir, "tokenizer_config.json",
               "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", "
               "\"tokenizer_class\": \"PreTrainedTokenizerFast\"}\n"));
out:
    if (status != GR_OK)
        gr_print_error();
    gr_free(text);
    gr_free(path);
    return gr_status_exit_code(status);
}
