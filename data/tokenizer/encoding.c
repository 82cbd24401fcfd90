/* The result of an encoding.  See encoding.h. */
#include "data/tokenizer/encoding.h"

#include "kernels/base/alloc.h"

#include <string.h>

void gr_encoding_reserve(struct gr_encoding *e, int64_t count)
{
    int64_t capacity = e->capacity == 0 ? 256 : e->capacity;

    while (capacity < count)
        capacity *= 2;
    if (capacity == e->capacity)
        return;
    e->ids = gr_realloc(e->ids, capacity, sizeof *e->ids);
    e->begin = gr_realloc(e->begin, capacity, sizeof *e->begin);
    e->end = gr_realloc(e->end, capacity, sizeof *e->end);
    e->capacity = capacity;
}

void gr_encoding_add(struct gr_encoding *e, int32_t id, struct gr_origin source)
{
    gr_encoding_reserve(e, e->count + 1);
    gr_encoding_put(e, id, source);
}

void gr_encoding_surround(struct gr_encoding *e, const uint32_t *before, int64_t before_count,
                          const uint32_t *after, int64_t after_count)
{
    size_t moved = (size_t)e->count;

    gr_encoding_reserve(e, before_count + e->count + after_count);
    memmove(e->ids + before_count, e->ids, moved * sizeof *e->ids);
    memmove(e->begin + before_count, e->begin, moved * sizeof *e->begin);
    memmove(e->end + before_count, e->end, moved * sizeof *e->end);
    for (int64_t i = 0; i < before_count; i++) {
        e->ids[i] = before[i];
        e->begin[i] = e->end[i] = 0;
    }
    e->count += before_count;
    for (int64_t i = 0; i < after_count; i++)
        gr_encoding_add(e, (int32_t)after[i], (struct gr_origin){0, 0});
}

void gr_encoding_release(struct gr_encoding *e)
{
    gr_free(e->ids);
    gr_free(e->begin);
    gr_free(e->end);
    memset(e, 0, sizeof *e);
}
