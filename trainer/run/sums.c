/* See sums.h. */
#include "trainer/run/sums.h"

#include "trainer/run/tree_plan.h"

struct gr_sums gr_sums_tree(const struct gr_sums *leaf, int64_t stride, int64_t low, int64_t high)
{
    int64_t middle = gr_tree_mid(low, high);

    if (high - low == 1)
        return leaf[low * stride];
    return gr_sums_add(gr_sums_tree(leaf, stride, low, middle),
                       gr_sums_tree(leaf, stride, middle, high));
}
