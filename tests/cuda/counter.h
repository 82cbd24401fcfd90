/* The counters of the emulated plug-in that a device has opened (GRAFT_CUDA_PLUGIN).  For the tests
 * of what is launched and waited for. */
#ifndef GR_TESTS_COUNTER_H
#define GR_TESTS_COUNTER_H

#include "tests/emu/emu_count.h"
#include "tests/test.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* emu_count.h says what each does. */
struct counter {
    void (*count)(int32_t on);
    int64_t (*counted)(void);
    struct emu_operation (*operation)(int64_t i);
    struct emu_host (*host)(void);
};

/* dlsym's void * as the function it is. */
static inline void counter_find(void *function, void *plugin, const char *name)
{
    void *symbol = dlsym(plugin, name);

    ASSERT_MSG(symbol != NULL, "the plug-in has no %s", name);
    memcpy(function, &symbol, sizeof symbol);
}

static inline struct counter counter_of_plugin(void)
{
    void *plugin = dlopen(getenv("GRAFT_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
    struct counter c;

    ASSERT_MSG(plugin != NULL, "%s", dlerror());
    counter_find(&c.count, plugin, "emu_count");
    counter_find(&c.counted, plugin, "emu_counted");
    counter_find(&c.operation, plugin, "emu_counted_operation");
    counter_find(&c.host, plugin, "emu_counted_host");
    return c;
}

#endif
