/* safetensors files: a header of names, dtypes, shapes and offsets, then the bytes.
 * Reading checks everything a hostile file can get wrong before anything is used.
 * Format: 8-byte little-endian header length, JSON, data (reference: safetensors/src/tensor.rs). */
#ifndef GR_DATA_SAFETENSORS_H
#define GR_DATA_SAFETENSORS_H

#include "data/file_map.h"
#include "kernels/base/buffer.h"
#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

struct gr_safetensors_entry {
    const char *name;
    const char *dtype_name; /* as written: "F32", "BF16", "I64", ... */
    enum gr_dtype dtype;    /* GR_DTYPE_COUNT: a dtype tensors of ours do not have */
    int ndim;
    int64_t dim[8];
    int64_t offset; /* of the first byte, from the start of the file */
    int64_t bytes;
};

struct gr_safetensors {
    char *path;
    struct gr_file_map map;             /* the whole file */
    bool is_borrowed;                   /* the bytes are the caller's */
    struct gr_safetensors_entry *entry; /* [count] sorted by name */
    int64_t count;
    void *json; /* the header: owns names */
};

/* Maps and checks a file: header, dtypes, shapes, and that the tensors fill the file without hole
 * or overlap.  Errors: ERR_DATA / ERR_NOT_FOUND naming file and tensor. */
gr_status gr_safetensors_open(struct gr_safetensors *file, const char *path);
/* The same for a file that is in memory already and stays there; `place` names it in messages.
 * Errors: ERR_DATA. */
gr_status gr_safetensors_parse(struct gr_safetensors *file, const void *bytes, int64_t count,
                               const char *place);
void gr_safetensors_close(struct gr_safetensors *file);
/* NULL if there is no such tensor. */
const struct gr_safetensors_entry *gr_safetensors_find(const struct gr_safetensors *file,
                                                       const char *name);
const void *gr_safetensors_data(const struct gr_safetensors *file,
                                const struct gr_safetensors_entry *entry);

/* One tensor to write: host memory, contiguous. */
struct gr_safetensors_item {
    const char *name;
    enum gr_dtype dtype;
    int ndim;
    int64_t dim[8];
    const void *data;
};
/* The whole file as bytes: header with metadata {"format":"pt"} plus `metadata` pairs (key, value,
 * key, value, ..., NULL; or NULL), tensors ordered as the reference writer does.  Names are
 * distinct. Replaces what was in `bytes`; takes no other memory. */
void gr_safetensors_write(struct gr_buffer *bytes, const struct gr_safetensors_item *item,
                          int64_t count, const char *const *metadata);

/* The same in parts, for files larger than memory: the header, then the tensors one after the other
 * in the order in which gr_safetensors_next names them (previous NULL: the first; NULL after the
 * last), gr_safetensors_item_bytes of each.  `data` of the items is not looked at. */
void gr_safetensors_write_header(struct gr_buffer *bytes, const struct gr_safetensors_item *item,
                                 int64_t count, const char *const *metadata);
const struct gr_safetensors_item *gr_safetensors_next(const struct gr_safetensors_item *item,
                                                      int64_t count,
                                                      const struct gr_safetensors_item *previous);
int64_t gr_safetensors_item_bytes(const struct gr_safetensors_item *item);

#endif
