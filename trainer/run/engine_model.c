/* Loading the model of an engine, or looking at it without its memory.  See engine.h. */
#include "kernels/base/alloc.h"
#include "trainer/run/compute_dtype.h"
#include "trainer/run/engine.h"
#include "trainer/run/inputs.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static gr_status check_length(const struct gr_engine *e)
{
    int64_t positions = e->model.config.max_position_embeddings;

    if (e->config->data.max_length <= positions)
        return GR_OK;
    gr_fail(GR_ERR_USAGE, "data.max_length", NULL,
            "the model has no such position (found %lld, expected at most %lld)",
            (long long)e->config->data.max_length, (long long)positions);
    gr_hint("--set data.max_length=%lld, or use a model with a longer context",
            (long long)positions);
    return GR_ERR_USAGE;
}

/* Attention on a GPU has an end, that on a CPU none. */
static gr_status check_head_dim(const struct gr_engine *e)
{
    const int64_t found = e->model.config.head_dim, most = gr_device_head_dim_most(e->dev);
    char *place;

    if (most == 0 || found <= most)
        return GR_OK;
    place = gr_format("%s/config.json", e->config->model);
    gr_fail(GR_ERR_DATA, place, "set device.backend to cpu",
            "attention on a GPU has no such head_dim (found %lld, expected at most %lld)",
            (long long)found, (long long)most);
    gr_free(place);
    return GR_ERR_DATA;
}

/* 128 random bits of rank 0, as hex, on every rank. */
static gr_status make_job_key(char key[33], struct gr_comm *comm)
{
    gr_status status = GR_OK;
    unsigned char random[16] = {0};

    if (gr_comm_rank(comm) == 0 && getrandom(random, sizeof random, 0) != sizeof random)
        status = gr_fail(GR_ERR_DEVICE, "start", "the kernel must have getrandom()",
                         "the system gives no random numbers (found none, expected 16 bytes)");
    GR_TRY(gr_comm_agree_status(comm, status, "job key"));
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(key + 2 * i, 3, "%02x", random[i]);
    GR_TRY(gr_comm_broadcast(comm, 0, key, 33, "job key"));
out:
    return status;
}

static void begin(struct gr_engine *e, const struct gr_config *config, struct gr_device *dev,
                  struct gr_comm *comm)
{
    memset(e, 0, sizeof *e);
    e->config = config;
    e->dev = dev;
    e->comm = comm;
    e->model.dev = dev;
}

/* What this rank does alone. */
static gr_status read_model(struct gr_engine *e, const struct gr_weight_sharing *sharing)
{
    gr_status status = GR_OK;
    const char *directory = e->config->model;

    GR_TRY(gr_model_config_load(&e->model.config, directory));
    GR_TRY(check_length(e));
    GR_TRY(check_head_dim(e));
    GR_TRY(gr_weights_load(&e->model.weights, e->model_hash, &e->model.config, directory, sharing));
out:
    return status;
}

gr_status gr_engine_load_model(struct gr_engine *e, const struct gr_config *config,
                               struct gr_device *dev, struct gr_comm *comm)
{
    gr_status status = GR_OK;
    char job_key[33] = "", *cache_dir = NULL;
    struct gr_weight_sharing sharing = {.local_rank = gr_comm_local_rank(comm),
                                        .local_size = gr_comm_local_size(comm),
                                        .job_key = job_key,
                                        .threads = gr_device_threads(dev),
                                        .timeout_s = (double)config->dist.timeout_seconds};

    begin(e, config, dev, comm);
    GR_TRY(make_job_key(job_key, comm));
    GR_TRY(gr_compute_dtype_agree(&e->model.dtype, config, dev, comm));
    GR_TRY(gr_comm_agree_status(comm, gr_cache_dir(&cache_dir, config), "cache"));
    sharing.dtype = e->model.dtype;
    sharing.cache_dir = cache_dir;
    GR_TRY(gr_comm_agree_status(comm, read_model(e, &sharing), "model"));
    GR_TRY(gr_weights_share(&e->model.weights, &e->model.config, &sharing));
out:
    gr_free(cache_dir);
    return status;
}

gr_status gr_engine_examine_model(struct gr_engine *e, struct gr_memory_plan *plan,
                                  const struct gr_config *config, struct gr_device *dev,
                                  struct gr_comm *comm, bool reads_values)
{
    gr_status status = GR_OK;
    char *cache_dir = NULL;
    struct gr_weight_sharing sharing = {.local_size = 1, .threads = gr_device_threads(dev)};

    begin(e, config, dev, comm);
    GR_TRY(gr_model_config_load(&e->model.config, config->model));
    GR_TRY(check_length(e));
    GR_TRY(check_head_dim(e));
    GR_TRY(gr_compute_dtype_agree(&e->model.dtype, config, dev, comm));
    GR_TRY(gr_cache_dir(&cache_dir, config));
    sharing.dtype = e->model.dtype;
    sharing.cache_dir = cache_dir;
    GR_TRY(gr_weights_examine(&plan->weight_bytes, &e->model.config, config->model, &sharing,
                              reads_values));
out:
    gr_free(cache_dir);
    return status;
}
