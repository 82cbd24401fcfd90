/* --set, the environment, the order of the sources, and the checks between keys. */
#include "tests/config_helpers.h"

static void expect_set_refused(const char *assignment, const char *message, const char *hint)
{
    struct gr_config config;

    gr_config_init(&config);
    expect_failure(gr_config_set(&config, assignment), message, hint);
    gr_config_release(&config);
}

/* ---- --set ---- */

TEST(config_set_takes_scalars_lists_and_mappings)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT_OK(gr_config_set(&c, "train.learning_rate=1e-3"));
    ASSERT(c.train.learning_rate == 1e-3);
    ASSERT_OK(gr_config_set(&c, "data.train=a.jsonl,b.jsonl, c d.jsonl"));
    ASSERT_INT(c.data.train.count, 3);
    ASSERT_TEXT(c.data.train.item[2], "c d.jsonl");
    ASSERT_OK(gr_config_set(&c, "data.train=[x.jsonl, 'y,z.jsonl']"));
    ASSERT_INT(c.data.train.count, 2);
    ASSERT_TEXT(c.data.train.item[1], "y,z.jsonl");
    ASSERT_OK(gr_config_set(&c, "data.train='y,z.jsonl'"));
    ASSERT_INT(c.data.train.count, 1);
    ASSERT_OK(gr_config_set(&c, "data.train=[]"));
    ASSERT_INT(c.data.train.count, 0);
    ASSERT_OK(gr_config_set(&c, "lora.rank_pattern={q_proj: 4, k_proj: 2}"));
    ASSERT_INT(c.lora.rank_pattern.count, 2);
    ASSERT_OK(gr_config_set(&c, "output=s3://bucket/run=1"));
    ASSERT_TEXT(c.output, "s3://bucket/run=1");
    ASSERT_OK(gr_config_set(&c, "output="));
    ASSERT(c.output == NULL);
    ASSERT_OK(gr_config_set(&c, "device.memory=auto"));
    ASSERT_INT(c.device.memory, 0);
    gr_config_release(&c);
}

TEST(config_set_of_target_modules_is_a_list_or_one_text)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT_OK(gr_config_set(&c, "lora.target_modules=q_proj,v_proj"));
    ASSERT(c.lora.target_modules_is_list);
    ASSERT_INT(c.lora.target_modules.count, 2);
    ASSERT_OK(gr_config_set(&c, "lora.target_modules=.*\\.(q|v)_proj"));
    ASSERT(!c.lora.target_modules_is_list);
    ASSERT_TEXT(c.lora.target_modules.item[0], ".*\\.(q|v)_proj");
    ASSERT_OK(gr_config_set(&c, "lora.target_modules='.*[0-9]{1,2}.*'"));
    ASSERT(!c.lora.target_modules_is_list);
    ASSERT_OK(gr_config_set(&c, "lora.target_modules=[q_proj]"));
    ASSERT(c.lora.target_modules_is_list);
    gr_config_release(&c);
}

TEST(config_set_that_is_wrong_is_refused)
{
    expect_set_refused("lora.r", "--set: a key without a value (found lora.r, expected key=value)",
                       "write --set lora.r=8");
    expect_set_refused("lora.q=8", "--set: unknown key lora.q", "did you mean lora.r?");
    expect_set_refused("lora.r=x",
                       "--set: lora.r is of the wrong type (found x, expected an integer in [1, "
                       "65536])",
                       prints);
    expect_set_refused("lora={r: 8}", "--set: unknown key lora", "graft config prints every key");
    expect_set_refused("data.train=a,,b",
                       "--set: data.train is of the wrong type (found a,,b, expected a list of "
                       "texts)",
                       prints);
    expect_set_refused("data.train=[a",
                       "--set: this is not YAML (while parsing a flow sequence: did not find "
                       "expected ',' or ']')",
                       "quote the value: '...' takes everything as it stands");
    expect_set_refused("output=#1", "--set: output has no value (found a comment)",
                       "quote a value that starts with #");
}

TEST(config_set_that_fails_keeps_the_former_value)
{
    struct gr_config c;

    gr_config_init(&c);
    ASSERT_OK(gr_config_set(&c, "data.train=[a, b]"));
    ASSERT_INT(gr_config_set(&c, "data.train=[c, [d]]"), GR_ERR_USAGE);
    ASSERT_INT(c.data.train.count, 2);
    ASSERT_TEXT(c.data.train.item[0], "a");
    gr_config_release(&c);
}

TEST(config_message_of_a_long_value_is_cut_at_a_character)
{
    expect_set_refused("lora.r=aäääääääääääääääääääääääääääääääääääääääääääääääääää",
                       "--set: lora.r is of the wrong type (found aäääääääääääääääääääääääääääää, "
                       "expected an integer in [1, 65536])",
                       prints);
}

/* ---- the environment, and the order of the sources ---- */

TEST(config_env_names_keys_by_upper_case)
{
    struct gr_config c;

    gr_config_init(&c);
    setenv("KUBEFLOW_TRAINER_OPT_LEARNING_RATE", "0.5", 1);
    setenv("KUBEFLOW_TRAINER_OPT_LORA_R", "4", 1);
    setenv("KUBEFLOW_TRAINER_OPT_LORA.LORA_ALPHA", "5", 1);
    setenv("KUBEFLOW_TRAINER_OPT_device-backend", "cpu", 1);
    setenv("KUBEFLOW_TRAINER_OPT_TARGET_MODULES", "q_proj,v_proj", 1);
    ASSERT_OK(gr_config_load_env(&c));
    ASSERT(c.train.learning_rate == 0.5);
    ASSERT_INT(c.lora.r, 4);
    ASSERT_INT(c.lora.lora_alpha, 5);
    ASSERT_TEXT(c.device.backend, "cpu");
    ASSERT_INT(c.lora.target_modules.count, 2);
    gr_config_release(&c);
}

static void expect_env_refused(const char *name, const char *value, const char *message,
                               const char *hint)
{
    struct gr_config c;

    gr_config_init(&c);
    setenv(name, value, 1);
    expect_failure(gr_config_load_env(&c), message, hint);
    unsetenv(name);
    gr_config_release(&c);
}

TEST(config_env_that_is_wrong_is_refused)
{
    expect_env_refused("KUBEFLOW_TRAINER_OPT_LEARNIG_RATE", "1",
                       "KUBEFLOW_TRAINER_OPT_LEARNIG_RATE: unknown key learnig_rate",
                       "did you mean train.learning_rate?");
    expect_env_refused(
        "KUBEFLOW_TRAINER_OPT_R", "0",
        "KUBEFLOW_TRAINER_OPT_R: lora.r is out of range (found 0, expected an integer "
        "in [1, 65536])",
        prints);
    expect_env_refused("KUBEFLOW_TRAINER_OPT_BACKEND", "cpu",
                       "KUBEFLOW_TRAINER_OPT_BACKEND: the name stands for several keys (found "
                       "device.backend and dist.backend, expected one)",
                       "name the parameter with its section, as in device.backend");
}

TEST(config_resolve_takes_default_file_environment_set_in_this_order)
{
    static const char *const sets[] = {"train.seed=4", "train.seed=5"};
    struct gr_config c;
    const char *yaml = "lora: {r: 2, lora_alpha: 2}\ntrain: {seed: 2}\n";

    enter_folder();
    write_file(yaml, strlen(yaml));
    setenv("KUBEFLOW_TRAINER_OPT_LORA_ALPHA", "3", 1);
    setenv("KUBEFLOW_TRAINER_OPT_SEED", "3", 1);
    ASSERT_OK(gr_config_resolve(&c, file_name, sets, 2));
    ASSERT_INT(c.data.max_length, 2048); /* default */
    ASSERT_INT(c.lora.r, 2);             /* file over default */
    ASSERT_INT(c.lora.lora_alpha, 3);    /* environment over file */
    ASSERT_INT(c.train.seed, 5);         /* --set over environment, the later over the earlier */
    gr_config_release(&c);
    leave_folder();
}

/* ---- checks between keys ---- */

static void expect_check_refused(const char *const *sets, int64_t count,
                                 enum gr_config_purpose purpose, const char *message,
                                 const char *hint)
{
    struct gr_config c;

    ASSERT_OK(gr_config_resolve(&c, NULL, sets, count));
    expect_failure(gr_config_check(&c, "run.yaml", purpose), message, hint);
    gr_config_release(&c);
}

TEST(config_check_demands_what_a_purpose_needs)
{
    static const char *const sets[] = {"model=m", "output=o", "data.train=t"};
    struct gr_config c;

    expect_check_refused(sets, 0, GR_CONFIG_TO_EVALUATE,
                         "run.yaml: model is missing (found nothing, expected a Hugging Face model "
                         "directory)",
                         "write `model` into the file, or give --set model=...");
    expect_check_refused(sets, 1, GR_CONFIG_TO_TRAIN,
                         "run.yaml: output is missing (found nothing, expected a run directory)",
                         "write `output` into the file, or give --set output=...");
    expect_check_refused(
        sets, 2, GR_CONFIG_TO_TRAIN,
        "run.yaml: data.train is missing (found nothing, expected at least one file "
        "to train on)",
        "write `data.train` into the file, or give --set data.train=...");
    ASSERT_OK(gr_config_resolve(&c, NULL, sets, 3));
    ASSERT_OK(gr_config_check(&c, "run.yaml", GR_CONFIG_TO_TRAIN));
    gr_config_release(&c);
    ASSERT_OK(gr_config_resolve(&c, NULL, sets, 1));
    ASSERT_OK(gr_config_check(&c, "run.yaml", GR_CONFIG_TO_EVALUATE));
    gr_config_release(&c);
}

TEST(config_check_refuses_keys_that_contradict)
{
    static const char *const both[] = {"model=m", "output=o", "data.train=t", "data.eval=e",
                                       "data.eval_split=0.1"};
    static const char *const patience[] = {"model=m", "output=o", "data.train=t",
                                           "train.early_stopping_patience=3"};

    expect_check_refused(
        both, 5, GR_CONFIG_TO_TRAIN,
        "run.yaml: data.eval and data.eval_split both name an evaluation set (found "
        "1 files and 0.1, expected one of them)",
        "leave one of them out");
    expect_check_refused(patience, 4, GR_CONFIG_TO_TRAIN,
                         "run.yaml: train.early_stopping_patience needs an evaluation set (found "
                         "none, expected data.eval or data.eval_split)",
                         "set data.eval or data.eval_split");
}

TEST(config_check_refuses_all_reduce_without_nccl)
{
    static const char *const base[] = {"model=m", "output=o", "data.train=t",
                                       "dist.reduce=all_reduce", "dist.backend=nccl"};
    static const char *const by_mpi[] = {"model=m", "output=o", "data.train=t",
                                         "dist.reduce=all_reduce", "dist.backend=mpi"};
    static const char *const on_cpu[] = {"model=m", "output=o", "data.train=t",
                                         "dist.reduce=all_reduce", "device.backend=cpu"};
    struct gr_config c;

    expect_check_refused(by_mpi, 5, GR_CONFIG_TO_TRAIN,
                         "run.yaml: dist.reduce all_reduce is NCCL's (found dist.backend mpi, "
                         "expected nccl or auto)",
                         "set dist.reduce to tree");
    expect_check_refused(on_cpu, 5, GR_CONFIG_TO_TRAIN,
                         "run.yaml: dist.reduce all_reduce is NCCL's, between GPUs (found "
                         "device.backend cpu, expected cuda or auto)",
                         "set dist.reduce to tree");
    ASSERT_OK(gr_config_resolve(&c, NULL, base, 5));
    ASSERT_OK(gr_config_check(&c, "run.yaml", GR_CONFIG_TO_TRAIN));
    gr_config_release(&c);
}
