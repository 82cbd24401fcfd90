/* A safetensors file is refused, or every byte of its tensors can be read. */
#include "data/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void look_at(const struct gr_safetensors *file, const uint8_t *data, size_t size)
{
    int64_t at = 0;

    for (int64_t i = 0; i < file->count; i++) {
        const struct gr_safetensors_entry *e = &file->entry[i];
        const uint8_t *bytes = gr_safetensors_data(file, e);

        FUZZ_ASSERT(gr_safetensors_find(file, e->name) == e);
        FUZZ_ASSERT(e->bytes >= 0 && e->offset >= 0 && e->offset + e->bytes <= (int64_t)size);
        FUZZ_ASSERT(e->bytes == 0 || bytes == data + e->offset);
        at += e->bytes;
        for (int d = 0; d < e->ndim; d++)
            FUZZ_ASSERT(e->dim[d] >= 0);
    }
    FUZZ_ASSERT(at <= (int64_t)size);
    FUZZ_ASSERT(gr_safetensors_find(file, "no such tensor \xff") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gr_safetensors file = {0};
    gr_status status = gr_safetensors_parse(&file, data, (int64_t)size, "fuzz.safetensors");

    if (status == GR_OK)
        look_at(&file, data, size);
    gr_safetensors_close(&file);
    fuzz_end(status);
    return 0;
}
