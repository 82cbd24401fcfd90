/* Adapters: which linears they take, scales and sizes, initial values, PEFT's files. */
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/model/peft_files.h"

/* 2 layers, C 12, 3 heads of 4 over 1 kv head, F 20. */
static const struct gr_model_config model = {.model_type = "llama",
                                             .vocab_size = 32,
                                             .hidden_size = 12,
                                             .intermediate_size = 20,
                                             .layers = 2,
                                             .heads = 3,
                                             .kv_heads = 1,
                                             .head_dim = 4};

static void set_two(char **names, const char *a, const char *b)
{
    names[0] = gr_strdup(a);
    names[1] = gr_strdup(b);
}

static struct gr_lora_config config_of(const char *regex)
{
    return (struct gr_lora_config){.r = 4, .lora_alpha = 8, .target_regex = gr_strdup(regex)};
}

static struct gr_adapter *create(const struct gr_lora_config *config)
{
    struct gr_adapter *adapter = NULL;

    ASSERT_OK(gr_adapter_create(&adapter, &model, config));
    return adapter;
}

TEST(lora_all_linear_takes_every_linear_of_every_layer)
{
    struct gr_lora_config config = config_of("all-linear");
    struct gr_adapter *adapter = create(&config);

    ASSERT_INT(adapter->count, 14);
    /* per layer r (in + out): q 24, k 16, v 16, o 24, gate 32, up 32, down 32 */
    ASSERT_INT(adapter->elements, 2 * 4 * (24 + 16 + 16 + 24 + 32 + 32 + 32));
    ASSERT_NEAR(adapter->matrix[0].scale, 2, 0);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
}

TEST(lora_list_matches_whole_names_and_suffixes_only)
{
    struct gr_lora_config config = {.r = 2, .lora_alpha = 2, .target_count = 2};
    struct gr_adapter *adapter;

    config.target_modules = GR_NEW_ARRAY(char *, 2);
    set_two(config.target_modules, "q_proj", "model.layers.1.mlp.down_proj");
    adapter = create(&config);
    ASSERT_INT(adapter->count, 3);
    ASSERT_INT(adapter->matrix[0].module, GR_MODULE_Q);
    ASSERT_INT(adapter->matrix[1].layer, 1);
    ASSERT_INT(adapter->matrix[2].module, GR_MODULE_DOWN);
    gr_adapter_destroy(adapter);
    gr_free(config.target_modules[0]);
    config.target_modules[0] = gr_strdup("proj"); /* q_proj does not end with ".proj" */
    ASSERT_INT(gr_adapter_create(&adapter, &model, &config), GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), "lora.target_modules: no linear of the model matches (found "
                                    "\"proj\", expected a module name)");
    gr_lora_config_release(&config);
}

TEST(lora_expression_matches_the_whole_name)
{
    struct gr_lora_config config = config_of(".*layers\\.1\\..*_proj");
    struct gr_adapter *adapter = create(&config);

    ASSERT_INT(adapter->count, 7);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
    config = config_of("q_proj"); /* re.fullmatch: not part of a name */
    ASSERT_INT(gr_adapter_create(&adapter, &model, &config), GR_ERR_USAGE);
    gr_error_clear();
    gr_lora_config_release(&config);
    config = config_of("(q_proj");
    ASSERT_INT(gr_adapter_create(&adapter, &model, &config), GR_ERR_USAGE);
    gr_lora_config_release(&config);
}

/* What the run's configuration makes of an expression in one of its three places: "" for nothing
 * wrong, else what is refused and where. */
static const char *refused_part(const char *expression, int place, bool is_new)
{
    static char part[64];
    struct gr_lora_config config = config_of(place == 0 ? expression : "all-linear");
    struct gr_name_map *map = place == 1 ? &config.rank_pattern : &config.alpha_pattern;
    struct gr_adapter *adapter = NULL;
    const char *message, *end;

    config.is_new = is_new;
    if (place > 0) {
        *map = (struct gr_name_map){
            .key = GR_NEW_ARRAY(char *, 1), .value = GR_NEW_ARRAY(double, 1), .count = 1};
        map->key[0] = gr_strdup(expression);
        map->value[0] = 2;
    }
    part[0] = '\0';
    if (gr_adapter_create(&adapter, &model, &config) != GR_OK) {
        message = strchr(gr_error_message(), ' ') + 1;
        end = strstr(message, " is not read alike by PEFT and graft (found \"");
        snprintf(part, sizeof part, "%.*s", end == NULL ? 63 : (int)(end - message), message);
    }
    gr_error_clear();
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
    return part;
}

/* Both in Python's re and in Oniguruma, but not with the same meaning, or in one of them only. */
TEST(lora_expression_that_python_reads_otherwise_is_refused)
{
    static const struct {
        const char *expression, *part;
    } cases[] = {
        {".*\\p{L}_proj", "\\p in column 3"},
        {".*\\P{Lu}_proj", "\\P in column 3"},
        {".*[\\p{L}]_proj", "\\p in column 4"},
        {".*\\Kq_proj", "\\K in column 3"},
        {".*[[:alpha:]]_proj", "[:alpha:] in column 4"},
        {".*[q[:x]_proj", "[: in column 5"},
        {".*\\h_proj", "\\h in column 3"},
        {".*\\Hproj", "\\H in column 3"},
        {".*\\R?q_proj", "\\R in column 3"},
        {".*\\X_proj", "\\X in column 3"},
        {".*\\N_proj", "\\N in column 3"},
        {".*\\O_proj", "\\O in column 3"},
        {"\\G.*q_proj", "\\G in column 1"},
        {".*q_proj\\z", "\\z in column 9"},
        {".*\\y.q_proj", "\\y in column 3"},
        {".*\\Y.q_proj", "\\Y in column 3"},
        {".*\\Qq\\E_proj", "\\Q in column 3"},
        {".*\\e?q_proj", "\\e in column 3"},
        {".*\\cA?q_proj", "\\c in column 3"},
        {".*\\x{71}_proj", "\\x in column 3"},
        {".*\\o{161}_proj", "\\o in column 3"},
        {".*\\161_proj", "\\1 in column 3"},
        {".*\\0?q_proj", "\\0 in column 3"},
        {".*\\u71_proj", "\\u in column 3"},
        {".*(?<n>q)_proj", "(?< in column 3"},
        {".*(q|k)_proj\\k<1>", "\\k in column 13"},
        {".*(q|k)_proj\\g<1>?", "\\g in column 13"},
        {".*(?P>n)_proj", "(?P in column 3"},
        {"(?~mlp)q_proj", "(?~ in column 1"},
        {".*(a)?(?(1)q|k)_proj", "(?( in column 7"},
        {".*(*FAIL)?q_proj", "* in column 4"},
        {".*(?x) q_proj", "(?x in column 3"},
        {".*(?i)Q_PROJ", "(?i) in column 3"},
        {".*(?i-:Q)_proj", "(?i- in column 3"},
        {".*(?<=\\.|attn\\.)q_proj", "(?<=\\.|attn\\.) in column 3"},
        {".*(?<!m.*)q_proj", "(?<!m.*) in column 3"},
        {".*?+q_proj", "*?+ in column 2"},
        {".**q_proj", "** in column 2"},
        {".++q_proj", "++ in column 2"},
        {".{1,30}+q_proj", "{1,30}+ in column 2"},
        {".{30,1}q_proj", "{30,1} in column 2"},
        {".*q{1}{1}_proj", "{1}{ in column 4"},
        {".*{q}_proj", "*{ in column 2"},
        {".*\\b*q_proj", "* in column 5"},
        {"^*.*q_proj", "* in column 2"},
        {".*q_proj)|(.*k_proj", ") in column 9"},
        {".*[z-a]_proj", "z-a in column 4"},
        {".*[a-\\d]_proj", "a-\\d in column 4"},
        {".*[\\B]_proj", "\\B in column 4"},
    };

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        for (int place = 0; place < 3; place++) {
            ASSERT_TEXT(refused_part(cases[i].expression, place, true), cases[i].part);
            ASSERT_TEXT(refused_part(cases[i].expression, place, false), cases[i].part);
        }
    }
}

/* PEFT on Python 3.11 writes and reads these; they are for nobody to begin with. */
TEST(lora_expression_of_some_pythons_is_read_but_not_begun_with)
{
    static const struct {
        const char *expression, *part;
    } cases[] = {
        {".*(?>q|k)_proj", "(?> in column 3"},
        {".*(l)ayers.*\\1f_attn.q_proj", "\\1 in column 13"},
        {".*(?P<n>l)ayers.*(?P=n)f_attn.q_proj", "(?P=n in column 18"},
        {".*(?#query)q_proj", "(?# in column 3"},
        {".*[[q]_proj", "[ in column 4"},
        {".*[q&&k]_proj", "&& in column 5"},
    };

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        ASSERT_TEXT(refused_part(cases[i].expression, 0, true), cases[i].part);
        ASSERT_TEXT(refused_part(cases[i].expression, 0, false), "");
    }
}

/* Python's re.fullmatch finds as many of the model's 14 linears. */
TEST(lora_expression_that_python_reads_alike_is_taken)
{
    static const struct {
        const char *expression;
        int64_t count;
    } cases[] = {
        {".*", 14},
        {".*(q|k|v|o)_proj", 8},
        {"model\\.layers\\.[01]\\.(?:self_attn|mlp)\\.\\w+_proj", 14},
        {"^.*\\.[^.]*_proj$", 14},
        {"(?i).*Q_PROJ", 2},
        {".*(?i:Q)_proj", 2},
        {"(?!.*mlp).*", 8},
        {".*(?<!down_proj)", 12},
        {".*(?<=\\.[qk]_proj)", 4},
        {".*?layers\\.\\d{1,2}\\..+?(?=up)up_proj", 2},
        {".{,26}", 2}, /* model.layers.N.mlp.up_proj */
        {".{27}?.*\\b", 12},
        {"\\A.*(?P<name>gate|up)_proj\\Z", 4},
        {"\\D*1[\\s\\S]*", 7},
        {"[]a-z_.\\d-]+\\x71_\\u0070roj", 2},
        {"(?:(?:.*?(?:self_attn|attention).*?(?:q_proj|v_proj).*?)|"
         "(?:\\bmodel\\.layers\\.[\\d]{1,}\\.(?:mlp)\\.(?:(?:down_proj))))",
         6},
    };

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        struct gr_lora_config config = config_of(cases[i].expression);
        struct gr_adapter *adapter;

        config.is_new = true;
        adapter = create(&config);
        ASSERT_INT(adapter->count, cases[i].count);
        gr_adapter_destroy(adapter);
        gr_lora_config_release(&config);
    }
}

TEST(lora_patterns_set_rank_and_alpha_of_what_they_match)
{
    struct gr_lora_config config = config_of("all-linear");
    struct gr_adapter *adapter;

    config.use_rslora = true;
    config.rank_pattern = (struct gr_name_map){
        .key = GR_NEW_ARRAY(char *, 2), .value = GR_NEW_ARRAY(double, 2), .count = 2};
    set_two(config.rank_pattern.key, "layers.0.self_attn.q_proj", "q_proj");
    config.rank_pattern.value[0] = 9; /* the first key that matches wins */
    config.rank_pattern.value[1] = 1;
    adapter = create(&config);
    ASSERT_INT(gr_adapter_rank(adapter, 0, GR_MODULE_Q), 9);
    ASSERT_INT(gr_adapter_rank(adapter, 1, GR_MODULE_Q), 1);
    ASSERT_INT(gr_adapter_rank(adapter, 1, GR_MODULE_V), 4);
    ASSERT_NEAR(adapter->matrix[0].scale, 8.0 / 3, 1e-6); /* alpha / sqrt(r) */
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
}

/* Only in a run's configuration: an adapter of PEFT's may have keys for what graft has not. */
TEST(lora_pattern_key_that_nothing_takes_is_refused_of_a_run)
{
    static const char *const unused[][2] = {
        {"q_proj", "q_prj"},                      /* misspelt */
        {"q_proj", "mlp.up_proj"},                /* not adapted */
        {"q_proj", "layers.0.self_attn.q_proj"}}; /* the first took it */

    for (int64_t i = 0; i < 2 * GR_COUNT(unused); i++) {
        struct gr_lora_config config = {
            .r = 4, .lora_alpha = 8, .target_regex = gr_strdup(".*q_proj")};
        struct gr_name_map *pattern = i % 2 == 0 ? &config.rank_pattern : &config.alpha_pattern;
        struct gr_adapter *adapter = NULL;
        char *expected = gr_format("lora.%s_pattern: no adapted linear is left for a key (found "
                                   "\"%s\", expected one that matches)",
                                   i % 2 == 0 ? "rank" : "alpha", unused[i / 2][1]);

        *pattern = (struct gr_name_map){
            .key = GR_NEW_ARRAY(char *, 2), .value = GR_NEW_ARRAY(double, 2), .count = 2};
        set_two(pattern->key, unused[i / 2][0], unused[i / 2][1]);
        pattern->value[0] = pattern->value[1] = 3;
        ASSERT_OK(gr_adapter_create(&adapter, &model, &config));
        gr_adapter_destroy(adapter);
        config.is_new = true;
        ASSERT_INT(gr_adapter_create(&adapter, &model, &config), GR_ERR_USAGE);
        ASSERT_TEXT(gr_error_message(), expected);
        gr_error_clear();
        gr_free(expected);
        gr_lora_config_release(&config);
    }
}

/* Also one that no name would come to, the first matching them all. */
TEST(lora_pattern_that_is_no_expression_is_refused)
{
    struct gr_lora_config config = config_of("all-linear");
    struct gr_adapter *adapter;

    config.alpha_pattern = (struct gr_name_map){
        .key = GR_NEW_ARRAY(char *, 2), .value = GR_NEW_ARRAY(double, 2), .count = 2};
    set_two(config.alpha_pattern.key, ".*", "(q_proj");
    ASSERT_INT(gr_adapter_create(&adapter, &model, &config), GR_ERR_USAGE);
    ASSERT(strstr(gr_error_message(), "lora.alpha_pattern: not a regular expression") != NULL);
    gr_lora_config_release(&config);
}

struct moments {
    double mean, deviation, largest;
};

static struct moments measure(const float *values, int64_t count)
{
    struct moments m = {0};
    double squares = 0;

    for (int64_t i = 0; i < count; i++) {
        m.mean += (double)values[i] / (double)count;
        squares += (double)values[i] * (double)values[i] / (double)count;
        m.largest = fmax(m.largest, fabs((double)values[i]));
    }
    m.deviation = sqrt(squares - m.mean * m.mean);
    return m;
}

/* down_proj of a wide model: 2 x 16 x 4,000 values of A. */
static struct moments init_moments(enum gr_lora_init init, bool of_b)
{
    struct gr_model_config wide = model;
    struct gr_lora_config config = config_of(".*down_proj");
    struct gr_adapter *adapter = NULL;
    const struct gr_lora_matrix *m;
    struct moments moments;
    float *values;

    wide.intermediate_size = 4000;
    wide.hidden_size = 600;
    config.r = 16;
    config.init = init;
    ASSERT_OK(gr_adapter_create(&adapter, &wide, &config));
    values = GR_NEW_ARRAY(float, adapter->elements);
    gr_adapter_init_values(values, adapter, 3);
    m = &adapter->matrix[1];
    moments = of_b ? measure(values + m->b_begin, m->out * m->r)
                   : measure(values + m->a_begin, m->r * m->in);
    gr_free(values);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
    return moments;
}

TEST(lora_initial_values_are_those_of_peft)
{
    struct moments a = init_moments(GR_LORA_INIT_TRUE, false);
    double bound = 1 / sqrt(4000);

    ASSERT_NEAR(a.mean, 0, bound / 50);
    ASSERT_NEAR(a.deviation, bound / sqrt(3), bound / 100);
    ASSERT(a.largest <= bound && a.largest > 0.999 * bound);
    ASSERT_NEAR(init_moments(GR_LORA_INIT_TRUE, true).largest, 0, 0);
    a = init_moments(GR_LORA_INIT_GAUSSIAN, false);
    ASSERT_NEAR(a.mean, 0, 1.0 / 16 / 50);
    ASSERT_NEAR(a.deviation, 1.0 / 16, 1.0 / 16 / 50);
    ASSERT(a.largest > 3.5 / 16);
    ASSERT_NEAR(init_moments(GR_LORA_INIT_GAUSSIAN, true).largest, 0, 0);
    a = init_moments(GR_LORA_INIT_FALSE, true);
    ASSERT_NEAR(a.deviation, 0.25 / sqrt(3), 0.01);
}

static void save(const char *dir, const char *name, struct gr_buffer *bytes)
{
    char *path = gr_format("%s/%s", dir, name);

    ASSERT_OK(gr_store_put_path(path, bytes->data, (int64_t)bytes->length, false));
    gr_free(path);
}

TEST(peft_files_written_are_read_back_the_same)
{
    struct gr_lora_config config = config_of("all-linear"), read = {0};
    struct gr_adapter *adapter, *again;
    struct gr_buffer json = {0}, weights = {0}, second = {0};
    const char *dir = ".";
    float *values, *found;

    gr_test_enter_folder();
    config.lora_dropout = 0.1;
    adapter = create(&config);
    values = GR_NEW_ARRAY(float, adapter->elements);
    found = GR_NEW_ARRAY(float, adapter->elements);
    for (int64_t i = 0; i < adapter->elements; i++)
        values[i] = (float)i * 0.001f - 0.3f;
    gr_peft_write_config(&json, adapter, "base");
    gr_peft_write_weights(&weights, adapter, values);
    save(dir, "adapter_config.json", &json);
    save(dir, "adapter_model.safetensors", &weights);
    ASSERT_OK(gr_peft_read_config(&read, dir));
    again = create(&read);
    ASSERT_OK(gr_peft_read_weights(found, again, dir));
    ASSERT_INT(again->elements, adapter->elements);
    ASSERT(memcmp(found, values, (size_t)adapter->elements * sizeof *values) == 0);
    gr_peft_write_config(&second, again, "base");
    ASSERT_TEXT(second.data, json.data);
    gr_buffer_release(&json);
    gr_buffer_release(&weights);
    gr_buffer_release(&second);
    gr_free(values);
    gr_free(found);
    gr_adapter_destroy(again);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&read);
    gr_lora_config_release(&config);
}

static void hash(char hex[GR_SHA256_HEX_BYTES], double alpha, float first_value)
{
    struct gr_lora_config config = config_of("all-linear");
    struct gr_adapter *adapter;
    float *values;

    config.lora_alpha = alpha;
    adapter = create(&config);
    values = GR_NEW_ARRAY(float, adapter->elements);
    values[0] = first_value;
    gr_peft_hash(hex, adapter, values);
    gr_free(values);
    gr_adapter_destroy(adapter);
    gr_lora_config_release(&config);
}

TEST(peft_files_hash_is_that_of_settings_and_values)
{
    char one[GR_SHA256_HEX_BYTES], other[GR_SHA256_HEX_BYTES];

    hash(one, 16, 1);
    ASSERT_INT((int64_t)strlen(one), GR_SHA256_HEX_BYTES - 1);
    hash(other, 16, 1);
    ASSERT_TEXT(other, one);
    hash(other, 16, 2);
    ASSERT(strcmp(other, one) != 0);
    hash(other, 8, 1);
    ASSERT(strcmp(other, one) != 0);
}

/* Each of these would be computed wrongly if it were ignored. */
TEST(peft_files_settings_graft_does_not_compute_are_refused)
{
    static const char *const settings[] = {
        "\"use_dora\": true",
        "\"bias\": \"all\"",
        "\"lora_bias\": true",
        "\"modules_to_save\": [\"lm_head\"]",
        "\"layers_to_transform\": [0]",
        "\"fan_in_fan_out\": true",
        "\"exclude_modules\": [\"q_proj\"]",
        "\"peft_type\": \"IA3\"",
        "\"trainable_token_indices\": [1]",
        "\"init_lora_weights\": \"pissa\"",
        "\"init_lora_weights\": 1",
        "\"use_qalora\": true",
        "\"alora_invocation_tokens\": [1, 2]",
        "\"a_key_of_tomorrow\": {\"x\": 1}",
    };
    const char *dir = ".";

    gr_test_enter_folder();
    for (int64_t i = 0; i < GR_COUNT(settings); i++) {
        bool is_type = strstr(settings[i], "peft_type") != NULL;
        char *text = gr_format("{\"r\": 4, %s%s, \"target_modules\": [\"q_proj\"]}", settings[i],
                               is_type ? "" : ", \"peft_type\": \"LORA\"");
        struct gr_buffer bytes = {.data = text, .length = strlen(text)};
        struct gr_lora_config config = {0};

        save(dir, "adapter_config.json", &bytes);
        ASSERT_MSG(gr_peft_read_config(&config, dir) == GR_ERR_DATA, "%s is accepted", settings[i]);
        ASSERT(strstr(gr_error_message(), "(found ") != NULL);
        gr_error_clear();
        gr_lora_config_release(&config);
        gr_free(text);
    }
}

/* As PEFT writes them for a plain adapter. */
TEST(peft_files_settings_that_switch_nothing_on_are_read)
{
    static const char text[] =
        "{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"use_qalora\": false, "
        "\"qalora_group_size\": 16, \"alora_invocation_tokens\": null, \"corda_config\": null, "
        "\"loftq_config\": {}, \"a_key_of_tomorrow\": [], \"init_lora_weights\": \"gaussian\"}";
    struct gr_lora_config config = {0};

    gr_test_enter_folder();
    gr_test_write_text("adapter_config.json", text);
    ASSERT_OK(gr_peft_read_config(&config, "."));
    ASSERT_INT(config.init, GR_LORA_INIT_GAUSSIAN);
    gr_lora_config_release(&config);
}

TEST(peft_files_config_says_how_the_adapter_began)
{
    static const char *const written[] = {[GR_LORA_INIT_TRUE] = "\"init_lora_weights\": true",
                                          [GR_LORA_INIT_GAUSSIAN] =
                                              "\"init_lora_weights\": \"gaussian\"",
                                          [GR_LORA_INIT_FALSE] = "\"init_lora_weights\": false"};

    for (int i = 0; i < (int)GR_COUNT(written); i++) {
        struct gr_lora_config config = config_of("all-linear");
        struct gr_adapter *adapter;
        struct gr_buffer json = {0};

        config.init = (enum gr_lora_init)i;
        adapter = create(&config);
        gr_peft_write_config(&json, adapter, "base");
        ASSERT_MSG(strstr(json.data, written[i]) != NULL, "%s, expected %s", json.data, written[i]);
        gr_buffer_release(&json);
        gr_adapter_destroy(adapter);
        gr_lora_config_release(&config);
    }
}

TEST(peft_files_missing_and_extra_tensors_are_refused)
{
    struct gr_lora_config config = config_of("all-linear"), fewer = config_of(".*(q|v)_proj");
    struct gr_adapter *all = create(&config), *some = create(&fewer);
    struct gr_buffer weights = {0};
    const char *dir = ".";
    float *values = GR_NEW_ARRAY(float, all->elements);

    gr_test_enter_folder();
    gr_peft_write_weights(&weights, all, values);
    save(dir, "adapter_model.safetensors", &weights);
    ASSERT_INT(gr_peft_read_weights(values, some, dir), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "is not part of the adapter") != NULL);
    gr_error_clear();
    gr_buffer_clear(&weights);
    gr_peft_write_weights(&weights, some, values);
    save(dir, "adapter_model.safetensors", &weights);
    ASSERT_INT(gr_peft_read_weights(values, all, dir), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "is missing") != NULL);
    gr_error_clear();
    values[5] = NAN;
    gr_buffer_clear(&weights);
    gr_peft_write_weights(&weights, some, values);
    save(dir, "adapter_model.safetensors", &weights);
    ASSERT_INT(gr_peft_read_weights(values, some, dir), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "element 5 is not finite (found nan, expected a number)") !=
           NULL);
    gr_buffer_release(&weights);
    gr_free(values);
    gr_adapter_destroy(some);
    gr_adapter_destroy(all);
    gr_lora_config_release(&fewer);
    gr_lora_config_release(&config);
}
