/* Which attributes a descriptor of the double of cuDNN may have, and which it must. */
#ifndef EMU_CUDNN_RULES_H
#define EMU_CUDNN_RULES_H

#include "kernels/cuda/cudnn_api.h"

namespace cudnn
{

struct rule {
    int descriptor, name, type;
    int64_t count; /* of elements; -1: any */
    bool is_needed;
};

extern const rule rules[];
extern const int rule_count;

size_t element_bytes(int type);

} // namespace cudnn

#endif
