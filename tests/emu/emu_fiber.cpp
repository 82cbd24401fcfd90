/* Threads of a block as fibers of one thread of the host.
 *
 * A fiber runs until it waits (barrier, warp operation) or ends; who runs next is drawn from
 * EMU_SEED.  A block in which everybody waits is a finding. */
#include "emu_internal.h"

#include <string.h>
#include <sys/mman.h>

#ifndef __x86_64__
#error "the emulator switches stacks in x86-64 assembly"
#endif

/* Saves the registers a call keeps and the stack pointer to *save; goes on at `load`. */
extern "C" void emu_swap(void **save, void *load);
asm(".text\n"
    ".globl emu_swap\n"
    ".hidden emu_swap\n"
    "emu_swap:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n"
    " mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
    " ret\n");

namespace emu
{

fiber fibers[BLOCK_THREADS];
int running = -1;
const char *running_stack, *running_arguments;
uint64_t running_argument_bytes;
int threads_in_block;
const launch_of *kernel;
uint64_t block_number;
uint32_t block_run, barriers;
uint32_t warp_syncs[BLOCK_THREADS / WARP];
uint32_t warp_waiting[BLOCK_THREADS / WARP], warp_gone[BLOCK_THREADS / WARP];

static void *scheduler;        /* stack pointer of run_block */
static std::vector<int> ready; /* indices of the fibers that may run */
static int at_barrier;         /* how many wait there */
static place barrier_at;

void wake(int index)
{
    fibers[index].state = READY;
    ready.push_back(index);
}

void suspend()
{
    emu_swap(&fibers[running].stack_pointer, scheduler);
}

void let_others()
{
    wake(running);
    suspend();
}

static void fiber_main()
{
    kernel->run(kernel->arguments.get());
    commit_copies();
    finish_copies(0);
    fibers[running].state = DONE;
    suspend();
    __builtin_trap();
}

static void make_stack(fiber *f)
{
    const size_t guard = 4096;
    void *memory = mmap(nullptr, STACK_BYTES + guard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0)
        fail("memory", "no room for the stacks of a block");
    f->stack = (char *)memory + guard;
}

static void start_fiber(int index)
{
    fiber *f = &fibers[index];
    const dim3 block = kernel->block;
    void **top;

    if (f->stack == nullptr)
        make_stack(f);
    /* Staggered, or all stacks share the same sets of the caches.  As after a call, the stack
     * pointer is 8 past a multiple of 16 at the first instruction. */
    top = (void **)(f->stack + STACK_BYTES - (size_t)index * 576 % 4096) - 1;
    *--top = (void *)fiber_main;
    f->stack_pointer = top - 6;
    f->thread = make_uint3((unsigned)index % block.x, (unsigned)index / block.x % block.y,
                           (unsigned)index / (block.x * block.y));
    f->at = {nullptr, 0};
    f->groups = 0;
    f->copies.clear();
    wake(index);
}

static void start_block()
{
    const dim3 block = kernel->block;

    threads_in_block = (int)(block.x * block.y * block.z);
    at_barrier = 0;
    barriers = 0;
    if ((++block_run & ((1u << BLOCK_BITS) - 1)) == 0) /* keys of blocks begin again */
        forget_histories(true);
    memset(warp_syncs, 0, sizeof warp_syncs);
    memset(warp_waiting, 0, sizeof warp_waiting);
    memset(warp_gone, 0, sizeof warp_gone);
    ready.clear();
    for (int i = 0; i < threads_in_block; i++)
        start_fiber(i);
}

[[noreturn]] static void report_stuck(int living)
{
    if (at_barrier == living && living < threads_in_block)
        fail("divergence", "%d threads left the kernel while %d wait in __syncthreads at %s:%d",
             threads_in_block - living, living, barrier_at.file, barrier_at.line);
    for (int i = 0, printed = 0; i < threads_in_block && printed < 6; i++) {
        const fiber *f = &fibers[i];

        if (f->state == DONE || (i > 0 && f->at.line == f[-1].at.line && f->state == f[-1].state))
            continue;
        fprintf(stderr, "thread %d waits at %s:%d (%s)\n", i, f->at.file, f->at.line,
                f->state == AT_BARRIER ? "__syncthreads" : "warp operation");
        printed++;
    }
    fail("deadlock",
         "%d of %d threads wait for each other in %s (divergent barrier or wrong mask of a warp)",
         living, threads_in_block, kernel->name);
}

/* Each block has one of these ways to draw the next fiber. */
enum order { IN_ORDER, ANY, NEWEST, MOSTLY_OLDEST };

static int take_next(order how)
{
    size_t place = 0;
    int index;

    if (how == ANY || (how == MOSTLY_OLDEST && (random_bits() & 7) == 0))
        place = random_bits() % ready.size();
    else if (how == NEWEST)
        place = ready.size() - 1;
    index = ready[place];
    if (how == IN_ORDER) {
        ready.erase(ready.begin());
    } else {
        ready[place] = ready.back();
        ready.pop_back();
    }
    return index;
}

static void run_block()
{
    const order how = seed == 0 ? IN_ORDER : (order)(ANY + random_bits() % 3);
    int living;

    start_block();
    for (living = threads_in_block; living > 0;) {
        if (ready.empty())
            report_stuck(living);
        running = take_next(how);
        running_stack = fibers[running].stack;
        threadIdx = fibers[running].thread;
        emu_swap(&scheduler, fibers[running].stack_pointer);
        if (fibers[running].state == DONE) {
            living--;
            warp_gone[running / WARP] |= 1u << running % WARP;
        }
        running = -1;
        running_stack = nullptr;
    }
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Blocks run one after the other, in a scrambled order. */
void run_kernel(const launch_of &launch)
{
    const dim3 grid = launch.grid;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    uint64_t step = 1, first = 0;

    kernel = &launch;
    running_arguments = (const char *)launch.arguments.get();
    running_argument_bytes = launch.argument_bytes;
    gridDim = grid;
    blockDim = launch.block;
    if (seed != 0) {
        first = random_bits() % blocks;
        for (step = random_bits() % blocks | 1; common_divisor(step, blocks) != 1;)
            step++;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        block_number = (first + i * step) % blocks;
        blockIdx = make_uint3((unsigned)(block_number % grid.x),
                              (unsigned)(block_number / grid.x % grid.y),
                              (unsigned)(block_number / ((uint64_t)grid.x * grid.y)));
        fresh_dynamic_shared(true);
        run_block();
        fresh_dynamic_shared(false);
    }
    block_number = 0;
    barriers = 0;
    kernel = nullptr;
    running_arguments = nullptr;
    running_argument_bytes = 0;
}

void sync_threads(place at)
{
    fiber *me = &fibers[running];

    me->state = AT_BARRIER;
    me->at = at;
    if (at_barrier++ == 0)
        barrier_at = at;
    else if (barrier_at.line != at.line || strcmp(barrier_at.file, at.file) != 0)
        fail("divergence", "threads of a block meet in different __syncthreads: %s:%d and %s:%d",
             barrier_at.file, barrier_at.line, at.file, at.line);
    if (at_barrier == threads_in_block) {
        at_barrier = 0;
        barriers++;
        for (int i = 0; i < threads_in_block; i++)
            wake(i);
    }
    suspend();
}

int lane()
{
    return running % WARP;
}

} // namespace emu
