/* The simulation of the commit protocol (tests/sim): many seeds, or one, replayed with its trace.
 *   test_sim                         2,000 seeds, what CI runs
 *   test_sim --seeds 100000          more; [--from N] is the first
 *   test_sim --seed N [--verbose]    one
 * A violation ends it: exit 1, with the line that replays it. */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "tests/sim/play.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SEEDS = 2000 };

struct arguments {
    uint64_t from;
    int64_t seeds;
    bool is_verbose, is_wrong;
};

static struct arguments parse(int argc, char **argv)
{
    struct arguments a = {.from = 1, .seeds = DEFAULT_SEEDS};

    for (int i = 1; i < argc && !a.is_wrong; i++) {
        bool takes_number = i + 1 < argc && argv[i + 1][0] >= '0' && argv[i + 1][0] <= '9';
        uint64_t number = takes_number ? strtoull(argv[i + 1], NULL, 10) : 0;

        if (strcmp(argv[i], "--verbose") == 0) {
            a.is_verbose = true;
            continue;
        }
        if (takes_number && strcmp(argv[i], "--seed") == 0) {
            a.from = number;
            a.seeds = 1;
        } else if (takes_number && strcmp(argv[i], "--seeds") == 0) {
            a.seeds = (int64_t)number;
        } else if (takes_number && strcmp(argv[i], "--from") == 0) {
            a.from = number;
        } else {
            a.is_wrong = true;
        }
        i++;
    }
    return a;
}

static void print_counts(const struct sim_counts *counts)
{
#define X(name) printf(" %s %" PRId64, #name, counts->name);
    SIM_COUNTS(X)
#undef X
    printf("\n");
}

/* Every kind of thing must have happened, else the plays prove little. */
static bool has_all(const struct sim_counts *counts)
{
    bool all = true;

#define X(name) all = all && counts->name > 0;
    SIM_COUNTS(X)
#undef X
    return all;
}

int main(int argc, char **argv)
{
    struct arguments a = parse(argc, argv);
    struct sim_counts counts = {0};
    int64_t began_ns = gr_clock_ns();

    if (a.is_wrong) {
        fprintf(stderr, "usage: test_sim [--seeds N] [--from N] [--seed N] [--verbose]\n");
        return 2;
    }
    gr_log_speaks(a.is_verbose);
    for (int64_t i = 0; i < a.seeds; i++) {
        uint64_t seed = a.from + (uint64_t)i;
        char *violation = sim_play(seed, a.is_verbose, &counts);

        if (violation != NULL) {
            printf("FAIL seed %" PRIu64 " (%" PRId64 " of %" PRId64 "): %s\n", seed, i + 1, a.seeds,
                   violation);
            printf("replay: test_sim --seed %" PRIu64 " --verbose\n", seed);
            gr_free(violation);
            return 1;
        }
    }
    printf("ok   %" PRId64 " seeds in %.1f s:", a.seeds, (double)(gr_clock_ns() - began_ns) / 1e9);
    print_counts(&counts);
    if (a.seeds >= DEFAULT_SEEDS && !has_all(&counts)) {
        printf("FAIL something never happened\n");
        return 1;
    }
    return 0;
}
