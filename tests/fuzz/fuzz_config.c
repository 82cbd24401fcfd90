/* A configuration is refused, or means the same when it is printed and read again.  Parts:
 * run.yaml, and any number of set, each the text behind a --set. */
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/config.h"

#include <string.h>

/* What is printed can be read, and is then the same. */
static void print_and_read(const struct gr_config *config)
{
    struct gr_config again;
    struct gr_buffer yaml = {0}, second = {0}, identity = {0}, same = {0};
    char *path = gr_format("%s/printed.yaml", fuzz_folder());
    gr_status status;

    gr_config_print(&yaml, config, true);
    fuzz_write("printed.yaml", yaml.data, yaml.length);
    gr_buffer_clear(&yaml);
    gr_config_print(&yaml, config, false);
    status = gr_config_resolve(&again, path, NULL, 0);
    GR_CHECK(status == GR_OK, "%s\n%s", gr_error_message(), yaml.data);
    gr_config_print(&second, &again, false);
    GR_CHECK(strcmp(yaml.data, second.data) == 0, "%s\n%s", yaml.data, second.data);
    gr_config_identity(&identity, config);
    gr_config_identity(&same, &again);
    GR_CHECK(strcmp(identity.data, same.data) == 0, "%s\n%s", identity.data, same.data);
    gr_config_release(&again);
    gr_buffer_release(&yaml);
    gr_buffer_release(&second);
    gr_buffer_release(&identity);
    gr_buffer_release(&same);
    gr_free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    char *set[FUZZ_PARTS];
    int64_t sets = 0;
    char *path = gr_format("%s/run.yaml", fuzz_folder());
    struct gr_config config;
    gr_status status;

    fuzz_write_part("run.yaml", fuzz_find(part, count, "run.yaml"));
    for (int i = 0; i < count; i++) {
        if (strcmp(part[i].name, "set") == 0)
            set[sets++] = gr_strndup(part[i].bytes, part[i].count);
    }
    status = gr_config_resolve(&config, path, (const char *const *)set, sets);
    fuzz_end(status);
    if (status == GR_OK) {
        for (int purpose = GR_CONFIG_TO_TRAIN; purpose <= GR_CONFIG_TO_EVALUATE; purpose++)
            fuzz_end(gr_config_check(&config, "run.yaml", (enum gr_config_purpose)purpose));
        print_and_read(&config);
    }
    gr_config_release(&config);
    for (int64_t i = 0; i < sets; i++)
        gr_free(set[i]);
    gr_free(path);
    return 0;
}
