/* The report's parts: escaping, charts of any number of points, and a run directory that is damaged
 * or hostile.  Whole runs: test_report.sh. */
#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "trainer/report/html.h"
#include "trainer/report/page.h"
#include "trainer/report/report.h"

#include <stdlib.h>

static int64_t occurrences(const char *text, const char *what)
{
    int64_t count = 0;

    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
        count++;
    return count;
}

/* ---- text ----------------------------------------------------------------------------------- */

TEST(html_markup_and_control_characters_are_escaped)
{
    static const char text[] = "<script a='1' b=\"2\">&amp;\n\t\x1b[0m\x7f \xc2\x9b\xef\xbf\xbe"
                               "\xff\xc3(\xe2\x82\xac\xf0\x9f\x98\x80";
    struct gr_buffer html = {0};

    gr_html_add(&html, text, strlen(text));
    ASSERT_TEXT(html.data, "&lt;script a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;amp;\n\t&#x241b;[0m"
                           "&#x2421; &#xfffd;&#xfffd;\xef\xbf\xbd\xef\xbf\xbd(\xe2\x82\xac"
                           "\xf0\x9f\x98\x80");
    gr_buffer_clear(&html);
    gr_html_add(&html, "a\0b", 3);
    ASSERT_TEXT(html.data, "a&#x2400;b");
    gr_html_add_text(&html, NULL);
    ASSERT_INT(html.length, 10);
    gr_buffer_release(&html);
}

TEST(html_counts_have_separators)
{
    char text[32];

    ASSERT_TEXT(gr_html_count(text, 0), "0");
    ASSERT_TEXT(gr_html_count(text, 999), "999");
    ASSERT_TEXT(gr_html_count(text, 1000), "1,000");
    ASSERT_TEXT(gr_html_count(text, 12345678), "12,345,678");
    ASSERT_TEXT(gr_html_count(text, -123456), "-123,456");
}

/* ---- charts --------------------------------------------------------------------------------- */

TEST(points_that_go_back_replace_what_stands_there)
{
    struct gr_points p = {0};

    for (int step = 1; step <= 10; step++)
        gr_points_add(&p, step, step);
    gr_points_add(&p, 4, 40);
    gr_points_add(&p, 5, 50);
    ASSERT_INT(p.count, 5);
    ASSERT_NEAR(p.item[2].value, 3, 0);
    ASSERT_NEAR(p.item[3].value, 40, 0);
    ASSERT_NEAR(p.item[4].step, 5, 0);
    gr_points_release(&p);
}

/* value(i) at steps 1..count, drawn. */
static struct gr_buffer draw(int64_t count, double (*value)(int64_t i), bool may_be_log)
{
    struct gr_points p = {0};
    struct gr_buffer html = {0};
    struct gr_chart chart = {
        .title = "Loss", .unit = "", .may_be_log = may_be_log, .line = {{&p, "training"}}};

    for (int64_t i = 1; i <= count; i++)
        gr_points_add(&p, (double)i, value(i));
    gr_chart_add(&html, &chart);
    gr_points_release(&p);
    return html;
}

static double falling(int64_t i)
{
    return 1 + 9 / (double)i;
}
static double constant(int64_t i)
{
    (void)i;
    return 2;
}
static double zero(int64_t i)
{
    (void)i;
    return 0;
}
static double huge(int64_t i)
{
    return i % 2 == 0 ? 1e30 : -1e30;
}
static double tiny(int64_t i)
{
    return 1e-30 * (double)i;
}

/* y of the i-th point of the first polyline. */
static double y_of(const char *html, int64_t i)
{
    const char *at = strstr(html, "points=\"");

    ASSERT(at != NULL);
    for (at += strlen("points=\""); i > 0; i--)
        at = strchr(at, ' ') + 1;
    return strtod(strchr(at, ',') + 1, NULL);
}

TEST(chart_without_points_is_nothing)
{
    struct gr_buffer html = draw(0, constant, false);

    ASSERT_INT(html.length, 0);
}

TEST(chart_of_few_points_has_each_of_them)
{
    struct gr_buffer html = draw(3, falling, false);

    ASSERT_INT(occurrences(html.data, "<circle"), 3);
    ASSERT_INT(occurrences(html.data, "<polygon"), 0);
    ASSERT(strstr(html.data, "<title>step 2: 5.5</title>") != NULL);
    ASSERT(y_of(html.data, 0) < y_of(html.data, 1)); /* up is less */
    ASSERT(y_of(html.data, 1) < y_of(html.data, 2));
    ASSERT_NEAR(y_of(html.data, 1) - y_of(html.data, 0),
                3 * (y_of(html.data, 2) - y_of(html.data, 1)), 0.5); /* 4.5 and 1.5 */
    gr_buffer_release(&html);
}

TEST(chart_of_a_million_points_is_small_and_has_a_band)
{
    struct gr_buffer html = draw(1000000, falling, false);

    ASSERT(html.length < 30000);
    ASSERT_INT(occurrences(html.data, "<polygon"), 1);
    ASSERT_INT(occurrences(html.data, "<circle"), 0);
    ASSERT(strstr(html.data, ">1,000,000</text>") != NULL);
    gr_buffer_release(&html);
}

TEST(chart_is_logarithmic_only_where_values_span_much)
{
    struct gr_buffer narrow = draw(3, falling, true), wide = draw(100, falling, true);

    ASSERT(strstr(narrow.data, "(logarithmic)") == NULL);
    ASSERT(strstr(wide.data, "(logarithmic)") != NULL);
    for (const char *const *tick = (const char *const[]){"2", "5", "10", NULL}; *tick != NULL;
         tick++) {
        char label[16];

        snprintf(label, sizeof label, "\">%s</text>", *tick);
        ASSERT_MSG(strstr(wide.data, label) != NULL, "no tick %s", *tick);
    }
    gr_buffer_release(&narrow);
    gr_buffer_release(&wide);
}

TEST(chart_of_any_values_has_only_numbers)
{
    double (*const values[])(int64_t i) = {constant, zero, huge, tiny, falling};

    for (int64_t v = 0; v < GR_COUNT(values); v++) {
        for (int64_t count = 1; count <= 2000; count = count * 7 + 1) {
            for (int is_log = 0; is_log < 2; is_log++) {
                struct gr_buffer html = draw(count, values[v], is_log == 1);

                ASSERT(html.length > 0 && html.length < 60000);
                ASSERT_INT(occurrences(html.data, "nan") + occurrences(html.data, "inf"), 0);
                ASSERT(occurrences(html.data, "class=\"grid\"") < 80);
                gr_buffer_release(&html);
            }
        }
    }
}

/* ---- run directories ------------------------------------------------------------------------ */

static struct gr_store *make_run(void)
{
    struct gr_store *store = NULL;
    static const char run[] = "{\"run_id\": \"one\", \"dtype\": \"f32\", \"total_steps\": 50}\n";

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "run"));
    ASSERT_OK(store->ops->put(store, "run.json", run, (int64_t)strlen(run)));
    return store;
}

static void put(struct gr_store *store, const char *key, const char *text)
{
    ASSERT_OK(store->ops->put(store, key, text, (int64_t)strlen(text)));
}

static char *page_of(struct gr_store *store)
{
    struct gr_report_options options = {.program = "graft <test>"};
    struct gr_buffer html = {0};
    char *text;

    ASSERT_OK(gr_report_of_run(store, &options));
    ASSERT_OK(store->ops->get(store, &html, "report.html", 0, -1));
    text = gr_strndup(html.data, html.length);
    gr_buffer_release(&html);
    return text;
}

TEST(record_damaged_lines_are_counted_and_left_out)
{
    static const char metrics[] =
        "{\"event\":\"begin\",\"step\":0,\"time\":1000.5}\n"
        "{\"event\":\"step\",\"step\":1,\"time\":1001.5,\"train_loss\":3,\"tokens_per_s\":100,"
        "\"step_time_ms\":10}\n"
        "\n"
        "not JSON\n"
        "[1, 2]\n"
        "{\"event\":7,\"step\":2,\"time\":1002}\n"
        "{\"event\":\"step\",\"step\":\"2\",\"time\":1002}\n"
        "{\"event\":\"step\",\"step\":-2,\"time\":1002}\n"
        "{\"event\":\"step\",\"step\":4000000000000000,\"time\":1002}\n"
        "{\"event\":\"step\",\"step\":2,\"time\":1e400}\n"
        "{\"event\":\"step\",\"step\":2,\"time\":1002,\"train_loss\":null,\"grad_norm\":1e200,"
        "\"learning_rate\":\"x\"}\n"
        "{\"event\":\"step\",\"step\":3,\"time\":1003,\"trial\":1,\"train_loss\":9}\n"
        "{\"event\":\"step\",\"step\":3,\"time\":1003,\"train_loss\":2,\"tokens_per_s\":50,"
        "\"step_time_ms\":20}\n"
        "{\"event\":\"eval\",\"step\":3,\"time\":1003.5,\"eval_loss\":2.5}\n"
        "{\"event\":\"step\",\"step\":4,\"time\":10";
    struct gr_store *store = make_run();
    struct gr_run_record r;
    struct gr_point best = {0};

    put(store, "metrics.jsonl", metrics);
    ASSERT_OK(gr_run_record_read(&r, store));
    ASSERT_INT(r.damaged_lines, 9);
    ASSERT_INT(r.metric[GR_METRIC_train_loss].count, 2);
    ASSERT_NEAR(r.metric[GR_METRIC_train_loss].item[1].value, 2, 0);
    ASSERT_INT(r.metric[GR_METRIC_grad_norm].count, 0);
    ASSERT_INT(r.metric[GR_METRIC_learning_rate].count, 0);
    ASSERT_INT(r.last_step, 3);
    ASSERT_NEAR(r.last_s, 1003.5, 0);
    ASSERT_NEAR(r.tokens, 100 * 0.010 * 1 + 50 * 0.020 * 2, 1e-9); /* step 3 stands for 2, too */
    ASSERT(gr_run_record_best(&best, &r));
    ASSERT_NEAR(best.value, 2.5, 0);
    ASSERT_INT(r.total_steps, 50);
    ASSERT(!r.is_done && !r.has_config);
    gr_run_record_release(&r);
    gr_store_close(store);
}

TEST(record_lines_of_a_fenced_writer_are_left_out)
{
    static const char metrics[] =
        "{\"event\":\"step\",\"step\":1,\"term\":1,\"time\":1001,\"train_loss\":3}\n"
        "{\"event\":\"step\",\"step\":2,\"term\":3,\"time\":1002,\"train_loss\":2}\n"
        "{\"event\":\"step\",\"step\":1,\"term\":1,\"time\":1003,\"train_loss\":9}\n"
        "{\"event\":\"step\",\"step\":3,\"term\":3,\"time\":1004,\"train_loss\":1}\n";
    struct gr_store *store = make_run();
    struct gr_run_record r;
    const struct gr_points *loss = &r.metric[GR_METRIC_train_loss];

    put(store, "metrics.jsonl", metrics);
    ASSERT_OK(gr_run_record_read(&r, store));
    ASSERT_INT(loss->count, 3);
    for (int i = 0; i < 3; i++)
        ASSERT_NEAR(loss->item[i].value, 3 - i, 0);
    ASSERT_INT(r.damaged_lines, 0);
    gr_run_record_release(&r);
    gr_store_close(store);
}

TEST(report_of_a_run_that_has_nothing_but_run_json_is_a_page)
{
    char *page;
    struct gr_store *store = make_run();

    page = page_of(store);
    ASSERT(strstr(page, "not finished") != NULL);
    ASSERT(strstr(page, "No step has been logged.") != NULL);
    ASSERT(strstr(page, "config.yaml is missing") != NULL);
    ASSERT(strstr(page, "graft &lt;test&gt;") != NULL);
    gr_free(page);
    gr_store_close(store);
}

TEST(report_of_hostile_files_has_no_markup_of_theirs)
{
    char *page;
    struct gr_store *store = make_run();

    put(store, "run.json",
        "{\"run_id\": \"<script>1\", \"dtype\": \"<script>2\", \"model_sha256\": \"<script>3\", "
        "\"total_steps\": 5}");
    put(store, "config.yaml",
        "model: '<script>4'\noutput: x\ndata: {train: ['<script>5', \"a\\x1bb\"], eval: "
        "['<script>6']}\nlora: {target_modules: ['<script>7']}\ntrain: {init_from: '<script>8'}\n");
    put(store, "metrics.jsonl", "{\"event\":\"<script>\",\"step\":1,\"time\":1}\n<script>\n");
    page = page_of(store);
    ASSERT_INT(occurrences(page, "<script"), 0);
    for (int i = 1; i <= 8; i++) {
        char escaped[32];

        snprintf(escaped, sizeof escaped, "&lt;script&gt;%d", i);
        ASSERT_MSG(strstr(page, escaped) != NULL, "%s is not on the page", escaped);
    }
    gr_free(page);
    gr_store_close(store);
}

TEST(report_of_a_damaged_run_json_is_refused)
{
    struct gr_store *store = make_run();
    struct gr_report_options options = {.program = "test"};

    put(store, "run.json", "{\"total_steps\": ");
    ASSERT_INT(gr_report_of_run(store, &options), GR_ERR_DATA);
    gr_error_clear();
    ASSERT_OK(store->ops->remove(store, "run.json"));
    ASSERT_INT(gr_report_of_run(store, &options), GR_ERR_NOT_FOUND);
    gr_store_close(store);
}

/* ---- samples -------------------------------------------------------------------------------- */

TEST(page_samples_are_escaped_and_cut_ones_marked)
{
    struct gr_run_record record = {.total_steps = 3};
    struct gr_sample sample = {.text = {"<|user|>", "<b>", "&before", "'after'"},
                               .goes_on = {[GR_SAMPLE_BEFORE] = true}};
    struct gr_samples samples = {.item = &sample, .count = 1, .step = 1234};
    struct gr_buffer html = {0};

    gr_report_page(&html, &record, &samples, "runs/a<b", "graft");
    ASSERT(strstr(html.data, "<pre>&lt;|user|&gt;</pre>") != NULL);
    ASSERT(strstr(html.data, "<pre>&lt;b&gt;</pre>") != NULL);
    ASSERT(strstr(html.data, "<pre>&amp;before&#8230;</pre>") != NULL);
    ASSERT(strstr(html.data, "<pre>&#39;after&#39;</pre>") != NULL);
    ASSERT(strstr(html.data, "after step 1,234") != NULL);
    ASSERT(strstr(html.data, "<h1>a&lt;b</h1>") != NULL);
    gr_buffer_release(&html);
}
