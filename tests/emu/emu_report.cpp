/* Settings of a run, and how a finding is reported. */
#include "emu_internal.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

namespace emu
{

static int setting(const char *name, int otherwise)
{
    const char *text = getenv(name);

    return text != nullptr ? atoi(text) : otherwise;
}

/* As the real CUDA takes it, numbers only; empty, it is about GPUs that are not emulated. */
static std::vector<int> visible_devices(int count)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    std::vector<int> visible;
    char *end;

    if (text == nullptr || *text == '\0') {
        for (int i = 0; i < count; i++)
            visible.push_back(i);
        return visible;
    }
    for (;; text = end + 1) {
        const long number = strtol(text, &end, 10);

        if (end == text || number < 0 || number >= count) /* hides what follows, too */
            return visible;
        visible.push_back((int)number);
        if (*end != ',')
            return visible;
    }
}

const int seed = setting("EMU_SEED", 1);
const int preempt = setting("EMU_PREEMPT", 0);
const bool eager = setting("EMU_EAGER", 0) != 0;
const size_t memory_limit = (size_t)setting("EMU_MEM_MB", 8192) << 20;
const int peer_timeout = setting("EMU_PEER_TIMEOUT", 60);
const std::vector<int> devices = visible_devices(setting("EMU_DEVICES", 1));
const int capability = setting("EMU_CAPABILITY", 80);
const int clock_kind = setting("EMU_CLOCK", 0);

bool checking;
const void *access_pc, *api_pc, *other_pc;

api_call::api_call(const void *pc) : is_outermost(api_pc == nullptr)
{
    if (is_outermost)
        api_pc = pc;
}

api_call::~api_call()
{
    if (is_outermost)
        api_pc = nullptr;
}

/* xorshift64 */
uint32_t random_bits()
{
    static uint64_t state = 0x9e3779b97f4a7c15u * (unsigned)(seed + 1);

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

/* File and line of an instruction, with those it was inlined into. */
static void print_place(const char *what, const void *pc)
{
    Dl_info object;
    char command[1024];

    if (pc == nullptr || dladdr(pc, &object) == 0 || object.dli_fname == nullptr)
        return;
    /* pc is where the call returns to */
    snprintf(command, sizeof command, "addr2line -Cipe '%s' 0x%llx 1>&2", object.dli_fname,
             (unsigned long long)((const char *)pc - 1 - (const char *)object.dli_fbase));
    fprintf(stderr, "  %s ", what);
    if (system(command) != 0)
        fprintf(stderr, "%p of %s\n", pc, object.dli_fname);
}

static void print_thread(const fiber *f)
{
    fprintf(stderr, "  kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", kernel->name,
            blockIdx.x, blockIdx.y, blockIdx.z, f->thread.x, f->thread.y, f->thread.z);
    if (f->at.file != nullptr)
        fprintf(stderr, ", last barrier, warp operation or cp.async at %s:%d", f->at.file,
                f->at.line);
    fprintf(stderr, "\n");
}

void fail(const char *kind, const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "EMU ERROR [%s] ", kind);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    if (running >= 0)
        print_thread(&fibers[running]);
    else if (operation_now != nullptr)
        fprintf(stderr, "  in the queued operation %s\n", operation_now->name);
    print_place("at", access_pc);
    if (operation_now != nullptr)
        print_place("queued at", operation_now->queued_by);
    else
        print_place("called at", api_pc);
    print_place("the other was queued at", other_pc);
    fprintf(stderr, "  EMU_SEED=%d\n", seed);
    fflush(stderr);
    if (setting("EMU_ABORT", 0) != 0)
        abort();
    _exit(99);
}

} // namespace emu
