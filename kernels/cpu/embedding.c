/* Rows of the embedding table by token id. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/stored.h"

#include <string.h>

void GR_CPU(embedding_forward)(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids)
{
    const int32_t *id = ids.data;
    size_t bytes = (size_t)(y.dim[1] * gr_dtype_bytes(y.dtype));

    for (int64_t n = 0; n < y.dim[0]; n++)
        if (id[n] < -1 || id[n] >= table.dim[0]) {
            gr_device_fail(dev, GR_ERR_BUG, "embedding_forward",
                           "an id is outside the table (found %d in row %lld, expected -1 to %lld)",
                           id[n], (long long)n, (long long)table.dim[0] - 1);
            return;
        }
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t n = 0; n < y.dim[0]; n++) {
        if (id[n] < 0)
            memset(gr_element(y, n, 0), 0, bytes);
        else if (table.dtype == y.dtype)
            memcpy(gr_element(y, n, 0), gr_element(table, id[n], 0), bytes);
        else
            gr_load_run(table, id[n], 0, y.dim[1], gr_element(y, n, 0));
    }
}
