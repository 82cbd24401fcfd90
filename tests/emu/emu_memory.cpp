/* Device memory, pinned memory and shared memory: pieces of one reserved range of addresses.
 *
 * An allocation ends at a guard page, its slack has a pattern that is looked at whenever the host
 * waits, its address is never used again, and what is new is full of NaN.  Each byte has a shadow
 * that says whether it is allocated and written. */
#include "emu_internal.h"

#include <map>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace emu
{

static_assert(HISTORY_PAGE / 2 * sizeof(history) % 4096 == 0, "whole pages");
enum { PAGE = 4096, GRANULE = 256, SLACK = 0xcb, NEW = 0xff };

char *arena;
uint8_t *shadow_of;
history *histories;

static std::map<uint64_t, allocation> allocations; /* by offset, freed ones too */
static uint64_t next_page[2] = {PAGE, PINNED + PAGE};
static size_t used; /* bytes of device memory */

static struct sigaction old_segv, old_bus;

static void *reserve(uint64_t bytes, int protection)
{
    void *p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        fail("memory", "cannot reserve %llu GiB of addresses", (unsigned long long)(bytes / GIB));
    return p;
}

/* Pages of zeros, that are there when they are touched; [p, p + bytes) are pages. */
static void clear_pages(void *p, uint64_t bytes, int protection)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

    if (mmap(p, bytes, protection, flags, -1, 0) == MAP_FAILED)
        fail("memory", "too many pieces of memory for the kernel");
}

/* A file of PATTERN_BYTES with the value. */
enum { PATTERN_BYTES = 4 << 20 };
static int pattern_file(int value)
{
    static int files[256]; /* + 1 */

    if (files[value] == 0) {
        const std::vector<char> bytes(PATTERN_BYTES, (char)value);
        const int file = memfd_create("emu", MFD_CLOEXEC);

        if (file < 0 || write(file, bytes.data(), bytes.size()) != PATTERN_BYTES)
            fail("memory", "no room for a pattern of memory");
        files[value] = file + 1;
    }
    return files[value] - 1;
}

void fill(void *p, int value, uint64_t bytes)
{
    char *begin = (char *)p, *end = begin + bytes;
    char *page = begin + (-(uintptr_t)begin & (PAGE - 1));
    const int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;

    value &= 0xff;
    if (bytes < 64 * PAGE) {
        memset(p, value, bytes);
        return;
    }
    memset(begin, value, (size_t)(page - begin));
    while (end - page >= PAGE) {
        const uint64_t rest = (uint64_t)(end - page) / PAGE * PAGE;
        const uint64_t piece = rest < PATTERN_BYTES ? rest : (uint64_t)PATTERN_BYTES;

        if (mmap(page, piece, PROT_READ | PROT_WRITE, flags, pattern_file(value), 0) == MAP_FAILED)
            fail("memory", "too many pieces of memory for the kernel");
        page += piece;
    }
    memset(page, value, (size_t)(end - page));
}

static void open_pages(uint64_t begin, uint64_t end)
{
    if (mprotect(arena + begin, end - begin, PROT_READ | PROT_WRITE) != 0)
        fail("memory", "too many pieces of memory for the kernel");
}

/* What lies outside every allocation faults in the fast plug-in too. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    const uint64_t offset = offset_of(info->si_addr);

    access_pc = (const char *)(uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] + 1;
    if (running >= 0) {
        const char *stack = fibers[running].stack, *p = (const char *)info->si_addr;

        if (p < stack && p >= stack - PAGE)
            fail("stack", "a thread needs more than %d bytes of stack", STACK_BYTES);
        if (offset >= ARENA)
            fail("bad-pointer", "a kernel touches the address %p", info->si_addr);
    }
    if (offset < ARENA) {
        allocation *a = find_allocation(offset);

        fail(a != nullptr && a->freed ? "use-after-free" : "out-of-bounds", "access to %s",
             describe(offset));
    }
    sigaction(number, number == SIGSEGV ? &old_segv : &old_bus, nullptr); /* and again */
}

static void catch_faults()
{
    struct sigaction action;
    stack_t stack;

    memset(&stack, 0, sizeof stack);
    stack.ss_size = 1 << 18;
    stack.ss_sp = reserve(stack.ss_size, PROT_READ | PROT_WRITE);
    sigaltstack(&stack, nullptr);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old_segv);
    sigaction(SIGBUS, &action, &old_bus);
}

void memory_start()
{
    if (arena != nullptr)
        return;
    shadow_of = (uint8_t *)reserve(ARENA, PROT_READ | PROT_WRITE);
    if (checking)
        histories = (history *)reserve(ARENA / 2 * sizeof(history), PROT_READ | PROT_WRITE);
    arena = (char *)reserve(ARENA, PROT_NONE);
    open_pages(SHARED, SHARED + SHARED_STATIC);
    open_pages(SHARED_DYNAMIC_END - SHARED_DYNAMIC, SHARED_DYNAMIC_END);
    catch_faults();
}

allocation *find_allocation(uint64_t offset)
{
    auto after = allocations.upper_bound(offset);

    if (after == allocations.begin())
        return nullptr;
    --after;
    return offset < after->second.end ? &after->second : nullptr;
}

const char *describe(uint64_t offset)
{
    static char text[160];
    const allocation *a;
    auto after = allocations.upper_bound(offset);
    unsigned long long bytes;

    if (offset >= SHARED + SHARED_STATIC) {
        snprintf(text, sizeof text, "dynamic shared memory, %lld bytes from its end",
                 (long long)(offset - SHARED_DYNAMIC_END));
        return text;
    }
    if (offset >= SHARED)
        return "static shared memory, outside its variables";
    if (after == allocations.begin())
        return "memory that was never allocated";
    a = &(--after)->second;
    bytes = (unsigned long long)a->bytes;
    if (offset - a->offset < a->bytes)
        snprintf(text, sizeof text, "byte %llu of allocation #%d of %llu bytes%s",
                 (unsigned long long)(offset - a->offset), a->number, bytes,
                 a->freed ? ", which was freed" : "");
    else
        snprintf(text, sizeof text, "%llu bytes past the end of allocation #%d of %llu bytes%s",
                 (unsigned long long)(offset - a->offset - a->bytes), a->number, bytes,
                 a->freed ? ", which was freed" : "");
    return text;
}

size_t memory_used()
{
    return used;
}

cudaError_t memory_create(void **memory, size_t bytes, bool pinned)
{
    static int count;
    const uint64_t room = (bytes + GRANULE - 1) / GRANULE * GRANULE;
    const uint64_t pages = (room + PAGE - 1) / PAGE * PAGE;
    uint64_t *next = &next_page[pinned];
    allocation a;

    memory_start();
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    count_allocation();
    if (!pinned && used + bytes > memory_limit)
        return set_error(cudaErrorMemoryAllocation);
    if (*next + pages + PAGE > (pinned ? SHARED : PINNED))
        fail("memory", "all addresses are used up: they are never used again");
    a = {*next + pages - room, bytes, *next, *next + pages, ++count, false, 0, 0, 0};
    open_pages(a.begin, a.end);
    memset(arena + a.begin, SLACK, a.offset - a.begin);
    fill(arena + a.offset, NEW, bytes);
    memset(arena + a.offset + bytes, SLACK, a.end - a.offset - bytes);
    fill(shadow_of + a.offset, ALLOCATED, bytes);
    *next = a.end + PAGE;
    if (!pinned)
        used += bytes;
    allocations[a.offset] = a;
    *memory = arena + a.offset;
    return cudaSuccess;
}

static void check_slack(const allocation *a, uint64_t begin, uint64_t end)
{
    for (uint64_t i = begin; i < end; i++) {
        if ((uint8_t)arena[i] != SLACK)
            fail("out-of-bounds",
                 "something was written %lld bytes from the begin of allocation "
                 "#%d of %llu bytes",
                 (long long)(i - a->offset), a->number, (unsigned long long)a->bytes);
    }
}

static void check_redzone(const allocation *a)
{
    check_slack(a, a->begin, a->offset);
    check_slack(a, a->offset + a->bytes, a->end);
}

void check_redzones()
{
    for (auto &entry : allocations) {
        if (!entry.second.freed)
            check_redzone(&entry.second);
    }
}

void memory_destroy(void *memory)
{
    allocation *a;

    if (memory == nullptr)
        return;
    count_allocation();
    a = find_allocation(offset_of(memory));
    if (a == nullptr || a->offset != offset_of(memory) || a->freed)
        fail("free", "%p is not allocated%s", memory,
             a != nullptr && a->freed ? ": it was freed before" : "");
    check_redzone(a);
    a->freed = true;
    if (is_device(memory))
        used -= a->bytes;
    clear_pages(arena + a->begin, a->end - a->begin, PROT_NONE);
    clear_pages(shadow_of + a->begin, a->end - a->begin, PROT_READ | PROT_WRITE);
    if (histories != nullptr)
        clear_pages(histories + a->begin / 2, (a->end - a->begin) / 2 * sizeof(history),
                    PROT_READ | PROT_WRITE);
}

void forget_histories(bool of_shared_memory_only)
{
    const uint64_t begin = of_shared_memory_only ? SHARED : 0;

    if (histories == nullptr)
        return;
    clear_pages(histories + begin / 2, (ARENA - begin) / 2 * sizeof(history),
                PROT_READ | PROT_WRITE);
    for (auto &entry : allocations) {
        if (!of_shared_memory_only)
            entry.second.fill_key = 0;
    }
}

/* Whether no page of the histories is there. */
static bool is_untouched(uint64_t begin, uint64_t end)
{
    const uint64_t pages =
        (end - begin) / HISTORY_PAGE * (HISTORY_PAGE / 2 * sizeof(history) / PAGE);
    std::vector<unsigned char> is_there(pages);

    if (mincore(histories + begin / 2, pages * PAGE, is_there.data()) != 0)
        return false;
    for (unsigned char there : is_there) {
        if ((there & 1) != 0)
            return false;
    }
    return true;
}

bool fill_histories(uint64_t begin, uint64_t end, uint64_t key)
{
    allocation *a = find_allocation(begin);

    if (end - begin < 64 * HISTORY_PAGE || !is_untouched(begin, end))
        return false;
    a->fill_begin = begin;
    a->fill_end = end;
    a->fill_key = key;
    return true;
}

uint64_t fill_key_of(uint64_t offset)
{
    static const allocation *last; /* is never removed from the map */

    if (last == nullptr || offset < last->offset || offset >= last->end)
        last = find_allocation(offset);
    return last != nullptr && offset >= last->fill_begin && offset < last->fill_end ? last->fill_key
                                                                                    : 0;
}

void check_extent(const void *p, size_t bytes, const char *what)
{
    const uint64_t offset = offset_of(p);
    const allocation *a = offset < SHARED ? find_allocation(offset) : nullptr;

    if (a == nullptr || a->freed)
        fail("bad-pointer", "%s: %p is not allocated", what, p);
    if (offset < a->offset || offset + bytes > a->offset + a->bytes)
        fail("out-of-bounds", "%s: %zu bytes from byte %llu of allocation #%d of %llu bytes", what,
             bytes, (unsigned long long)(offset - a->offset), a->number,
             (unsigned long long)a->bytes);
}

void dev_extent(const void *p, size_t bytes, const char *what)
{
    if (!is_device(p))
        fail("bad-pointer", "%s: %p is no device memory", what, p);
    check_extent(p, bytes, what);
}

/* ---- shared memory ---- */

struct shared_variable {
    uint64_t offset;
    size_t bytes;
    uint32_t block_run; /* when it was last fresh */
};

static std::vector<shared_variable> &variables()
{
    static std::vector<shared_variable> all; /* used before this file's own are constructed */

    return all;
}

size_t reserve_shared(size_t bytes, size_t alignment)
{
    enum { GAP = 64 }; /* between variables: what leaves one is found */
    static uint64_t top = SHARED + GAP;
    const uint64_t step = alignment < 16 ? 16 : alignment;

    top = (top + step - 1) / step * step;
    variables().push_back({top, bytes, 0});
    top += bytes + GAP;
    if (top > SHARED + SHARED_STATIC)
        fail("shared-memory", "the emulator has no room for more shared variables");
    return variables().size() - 1;
}

static void make_fresh(uint64_t offset, size_t bytes)
{
    memset(arena + offset, NEW, bytes);
    memset(shadow_of + offset, ALLOCATED, bytes);
}

void *shared_at(size_t handle)
{
    static uint32_t of_block;
    static size_t bytes; /* that the block has */
    shared_variable *v = &variables()[handle];

    if (v->block_run != block_run) {
        v->block_run = block_run;
        make_fresh(v->offset, v->bytes);
        bytes = v->bytes + (of_block == block_run ? bytes : kernel->shared_bytes);
        of_block = block_run;
        if (bytes > kernel->shared_limit)
            fail("shared-memory", "%s uses %zu bytes of shared memory, %zu is the limit",
                 kernel->name, bytes, kernel->shared_limit);
    }
    return arena + v->offset;
}

char *dynamic_shared_begin()
{
    return arena + SHARED_DYNAMIC_END - (kernel->shared_bytes + 15) / 16 * 16;
}

void *dynamic_shared()
{
    return dynamic_shared_begin();
}

/* Before a block and after it. */
void fresh_dynamic_shared(bool live)
{
    const uint64_t offset = offset_of(dynamic_shared_begin());

    if (live)
        make_fresh(offset, kernel->shared_bytes);
    else
        memset(shadow_of + offset, NOT_ALLOCATED, kernel->shared_bytes);
}

} // namespace emu
