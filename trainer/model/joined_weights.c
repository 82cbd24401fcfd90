/* Weights and adapter in one matrix per group.  See joined_weights.h. */
#include "trainer/model/joined_weights.h"

#include "kernels/base/alloc.h"

#include <string.h>

static int64_t groups(const struct gr_joined_weights *j)
{
    return j->layers * GR_GROUP_COUNT;
}

static const struct gr_joined_group *group_of(const struct gr_joined_weights *j, int64_t layer,
                                              enum gr_group group)
{
    return &j->group[layer * GR_GROUP_COUNT + (int)group];
}

/* The module's number among the linears of its group. */
static int place_of(enum gr_module module)
{
    return (int)module - (int)gr_group_shapes[gr_module_group(module)].first;
}

static bool can_be_joined(struct gr_adapter *const *adapter, int adapters)
{
    return adapters == 1 && adapter[0]->config.lora_dropout == 0;
}

static struct gr_joined_shape shape_of(const struct gr_model_config *config,
                                       const struct gr_adapter *adapter, int64_t layer,
                                       enum gr_group group)
{
    const struct gr_group_shape *linears = &gr_group_shapes[group];
    struct gr_joined_shape shape = {.linears = linears->count,
                                    .in = gr_module_in(config, linears->first)};

    for (int i = 0; i < linears->count; i++) {
        enum gr_module module = (enum gr_module)((int)linears->first + i);

        shape.out[i] = gr_module_out(config, module);
        shape.r[i] = gr_adapter_rank(adapter, (int)layer, module);
    }
    return shape;
}

void gr_joined_weights_init(struct gr_joined_weights *j, const struct gr_model_config *config,
                            struct gr_adapter *const *adapter, int adapters)
{
    *j = (struct gr_joined_weights){0};
    if (!can_be_joined(adapter, adapters))
        return;
    j->layers = config->layers;
    j->group = GR_NEW_ARRAY(struct gr_joined_group, gr_mul(j->layers, GR_GROUP_COUNT));
    for (int64_t i = 0; i < groups(j); i++)
        j->group[i].shape =
            shape_of(config, adapter[0], i / GR_GROUP_COUNT, (enum gr_group)(i % GR_GROUP_COUNT));
}

void gr_joined_weights_release(struct gr_joined_weights *j)
{
    gr_free(j->group);
    gr_free(j->pair);
    memset(j, 0, sizeof *j);
}

bool gr_joined_weights_fit(const struct gr_joined_weights *j, struct gr_adapter *const *adapter,
                           int adapters)
{
    if (j->group == NULL || !can_be_joined(adapter, adapters))
        return false;
    for (int64_t layer = 0; layer < j->layers; layer++)
        for (int m = 0; m < GR_MODULE_COUNT; m++) {
            enum gr_module module = (enum gr_module)m;

            if (gr_adapter_rank(adapter[0], (int)layer, module) !=
                group_of(j, layer, gr_module_group(module))->shape.r[place_of(module)])
                return false;
        }
    return true;
}

/* An adapter has columns behind those of the weights. */
static bool is_adapted(const struct gr_joined_shape *shape)
{
    return gr_joined_columns(shape) > shape->in;
}

int64_t gr_joined_weights_bytes(const struct gr_joined_weights *j, enum gr_dtype dtype)
{
    int64_t elements = 0;

    for (int64_t i = 0; i < groups(j); i++) {
        const struct gr_joined_shape *shape = &j->group[i].shape;

        if (!is_adapted(shape))
            continue;
        elements += gr_mul(gr_joined_rows(shape), gr_joined_stride(gr_joined_columns(shape)));
        for (int k = 0; k < shape->linears; k++)
            elements -= shape->out[k] * shape->in;
    }
    return elements * gr_dtype_bytes(dtype);
}

void gr_joined_weights_layout(struct gr_joined_weights *j, enum gr_dtype dtype,
                              struct gr_arena *arena)
{
    for (int64_t i = 0; i < groups(j); i++) {
        const struct gr_joined_shape *shape = &j->group[i].shape;
        int64_t rows = gr_joined_rows(shape), columns = gr_joined_columns(shape);

        if (is_adapted(shape))
            j->group[i].matrix = gr_tensor_columns(
                gr_arena_tensor_2d(arena, dtype, rows, gr_joined_stride(columns)), 0, columns);
    }
}

gr_tensor gr_joined_weights_matrix(const struct gr_joined_weights *j, int64_t layer,
                                   enum gr_group group)
{
    return j->group == NULL ? (gr_tensor){0} : group_of(j, layer, group)->matrix;
}

struct gr_joined_parts gr_joined_weights_parts(const struct gr_joined_weights *j, int64_t layer,
                                               enum gr_module module)
{
    enum gr_group group = gr_module_group(module);
    gr_tensor matrix = gr_joined_weights_matrix(j, layer, group);

    if (matrix.ndim == 0)
        return (struct gr_joined_parts){0};
    return gr_joined_parts(matrix, &group_of(j, layer, group)->shape, place_of(module));
}

void gr_joined_weights_bind(struct gr_joined_weights *j, const struct gr_adapter *adapter)
{
    GR_CHECK(gr_tensor_is_none(adapter->copy), "an adapter of %lld elements has a copy",
             (long long)adapter->elements);
    j->pairs = 2 * adapter->count;
    j->pair = gr_realloc(j->pair, j->pairs, sizeof *j->pair);
    for (int64_t i = 0; i < adapter->count; i++) {
        const struct gr_lora_matrix *m = &adapter->matrix[i];
        struct gr_lora from = gr_adapter_view(adapter, m->layer, m->module, (gr_tensor){0});
        struct gr_joined_parts to = gr_joined_weights_parts(j, m->layer, m->module);

        j->pair[2 * i] = (struct gr_copy_pair){to.a, from.a};
        j->pair[2 * i + 1] = (struct gr_copy_pair){to.b, from.b};
    }
}

void gr_joined_weights_refresh(const struct gr_joined_weights *j, struct gr_device *dev)
{
    gr_copy_pairs(dev, j->pair, j->pairs);
}
