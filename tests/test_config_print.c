/* The configuration as text: what is printed loads back, the identity of a run, and the help. */
#include "tests/config_helpers.h"

static void set_all(struct gr_config *c, const char *const *sets, int64_t count)
{
    gr_config_init(c);
    for (int64_t i = 0; i < count; i++)
        ASSERT_OK(gr_config_set(c, sets[i]));
}

static const char *const awkward[] = {
    "model='~/a b'",
    "output=\"quote \\\" back\\\\slash ü: {x} # y\"",
    "data.train=['yes', '1e5', '-', '- a', 'null', \"it's\", 'a,b', '[x]', a/b-c_d.e]",
    "data.eval=[]",
    "data.chat_format='true'",
    "data.cache_dir='123'",
    "lora.target_modules='.*\\.(q|v)_proj$'",
    "lora.rank_pattern={'^a.*\\d+': 1, 'b: c': 2}",
    "lora.init_lora_weights=false",
    "lora.use_rslora=true",
    "lora.lora_dropout=0.1",
    "train.learning_rate=1.2345678901234568e-5",
    "train.adam_epsilon=1e-30",
    "train.max_grad_norm=0.30000000000000004",
    "train.max_steps=1000000000",
    "device.memory=1536MiB",
    "device.threads=7",
    "dist.timeout_seconds=1e6",
};

TEST(config_print_loads_back_to_the_same_configuration)
{
    struct gr_config c, back;
    struct gr_buffer first = {0}, second = {0};

    for (int with_help = 0; with_help <= 1; with_help++) {
        set_all(&c, awkward, GR_COUNT(awkward));
        gr_config_print(&first, &c, with_help == 1);
        ASSERT_OK(load_text(&back, first.data));
        gr_config_print(&second, &back, with_help == 1);
        ASSERT_TEXT(second.data, first.data);
        ASSERT_TEXT(back.output, "quote \" back\\slash ü: {x} # y");
        ASSERT_INT(back.data.train.count, 9);
        for (int64_t i = 0; i < 9; i++)
            ASSERT_TEXT(back.data.train.item[i], c.data.train.item[i]);
        ASSERT(!back.lora.target_modules_is_list);
        ASSERT_TEXT(back.lora.target_modules.item[0], ".*\\.(q|v)_proj$");
        ASSERT_TEXT(back.lora.rank_pattern.item[1].pattern, "b: c");
        ASSERT(back.train.learning_rate == 1.2345678901234568e-5);
        ASSERT(back.train.max_grad_norm == 0.30000000000000004);
        ASSERT_INT(back.device.memory, INT64_C(1536) << 20);
        ASSERT(strstr(first.data, "  memory: 1536MiB\n") != NULL);
        gr_config_release(&c);
        gr_config_release(&back);
        gr_buffer_clear(&first);
        gr_buffer_clear(&second);
    }
    gr_buffer_release(&first);
    gr_buffer_release(&second);
}

TEST(config_identity_is_the_same_for_free_keys_and_differs_for_others)
{
    static const char *const free_keys[] = {"output=x",
                                            "data.train=[a]",
                                            "data.eval=[a]",
                                            "data.cache_dir=x",
                                            "train.logging_steps=7",
                                            "train.save_steps=7",
                                            "train.save_seconds=7",
                                            "train.save_total_limit=7",
                                            "train.resume=never",
                                            "device.backend=cpu",
                                            "device.memory=1GiB",
                                            "device.threads=2",
                                            "device.recompute=none",
                                            "dist.backend=mpi",
                                            "dist.timeout_seconds=1"};
    static const char *const identity_keys[] = {
        "lora.r=8",           "train.seed=1",          "train.eval_steps=7",
        "device.dtype=f32",   "data.eval_split=0.5",   "train.init_from=c",
        "data.packing=false", "dist.reduce=all_reduce"};
    struct gr_config c;
    struct gr_buffer plain = {0}, other = {0};

    set_all(&c, free_keys, 0);
    gr_config_identity(&plain, &c);
    gr_config_release(&c);
    set_all(&c, free_keys, GR_COUNT(free_keys));
    gr_config_identity(&other, &c);
    ASSERT_TEXT(other.data, plain.data);
    gr_config_release(&c);
    for (int64_t i = 0; i < GR_COUNT(identity_keys); i++) {
        set_all(&c, &identity_keys[i], 1);
        gr_buffer_clear(&other);
        gr_config_identity(&other, &c);
        ASSERT_MSG(strcmp(other.data, plain.data) != 0, "%s does not count", identity_keys[i]);
        gr_config_release(&c);
    }
    gr_buffer_release(&plain);
    gr_buffer_release(&other);
}

TEST(config_identity_is_sorted_compact_json)
{
    struct gr_config c;
    struct gr_buffer json = {0};

    set_all(&c, awkward, GR_COUNT(awkward));
    gr_config_identity(&json, &c);
    ASSERT_TEXT(
        json.data,
        "{\"data.chat_format\":\"true\",\"data.eval_split\":0.0,"
        "\"data.format\":\"auto\",\"data.loss_on\":\"assistant\",\"data.max_length\":2048,"
        "\"data.packing\":true,\"data.too_long\":\"truncate\","
        "\"device.deterministic\":false,\"device.dtype\":\"auto\","
        "\"dist.reduce\":\"tree\","
        "\"lora.alpha_pattern\":{},\"lora.init_lora_weights\":\"false\","
        "\"lora.lora_alpha\":32,\"lora.lora_dropout\":0.1,\"lora.loraplus_lr_ratio\":1.0,"
        "\"lora.r\":16,\"lora.rank_pattern\":{\"^a.*\\\\d+\":1,\"b: c\":2},"
        "\"lora.target_modules\":\".*\\\\.(q|v)_proj$\",\"lora.use_rslora\":true,"
        "\"model\":\"~/a b\",\"train.adam_beta1\":0.9,\"train.adam_beta2\":0.999,"
        "\"train.adam_epsilon\":1.0e-30,\"train.early_stopping_patience\":0,"
        "\"train.eval_steps\":100,\"train.init_from\":null,"
        "\"train.learning_rate\":1.2345678901234568e-05,"
        "\"train.lr_scheduler_type\":\"cosine\",\"train.max_grad_norm\":0.30000000000000004,"
        "\"train.max_steps\":1000000000,\"train.micro_batch_size\":1,"
        "\"train.micro_batches\":8,\"train.num_train_epochs\":1,\"train.seed\":42,"
        "\"train.warmup_ratio\":0.03,\"train.weight_decay\":0.0}");
    gr_config_release(&c);
    gr_buffer_release(&json);
}

TEST(config_help_names_key_default_range_unit_and_whether_it_is_free)
{
    struct gr_buffer text = {0};

    gr_config_help(&text);
    ASSERT(strstr(text.data, "  data.max_length (default 2048)\n"
                             "      length of a pack, and the most that a document may have\n"
                             "      (an integer in [2, 1048576], tokens)\n"));
    ASSERT(strstr(text.data,
                  "  device.dtype (default auto)\n"
                  "      how weights and activations are stored; auto: bf16 on CUDA, on CPUs with\n"
                  "      AMX and where f32 weights do not fit, else f32 (auto | f32 | bf16)\n"));
    ASSERT(strstr(text.data,
                  "      metrics are reported every so many steps\n"
                  "      (an integer in [1, 1000000000], steps; may change on resume)\n"));
    gr_buffer_release(&text);
}
