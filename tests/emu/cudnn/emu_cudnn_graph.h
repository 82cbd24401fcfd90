/* What the double of cuDNN knows of a graph: tensors and operations, the rules they keep, a text
 * that holds them, and their meaning. */
#ifndef EMU_CUDNN_GRAPH_H
#define EMU_CUDNN_GRAPH_H

#include "kernels/cuda/cudnn_api.h"

#include <map>
#include <string>
#include <vector>

namespace cudnn
{

struct tensor {
    int64_t id, type, alignment;
    int64_t dim[4], stride[4];
    int64_t is_virtual, is_by_value;
    int64_t offsets; /* id of the tensor that says where each of dim[0] parts begins; -1: none */
};

enum operation_kind { MATMUL, POINTWISE, REDUCTION, RESHAPE };
/* Of operations; the names of a pointwise one, with what the others call theirs. */
enum operand { X /* a */, B, T, Y /* c */, M, N, K, OPERANDS };

struct operation {
    int64_t kind, mode, computed_in, axis;
    int64_t id[OPERANDS]; /* of tensors; -1: none */
};

struct graph {
    std::vector<tensor> tensors; /* each once */
    std::vector<operation> operations;

    const tensor &of(int64_t id) const;
    bool has(int64_t id) const;
};

/* Prints "EMU ERROR [cudnn] ..." and ends the process: the real library refuses it, or, worse, does
 * not notice. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

size_t size_of(int64_t type);
bool is_integer(int64_t type); /* of 32 bits, or a boolean */

/* Adds the tensor; one of the same id must be the same. */
void add_tensor(graph *g, const tensor &t);
/* What cuDNN demands of any graph, and attention of its own. */
void check(const graph &g);
/* A reason why there is no engine for it; NULL: there is. */
const char *unsupported(const graph &g);

std::string text_of(const graph &g, const std::string &device);
/* False: it is no such text, or of another device or version. */
bool parse(graph *g, const std::string &text, const std::string &device);

/* Runs it on host memory: ids to pointers; numbers of the host's memory by id. */
struct binding {
    std::map<int64_t, char *> memory;
    std::map<int64_t, float> numbers;
};
void run(const graph &g, const binding &bound);

} // namespace cudnn

#endif
