/* What saving costs a run: how long the loop is held up by a snapshot, how fast it becomes durable,
 * how fast a start loads it.
 *   bench_checkpoint FOLDER [MB of state]      default 50 */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "trainer/run/saver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 9 };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

static double seconds_since(int64_t begin)
{
    return (double)(gr_clock_ns() - begin) * 1e-9;
}

struct bench {
    struct gr_store *store;
    struct gr_state_options options;
    struct gr_state *state;
    struct gr_events *events;
    struct gr_adapter *adapter;
    struct gr_saver *saver;
    struct gr_checkpoint found;
    struct gr_snapshot live; /* what the engine would hold */
    double stall[ROUNDS], durable[ROUNDS], load[ROUNDS];
};

/* One wide linear whose A, B and two moments of each have that size. */
static gr_status open_bench(struct bench *b, const char *folder, double megabytes)
{
    gr_status status = GR_OK;
    int64_t width = (int64_t)(megabytes * 1e6 / 12 / 2 / 16);
    struct gr_model_config model = {.model_type = "llama",
                                    .hidden_size = width,
                                    .intermediate_size = width,
                                    .layers = 1,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .head_dim = 2};
    struct gr_lora_config lora = {
        .r = 16, .lora_alpha = 16, .target_regex = gr_strdup(".*down_proj")};

    b->options = (struct gr_state_options){.run_hash = "0123456789abcdef0123456789abcdef"
                                                       "0123456789abcdef0123456789abcdef",
                                           .kind = "cpu",
                                           .host = "bench",
                                           .pid = 1,
                                           .world_size = 1,
                                           .save_total_limit = 3,
                                           .patience_s = 1,
                                           .clock = gr_state_real_clock()};
    GR_TRY(gr_adapter_create(&b->adapter, &model, &lora));
    GR_TRY(gr_store_open(&b->store, folder));
    GR_TRY(gr_state_start(&b->state, &b->found, b->store, &b->options));
    GR_TRY(gr_events_create(&b->events));
    gr_saver_create(&b->saver, b->state, b->events, b->adapter, "base");
    gr_snapshot_init(&b->live, b->adapter->elements);
    for (int64_t i = 0; i < b->live.elements; i++)
        b->live.param[i] = b->live.moment1[i] = b->live.moment2[i] = (float)i;
out:
    gr_lora_config_release(&lora);
    return status;
}

static gr_status save_once(struct bench *b, int round)
{
    size_t flat = (size_t)b->live.elements * sizeof(float);
    int64_t begin = gr_clock_ns();
    struct gr_snapshot *s = gr_saver_take(b->saver, true);
    gr_status status;

    memcpy(s->param, b->live.param, flat);
    memcpy(s->moment1, b->live.moment1, flat);
    memcpy(s->moment2, b->live.moment2, flat);
    s->step = b->found.step + round + 1;
    s->epoch_first_step = 1;
    gr_saver_submit(b->saver, s);
    b->stall[round] = seconds_since(begin);
    status = gr_saver_drain(b->saver);
    b->durable[round] = seconds_since(begin);
    return status;
}

static gr_status load_once(struct bench *b, int round)
{
    gr_status status = GR_OK;
    int64_t begin = gr_clock_ns();

    gr_state_destroy(b->state);
    gr_checkpoint_release(&b->found);
    GR_TRY(gr_state_start(&b->state, &b->found, b->store, &b->options));
    GR_TRY(gr_snapshot_unpack(&b->live, &b->found, b->adapter));
    b->load[round] = seconds_since(begin);
out:
    return status;
}

int main(int argc, char **argv)
{
    gr_status status = GR_OK;
    struct bench b = {0};
    double megabytes;

    if (argc < 2) {
        fputs("usage: bench_checkpoint FOLDER [MB]\n", stderr);
        return 2;
    }
    gr_log_speaks(false);
    GR_TRY(open_bench(&b, argv[1], argc > 2 ? atof(argv[2]) : 50));
    for (int i = 0; i < ROUNDS; i++)
        GR_TRY(save_once(&b, i));
    gr_saver_destroy(b.saver);
    b.saver = NULL;
    for (int i = 0; i < ROUNDS; i++)
        GR_TRY(load_once(&b, i));
    megabytes = 12e-6 * (double)b.live.elements;
    printf(
        "state %.1f MB: the loop is held up %.1f ms; durable after %.0f ms, %.0f MB/s; loaded and "
        "verified in %.0f ms, %.0f MB/s\n",
        megabytes, median(b.stall) * 1e3, median(b.durable) * 1e3, megabytes / median(b.durable),
        median(b.load) * 1e3, megabytes / median(b.load));
out:
    if (status != GR_OK)
        gr_print_error();
    gr_saver_destroy(b.saver);
    gr_state_destroy(b.state);
    gr_checkpoint_release(&b.found);
    gr_snapshot_release(&b.live);
    gr_events_destroy(b.events);
    gr_adapter_destroy(b.adapter);
    gr_store_close(b.store);
    return gr_status_exit_code(status);
}
