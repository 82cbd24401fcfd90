/* Comparing ranks before they work together.  See rank_check.h. */
#include "trainer/run/rank_check.h"

#include "data/hash.h"
#include "kernels/base/alloc.h"
#include "kernels/device.h"
#include "trainer/run/choices.h"

#include <stdio.h>
#include <string.h>

gr_status gr_rank_check_count(int size, int64_t expect_ranks, int64_t micro_batches)
{
    if (expect_ranks > 0 && size != expect_ranks)
        return gr_fail(GR_ERR_USAGE, "--expect-ranks", "check mpirun's -n and its hostfile",
                       "the job has another number of ranks (found %d, expected %lld)", size,
                       (long long)expect_ranks);
    if (size > micro_batches) {
        gr_fail(GR_ERR_USAGE, "train.micro_batches", NULL,
                "a rank would have nothing to do (found %lld micro-batches, expected at least %d, "
                "the number of ranks)",
                (long long)micro_batches, size);
        gr_hint("start mpirun with -n %lld or less, or raise train.micro_batches",
                (long long)micro_batches);
        return GR_ERR_USAGE;
    }
    return GR_OK;
}

/* What must be equal, as hex digests or short words, one column each. */
#define GR_SAMENESS_LIST(X)                                                                        \
    X(program, "another graft program")                                                            \
    X(device, "another device")                                                                    \
    X(plugin, "another libgraft_cuda.so")                                                          \
    X(libraries, "other libraries (graft version tells which)")                                    \
    X(software, "another driver or cuBLASLt (graft doctor --device cuda tells which)")             \
    X(gpu, "another kind of GPU")                                                                  \
    X(isa, "another CPU instruction set (GRAFT_ISA=v3 on all ranks makes them equal)")             \
    X(config, "another configuration")                                                             \
    X(tokenizer, "another tokenizer")                                                              \
    X(train, "other training data")                                                                \
    X(eval, "other evaluation data")                                                               \
    X(model, "another model")                                                                      \
    X(adapter, "another adapter")

enum sameness {
#define X(name, words) SAME_##name,
    GR_SAMENESS_LIST(X)
#undef X
        SAMENESS_COUNT
};
static const char *const sameness_words[SAMENESS_COUNT] = {
#define X(name, words) [SAME_##name] = words,
    GR_SAMENESS_LIST(X)
#undef X
};

struct fingerprint {
    char column[SAMENESS_COUNT][129];
};

static gr_status fill(struct fingerprint *mine, const struct gr_engine *engine,
                      const struct gr_inputs *inputs, const char *adapter_hash)
{
    gr_status status = GR_OK;
    struct gr_buffer keys = {0};
    const struct gr_device *dev = engine->dev;
    const bool is_gpu = gr_device_plugin(dev) != NULL;
    const char *const texts[SAMENESS_COUNT] = {
        [SAME_libraries] = gr_device_libraries(),
        [SAME_device] = gr_device_name(dev),
        [SAME_software] = gr_device_software(dev),
        [SAME_gpu] = is_gpu ? gr_device_isa(dev) : "",
        [SAME_isa] = is_gpu ? "" : gr_device_isa(dev),
        [SAME_tokenizer] = inputs->tokenizer_hash,
        [SAME_train] = inputs->train_hash,
        [SAME_eval] = inputs->eval_hash,
        [SAME_model] = engine->model_hash,
        [SAME_adapter] = adapter_hash,
    };

    memset(mine, 0, sizeof *mine);
    for (int i = 0; i < SAMENESS_COUNT; i++)
        snprintf(mine->column[i], sizeof mine->column[i], "%s", texts[i] == NULL ? "" : texts[i]);
    GR_TRY(gr_hash_file(mine->column[SAME_program], "/proc/self/exe",
                        &(struct gr_hash_options){.threads = 1}));
    GR_TRY(gr_device_plugin_hash(mine->column[SAME_plugin], dev));
    gr_config_identity(&keys, engine->config);
    gr_sha256_hex(mine->column[SAME_config], keys.data, (int64_t)keys.length);
out:
    gr_buffer_release(&keys);
    return status;
}

/* Of a device it is said what was found: hashes say nothing to anybody. */
static gr_status refuse(int rank, enum sameness what, const char *found, const char *expected)
{
    if (what == SAME_device || what == SAME_software || what == SAME_gpu)
        return gr_fail(GR_ERR_USAGE, "start", "use GPUs, drivers and libraries of one kind",
                       "rank %d has %s than rank 0 (found %s, expected %s)", rank,
                       sameness_words[what], found, expected);
    return gr_fail(GR_ERR_USAGE, "start", "every rank needs the same program, files and settings",
                   "rank %d has %s than rank 0", rank, sameness_words[what]);
}

gr_status gr_rank_check_same(const struct gr_engine *engine, const struct gr_inputs *inputs,
                             const char *adapter_hash)
{
    gr_status status = GR_OK;
    struct gr_comm *comm = engine->comm;
    struct fingerprint mine;
    struct fingerprint *all = NULL;

    if (gr_comm_size(comm) == 1)
        return GR_OK;
    all = GR_NEW_ARRAY(struct fingerprint, gr_comm_size(comm));
    status = fill(&mine, engine, inputs, adapter_hash);
    GR_TRY(gr_comm_agree_status(comm, status, "start"));
    GR_TRY(gr_comm_all_gather(comm, all, &mine, (int64_t)sizeof mine, "start"));
    for (int rank = 1; rank < gr_comm_size(comm) && status == GR_OK; rank++) {
        for (int i = 0; i < SAMENESS_COUNT && status == GR_OK; i++) {
            if (strcmp(all[rank].column[i], all[0].column[i]) != 0)
                status = refuse(rank, (enum sameness)i, all[rank].column[i], all[0].column[i]);
        }
    }
out:
    gr_free(all);
    return status;
}
