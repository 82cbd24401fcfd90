/* The hashes that tell a run, and the ranks of one, which model they have: every file that decides
 * what is computed counts, and files that may be absent may be. */
#include "kernels/base/alloc.h"
#include "tests/data_folder.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/model/weights.h"
#include "trainer/run/inputs.h"

#include <stdlib.h>

/* Copies the golden Llama model into a new folder and goes there. */
static void enter_model(void)
{
    char *command =
        gr_format("cp %s/tests/golden/llama/*.* . && chmod u+w *", getenv("GRAFT_SOURCE_DIR"));

    gr_test_enter_folder();
    ASSERT_INT(system(command), 0);
    gr_free(command);
}

static void hash_model(char hash[65])
{
    struct gr_weight_sharing sharing = {
        .local_size = 1, .job_key = "k", .threads = 1, .timeout_s = 10};
    struct gr_model_config config;
    struct gr_weights weights;

    ASSERT_OK(gr_model_config_load(&config, "."));
    ASSERT_OK(gr_weights_load(&weights, hash, &config, ".", &sharing));
    gr_weights_release(&weights);
}

TEST(identity_model_hash_changes_with_its_config)
{
    char first[65], again[65], other[65];

    enter_model();
    hash_model(first);
    hash_model(again);
    ASSERT_TEXT(again, first);
    ASSERT_INT(system("sed -i '/rms_norm_eps/s/:.*/: 0.125,/' config.json"), 0);
    hash_model(other);
    ASSERT(strcmp(other, first) != 0);
}

static void hash_tokenizer(char hash[65])
{
    struct gr_model_config model = {.vocab_size = 1 << 20};
    struct gr_config config;
    struct gr_inputs inputs;

    gr_config_init(&config);
    gr_free(config.model);
    config.model = gr_strdup(".");
    gr_free(config.data.cache_dir);
    config.data.cache_dir = gr_strdup("cache");
    ASSERT_OK(gr_inputs_load(&inputs, &config, &model, 1));
    snprintf(hash, 65, "%s", inputs.tokenizer_hash);
    gr_inputs_release(&inputs);
    gr_config_release(&config);
}

/* The same bytes under another name mean something else. */
TEST(identity_tokenizer_hash_covers_the_files_that_are_there)
{
    struct data_folder folder;
    char hash[5][65];

    data_folder_begin(&folder);
    hash_tokenizer(hash[0]);
    gr_test_write_text("chat_template.jinja", "{}");
    hash_tokenizer(hash[1]);
    gr_test_write_text("chat_template.jinja", "{} ");
    hash_tokenizer(hash[2]);
    remove("chat_template.jinja");
    gr_test_write_text("tokenizer_config.json", "{}");
    hash_tokenizer(hash[3]);
    remove("tokenizer_config.json");
    hash_tokenizer(hash[4]);
    for (int i = 0; i < 5; i++)
        for (int other = 0; other < i; other++)
            ASSERT_MSG(strcmp(hash[i], hash[other]) != 0, "states %d and %d are the same", other,
                       i);
    data_folder_end(&folder);
}
