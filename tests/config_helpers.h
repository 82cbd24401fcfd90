/* What the tests of the configuration share: a file in a folder of the case's own, so that messages
 * name it as test_config.yaml. */
#ifndef GR_TESTS_CONFIG_HELPERS_H
#define GR_TESTS_CONFIG_HELPERS_H

#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/config.h"

#include <stdlib.h>
#include <unistd.h>

static const char *const file_name = "test_config.yaml";

static inline void enter_folder(void)
{
    char folder[] = "/tmp/graft-test-config-XXXXXX";

    ASSERT(mkdtemp(folder) != NULL);
    ASSERT(chdir(folder) == 0);
}

static inline void leave_folder(void)
{
    char folder[256];

    ASSERT(getcwd(folder, sizeof folder) != NULL);
    unlink(file_name);
    ASSERT(rmdir(folder) == 0);
}

static inline void write_file(const char *bytes, size_t length)
{
    FILE *file = fopen(file_name, "wb");

    ASSERT(file != NULL);
    ASSERT(fwrite(bytes, 1, length, file) == length);
    ASSERT(fclose(file) == 0);
}

static inline gr_status load_text(struct gr_config *config, const char *yaml)
{
    gr_status status = GR_OK;

    enter_folder();
    write_file(yaml, strlen(yaml));
    gr_config_init(config);
    status = gr_config_load_file(config, file_name);
    leave_folder();
    return status;
}

static inline void expect_failure(gr_status status, const char *message, const char *hint)
{
    ASSERT_INT(status, GR_ERR_USAGE);
    ASSERT_TEXT(gr_error_message(), message);
    ASSERT_TEXT(gr_error_hint(), hint);
    gr_error_clear();
}

static const char *const prints = "graft config prints every key with what it takes";

#endif
