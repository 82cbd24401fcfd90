/* cuDNN's graphs, by its C backend interface: tensors and operations are written down as formulas,
 * then cuDNN makes a plan for the whole.  libcudnn is opened when it is first wanted; nothing links
 * it.  Nothing of CUDA's runtime here, so that plans can be made without a GPU.
 *
 * The first failure sticks in the graph, with cuDNN's words; later calls do nothing. */
#ifndef GR_CUDNN_GRAPH_H
#define GR_CUDNN_GRAPH_H

#include "kernels/cuda/cudnn_api.h"

/* Attention over documents in one buffer is wrong or refused on compute capability 8 before. */
enum { GR_CUDNN_OLDEST = 91801 };

struct gr_cudnn {
    void *library;
#define X(name, type, parameters) type(*name) parameters;
    GR_CUDNN_FUNCTIONS(X)
#undef X
    void *handle;     /* of the GPU, or NULL and */
    void *properties; /* a description of one, for a plan without a GPU */
};

/* Whether libcudnn is there, and new enough; if not, `why` says what is missing. */
bool gr_cudnn_open(struct gr_cudnn *cudnn, char *why, int64_t why_size);
/* Plans are made for the GPU of this thread, and run on that stream. */
bool gr_cudnn_use_gpu(struct gr_cudnn *cudnn, void *stream, char *why, int64_t why_size);
/* Plans are made for the GPU that this JSON text describes. */
bool gr_cudnn_describe_gpu(struct gr_cudnn *cudnn, const char *json);
void gr_cudnn_close(struct gr_cudnn *cudnn);

enum { GR_CUDNN_OPERATIONS = 40, GR_CUDNN_DESCRIPTORS = 256, GR_CUDNN_BOUND = 40 };

struct gr_cudnn_graph {
    const struct gr_cudnn *cudnn;
    void *descriptor[GR_CUDNN_DESCRIPTORS]; /* all there are, to be destroyed */
    int descriptors;
    void *operation[GR_CUDNN_OPERATIONS];
    int operations;
    int64_t next_id;               /* of tensors inside */
    int64_t bound[GR_CUDNN_BOUND]; /* ids of the tensors that are not: what a run binds */
    int64_t bounds;
    int status;
    char message[512];

    void *plan; /* gr_cudnn_graph_plan; it goes with the graph */
    int64_t workspace_bytes, engine;
};

/* A tensor of four dimensions; one without descriptor is none. */
struct gr_cudnn_tensor {
    void *descriptor;
    int64_t dim[4], stride[4];
    int type;
};

void gr_cudnn_graph_init(struct gr_cudnn_graph *g, const struct gr_cudnn *cudnn);
void gr_cudnn_graph_release(struct gr_cudnn_graph *g);

/* A tensor in memory, which the caller will bind to `id`.  offsets: where each of dim[0] parts
 * begins, in elements, or NULL: at its stride. */
struct gr_cudnn_tensor gr_cudnn_given(struct gr_cudnn_graph *g, int64_t id, int type,
                                      const int64_t dim[4], const int64_t stride[4],
                                      const struct gr_cudnn_tensor *offsets);
/* One f32, which the caller binds from the host's memory. */
struct gr_cudnn_tensor gr_cudnn_number(struct gr_cudnn_graph *g, int64_t id);
/* A tensor inside the graph, dense unless strides are given: never in memory. */
struct gr_cudnn_tensor gr_cudnn_inside(struct gr_cudnn_graph *g, int type, const int64_t dim[4],
                                       const int64_t *stride);

/* y <- mode(x, b, t) element by element; b or t may be NULL, or broadcast. */
void gr_cudnn_pointwise(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int mode,
                        const struct gr_cudnn_tensor *x, const struct gr_cudnn_tensor *b,
                        const struct gr_cudnn_tensor *t);
/* y <- the place of each element of x along an axis. */
void gr_cudnn_place(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int computed_in,
                    const struct gr_cudnn_tensor *x, int64_t axis);
/* y <- x summed, or its largest element, over the dimensions in which y has 1. */
void gr_cudnn_reduce(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y, int op,
                     const struct gr_cudnn_tensor *x);
/* c (m, n) <- a (m, k) b (k, n) for each of the first two dimensions; m, n, k: how much of each
 * part there really is, or NULL. */
void gr_cudnn_product(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *c,
                      const struct gr_cudnn_tensor *a, const struct gr_cudnn_tensor *b,
                      const struct gr_cudnn_tensor *m, const struct gr_cudnn_tensor *n,
                      const struct gr_cudnn_tensor *k);
/* y <- x with other dimensions and strides. */
void gr_cudnn_reshape(struct gr_cudnn_graph *g, const struct gr_cudnn_tensor *y,
                      const struct gr_cudnn_tensor *x);

/* cuDNN's first choice that it can build. */
bool gr_cudnn_graph_plan(struct gr_cudnn_graph *g);
/* The plan as text, from which it can be had again: its length, and the text where there is room.
 * 0: cuDNN does not give it. */
int64_t gr_cudnn_graph_text(struct gr_cudnn_graph *g, char *text, int64_t room);

/* A plan of such text, for the same kind of GPU and version of cuDNN.  False: cuDNN does not take
 * it. */
bool gr_cudnn_plan_load(void **plan, int64_t *workspace_bytes, const struct gr_cudnn *cudnn,
                        const char *text, int64_t length);
/* Queues it.  Numbers of the host's memory are read before the call returns; all else is read when
 * it runs. */
int gr_cudnn_plan_run(const struct gr_cudnn *cudnn, void *plan, int64_t count, const int64_t *ids,
                      void *const *memory, void *workspace);

#endif
