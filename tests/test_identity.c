/* The hashes that tell a run, and the ranks of one, which model they have: every file that decides
 * what is computed counts, and files that may be absent may be. */
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/model/weights.h"

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
