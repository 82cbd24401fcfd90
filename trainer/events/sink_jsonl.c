/* metrics.jsonl: one JSON object per event and line.  Each line is one write(2) from a fixed
 * buffer, so a reader never sees half of one and a killed run keeps all lines before; flush adds
 * fsync. */
#include "kernels/base/alloc.h"
#include "kernels/base/files.h"
#include "trainer/events/events.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char hint[] = "look at the free space and the rights of the output directory";

struct jsonl {
    struct gr_sink sink;
    int file;
    char *path;
    char line[2048]; /* twice what all members of an event need */
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct jsonl *jsonl, const char *format, ...)
{
    size_t room = sizeof jsonl->line - jsonl->length;
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(jsonl->line + jsonl->length, room, format, args);
    va_end(args);
    GR_CHECK(length >= 0 && (size_t)length < room, "%s", jsonl->line);
    jsonl->length += (size_t)length;
}

/* The shortest decimal that reads back as the same double; JSON has no words for the others. */
static void add_number(struct jsonl *jsonl, const char *name, double value)
{
    char text[32];

    if (!isfinite(value)) {
        add(jsonl, ",\"%s\":null", name);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    add(jsonl, ",\"%s\":%s", name, text);
}

static gr_status write_line(struct jsonl *jsonl)
{
    int error = gr_write_all(jsonl->file, jsonl->line, (int64_t)jsonl->length);

    return error == 0 ? GR_OK
                      : gr_fail(GR_ERR_RETRY, jsonl->path, hint, "cannot be written (%s)",
                                strerror(error));
}

static gr_status jsonl_write(struct gr_sink *sink, const struct gr_event *event)
{
    static const char *const kinds[] = {[GR_EVENT_BEGIN] = "begin",
                                        [GR_EVENT_STEP] = "step",
                                        [GR_EVENT_EVAL] = "eval",
                                        [GR_EVENT_END] = "end"};
    struct jsonl *jsonl = (struct jsonl *)sink;

    jsonl->length = 0;
    add(jsonl, "{\"event\":\"%s\",\"step\":%" PRId64 ",\"total_steps\":%" PRId64,
        kinds[event->kind], event->step, event->total_steps);
    add(jsonl, ",\"term\":%" PRId64, event->term);
    if (event->trial != 0)
        add(jsonl, ",\"trial\":%d", event->trial);
    add_number(jsonl, "epoch", event->epoch);
    add_number(jsonl, "time", event->unix_s);
    for (int metric = 0; metric < GR_METRIC_COUNT; metric++) {
        if (event->has[metric])
            add_number(jsonl, gr_metric_table[metric].name, event->value[metric]);
    }
    add(jsonl, "}\n");
    return write_line(jsonl);
}

static gr_status jsonl_flush(struct gr_sink *sink)
{
    struct jsonl *jsonl = (struct jsonl *)sink;

    /* EINVAL: a pipe or a device, which has nothing to keep */
    if (fsync(jsonl->file) != 0 && errno != EINVAL)
        return gr_fail(GR_ERR_RETRY, jsonl->path, hint, "cannot be flushed (%s)", strerror(errno));
    return GR_OK;
}

static void jsonl_destroy(struct gr_sink *sink)
{
    struct jsonl *jsonl = (struct jsonl *)sink;

    close(jsonl->file);
    gr_free(jsonl->path);
    gr_free(jsonl);
}

gr_status gr_sink_jsonl_create(struct gr_sink **sink, const char *path)
{
    static const struct gr_sink_ops ops = {.name = "metrics.jsonl",
                                           .write = jsonl_write,
                                           .flush = jsonl_flush,
                                           .destroy = jsonl_destroy};
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    struct jsonl *jsonl;

    *sink = NULL;
    if (file < 0)
        return gr_fail(GR_ERR_USAGE, path, hint, "cannot be opened for appending (%s)",
                       strerror(errno));
    jsonl = GR_NEW(struct jsonl);
    jsonl->sink.ops = &ops;
    jsonl->file = file;
    jsonl->path = gr_strdup(path);
    *sink = &jsonl->sink;
    return GR_OK;
}

/* The number behind `key`, which is "\"name\":"; -1: the line has none. */
static int64_t number_of(const char *line, const char *end, const char *key)
{
    const char *at = memmem(line, (size_t)(end - line), key, strlen(key));

    return at == NULL ? -1 : strtoll(at + strlen(key), NULL, 10);
}

void gr_jsonl_keep(struct gr_buffer *kept, const char *lines, int64_t step)
{
    const char *line = lines, *end = NULL;
    int64_t newest_term = -1;

    while (line != NULL && (end = strchr(line, '\n')) != NULL) {
        int64_t term = number_of(line, end, "\"term\":");
        int64_t line_step = number_of(line, end, "\"step\":");

        if (line_step >= 0 && line_step <= step && term >= newest_term)
            gr_buffer_add(kept, line, (size_t)(end + 1 - line));
        newest_term = term > newest_term ? term : newest_term;
        line = end + 1;
    }
}
