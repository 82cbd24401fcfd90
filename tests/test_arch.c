/* config.json: what the reader makes of keys that files have in several forms. */
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/model/arch.h"

/* Reads a small config of this type with more keys: `, "key": value`. */
static gr_status load(struct gr_model_config *config, const char *model_type, const char *keys)
{
    char *text = gr_format("{\"model_type\": \"%s\", \"vocab_size\": 9, \"hidden_size\": 8, "
                           "\"intermediate_size\": 8, \"num_hidden_layers\": 3, "
                           "\"num_attention_heads\": 2, \"max_position_embeddings\": 64%s}",
                           model_type, keys);
    gr_status status;

    gr_test_write_text("config.json", text);
    status = gr_model_config_load(config, ".");
    gr_free(text);
    return status;
}

static const char sliding[] =
    ", \"use_sliding_window\": true, \"sliding_window\": 16, \"max_window_layers\": 1";

TEST(arch_eos_is_one_token_or_a_list)
{
    struct gr_model_config c;

    gr_test_enter_folder();
    ASSERT_OK(load(&c, "llama", ""));
    ASSERT_INT(c.eos_count, 0);
    ASSERT_OK(load(&c, "llama", ", \"eos_token_id\": 7"));
    ASSERT_INT(c.eos_count, 1);
    ASSERT_INT(c.eos[0], 7);
    ASSERT_OK(load(&c, "llama", ", \"eos_token_id\": [5, 3, 8]"));
    ASSERT_INT(c.eos_count, 3);
    ASSERT_INT(c.eos[2], 8);
    ASSERT_INT(load(&c, "llama", ", \"eos_token_id\": [1, \"x\"]"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "./config.json: eos_token_id (found text, expected a whole "
                                    "number or a list of them)");
    gr_error_clear();
    ASSERT_INT(load(&c, "llama", ", \"eos_token_id\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"),
               GR_ERR_DATA);
}

TEST(arch_window_counts_only_when_it_is_on)
{
    struct gr_model_config c;

    gr_test_enter_folder();
    ASSERT_OK(load(&c, "qwen2", ""));
    ASSERT_INT(gr_model_window(&c, 2), 0);
    ASSERT_OK(load(&c, "mistral", ", \"sliding_window\": null"));
    ASSERT_INT(gr_model_window(&c, 2), 0);
    ASSERT_OK(load(&c, "llama", ", \"sliding_window\": 16"));
    ASSERT_INT(gr_model_window(&c, 2), 0);
    ASSERT_OK(load(&c, "qwen2", sliding));
    ASSERT_INT(gr_model_window(&c, 0), 0);
    ASSERT_INT(gr_model_window(&c, 1), 16);
}

TEST(arch_window_keys_that_are_absent_are_those_of_transformers)
{
    static const struct {
        const char *type, *keys;
        int64_t window, from;
    } cases[] = {
        {"mistral", "", 4096, 0},
        {"mistral", ", \"sliding_window\": 16, \"max_window_layers\": 1", 16, 0},
        {"qwen2", ", \"use_sliding_window\": true", 4096, 28},
        {"qwen2", ", \"use_sliding_window\": true, \"sliding_window\": 16", 16, 28},
        {"qwen3", ", \"use_sliding_window\": true, \"max_window_layers\": 1", 4096, 1},
    };
    struct gr_model_config c;

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        ASSERT_OK(load(&c, cases[i].type, cases[i].keys));
        ASSERT_MSG(c.sliding_window == cases[i].window && c.window_from == cases[i].from,
                   "%s%s gives %lld from layer %lld", cases[i].type, cases[i].keys,
                   (long long)c.sliding_window, (long long)c.window_from);
    }
}

TEST(arch_layer_types_must_be_those_computed)
{
    struct gr_model_config c;
    char *same = gr_format("%s, \"layer_types\": [\"full_attention\", \"sliding_attention\", "
                           "\"sliding_attention\"]",
                           sliding);

    gr_test_enter_folder();
    ASSERT_OK(load(&c, "qwen3", same));
    ASSERT_INT(load(&c, "llama", strstr(same, ", \"layer")), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "./config.json: layer_types: layer 1 (found "
                                    "sliding_attention, expected full_attention)");
    gr_error_clear();
    ASSERT_INT(load(&c, "llama", ", \"layer_types\": [\"full_attention\"]"), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "./config.json: layer_types (found a list of 1, expected a list of 3)");
    gr_free(same);
}

TEST(arch_partly_rotated_heads_are_refused_wherever_they_stand)
{
    struct gr_model_config c;

    gr_test_enter_folder();
    ASSERT_OK(load(&c, "llama", ", \"rope_parameters\": {\"partial_rotary_factor\": 1.0}"));
    ASSERT_INT(load(&c, "llama", ", \"partial_rotary_factor\": 0.5"), GR_ERR_DATA);
    gr_error_clear();
    ASSERT_INT(load(&c, "llama", ", \"rope_parameters\": {\"partial_rotary_factor\": 0.5}"),
               GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "./config.json: rope_parameters: partial_rotary_factor (found 0.5, expected 1)");
}

#define YARN "\"rope_type\": \"yarn\", \"factor\": 4"
#define LLAMA3                                                                                     \
    "\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4"
#define LENGTH(n) ", \"original_max_position_embeddings\": " #n

/* The numbers of transformers 5.23; config.json's max_position_embeddings is 64. */
TEST(arch_rope_length_stands_in_the_dict_or_beside_it)
{
    static const struct {
        const char *keys;
        double length;
    } cases[] = {
        {", \"rope_scaling\": {" YARN "}", 64},
        {", \"rope_scaling\": {" YARN LENGTH(32) "}", 32},
        {LENGTH(16) ", \"rope_scaling\": {" YARN "}", 16},
        {LENGTH(16) ", \"rope_parameters\": {" YARN "}", 16},
        {LENGTH(16) ", \"rope_scaling\": {" YARN LENGTH(16) "}", 16},
        {", \"rope_scaling\": {" LLAMA3 "}", 64},
        {", \"rope_scaling\": {" LLAMA3 LENGTH(32) "}", 32},
        {LENGTH(16) ", \"rope_scaling\": {" LLAMA3 "}", 16},
        {LENGTH(16) ", \"rope_parameters\": {" LLAMA3 LENGTH(16) "}", 16},
    };
    struct gr_model_config c;

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        ASSERT_OK(load(&c, "llama", cases[i].keys));
        ASSERT_MSG(c.rope.original_max_position_embeddings == cases[i].length, "%s gives %g",
                   cases[i].keys, c.rope.original_max_position_embeddings);
    }
}

TEST(arch_rope_lengths_that_differ_are_refused)
{
    struct gr_model_config c;

    gr_test_enter_folder();
    ASSERT_INT(load(&c, "llama", LENGTH(16) ", \"rope_scaling\": {" LLAMA3 LENGTH(32) "}"),
               GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "./config.json: rope_scaling: original_max_position_embeddings (found 32, expected "
                "16 as outside the dict)");
    gr_error_clear();
    ASSERT_INT(load(&c, "llama", LENGTH(16) ", \"rope_parameters\": {" YARN LENGTH(32) "}"),
               GR_ERR_DATA);
    gr_error_clear();
    ASSERT_OK(load(&c, "llama",
                   LENGTH(16) ", \"rope_scaling\": {\"rope_type\": \"linear\", "
                              "\"factor\": 2" LENGTH(32) "}"));
}

TEST(arch_rope_scaling_counts_before_rope_parameters)
{
    static const char parameters[] =
        ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500}";
    struct gr_model_config c;
    char *both =
        gr_format("%s, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}", parameters);
    char *empty = gr_format("%s, \"rope_scaling\": {}", parameters);

    gr_test_enter_folder();
    ASSERT_OK(load(&c, "llama", both));
    ASSERT_INT(c.rope.kind, GR_ROPE_LINEAR);
    ASSERT_MSG(c.rope.factor == 2 && c.rope.theta == 10000, "factor %g, theta %g", c.rope.factor,
               c.rope.theta);
    ASSERT_OK(load(&c, "llama", empty));
    ASSERT_INT(c.rope.kind, GR_ROPE_DEFAULT);
    ASSERT_MSG(c.rope.theta == 500, "theta %g", c.rope.theta);
    gr_free(both);
    gr_free(empty);
}
