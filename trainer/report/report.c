/* Writing the report.  See report.h. */
#include "trainer/report/report.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "trainer/report/page.h"

static gr_status put(struct gr_store *store, const struct gr_run_record *record,
                     const struct gr_samples *samples, const struct gr_report_options *options)
{
    struct gr_buffer html = {0};
    gr_status status;

    gr_report_page(&html, record, samples, store->url, options->program);
    if (options->path != NULL)
        status = gr_store_put_path(options->path, html.data, (int64_t)html.length, false);
    else
        status = store->ops->put(store, "report.html", html.data, (int64_t)html.length);
    gr_buffer_release(&html);
    return status;
}

/* What cannot be told is a sentence in its place. */
static void excuse(struct gr_samples *samples, gr_status status)
{
    gr_warn("the report has no samples: %s", gr_error_message());
    gr_free(samples->why_none);
    samples->why_none = gr_format(
        "Left out: %s.%s", gr_error_message(),
        status == GR_ERR_NOT_FOUND ? " Relative paths count from where the command starts." : "");
    gr_error_clear();
}

gr_status gr_report_of_run(struct gr_store *store, const struct gr_report_options *options)
{
    gr_status status = GR_OK;
    struct gr_run_record record;
    struct gr_samples samples = {0};

    GR_TRY(gr_run_record_read(&record, store));
    if (options->samples.count > 0 && record.has_config) {
        status = gr_samples_of_run(&samples, store, &record, &options->samples);
        if (status != GR_OK)
            excuse(&samples, status);
    }
    GR_TRY(put(store, &record, &samples, options));
out:
    gr_samples_release(&samples);
    gr_run_record_release(&record);
    return status;
}

static gr_status make_samples(struct gr_samples *samples, struct gr_engine *engine,
                              const struct gr_inputs *inputs,
                              const struct gr_samples_options *options)
{
    gr_status status = GR_OK;
    struct gr_adapter *adapter = engine->adapters[0];
    float *values = GR_NEW_ARRAY(float, adapter->elements);

    GR_TRY(gr_engine_get_adapter(engine, values, 0));
    gr_engine_retire(engine);
    GR_TRY(gr_samples_make(samples, engine, inputs, adapter, values, options));
out:
    gr_free(values);
    return status;
}

void gr_report_after_training(struct gr_store *store, struct gr_engine *engine,
                              const struct gr_inputs *inputs,
                              const struct gr_report_options *options)
{
    gr_status status = GR_OK;
    struct gr_run_record record;
    struct gr_samples samples = {0};

    GR_TRY(gr_run_record_read(&record, store));
    GR_TRY(put(store, &record, NULL, options));
    if (options->samples.count == 0)
        goto out;
    samples.step = gr_run_record_step(&record);
    status = make_samples(&samples, engine, inputs, &options->samples);
    if (status != GR_OK)
        excuse(&samples, status);
    GR_TRY(put(store, &record, &samples, options));
out:
    if (status == GR_OK) {
        gr_note("report: %s/report.html", store->url);
    } else {
        gr_warn("report.html is not written: %s", gr_error_message());
        gr_error_clear();
    }
    gr_samples_release(&samples);
    gr_run_record_release(&record);
}
