/* The jobs, their trainers and the others of a play.  See play.h. */
#include "tests/sim/play.h"

#include "kernels/base/alloc.h"
#include "tests/sim/judge.h"
#include "tests/sim/mem_store.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    CRASHING_LIVES = 5, /* of a job: its later trainers crash no more */
    FAULTY_LIVES = 12,  /* and those after these see no faults at all, so that the run ends */
    JOBS_MOST = 8,
    DAMAGES = 2, /* one fewer than the checkpoints kept */
};

struct play {
    struct sim_world *world;
    struct sim_bucket *bucket;
    struct sim_judge *judge;
    struct sim_counts *counts;
    struct sim_faults faults; /* of everybody; crashes are each life's own */
    int64_t last_step, save_every, save_total_limit;
    int extra_saves; /* per 1,000 steps: signals, and the cadence by seconds */
    int64_t step_ns;
    double patience_s;
    char run_hash[GR_SHA256_HEX_BYTES];
    int64_t jobs, damages_left;
    int64_t final_node; /* found by the last trainer */
};

static const char run_json[] = "{\"run\": \"sim\"}";

/* ---- the clock of a process -------------------------------------------------------------- */

static double clock_unix_s(void *context)
{
    const struct sim_process *process = context;
    int64_t ns = sim_now(sim_world_of(process)) + sim_clock_offset(process);

    return 1.8e9 + (double)ns / (double)SIM_SECOND;
}

static void clock_sleep_s(void *context, double seconds)
{
    sim_wait(context, (int64_t)(seconds * (double)SIM_SECOND));
}

static void clock_uuid(void *context, char text[GR_STATE_UUID_BYTES])
{
    struct sim_world *world = sim_world_of(context);
    int64_t part[5];

    for (int i = 0; i < 5; i++)
        part[i] = sim_random(world, 1 << 16);
    snprintf(text, GR_STATE_UUID_BYTES, "%08x-%04x-%04x-%04x-%012" PRIx64, (unsigned int)part[0],
             (unsigned int)part[1], (unsigned int)part[2], (unsigned int)part[3],
             (uint64_t)part[4]);
}

static struct gr_state_options options_of(const struct play *play, struct sim_process *process)
{
    return (struct gr_state_options){
        .run_hash = play->run_hash,
        .kind = "sim",
        .host = sim_name(process),
        .pid = 1,
        .world_size = 1,
        .save_total_limit = play->save_total_limit,
        .patience_s = play->patience_s,
        .clock = {.unix_s = clock_unix_s,
                  .monotonic_s = clock_unix_s,
                  .sleep_s = clock_sleep_s,
                  .uuid = clock_uuid,
                  .context = process},
    };
}

/* ---- a trainer --------------------------------------------------------------------------- */

/* One life of a job's trainer. */
struct life {
    struct play *play;
    int64_t job, number;
    bool is_last; /* the one after the end */
};
struct trainer {
    struct play *play;
    struct sim_process *process;
    struct gr_store *store;
    struct gr_state *state;
    int64_t step, node; /* node: the last checkpoint of its line */
    uint64_t history;
    int64_t best_step;
    double best_loss;
};

static uint64_t mix(uint64_t history, int64_t step, int64_t term)
{
    uint64_t x = history ^ (uint64_t)step * 0x9E3779B97F4A7C15u ^ (uint64_t)term << 40;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static gr_status start(struct trainer *t, const struct gr_state_options *options)
{
    struct play *play = t->play;
    struct gr_checkpoint found = {0};
    int64_t began_ns = sim_now(play->world);
    gr_status status = GR_OK;

    play->counts->starts++;
    GR_TRY(gr_state_start(&t->state, &found, t->store, options));
    if (sim_is_dead(t->process)) {
        status = GR_ERR_RETRY;
        goto out;
    }
    t->node = sim_judge_started(play->judge, gr_state_term(t->state), &found, began_ns);
    t->history = sim_judge_history(play->judge, t->node);
    t->step = found.step;
    t->best_step = found.best_step;
    t->best_loss = found.best_loss;
    play->counts->resumes += t->step > 0;
    sim_trace(play->world, t->process, "has term %" PRId64 ", goes on from step %" PRId64,
              gr_state_term(t->state), t->step);
out:
    gr_checkpoint_release(&found);
    return status;
}

static gr_status save(struct trainer *t)
{
    struct play *play = t->play;
    double loss = (double)sim_random(play->world, 1000);
    struct gr_checkpoint c = {.step = t->step, .epoch = 1, .world_size = 1, .object_count = 2};
    gr_status status = GR_OK;
    int64_t node = 0;

    if (t->best_step == 0 || loss < t->best_loss) {
        t->best_step = t->step;
        t->best_loss = loss;
    }
    c.best_step = t->best_step;
    c.best_loss = t->best_loss;
    snprintf(c.object[0].name, GR_STATE_NAME_BYTES, "%s", SIM_ADAPTER);
    snprintf(c.object[1].name, GR_STATE_NAME_BYTES, "%s", SIM_OPTIMIZER);
    for (int i = 0; i < 2; i++)
        sim_blob(&c.object[i].bytes, c.object[i].name, t->step, t->history);
    node = sim_judge_save_begins(play->judge, gr_state_term(t->state), &c, t->history, t->node);
    status = gr_state_save(t->state, &c);
    gr_checkpoint_release(&c);
    if (sim_is_dead(t->process))
        return GR_ERR_RETRY;
    sim_trace(play->world, t->process, "saved step %" PRId64 ": %s", t->step,
              gr_status_name(status));
    sim_judge_save_ends(play->judge, node, status);
    play->counts->saves += status == GR_OK;
    t->node = node;
    return status;
}

/* A failure to collect is no harm, being fenced is. */
static gr_status collect(struct trainer *t)
{
    gr_status status = gr_state_collect(t->state);

    t->play->counts->collects += status == GR_OK;
    sim_trace(t->play->world, t->process, "collected: %s", gr_status_name(status));
    if (status == GR_ERR_RETRY && !sim_is_dead(t->process)) {
        gr_error_clear();
        status = GR_OK;
    }
    return status;
}

static gr_status train(struct trainer *t)
{
    struct play *play = t->play;
    gr_status status = GR_OK;

    while (t->step < play->last_step) {
        sim_wait(t->process, play->step_ns / 2 + sim_random(play->world, play->step_ns));
        t->step++;
        t->history = mix(t->history, t->step, gr_state_term(t->state));
        if (t->step % play->save_every != 0 && t->step != play->last_step &&
            !sim_chance(play->world, play->extra_saves))
            continue;
        GR_TRY(save(t));
        if (sim_chance(play->world, 600))
            GR_TRY(collect(t));
    }
out:
    return status;
}

/* Marks the run as done with the history it ended with. */
static gr_status finish(struct trainer *t)
{
    char text[32];
    gr_status status = GR_OK;

    GR_TRY(gr_state_check_fence(t->state));
    snprintf(text, sizeof text, "%016" PRIx64, t->history);
    GR_TRY(t->store->ops->put_if_absent(t->store, "done.json", text, (int64_t)strlen(text)));
    sim_trace(t->play->world, t->process, "is done: %s", text);
out:
    if (status == GR_ERR_EXISTS)
        sim_violation(t->play->world, "one line", "%s finishes with another history, %s",
                      sim_name(t->process), text);
    return status;
}

/* Whether the run is finished already; ERR_RETRY: no answer. */
static gr_status is_done(struct trainer *t, bool *done)
{
    struct gr_buffer bytes = {0};
    gr_status status = t->store->ops->get(t->store, &bytes, "done.json", 0, -1);

    *done = status == GR_OK;
    if (status == GR_ERR_NOT_FOUND) {
        gr_error_clear();
        status = GR_OK;
    }
    gr_buffer_release(&bytes);
    return status;
}

static void life_body(struct sim_process *process, void *context);

static void live(struct play *play, int64_t job, int64_t number, int64_t delay_ns, bool is_last)
{
    struct life *life = GR_NEW(struct life);
    char name[32];

    *life = (struct life){.play = play, .job = job, .number = number, .is_last = is_last};
    snprintf(name, sizeof name, "%c%" PRId64, is_last ? 'Z' : (char)('A' + job), number);
    sim_spawn(play->world, name, delay_ns, life_body, life);
}

/* What the scheduler of jobs does when a trainer ends. */
static void life_ends(const struct life *life, struct sim_process *process, gr_status status)
{
    struct play *play = life->play;

    if (sim_violation_text(play->world) != NULL)
        return;
    sim_trace(play->world, process, "ends: %s %s", gr_status_name(status), gr_error_message());
    play->counts->crashes += sim_is_dead(process);
    play->counts->retries += !sim_is_dead(process) && status == GR_ERR_RETRY;
    play->counts->fenced += !sim_is_dead(process) && status == GR_ERR_FENCED;
    if (sim_is_dead(process) || status == GR_ERR_RETRY)
        live(play, life->job, life->number + 1, sim_random(play->world, SIM_MINUTE), life->is_last);
    else if (status != GR_OK && status != GR_ERR_FENCED)
        sim_violation(play->world, "errors are those of the contract", "%s ends with %s: %s",
                      sim_name(process), gr_status_name(status), gr_error_message());
}

/* ---- others take over --------------------------------------------------------------------- */

struct visitor {
    struct play *play;
};

static struct visitor *visitor_of(struct play *play)
{
    struct visitor *visitor = GR_NEW(struct visitor);

    visitor->play = play;
    return visitor;
}

static void take_over(struct sim_world *world, void *context)
{
    struct play *play = ((struct visitor *)context)->play;

    sim_trace(world, NULL, "another job starts on the same run");
    live(play, play->jobs++, 1, 0, false);
}

/* Whoever sleeps is taken for dead, often. */
static void fall_asleep(void *context)
{
    struct play *play = context;

    if (play->jobs < JOBS_MOST && sim_chance(play->world, 500))
        sim_after(play->world, sim_random(play->world, 2 * SIM_MINUTE), take_over,
                  visitor_of(play));
}

static struct sim_faults faults_of(const struct life *life)
{
    struct play *play = life->play;
    struct sim_faults faults = play->faults;

    if (life->is_last)
        return (struct sim_faults){.latency_ns = SIM_MS};
    if (life->number > FAULTY_LIVES)
        faults = (struct sim_faults){.latency_ns = play->faults.latency_ns};
    faults.asleep = fall_asleep;
    faults.asleep_context = play;
    if (life->number <= CRASHING_LIVES && sim_chance(play->world, 700))
        faults.crash_at = 1 + sim_random(play->world, sim_chance(play->world, 500) ? 20 : 200);
    return faults;
}

/* The trainer after the end: the last step is there, and a day later it takes the garbage away. */
static gr_status clean_up(struct trainer *t)
{
    struct play *play = t->play;

    if (t->step != play->last_step)
        sim_violation(play->world, "the finished state is found",
                      "the last start finds step %" PRId64, t->step);
    play->final_node = t->node;
    sim_wait(t->process, 30 * SIM_HOUR);
    return collect(t);
}

static void life_body(struct sim_process *process, void *context)
{
    const struct life *life = context;
    struct play *play = life->play;
    struct trainer t = {.play = play, .process = process, .node = SIM_NO_NODE};
    struct sim_faults faults = faults_of(life);
    struct gr_state_options options = options_of(play, process);
    gr_status status = GR_OK;
    bool done = false;

    sim_set_clock_offset(process, sim_random(play->world, 4 * SIM_HOUR) - 2 * SIM_HOUR);
    t.store = sim_store_open(play->bucket, process, &faults);
    if (!life->is_last)
        GR_TRY(is_done(&t, &done));
    if (done)
        goto out;
    GR_TRY(start(&t, &options));
    if (life->is_last) {
        status = clean_up(&t);
        goto out;
    }
    GR_TRY(train(&t));
    GR_TRY(finish(&t));
    GR_TRY(collect(&t));
out:
    gr_state_destroy(t.state);
    gr_store_close(t.store);
    life_ends(life, process, status);
    gr_error_clear();
}

/* ---- the others -------------------------------------------------------------------------- */

/* A live checkpoint that nobody calls bad, any of them; false: there is none. */
static bool choose(char name[GR_CHECKPOINT_NAME_BYTES], struct play *play, struct gr_store *store,
                   bool verify)
{
    struct gr_checkpoint_rows rows = {0};
    int64_t chosen = -1, seen = 0;

    if ((verify ? gr_state_verify(&rows, store) : gr_state_list(&rows, store)) != GR_OK)
        return false;
    for (int64_t i = 0; i < rows.count; i++) {
        const struct gr_checkpoint_row *row = &rows.row[i];

        if (row->is_live && row->bad != NULL)
            sim_judge_called_bad(play->judge, row->name, row->bad);
        else if (row->is_live && sim_random(play->world, ++seen) == 0)
            chosen = i;
    }
    if (chosen >= 0)
        snprintf(name, GR_CHECKPOINT_NAME_BYTES, "%s", rows.row[chosen].name);
    gr_checkpoint_rows_release(&rows);
    return chosen >= 0;
}

static void pinner_body(struct sim_process *process, void *context)
{
    struct play *play = ((struct visitor *)context)->play;
    struct gr_store *store = sim_store_open(play->bucket, process, &play->faults);
    char name[GR_CHECKPOINT_NAME_BYTES];
    gr_status status = GR_OK;

    if (choose(name, play, store, false)) {
        status = gr_state_pin(store, name);
        sim_trace(play->world, process, "pinned %s: %s", name, gr_status_name(status));
        if (status == GR_OK && !sim_is_dead(process)) {
            play->counts->pins++;
            sim_judge_pinned(play->judge, name);
        }
    }
    gr_store_close(store);
    gr_error_clear();
}

static void reader_body(struct sim_process *process, void *context)
{
    struct play *play = ((struct visitor *)context)->play;
    struct gr_store *store = sim_store_open(play->bucket, process, &play->faults);
    struct gr_checkpoint c = {0};
    char name[GR_CHECKPOINT_NAME_BYTES];
    gr_status status = GR_OK;

    if (choose(name, play, store, sim_chance(play->world, 300))) {
        gr_error_clear();
        status = gr_state_load(&c, store, name);
        sim_trace(play->world, process, "loaded %s: %s", name, gr_status_name(status));
        if (!sim_is_dead(process)) {
            play->counts->loads += status == GR_OK;
            sim_judge_loaded(play->judge, name, &c, status);
        }
    }
    gr_checkpoint_release(&c);
    gr_store_close(store);
    gr_error_clear();
}

static void damage(struct sim_world *world, void *context)
{
    struct play *play = ((struct visitor *)context)->play;
    struct visitor *next = NULL;

    if (play->damages_left == 0 || sim_bucket_find(play->bucket, "done.json") != NULL)
        return;
    if (sim_judge_damage_newest(play->judge, play->last_step)) {
        play->damages_left--;
        play->counts->damages++;
    }
    next = GR_NEW(struct visitor);
    next->play = play;
    sim_after(world, 1 + sim_random(world, play->last_step * play->step_ns), damage, next);
}

/* ---- the play ---------------------------------------------------------------------------- */

static int64_t any_of(struct sim_world *world, const int64_t *choices, int64_t count)
{
    return choices[sim_random(world, count)];
}
#define ANY_OF(world, ...)                                                                         \
    any_of(world, (const int64_t[]){__VA_ARGS__}, GR_COUNT(((const int64_t[]){__VA_ARGS__})))

/* How bad this world is, and what is trained in it. */
static void draw(struct play *play)
{
    struct sim_world *w = play->world;

    play->faults = (struct sim_faults){
        .fail = (int)ANY_OF(w, 0, 10, 100),
        .lose_answer = (int)ANY_OF(w, 0, 10, 80),
        .late_put = (int)ANY_OF(w, 0, 10, 80),
        .duplicate_put = (int)ANY_OF(w, 0, 10, 100),
        .stall = (int)ANY_OF(w, 0, 2, 10),
        .stall_before_put_if_absent = (int)ANY_OF(w, 0, 0, 100),
        .latency_ns = ANY_OF(w, 10 * SIM_MS, SIM_SECOND, 20 * SIM_SECOND),
        .late_ns = ANY_OF(w, SIM_SECOND, SIM_MINUTE, 2 * SIM_HOUR),
        .stall_ns = ANY_OF(w, SIM_MINUTE, 10 * SIM_MINUTE, 3 * SIM_HOUR),
    };
    play->last_step = 8 + sim_random(w, 32);
    play->save_every = 1 + sim_random(w, 12);
    play->extra_saves = (int)ANY_OF(w, 0, 50, 400);
    play->save_total_limit = GR_STATE_LIMIT_LEAST + sim_random(w, 3);
    play->step_ns = ANY_OF(w, SIM_SECOND, 10 * SIM_SECOND, SIM_MINUTE);
    play->patience_s = (double)ANY_OF(w, 5, 60, 600);
    play->damages_left = sim_chance(w, 200) ? DAMAGES : 0;
    play->final_node = SIM_NO_NODE;
}

static void set_scene(struct play *play)
{
    struct sim_world *w = play->world;
    int64_t length_ns = play->last_step * (play->step_ns + 6 * play->faults.latency_ns);

    live(play, play->jobs++, 1, 0, false);
    if (sim_chance(w, 300))
        sim_after(w, 0, take_over, visitor_of(play));
    for (int64_t i = sim_random(w, 4); i > 0; i--)
        sim_after(w, sim_random(w, 2 * length_ns), take_over, visitor_of(play));
    for (int64_t i = sim_random(w, 4); i > 0; i--)
        sim_spawn(w, "pinner", sim_random(w, 2 * length_ns), pinner_body, visitor_of(play));
    for (int64_t i = sim_random(w, 4); i > 0; i--)
        sim_spawn(w, "reader", sim_random(w, 2 * length_ns), reader_body, visitor_of(play));
    if (play->damages_left > 0)
        sim_after(w, sim_random(w, length_ns), damage, visitor_of(play));
}

char *sim_play(uint64_t seed, bool is_verbose, struct sim_counts *counts)
{
    struct play play = {.counts = counts};
    struct sim_world *world = sim_world_create(seed, is_verbose);
    char *violation = NULL;

    play.world = world;
    play.bucket = sim_bucket_create(world);
    play.judge = sim_judge_create(world, play.bucket);
    sim_bucket_put(play.bucket, "run.json", run_json);
    gr_sha256_hex(play.run_hash, run_json, (int64_t)strlen(run_json));
    draw(&play);
    set_scene(&play);
    sim_world_run(world, 60 * 24 * SIM_HOUR);
    if (sim_bucket_find(play.bucket, "done.json") == NULL)
        sim_violation(world, "the run ends", "nobody works on it any more, and it is not done");
    if (sim_violation_text(world) == NULL) {
        live(&play, 0, 1, 30 * SIM_HOUR, true);
        sim_world_run(world, 120 * 24 * SIM_HOUR);
        sim_judge_end(play.judge, play.final_node, play.save_total_limit);
    }
    if (sim_violation_text(world) != NULL)
        violation = gr_strdup(sim_violation_text(world));
    sim_world_destroy(world);
    sim_judge_destroy(play.judge);
    sim_bucket_destroy(play.bucket);
    return violation;
}
