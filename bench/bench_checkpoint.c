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

int main(int argc, char **argv)
{
    gr_status status = GR_OK;
    double megabytes = argc > 2 ? atof(argv[2]) : 50, stall[ROUNDS], durable[ROUNDS], load[ROUNDS];
    /* one wide linear whose A, B and two moments of each have that size */
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
    struct gr_state_options options = {.run_hash = "0123456789abcdef0123456789abcdef"
                                                   "0123456789abcdef0123456789abcdef",
                                       .kind = "cpu",
                                       .host = "bench",
                                       .pid = 1,
                                       .world_size = 1,
                                       .save_total_limit = 3,
                                       .retry_deadline_s = 1,
                                       .clock = gr_state_real_clock()};
    struct gr_store *store = NULL;
    struct gr_state *state = NULL;
    struct gr_events *events = NULL;
    struct gr_adapter *adapter = NULL;
    struct gr_saver *saver = NULL;
    struct gr_checkpoint found = {0};
    struct gr_snapshot live; /* what the engine would hold */
    double bytes;

    if (argc < 2) {
        fputs("usage: bench_checkpoint FOLDER [MB]\n", stderr);
        return 2;
    }
    gr_log_speaks(false);
    GR_TRY(gr_adapter_create(&adapter, &model, &lora));
    GR_TRY(gr_store_open(&store, argv[1]));
    GR_TRY(gr_state_start(&state, &found, store, &options));
    GR_TRY(gr_events_create(&events));
    gr_saver_create(&saver, state, events, adapter, "base");
    gr_snapshot_init(&live, adapter->elements);
    for (int64_t i = 0; i < live.elements; i++)
        live.param[i] = live.moment1[i] = live.moment2[i] = (float)i;
    bytes = 12 * (double)live.elements;
    for (int i = 0; i < ROUNDS; i++) {
        size_t flat = (size_t)live.elements * sizeof(float);
        int64_t begin = gr_clock_ns();
        struct gr_snapshot *s = gr_saver_take(saver, true);

        memcpy(s->param, live.param, flat);
        memcpy(s->moment1, live.moment1, flat);
        memcpy(s->moment2, live.moment2, flat);
        s->step = found.step + i + 1;
        s->epoch_first_step = 1;
        gr_saver_submit(saver, s);
        stall[i] = seconds_since(begin);
        GR_TRY(gr_saver_drain(saver));
        durable[i] = seconds_since(begin);
    }
    gr_saver_destroy(saver);
    saver = NULL;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t begin = gr_clock_ns();

        gr_state_destroy(state);
        gr_checkpoint_release(&found);
        GR_TRY(gr_state_start(&state, &found, store, &options));
        GR_TRY(gr_snapshot_unpack(&live, &found, adapter));
        load[i] = seconds_since(begin);
    }
    printf("state %.1f MB: the loop is held up %.1f ms (largest %.1f); durable after %.0f ms, "
           "%.0f MB/s; loaded and verified in %.0f ms, %.0f MB/s\n",
           bytes * 1e-6, median(stall) * 1e3, stall[ROUNDS - 1] * 1e3, median(durable) * 1e3,
           bytes * 1e-6 / median(durable), median(load) * 1e3, bytes * 1e-6 / median(load));
out:
    if (status != GR_OK)
        gr_print_error();
    gr_saver_destroy(saver);
    gr_state_destroy(state);
    gr_checkpoint_release(&found);
    gr_events_destroy(events);
    gr_store_close(store);
    return gr_status_exit_code(status);
}
