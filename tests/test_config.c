/* The configuration file: defaults, what is read, what is refused and in which words. */
#include "tests/config_helpers.h"

/* The file is refused with exactly this message and hint. */
static void expect_refused(const char *yaml, const char *message, const char *hint)
{
    struct gr_config config;

    expect_failure(load_text(&config, yaml), message, hint);
    gr_config_release(&config);
}

/* ---- defaults ---- */

TEST(config_init_gives_the_documented_defaults)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT(c.model == NULL && c.output == NULL);
    ASSERT_INT(c.data.train.count, 0);
    ASSERT_INT(c.data.eval.count, 0);
    ASSERT_TEXT(c.data.format, "auto");
    ASSERT_INT(c.data.max_length, 2048);
    ASSERT(c.data.packing);
    ASSERT_TEXT(c.data.too_long, "truncate");
    ASSERT_TEXT(c.data.loss_on, "assistant");
    ASSERT_INT(c.lora.r, 16);
    ASSERT_INT(c.lora.lora_alpha, 32);
    ASSERT_INT(c.lora.target_modules.count, 1);
    ASSERT_TEXT(c.lora.target_modules.item[0], "all-linear");
    ASSERT(!c.lora.target_modules_is_list);
    ASSERT(!c.lora.use_rslora);
    ASSERT_TEXT(c.lora.init_lora_weights, "true");
    ASSERT_INT(c.train.micro_batches, 8);
    ASSERT_INT(c.train.max_steps, -1);
    ASSERT(c.train.learning_rate == 2.0e-4);
    ASSERT_TEXT(c.train.lr_scheduler_type, "cosine");
    ASSERT(c.train.warmup_ratio == 0.03 && c.train.adam_beta2 == 0.999);
    ASSERT(c.train.adam_epsilon == 1.0e-8 && c.train.max_grad_norm == 1.0);
    ASSERT_INT(c.train.seed, 42);
    ASSERT_INT(c.train.save_total_limit, 3);
    ASSERT(c.train.init_from == NULL);
    ASSERT_INT(c.device.memory, 0);
    ASSERT_INT(c.device.threads, 0);
    ASSERT_TEXT(c.dist.reduce, "tree");
    ASSERT(c.dist.timeout_seconds == 600.0);
    gr_config_release(&c);
}

TEST(config_release_of_a_zeroed_struct_is_legal)
{
    struct gr_config c;

    memset(&c, 0, sizeof c);
    gr_config_release(&c);
    ASSERT(c.model == NULL);
}

/* ---- the file ---- */

TEST(config_file_of_block_and_flow_style_is_read)
{
    struct gr_config c;

    ASSERT_OK(load_text(&c,
                        "model: models/m   # a comment\n"
                        "output: 'runs/a: b'\n"
                        "data: {train: [a.jsonl, \"b c.jsonl\"], eval: one.jsonl, packing: False}\n"
                        "lora:\n"
                        "  r: 8\n"
                        "  target_modules: [q_proj, v_proj]\n"
                        "  rank_pattern:\n"
                        "    ^model.*q_proj: 4\n"
                        "    k_proj: 2\n"
                        "  init_lora_weights: gaussian\n"
                        "train:\n"
                        "device: {memory: 12GiB, threads: 3}\n"));
    ASSERT_TEXT(c.model, "models/m");
    ASSERT_TEXT(c.output, "runs/a: b");
    ASSERT_INT(c.data.train.count, 2);
    ASSERT_TEXT(c.data.train.item[1], "b c.jsonl");
    ASSERT_INT(c.data.eval.count, 1);
    ASSERT_TEXT(c.data.eval.item[0], "one.jsonl");
    ASSERT(!c.data.packing);
    ASSERT_INT(c.lora.r, 8);
    ASSERT_INT(c.lora.target_modules.count, 2);
    ASSERT(c.lora.target_modules_is_list);
    ASSERT_INT(c.lora.rank_pattern.count, 2);
    ASSERT_TEXT(c.lora.rank_pattern.item[0].pattern, "^model.*q_proj");
    ASSERT_INT(c.lora.rank_pattern.item[0].value, 4);
    ASSERT_TEXT(c.lora.rank_pattern.item[1].pattern, "k_proj");
    ASSERT_TEXT(c.lora.init_lora_weights, "gaussian");
    ASSERT_INT(c.device.memory, INT64_C(12) << 30);
    ASSERT_INT(c.device.threads, 3);
    ASSERT_INT(c.train.micro_batches, 8);
    gr_config_release(&c);
}

TEST(config_file_of_anchors_is_read)
{
    struct gr_config c;

    ASSERT_OK(load_text(&c, "data: {train: &files [a.jsonl], eval: *files}\n"));
    ASSERT_INT(c.data.eval.count, 1);
    ASSERT_TEXT(c.data.eval.item[0], "a.jsonl");
    gr_config_release(&c);
}

TEST(config_empty_file_leaves_the_defaults)
{
    struct gr_config c;

    ASSERT_OK(load_text(&c, "# nothing yet\n"));
    ASSERT_INT(c.lora.r, 16);
    gr_config_release(&c);
}

TEST(config_unknown_key_is_refused_with_the_nearest)
{
    expect_refused("model: m\ndata:\n  train: [a]\n  max_lenght: 128\n",
                   "test_config.yaml:4: unknown key data.max_lenght",
                   "did you mean data.max_length?");
    expect_refused("learning_rate: 1\n", "test_config.yaml:1: unknown key learning_rate",
                   "did you mean train.learning_rate?");
    expect_refused("lora: {learning_rate: 1}\n",
                   "test_config.yaml:1: unknown key lora.learning_rate",
                   "did you mean train.learning_rate?");
    expect_refused("\n\ndata.foo: 1\n", "test_config.yaml:3: unknown key data.foo",
                   "graft config prints every key");
    expect_refused(
        "lora.r: 8\n", "test_config.yaml:1: unknown key lora.r",
        "in a file the part before the dot is a section: `lora:` and `r:` indented below");
    expect_refused("dtaa: {train: [a]}\n", "test_config.yaml:1: unknown key dtaa",
                   "graft config prints every key");
}

TEST(config_keys_of_trl_are_refused_with_the_conversion)
{
    expect_refused(
        "train:\n  per_device_train_batch_size: 4\n",
        "test_config.yaml:2: train.per_device_train_batch_size is a key of TRL that graft "
        "does not take",
        "the batch does not depend on the number of ranks: set train.micro_batch_size to "
        "this value and train.micro_batches to gradient_accumulation_steps x ranks");
    expect_refused(
        "gradient_accumulation_steps: 2\n",
        "test_config.yaml:1: gradient_accumulation_steps is a key of TRL that graft does "
        "not take",
        "the batch does not depend on the number of ranks: set train.micro_batches to this "
        "value x ranks, and train.micro_batch_size to per_device_train_batch_size");
}

struct refusal {
    const char *yaml, *key, *found, *expected;
};

static void expect_all_refused(const struct refusal *rows, int64_t count, const char *what)
{
    for (int64_t i = 0; i < count; i++) {
        const struct refusal *row = &rows[i];
        char *message = gr_format("test_config.yaml:1: %s %s (found %s, expected %s)", row->key,
                                  what, row->found, row->expected);

        expect_refused(row->yaml, message, prints);
        gr_free(message);
    }
}

static const char r_range[] = "an integer in [1, 65536]";
static const char lr_range[] = "a number in [0, 1000]";
static const char map_range[] = "a mapping from patterns to integers in [1, 65536]";
static const char sizes[] = "auto or a size such as 12GiB";
static const char list[] = "a list of texts";

TEST(config_value_of_the_wrong_type_is_refused)
{
    const struct refusal rows[] = {
        {"lora: {r: eight}", "lora.r", "eight", r_range},
        {"lora: {r: \"8\"}", "lora.r", "\"8\"", r_range},
        {"lora: {r: 8.0}", "lora.r", "8.0", r_range},
        {"lora: {r: }", "lora.r", "nothing", r_range},
        {"lora: {r: [8]}", "lora.r", "a list", r_range},
        {"train: {learning_rate: fast}", "train.learning_rate", "fast", lr_range},
        {"train: {learning_rate: .nan}", "train.learning_rate", ".nan", lr_range},
        {"train: {learning_rate: 1e999}", "train.learning_rate", "1e999", lr_range},
        {"train: {learning_rate: 1.e-4-}", "train.learning_rate", "1.e-4-", lr_range},
        {"data: {packing: yes}", "data.packing", "yes", "true or false"},
        {"data: {packing: 'true'}", "data.packing", "\"true\"", "true or false"},
        {"data: {train: {a: b}}", "data.train", "a mapping", list},
        {"data: {chat_format: null}", "data.chat_format", "null", "a text"},
        {"model: [m]", "model", "a list", "a text"},
        {"model: \"a\\tb\"", "model", "\"a?b\"", "a text"},
        {"model: \"a\\0b\"", "model", "\"a\"", "a text"},
        {"device: {memory: 12GB}", "device.memory", "12GB", sizes},
        {"device: {memory: GiB}", "device.memory", "GiB", sizes},
        {"device: {threads: many}", "device.threads", "many", "auto or an integer in [1, 4096]"},
        {"lora: {rank_pattern: [4]}", "lora.rank_pattern", "a list", map_range},
        {"lora: {rank_pattern: {q: x}}", "lora.rank_pattern", "x", map_range},
    };

    expect_all_refused(rows, GR_COUNT(rows), "is of the wrong type");
}

TEST(config_item_of_the_wrong_type_is_refused)
{
    const struct refusal rows[] = {
        {"data: {train: [a, [b]]}", "data.train", "a list", list},
        {"data: {train: [a, '']}", "data.train", "\"\"", list},
        {"data: {train: [a, null]}", "data.train", "null", list},
    };

    expect_all_refused(rows, GR_COUNT(rows), "holds an item of the wrong type");
}

TEST(config_pattern_of_the_wrong_type_is_refused)
{
    const struct refusal rows[] = {
        {"lora: {rank_pattern: {[q]: 4}}", "lora.rank_pattern", "a list", map_range},
        {"lora: {rank_pattern: {'': 4}}", "lora.rank_pattern", "\"\"", map_range},
    };

    expect_all_refused(rows, GR_COUNT(rows), "holds a pattern of the wrong type");
}

TEST(config_value_out_of_range_is_refused)
{
    const struct refusal rows[] = {
        {"lora: {r: 0}", "lora.r", "0", r_range},
        {"lora: {r: 65537}", "lora.r", "65537", r_range},
        {"lora: {r: 99999999999999999999}", "lora.r", "99999999999999999999", r_range},
        {"lora: {lora_dropout: 1}", "lora.lora_dropout", "1", "a number in [0, 1)"},
        {"lora: {loraplus_lr_ratio: 0}", "lora.loraplus_lr_ratio", "0", "a number in (0, 1000000]"},
        {"lora: {rank_pattern: {q: 0}}", "lora.rank_pattern", "0", map_range},
        {"train: {save_total_limit: 2}", "train.save_total_limit", "2",
         "an integer in [3, 1000000]"},
        {"device: {memory: 0}", "device.memory", "0", sizes},
        {"device: {memory: 9000000TiB}", "device.memory", "9000000TiB", sizes},
    };

    expect_all_refused(rows, GR_COUNT(rows), "is out of range");
}

TEST(config_target_modules_that_name_nothing_are_refused)
{
    const struct refusal rows[] = {
        {"lora: {target_modules: []}", "lora.target_modules", "a list",
         "a list of texts or one text"},
        {"lora: {target_modules: }", "lora.target_modules", "nothing",
         "a list of texts or one text"},
    };

    expect_all_refused(rows, GR_COUNT(rows), "names nothing");
}

TEST(config_bounds_of_a_range_belong_to_it_as_its_brackets_say)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT_OK(gr_config_set(&c, "lora.r=1"));
    ASSERT_OK(gr_config_set(&c, "lora.r=65536"));
    ASSERT_OK(gr_config_set(&c, "lora.lora_dropout=0"));
    ASSERT_OK(gr_config_set(&c, "lora.loraplus_lr_ratio=1000000"));
    ASSERT_OK(gr_config_set(&c, "train.max_grad_norm=1e300")); /* [0, inf) */
    ASSERT_INT(c.lora.r, 65536);
    gr_config_release(&c);
}

TEST(config_unknown_choice_is_refused_with_the_nearest)
{
    expect_refused(
        "device: {dtype: bf32}",
        "test_config.yaml:1: device.dtype is not one of its choices (found bf32, expected "
        "auto | f32 | bf16)",
        "did you mean f32?");
    expect_refused("device: {dtype: [f32]}",
                   "test_config.yaml:1: device.dtype is not one of its choices (found a list, "
                   "expected auto | f32 | bf16)",
                   prints);
}

TEST(config_key_given_twice_is_refused)
{
    expect_refused("lora:\n  r: 8\n  lora_alpha: 8\n  r: 16\n",
                   "test_config.yaml:4: key r stands twice (found again, first in line 2)",
                   "keep one of them");
    expect_refused("lora: {r: 8}\ntrain: {seed: 1}\nlora: {lora_alpha: 2}\n",
                   "test_config.yaml:3: key lora stands twice (found again, first in line 1)",
                   "keep one of them");
    expect_refused(
        "lora:\n  rank_pattern: {q: 1,\n    q: 2}\n",
        "test_config.yaml:3: lora.rank_pattern holds a pattern twice (found q, expected a "
        "mapping from patterns to integers in [1, 65536])",
        prints);
}

TEST(config_file_that_is_not_a_mapping_is_refused)
{
    expect_refused("- a\n- b\n",
                   "test_config.yaml:1: the file is of the wrong type (found a list, expected keys "
                   "with values)",
                   "");
    expect_refused(
        "lora: 8\n",
        "test_config.yaml:1: lora is of the wrong type (found a text, expected keys with "
        "values)",
        "");
    expect_refused("[a]: 8\n",
                   "test_config.yaml:1: a key is of the wrong type (found a list or mapping, "
                   "expected a name)",
                   "");
    expect_refused("lora: {r: 8}\n---\nlora: {r: 9}\n",
                   "test_config.yaml:3: a second YAML document (found two, expected one)",
                   "keep one of them");
}

TEST(config_broken_yaml_is_refused_with_its_line)
{
    const char *hint = "indent with spaces, and put a space after each colon";

    expect_refused(
        "model: m\nlora: {r: 8\n",
        "test_config.yaml:3: this is not YAML (while parsing a flow mapping: did not find "
        "expected ',' or '}')",
        hint);
    expect_refused("model: m\nlora:\n\tr: 8\n",
                   "test_config.yaml:3: this is not YAML (while scanning for the next token: found "
                   "character that cannot start any token)",
                   hint);
    expect_refused("model: m\noutput: \xff\n",
                   "test_config.yaml:2: this is not YAML (invalid leading UTF-8 octet)", hint);
}

TEST(config_file_that_is_missing_is_refused)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT_INT(gr_config_load_file(&c, "/proc/nowhere/run.yaml"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "/proc/nowhere/run.yaml: the configuration cannot be read "
                                    "(found nothing, expected a file)");
    gr_error_clear();
    ASSERT_INT(gr_config_load_file(&c, "/tmp"), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(),
                "/tmp: the configuration cannot be read (found Is a directory, expected a file)");
    gr_config_release(&c);
}
