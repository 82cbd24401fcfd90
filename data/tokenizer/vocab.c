/* Tokens by text and by id: an open-addressing hash table over one run of bytes.  See vocab.h. */
#include "data/tokenizer/vocab.h"

#include "kernels/base/alloc.h"

#include <stdbool.h>
#include <string.h>

/* FNV-1a, folded so that the low bits depend on all of it. */
static uint32_t hash_of(const char *text, int64_t length)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (int64_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ h >> 32);
}

static bool entry_is(const struct gr_vocab *v, int32_t entry, const char *text, int64_t length)
{
    return v->entry[entry].length == length &&
           memcmp(v->texts.data + v->entry[entry].offset, text, (size_t)length) == 0;
}

/* The slot that holds the text, or the free one where it would go. */
static struct gr_vocab_slot *find_slot(const struct gr_vocab *v, uint32_t hash, const char *text,
                                       int64_t length)
{
    uint64_t mask = (uint64_t)v->slot_count - 1;
    uint64_t i = hash & mask;

    while (v->slot[i].entry != 0 &&
           !(v->slot[i].hash == hash && entry_is(v, v->slot[i].entry - 1, text, length)))
        i = (i + 1) & mask;
    return &v->slot[i];
}

static void fill_slot(struct gr_vocab *v, int64_t entry)
{
    const char *text = v->texts.data + v->entry[entry].offset;
    uint32_t hash = hash_of(text, v->entry[entry].length);

    *find_slot(v, hash, text, v->entry[entry].length) =
        (struct gr_vocab_slot){hash, (int32_t)entry + 1};
}

static void grow_slots(struct gr_vocab *v)
{
    v->slot_count = v->slot_count == 0 ? 1024 : v->slot_count * 2;
    gr_free(v->slot);
    v->slot = GR_NEW_ARRAY(struct gr_vocab_slot, v->slot_count);
    for (int64_t i = 0; i < v->count; i++)
        fill_slot(v, i);
}

static void set_id(struct gr_vocab *v, int32_t id, int32_t entry)
{
    int64_t capacity = v->id_capacity == 0 ? 1024 : v->id_capacity;

    while (capacity <= id)
        capacity *= 2;
    if (capacity != v->id_capacity) {
        v->by_id = gr_realloc(v->by_id, capacity, sizeof *v->by_id);
        memset(v->by_id + v->id_capacity, 0,
               (size_t)(capacity - v->id_capacity) * sizeof *v->by_id);
        v->id_capacity = capacity;
    }
    v->by_id[id] = entry + 1;
    if (v->id_limit <= id)
        v->id_limit = (int64_t)id + 1;
}

void gr_vocab_add(struct gr_vocab *v, const char *text, int64_t length, int32_t id)
{
    if (v->count == v->capacity) {
        v->capacity = v->capacity == 0 ? 1024 : v->capacity * 2;
        v->entry = gr_realloc(v->entry, v->capacity, sizeof *v->entry);
    }
    if (2 * (v->count + 1) > v->slot_count)
        grow_slots(v);
    v->entry[v->count] = (struct gr_vocab_entry){(int64_t)v->texts.length, (int32_t)length, id};
    gr_buffer_add(&v->texts, text, (size_t)length);
    gr_buffer_add(&v->texts, "", 1);
    fill_slot(v, v->count);
    set_id(v, id, (int32_t)v->count);
    v->count++;
}

int32_t gr_vocab_id(const struct gr_vocab *v, const char *text, int64_t length)
{
    int32_t entry;

    if (v->count == 0)
        return -1;
    entry = find_slot(v, hash_of(text, length), text, length)->entry;
    return entry == 0 ? -1 : v->entry[entry - 1].id;
}

int64_t gr_vocab_index(const struct gr_vocab *v, int64_t id)
{
    return id < 0 || id >= v->id_limit ? -1 : v->by_id[id] - 1;
}

const char *gr_vocab_text(const struct gr_vocab *v, int64_t id, int64_t *length)
{
    int64_t index = gr_vocab_index(v, id);

    if (index < 0)
        return NULL;
    *length = v->entry[index].length;
    return v->texts.data + v->entry[index].offset;
}

void gr_vocab_release(struct gr_vocab *v)
{
    gr_buffer_release(&v->texts);
    gr_free(v->entry);
    gr_free(v->slot);
    gr_free(v->by_id);
    memset(v, 0, sizeof *v);
}
