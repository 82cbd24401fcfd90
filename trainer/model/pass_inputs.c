/* Stacking micro-batches: from host batches to what the device reads in one pass.  Declared in
 * transformer.h. */
#include "trainer/model/transformer.h"

#include <string.h>

void gr_pass_begin(struct gr_pass *p)
{
    p->segments = 0;
    p->row_count = 0;
    p->doc_count = 0;
    p->label_count = 0;
}

static void copy_shifted(int32_t *to, const int32_t *from, int64_t count, int64_t shift)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i] < 0 ? from[i] : from[i] + (int32_t)shift;
}

void gr_pass_add(struct gr_pass *p, const struct gr_batch *batch, int adapter, struct gr_rng rng)
{
    struct gr_pass_host *host = &p->host;
    int64_t row = p->row_count, label = p->label_count;

    GR_CHECK(row + batch->rows <= p->rows, "%lld rows, room for %lld",
             (long long)(row + batch->rows), (long long)p->rows);
    p->segment[p->segments] = (struct gr_segment){
        .row_begin = row, .row_end = row + batch->rows, .adapter = adapter, .rng = rng};
    memcpy(host->ids + row, batch->ids, (size_t)batch->rows * sizeof *host->ids);
    memcpy(host->positions + row, batch->positions, (size_t)batch->rows * sizeof *host->positions);
    copy_shifted(host->docs + 2 * p->doc_count, batch->docs, 2 * batch->doc_count, row);
    copy_shifted(host->label_rows + label, batch->label_rows, batch->label_padded, row);
    memcpy(host->targets + label, batch->targets,
           (size_t)batch->label_padded * sizeof *host->targets);
    host->loss_spans[2 * p->segments] = (int32_t)label;
    host->loss_spans[2 * p->segments + 1] = (int32_t)(label + batch->label_padded);
    p->row_count += batch->rows;
    p->doc_count += batch->doc_count;
    p->label_count += batch->label_padded;
    p->segments++;
}

void gr_pass_upload(struct gr_pass *p)
{
    struct gr_device *d = p->model->dev;

    GR_CHECK(p->row_count == p->rows, "%lld of %lld rows filled", (long long)p->row_count,
             (long long)p->rows);
    gr_device_upload(d, p->in.ids, p->host.ids);
    gr_device_upload(d, p->in.positions, p->host.positions);
    gr_device_upload(d, gr_tensor_rows(p->in.docs, 0, p->doc_count), p->host.docs);
    gr_device_upload(d, gr_tensor_rows(p->in.label_rows, 0, p->label_count), p->host.label_rows);
    gr_device_upload(d, gr_tensor_rows(p->in.targets, 0, p->label_count), p->host.targets);
    gr_device_upload(d, gr_tensor_rows(p->in.loss_spans, 0, p->segments), p->host.loss_spans);
}
