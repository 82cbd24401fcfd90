/* One answer to what computes (kernels/device.h: gr_device_get_choices) for all ranks of a run and
 * for all its starts: the I/O rank chooses, the others take that over, and the run's directory
 * keeps it.
 *
 *   choices/<kind>-<n>   what was chosen, and a hash of it, for GPUs and software of one kind (16
 *                        digits of a hash); n counts up: a later one adds products that an earlier
 *                        start did not ask for                                        put if absent
 *
 * A device without choices, a CPU, takes part in none of this. */
#ifndef GR_TRAINER_CHOICES_H
#define GR_TRAINER_CHOICES_H

#include "data/hash.h"
#include "data/store/store.h"
#include "kernels/base/buffer.h"
#include "kernels/device.h"
#include "trainer/run/comm.h"

struct gr_choices {
    struct gr_device *dev;
    struct gr_comm *comm;
    struct gr_store *store; /* the run's, on the I/O rank; NULL: nothing is kept */
    struct gr_buffer text;  /* what is chosen: the same on all ranks */
    char *kind;             /* of the device, but for its choices */
    int64_t kept;           /* objects there are */
};

/* All ranks call these two; before the memory of an engine is measured, and after the I/O rank has
 * asked its device for every op that is to come.  From then on the device's choices are settled.
 * Errors: those of gr_device_set_choices, naming what a rank lacks; what the store refuses. */
gr_status gr_choices_begin(struct gr_choices *choices, struct gr_device *dev, struct gr_comm *comm,
                           struct gr_store *store);
gr_status gr_choices_settle(struct gr_choices *choices);
void gr_choices_release(struct gr_choices *choices);

/* What the bits depend on: "cpu v4, glibc 2.36, f32", "cuda sm_90 NVIDIA H100, ..., attention own,
 * choices 0123456789ab, ...".  dtype: its word.  For the caller to free. */
char *gr_choices_kind(const struct gr_choices *choices, const char *dtype);

/* The hash of the file that the device's backend is from; "" where that is the program. */
gr_status gr_device_plugin_hash(char hex[GR_SHA256_HEX_BYTES], const struct gr_device *dev);

#endif
