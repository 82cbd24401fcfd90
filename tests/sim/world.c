/* Events, chance and coroutines of a simulated world.  See world.h. */
#include "tests/sim/world.h"

#include "kernels/base/alloc.h"
#include "kernels/base/buffer.h"
#include "kernels/base/philox.h"
#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

enum {
    STACK_BYTES = 256 << 10,
    DEAD_WAITS = 10000, /* a crashed process that waits more often does not give up */
};

struct event {
    int64_t time_ns;
    int64_t number; /* first come, first served among equals */
    sim_action *action;
    void *context;
};

struct sim_process {
    struct sim_world *world;
    char *name;
    sim_body *body;
    void *context;
    ucontext_t place;
    char *stack;
    struct gr_error error; /* the thread's failure message is each process' own */
    int64_t clock_offset_ns;
    int64_t dead_waits;
    bool is_dead;
    bool is_over;
};

struct sim_world {
    uint64_t seed;
    uint32_t draws;
    int64_t now_ns;
    struct event *event;
    int64_t event_count, events_made;
    struct sim_process **process;
    int64_t process_count;
    ucontext_t loop;
    char *violation;
    bool is_verbose;
};

struct sim_world *sim_world_create(uint64_t seed, bool is_verbose)
{
    struct sim_world *world = GR_NEW(struct sim_world);

    world->seed = seed;
    world->is_verbose = is_verbose;
    return world;
}

/* ---- time and chance --------------------------------------------------------------------- */

int64_t sim_now(const struct sim_world *world)
{
    return world->now_ns;
}

int64_t sim_random(struct sim_world *world, int64_t below)
{
    struct gr_philox_block block = gr_philox(world->seed, world->draws++, 0, 0, 0);
    uint64_t word = (uint64_t)block.word[0] << 32 | block.word[1];

    return (int64_t)(word % (uint64_t)below);
}

bool sim_chance(struct sim_world *world, int per_mille)
{
    return sim_random(world, 1000) < per_mille;
}

static void add_event(struct sim_world *world, int64_t delay_ns, sim_action *action, void *context)
{
    world->event = gr_realloc(world->event, world->event_count + 1, sizeof *world->event);
    world->event[world->event_count++] = (struct event){
        .time_ns = world->now_ns + delay_ns,
        .number = world->events_made++,
        .action = action,
        .context = context,
    };
}

static struct event take_earliest(struct sim_world *world)
{
    int64_t first = 0;
    struct event event;

    for (int64_t i = 1; i < world->event_count; i++) {
        const struct event *a = &world->event[i], *b = &world->event[first];

        if (a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->number < b->number))
            first = i;
    }
    event = world->event[first];
    world->event[first] = world->event[--world->event_count];
    return event;
}

void sim_after(struct sim_world *world, int64_t delay_ns, sim_action *action, void *context)
{
    add_event(world, delay_ns, action, context);
}

/* ---- processes --------------------------------------------------------------------------- */

/* makecontext hands over ints only: a pointer travels in two halves. */
static void process_main(unsigned int high, unsigned int low)
{
    struct sim_process *process = (struct sim_process *)((uintptr_t)high << 32 | low);

    process->body(process, process->context);
    process->is_over = true;
    swapcontext(&process->place, &process->world->loop); /* never comes back */
}

static void resume(struct sim_world *world, void *context)
{
    struct sim_process *process = context;

    gr_error_put(&process->error);
    swapcontext(&world->loop, &process->place);
    process->error = gr_error_take();
    if (process->is_over) {
        gr_free(process->stack);
        process->stack = NULL;
    }
}

void sim_spawn(struct sim_world *world, const char *name, int64_t delay_ns, sim_body *body,
               void *context)
{
    struct sim_process *process = GR_NEW(struct sim_process);
    uintptr_t address = (uintptr_t)process;

    process->world = world;
    process->name = gr_strdup(name);
    process->body = body;
    process->context = context;
    process->stack = gr_realloc(NULL, STACK_BYTES, 1);
    GR_CHECK(getcontext(&process->place) == 0, "no context");
    process->place.uc_stack.ss_sp = process->stack;
    process->place.uc_stack.ss_size = STACK_BYTES;
    makecontext(&process->place, (void (*)(void))process_main, 2, (unsigned int)(address >> 32),
                (unsigned int)address);
    world->process = gr_realloc(world->process, world->process_count + 1, sizeof *world->process);
    world->process[world->process_count++] = process;
    add_event(world, delay_ns, resume, process);
}

void sim_wait(struct sim_process *process, int64_t ns)
{
    if (process->is_dead) {
        process->clock_offset_ns += ns + SIM_HOUR;
        if (process->dead_waits++ == DEAD_WAITS)
            sim_violation(process->world, "the run ends", "%s, crashed, never gives up",
                          process->name);
        GR_CHECK(process->dead_waits < 2 * DEAD_WAITS, "%s spins", process->name);
        return;
    }
    add_event(process->world, ns, resume, process);
    swapcontext(&process->place, &process->world->loop);
}

void sim_crash(struct sim_process *process)
{
    process->is_dead = true;
}

bool sim_is_dead(const struct sim_process *process)
{
    return process->is_dead;
}

struct sim_world *sim_world_of(const struct sim_process *process)
{
    return process->world;
}

const char *sim_name(const struct sim_process *process)
{
    return process->name;
}

int64_t sim_clock_offset(const struct sim_process *process)
{
    return process->clock_offset_ns;
}

void sim_set_clock_offset(struct sim_process *process, int64_t ns)
{
    process->clock_offset_ns = ns;
}

/* ---- the loop ---------------------------------------------------------------------------- */

void sim_world_run(struct sim_world *world, int64_t until_ns)
{
    while (world->event_count > 0 && world->violation == NULL) {
        struct event event = take_earliest(world);

        if (event.time_ns > until_ns)
            sim_violation(world, "the run ends", "it still goes on after %lld hours",
                          (long long)(until_ns / SIM_HOUR));
        world->now_ns = event.time_ns;
        event.action(world, event.context);
        if (event.action != resume)
            gr_free(event.context);
    }
    /* Those who are still about unwind, so that they free what they hold. */
    for (int64_t i = 0; i < world->process_count; i++) {
        struct sim_process *process = world->process[i];

        process->is_dead = true;
        if (!process->is_over)
            resume(world, process);
    }
}

void sim_trace(struct sim_world *world, const struct sim_process *process, const char *format, ...)
{
    va_list args;

    if (!world->is_verbose || (process != NULL && process->is_dead))
        return;
    printf("%14.3f s  %-10s ", (double)world->now_ns / (double)SIM_SECOND,
           process == NULL ? "" : process->name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void sim_violation(struct sim_world *world, const char *invariant, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (world->violation != NULL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    world->violation = gr_format("%s: %s", invariant, text);
    sim_trace(world, NULL, "VIOLATION %s", world->violation);
}

const char *sim_violation_text(const struct sim_world *world)
{
    return world->violation;
}

void sim_world_destroy(struct sim_world *world)
{
    if (world == NULL)
        return;
    for (int64_t i = 0; i < world->process_count; i++) {
        struct sim_process *process = world->process[i];

        gr_free(process->context);
        gr_free(process->stack);
        gr_free(process->name);
        gr_free(process);
    }
    for (int64_t i = 0; i < world->event_count; i++) {
        if (world->event[i].action != resume)
            gr_free(world->event[i].context);
    }
    gr_free(world->process);
    gr_free(world->event);
    gr_free(world->violation);
    gr_free(world);
}
