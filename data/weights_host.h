/* Weights on the host for a run that computes in f32 or bf16.  Those that a file holds so, and
 * matrices of bf16 in any case, are the mapped file itself; the others are converted (exactly, or
 * rounded to the nearest) once per host, into one piece of anonymous memory that all processes of
 * the job on this host map read-only: local rank 0 makes it and hands it out.  /dev/shm is not
 * used: containers give it 64 MiB.  Knows neither MPI nor what the tensors mean. */
#ifndef GR_DATA_WEIGHTS_HOST_H
#define GR_DATA_WEIGHTS_HOST_H

#include "data/model_files.h"

struct gr_weights_host_options {
    enum gr_dtype dtype; /* F32 or BF16: what the weights shall be; matrices may be BF16 in F32 */
    int local_rank;      /* among the processes of the job on this host */
    int local_size;      /* their number; 1: nobody to share with */
    const char *job_key; /* the same for all of them, and no other job's: names the socket */
    int threads;         /* >= 1, for the conversion */
    double timeout_s;    /* a whole call, for those who wait for others */
};

struct gr_weights_host;

/* Two calls make the tensors `name` [count], distinct, available.  Every local rank must ask for
 * the same; `model` must outlive the weights. create: what each rank does alone, on local rank 0
 * the conversion.  Errors: ERR_DATA (a tensor is missing or of another dtype than F32, BF16, F16),
 * ERR_DEVICE (memory), ERR_RETRY (the socket). share: local rank 0 hands out, the others wait for
 * it.  To be called once all local ranks are known to have created theirs: who failed would be
 * waited for.  Errors: ERR_DATA (the ranks ask for different things), ERR_DEVICE (memory),
 * ERR_RETRY (a local rank is missing). */
gr_status gr_weights_host_create(struct gr_weights_host **weights,
                                 const struct gr_model_files *model, const char *const *name,
                                 int64_t count, const struct gr_weights_host_options *options);
gr_status gr_weights_host_share(struct gr_weights_host *weights,
                                const struct gr_weights_host_options *options);
void gr_weights_host_destroy(struct gr_weights_host *weights); /* NULL is fine */

/* Tensor i of those asked for, row-major, read-only; only after share.  dtype: that it has. */
const void *gr_weights_host_data(const struct gr_weights_host *weights, int64_t i);
enum gr_dtype gr_weights_host_dtype(const struct gr_weights_host *weights, int64_t i);
/* Bytes [begin, end) of tensor i will be read soon (gr_file_map_expect; nothing is to be done for
 * one that was converted). */
void gr_weights_host_expect(const struct gr_weights_host *weights, int64_t i, int64_t begin,
                            int64_t end);
/* Bytes of those that were converted, once per host. */
int64_t gr_weights_host_converted_bytes(const struct gr_weights_host *weights);

/* Bytes that a create would take for converted weights on this host, all ranks together, and bytes
 * of those that stay mapped: for the memory plan, which is printed first.  Errors: ERR_DATA as
 * above. */
gr_status gr_weights_host_measure(int64_t *converted, int64_t *mapped,
                                  const struct gr_model_files *model, const char *const *name,
                                  int64_t count, enum gr_dtype dtype);

#endif
