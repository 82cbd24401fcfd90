/* The event stream: what the sinks write, and that neither a slow nor a failing one reaches the
 * loop.  The bar is drawn on a real pseudo-terminal. */
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "tests/test.h"
#include "trainer/events/events.h"

#include <pthread.h>
#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

/* A sink that counts, and on demand waits or fails. */
struct probe {
    struct gr_sink sink;
    pthread_mutex_t gate; /* held by the test: the sink waits */
    int64_t fail_at;      /* its write number this fails; 0: never */
    int64_t writes, flushes, destroyed;
    int64_t steps, evals, last_step;
};

static gr_status probe_write(struct gr_sink *sink, const struct gr_event *event)
{
    struct probe *probe = (struct probe *)sink;

    pthread_mutex_lock(&probe->gate);
    pthread_mutex_unlock(&probe->gate);
    if (++probe->writes == probe->fail_at)
        return gr_fail(GR_ERR_RETRY, "probe", NULL, "broken on purpose");
    probe->steps += event->kind == GR_EVENT_STEP;
    probe->evals += event->kind == GR_EVENT_EVAL;
    probe->last_step = event->step;
    return GR_OK;
}

static gr_status probe_flush(struct gr_sink *sink)
{
    ((struct probe *)sink)->flushes++;
    return GR_OK;
}

static void probe_destroy(struct gr_sink *sink)
{
    ((struct probe *)sink)->destroyed++;
}

static const struct gr_sink_ops probe_ops = {
    .name = "probe", .write = probe_write, .flush = probe_flush, .destroy = probe_destroy};
#define PROBE                                                                                      \
    {                                                                                              \
        .sink = {&probe_ops}, .gate = PTHREAD_MUTEX_INITIALIZER                                    \
    }

static struct gr_event event_of(enum gr_event_kind kind, int64_t step)
{
    struct gr_event event = {.kind = kind, .step = step, .total_steps = 125, .term = 1};

    event.epoch = (double)step / 125;
    if (kind == GR_EVENT_STEP) {
        gr_event_set(&event, GR_METRIC_train_loss, 2.1034);
        gr_event_set(&event, GR_METRIC_learning_rate, 0.00018);
        gr_event_set(&event, GR_METRIC_grad_norm, 0.53);
        gr_event_set(&event, GR_METRIC_tokens_per_s, 1523.4);
    }
    if (kind == GR_EVENT_EVAL)
        gr_event_set(&event, GR_METRIC_eval_loss, 1.9);
    return event;
}

static void emit(struct gr_events *events, enum gr_event_kind kind, int64_t step)
{
    struct gr_event event = event_of(kind, step);

    gr_events_emit(events, &event);
}

/* stderr into a file from here on (each case is a process of its own). */
static void capture_stderr(char path[32])
{
    int file;

    strcpy(path, "/tmp/graft-test-XXXXXX");
    file = mkstemp(path);
    ASSERT(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    close(file);
}

static void read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");
    size_t length;

    ASSERT(file != NULL);
    length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    fclose(file);
}

TEST(events_reach_every_sink_in_order)
{
    struct probe a = PROBE, b = PROBE;
    struct gr_events *events = NULL;

    ASSERT_OK(gr_events_create(&events));
    gr_events_add_sink(events, &a.sink);
    gr_events_add_sink(events, &b.sink);
    for (int64_t step = 1; step <= 100; step++)
        emit(events, GR_EVENT_STEP, step);
    gr_events_flush(events);
    ASSERT_INT(a.steps, 100);
    ASSERT_INT(b.steps, 100);
    ASSERT_INT(b.last_step, 100);
    ASSERT_INT(a.flushes, 1);
    ASSERT_INT(gr_events_dropped(events), 0);
    gr_events_destroy(events);
    ASSERT_INT(a.destroyed, 1);
    ASSERT_INT(b.destroyed, 1);
    gr_events_destroy(NULL);
}

TEST(events_slow_sink_loses_oldest_steps_not_evals)
{
    struct probe probe = PROBE;
    struct gr_events *events = NULL;
    char path[32];
    int64_t begin_ns;

    capture_stderr(path);
    ASSERT_OK(gr_events_create(&events));
    gr_events_add_sink(events, &probe.sink);
    pthread_mutex_lock(&probe.gate);
    begin_ns = gr_clock_ns();
    for (int64_t step = 1; step <= 1000; step++) {
        emit(events, GR_EVENT_STEP, step);
        if (step % 10 == 0)
            emit(events, GR_EVENT_EVAL, step);
    }
    ASSERT(gr_clock_ns() - begin_ns < 1000000000); /* emit never waited for the sink */
    pthread_mutex_unlock(&probe.gate);
    gr_events_flush(events);
    ASSERT_INT(probe.evals, 100);
    ASSERT_INT(probe.last_step, 1000);
    /* 256 waited, and at most one was in the sink's hands */
    ASSERT(probe.writes == 256 || probe.writes == 257);
    ASSERT_INT(gr_events_dropped(events), 1100 - probe.writes);
    gr_events_destroy(events);
    unlink(path);
}

TEST(events_failing_sink_is_dropped_with_one_warning)
{
    struct probe failing = PROBE, good = PROBE;
    struct gr_events *events = NULL;
    char path[32], text[1024];

    capture_stderr(path);
    failing.fail_at = 3;
    ASSERT_OK(gr_events_create(&events));
    gr_events_add_sink(events, &failing.sink);
    gr_events_add_sink(events, &good.sink);
    for (int64_t step = 1; step <= 10; step++)
        emit(events, GR_EVENT_STEP, step);
    gr_events_flush(events);
    ASSERT_INT(failing.writes, 3);
    ASSERT_INT(failing.destroyed, 1);
    ASSERT_INT(good.steps, 10);
    gr_events_destroy(events);
    ASSERT_INT(failing.destroyed, 1);
    read_text(path, text, sizeof text);
    ASSERT_TEXT(text, "graft: warning: probe gets no more metrics: probe: broken on purpose\n");
    unlink(path);
}

/* Cuts the value of "time", the only one a test cannot know. */
static void cut_times(char *text)
{
    static const char key[] = "\"time\":";

    for (char *at = strstr(text, key); at != NULL; at = strstr(at + 1, key)) {
        char *value = at + strlen(key), *end = value;
        double time = strtod(value, &end);

        ASSERT(time > 1.7e9);
        memmove(value, end, strlen(end) + 1);
    }
}

TEST(events_jsonl_lines_are_those_of_the_contract)
{
    struct gr_events *events = NULL;
    struct gr_sink *sink = NULL;
    struct gr_event odd = event_of(GR_EVENT_EVAL, 20);
    char path[] = "/tmp/graft-test-XXXXXX", text[4096];
    int file = mkstemp(path);

    ASSERT(file >= 0);
    close(file);
    ASSERT_OK(gr_events_create(&events));
    ASSERT_OK(gr_sink_jsonl_create(&sink, path));
    gr_events_add_sink(events, sink);
    emit(events, GR_EVENT_BEGIN, 0);
    emit(events, GR_EVENT_STEP, 10);
    odd.trial = 3;
    gr_event_set(&odd, GR_METRIC_eval_loss, NAN);
    gr_event_set(&odd, GR_METRIC_train_loss, 1.0 / 3.0);
    gr_event_set(&odd, GR_METRIC_grad_norm, INFINITY);
    gr_event_set(&odd, GR_METRIC_learning_rate, 2e-300);
    gr_events_emit(events, &odd);
    gr_events_flush(events);
    read_text(path, text, sizeof text);
    cut_times(text);
    ASSERT_TEXT(text, "{\"event\":\"begin\",\"step\":0,\"total_steps\":125,\"term\":1,\"epoch\":0,"
                      "\"time\":}\n"
                      "{\"event\":\"step\",\"step\":10,\"total_steps\":125,\"term\":1,"
                      "\"epoch\":0.08,\"time\":,\"train_loss\":2.1034,"
                      "\"learning_rate\":0.00018,\"grad_norm\":0.53,\"tokens_per_s\":1523.4}\n"
                      "{\"event\":\"eval\",\"step\":20,\"total_steps\":125,\"term\":1,\"trial\":3,"
                      "\"epoch\":0.16,\"time\":,\"train_loss\":0.3333333333333333,"
                      "\"eval_loss\":null,\"learning_rate\":2e-300,\"grad_norm\":null}\n");
    gr_events_destroy(events);
    unlink(path);
}

TEST(events_jsonl_appends_to_what_is_there)
{
    struct gr_event event = event_of(GR_EVENT_END, 125);
    char path[] = "/tmp/graft-test-XXXXXX", text[4096];
    int file = mkstemp(path);

    ASSERT(file >= 0 && write(file, "{}\n", 3) == 3);
    close(file);
    for (int round = 0; round < 2; round++) {
        struct gr_sink *sink = NULL;

        ASSERT_OK(gr_sink_jsonl_create(&sink, path));
        ASSERT_OK(sink->ops->write(sink, &event));
        sink->ops->destroy(sink);
    }
    read_text(path, text, sizeof text);
    ASSERT_TEXT(text, "{}\n"
                      "{\"event\":\"end\",\"step\":125,\"total_steps\":125,\"term\":1,\"epoch\":1,"
                      "\"time\":0}\n"
                      "{\"event\":\"end\",\"step\":125,\"total_steps\":125,\"term\":1,\"epoch\":1,"
                      "\"time\":0}\n");
    unlink(path);
}

TEST(events_jsonl_resumed_keeps_the_lines_that_stand)
{
    static const char lines[] = "{\"event\":\"begin\",\"step\":0,\"total_steps\":9,\"term\":1}\n"
                                "{\"event\":\"step\",\"step\":1,\"total_steps\":9,\"term\":1}\n"
                                "{\"event\":\"step\",\"step\":2,\"total_steps\":9,\"term\":3}\n"
                                "damaged\n"
                                "{\"event\":\"step\",\"step\":2,\"total_steps\":9,\"term\":1}\n"
                                "{\"event\":\"step\",\"step\":3,\"total_steps\":9,\"term\":3}\n"
                                "{\"event\":\"eval\",\"step\":2,\"total_steps\":9,\"term\":3}\n"
                                "{\"event\":\"step\",\"step\":1,\"total_ste";
    struct gr_buffer kept = {0};

    gr_jsonl_keep(&kept, lines, 2);
    ASSERT_TEXT(kept.data, "{\"event\":\"begin\",\"step\":0,\"total_steps\":9,\"term\":1}\n"
                           "{\"event\":\"step\",\"step\":1,\"total_steps\":9,\"term\":1}\n"
                           "{\"event\":\"step\",\"step\":2,\"total_steps\":9,\"term\":3}\n"
                           "{\"event\":\"eval\",\"step\":2,\"total_steps\":9,\"term\":3}\n");
    gr_buffer_clear(&kept);
    gr_jsonl_keep(&kept, NULL, 2);
    ASSERT_INT(kept.length, 0);
    gr_buffer_release(&kept);
}

TEST(events_jsonl_without_directory_is_refused)
{
    struct gr_sink *sink = NULL;

    ASSERT_INT(gr_sink_jsonl_create(&sink, "/proc/nowhere/metrics.jsonl"), GR_ERR_USAGE);
    ASSERT(sink == NULL);
    ASSERT_TEXT(gr_error_message(),
                "/proc/nowhere/metrics.jsonl: cannot be opened for appending (No "
                "such file or directory)");
}

TEST(events_jsonl_on_full_disk_fails_with_the_path)
{
    struct gr_event event = event_of(GR_EVENT_STEP, 1);
    struct gr_sink *sink = NULL;

    ASSERT_OK(gr_sink_jsonl_create(&sink, "/dev/full"));
    ASSERT_INT(sink->ops->write(sink, &event), GR_ERR_RETRY);
    ASSERT_TEXT(gr_error_message(), "/dev/full: cannot be written (No space left on device)");
    sink->ops->destroy(sink);
}

static void write_at(struct gr_sink *sink, enum gr_event_kind kind, int64_t step, double unix_s)
{
    struct gr_event event = event_of(kind, step);

    event.unix_s = unix_s;
    ASSERT_OK(sink->ops->write(sink, &event));
}

TEST(events_plain_lines_are_printed_without_terminal)
{
    struct gr_sink *sink;
    char path[32], text[1024];

    capture_stderr(path);
    sink = gr_sink_terminal_create(-1);
    write_at(sink, GR_EVENT_BEGIN, 20, 1000);
    write_at(sink, GR_EVENT_STEP, 30, 1010);
    write_at(sink, GR_EVENT_EVAL, 30, 1011);
    write_at(sink, GR_EVENT_END, 30, 1011);
    sink->ops->destroy(sink);
    read_text(path, text, sizeof text);
    ASSERT_TEXT(text, "step 30/125  loss 2.1034  lr 0.00018  grad_norm 0.53  1523 tokens/s  "
                      "eta 1:35\n"
                      "step 30/125  eval_loss 1.9000\n");
    unlink(path);
}

TEST(events_dumb_terminal_gets_plain_lines)
{
    struct gr_sink *sink;
    struct gr_event event = event_of(GR_EVENT_EVAL, 7);
    char path[32], text[1024];

    capture_stderr(path);
    setenv("TERM", "dumb", 1);
    sink = gr_sink_terminal_create(STDERR_FILENO);
    ASSERT_OK(sink->ops->write(sink, &event));
    sink->ops->destroy(sink);
    read_text(path, text, sizeof text);
    ASSERT_TEXT(text, "step 7/125  eval_loss 1.9000\n");
    unlink(path);
}

/* A pseudo-terminal of `columns` as stderr; returns its other end. */
static int open_terminal(int columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    int ours = -1, its = -1;

    ASSERT(openpty(&ours, &its, NULL, NULL, &size) == 0);
    ASSERT(dup2(its, STDERR_FILENO) == STDERR_FILENO);
    close(its);
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    setenv("LC_ALL", "C", 1);
    return ours;
}

/* What was printed since the last time.  A pseudo-terminal delivers late: read up to a mark. */
static void read_terminal(int ours, char *text, size_t size)
{
    size_t length = 0;

    ASSERT(write(STDERR_FILENO, "@", 1) == 1);
    do {
        ssize_t count = read(ours, text + length, size - 1 - length);

        ASSERT(count > 0);
        length += (size_t)count;
    } while (text[length - 1] != '@');
    text[length - 1] = '\0';
}

#define CLEAR "\x1b[K"

TEST(events_bar_is_redrawn_in_place_and_fits_the_width)
{
    static const struct {
        int columns;
        const char *line;
    } cases[] = {
        {121, "\r================>-----------------------   50/125  loss 2.1034  lr 1.80e-04  1523 "
              "tok/s  eta 1:15" CLEAR},
        {80,
         "\r========>-------------   50/125  loss 2.1034  lr 1.80e-04  1523 tok/s  eta 1:15" CLEAR},
        {70, "\r====>-------   50/125  loss 2.1034  lr 1.80e-04  1523 tok/s  eta 1:15" CLEAR},
        {60, "\r======>--------   50/125  loss 2.1034  1523 tok/s  eta 1:15" CLEAR},
        {50, "\r======>----------   50/125  loss 2.1034  eta 1:15" CLEAR},
        {36, "\r======>---------   50/125  eta 1:15" CLEAR},
        {12, "\r   50/125" CLEAR},
    };

    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        int terminal = open_terminal(cases[i].columns);
        struct gr_sink *sink = gr_sink_terminal_create(STDERR_FILENO);
        char text[512];

        write_at(sink, GR_EVENT_BEGIN, 0, 1000.0);
        read_terminal(terminal, text, sizeof text);
        write_at(sink, GR_EVENT_STEP, 50, 1050.0);
        read_terminal(terminal, text, sizeof text);
        ASSERT_TEXT(text, cases[i].line);
        ASSERT(strlen(text) - strlen("\r" CLEAR) < (size_t)cases[i].columns);
        sink->ops->destroy(sink);
        close(terminal);
    }
}

/* Only the digits change: nothing moves when a value gets shorter. */
TEST(events_bar_stands_still_while_values_change)
{
    int terminal = open_terminal(120);
    struct gr_sink *sink = gr_sink_terminal_create(STDERR_FILENO);
    struct gr_event event = event_of(GR_EVENT_STEP, 9);
    static const char *const labels[] = {"/125", "loss", "lr", "tok/s", "eta"};
    char first[512], second[512], *before;

    write_at(sink, GR_EVENT_BEGIN, 0, 1000.0);
    event.unix_s = 2000.0;
    gr_event_set(&event, GR_METRIC_tokens_per_s, 12345);
    gr_event_set(&event, GR_METRIC_train_loss, 10.5);
    ASSERT_OK(sink->ops->write(sink, &event));
    read_terminal(terminal, first, sizeof first);
    write_at(sink, GR_EVENT_STEP, 120, 3000.0);
    read_terminal(terminal, second, sizeof second);
    before = strrchr(first, '\r');
    for (int64_t l = 0; l < GR_COUNT(labels); l++) {
        ASSERT(strstr(before, labels[l]) != NULL && strstr(second, labels[l]) != NULL);
        ASSERT_INT(strstr(second, labels[l]) - second, strstr(before, labels[l]) - before);
    }
    sink->ops->destroy(sink);
    close(terminal);
}

TEST(events_bar_gives_way_to_messages_and_evals)
{
    int terminal = open_terminal(40);
    struct gr_sink *sink = gr_sink_terminal_create(STDERR_FILENO);
    char text[512];

    write_at(sink, GR_EVENT_BEGIN, 0, 1000.0);
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "\r>-----------------------------    0/125" CLEAR);
    gr_note("hello");
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "\r" CLEAR "graft: hello\r\n\r>-----------------------------    0/125" CLEAR);
    write_at(sink, GR_EVENT_EVAL, 0, 1001.0);
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "\r" CLEAR "step 0/125  eval_loss 1.9000\r\n"
                      "\r>-----------------------------    0/125" CLEAR);
    sink->ops->destroy(sink);
    gr_note("after");
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "\r\ngraft: after\r\n");
}

TEST(events_bar_stays_when_the_run_ends)
{
    int terminal = open_terminal(60);
    struct gr_sink *sink = gr_sink_terminal_create(STDERR_FILENO);
    char text[512];

    write_at(sink, GR_EVENT_BEGIN, 100, 1000.0);
    write_at(sink, GR_EVENT_STEP, 125, 3000.0);
    read_terminal(terminal, text, sizeof text);
    write_at(sink, GR_EVENT_END, 125, 4723.0);
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "\r=============  125/125  loss 2.1034  1523 tok/s  in 1:02:03" CLEAR "\r\n");
    sink->ops->destroy(sink);
    read_terminal(terminal, text, sizeof text);
    ASSERT_TEXT(text, "");
}
