/* The rules of GRAFT_FAIL: reading them, counting, acting.  See failpoint.h. */
#include "kernels/base/failpoint.h"

#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/nearest.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ALL_RANKS INT64_MAX
enum { MAX_RULES = 16, MAX_DELAY_MS = 3600 * 1000 };
static const char form[] =
    "GRAFT_FAIL=NAME[@K]:RANK:ACTION[,...]; actions: kill, stop, fail, delay=MS";

enum action { KILL, STOP, FAIL, DELAY, ACTION_COUNT };
static const char *const action_names[] = {
    [KILL] = "kill", [STOP] = "stop", [FAIL] = "fail", [DELAY] = "delay"};

struct rule {
    enum gr_failpoint point;
    enum action action;
    int64_t at; /* acts when reached for this time; 0: every time */
    int64_t delay_ms;
    atomic_llong reached;
};
static struct rule rules[MAX_RULES + 1]; /* those of this rank, and the one being read */
static int rule_count;

const struct gr_failpoint_info gr_failpoint_table[GR_FAILPOINT_COUNT] = {
#define X(point, name, words) [GR_FAILPOINT_##point] = {name, words},
    GR_FAILPOINT_LIST(X)
#undef X
};

/* ---- reading ---------------------------------------------------------------------------- */

static gr_status bad_rule(const char *what, const char *found, const char *expected)
{
    return gr_fail(GR_ERR_USAGE, "GRAFT_FAIL", form, "%s (found \"%s\", expected %s)", what, found,
                   expected);
}

/* A whole number in [least, most]; * is `any`. */
static bool read_number(int64_t *value, const char *text, int64_t least, int64_t most, int64_t any)
{
    char *end = NULL;

    if (strcmp(text, "*") == 0) {
        *value = any;
        return any >= 0;
    }
    errno = 0;
    *value = strtoll(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *value >= least &&
           *value <= most;
}

static gr_status read_name(struct rule *rule, const char *name)
{
    const char *names[GR_FAILPOINT_COUNT];
    const char *nearest = NULL;

    for (int i = 0; i < GR_FAILPOINT_COUNT; i++) {
        names[i] = gr_failpoint_table[i].name;
        if (strcmp(names[i], name) == 0) {
            rule->point = (enum gr_failpoint)i;
            return GR_OK;
        }
    }
    nearest = gr_nearest(name, names, GR_FAILPOINT_COUNT);
    gr_fail(GR_ERR_USAGE, "GRAFT_FAIL", "graft version --failpoints lists them",
            "unknown failpoint %s", name);
    if (nearest != NULL)
        gr_hint("did you mean %s?", nearest);
    return GR_ERR_USAGE;
}

static gr_status read_action(struct rule *rule, const char *text)
{
    size_t length = strcspn(text, "=");
    const char *value = text[length] == '=' ? text + length + 1 : NULL;

    for (int action = 0; action < ACTION_COUNT; action++) {
        const char *name = action_names[action];

        if (strlen(name) != length || memcmp(name, text, length) != 0 ||
            (action == DELAY) != (value != NULL))
            continue;
        rule->action = (enum action)action;
        if (value != NULL && !read_number(&rule->delay_ms, value, 0, MAX_DELAY_MS, -1))
            return bad_rule("bad delay", value, "milliseconds in [0, 3600000]");
        return GR_OK;
    }
    return bad_rule("unknown action", text, "kill, stop, fail or delay=MS");
}

/* NAME[@K]:RANK:ACTION; the text is cut into its parts. */
static gr_status read_rule(struct rule *rule, int64_t *rank, char *text)
{
    gr_status status = GR_OK;
    char *rank_text = strchr(text, ':');
    char *action = rank_text == NULL ? NULL : strchr(rank_text + 1, ':');
    char *count = NULL;

    if (action == NULL)
        return bad_rule("bad rule", text, "NAME[@K]:RANK:ACTION");
    *rank_text++ = '\0';
    *action++ = '\0';
    count = strchr(text, '@');
    if (count != NULL)
        *count++ = '\0';
    GR_TRY(read_name(rule, text));
    if (count != NULL && !read_number(&rule->at, count, 1, INT64_MAX, 0))
        GR_TRY(bad_rule("bad count", count, "a number from 1 or *"));
    if (!read_number(rank, rank_text, 0, INT32_MAX, ALL_RANKS))
        GR_TRY(bad_rule("bad rank", rank_text, "a number from 0 or *"));
    GR_TRY(read_action(rule, action));
out:
    return status;
}

gr_status gr_failpoints_init(const char *specification, int rank)
{
    gr_status status = GR_OK;
    char *copy = specification == NULL ? NULL : gr_strdup(specification);
    char *next = NULL;

    rule_count = 0;
    for (char *text = copy; text != NULL; text = next) {
        struct rule *rule = &rules[rule_count];
        int64_t of_rank = 0;

        next = strchr(text, ',');
        if (next != NULL)
            *next++ = '\0';
        *rule = (struct rule){.at = 1};
        GR_TRY(read_rule(rule, &of_rank, text));
        if (of_rank != rank && of_rank != ALL_RANKS)
            continue;
        if (rule_count == MAX_RULES)
            GR_TRY(gr_fail(GR_ERR_USAGE, "GRAFT_FAIL", form,
                           "too many rules for one rank (expected at most %d)", MAX_RULES));
        rule_count++;
    }
out:
    if (status != GR_OK)
        rule_count = 0;
    gr_free(copy);
    return status;
}

/* ---- acting ----------------------------------------------------------------------------- */

/* Whether the rule says fail. */
static bool act(const struct rule *rule)
{
    switch (rule->action) {
    case KILL:
        raise(SIGKILL);
        break;
    case STOP:
        raise(SIGSTOP);
        break;
    case DELAY:
        gr_sleep_ns(rule->delay_ms * 1000000);
        break;
    case FAIL:
        return true;
    case ACTION_COUNT:
        break;
    }
    return false;
}

/* Every rule of the place is counted and acts, also when an earlier one said fail. */
static bool reach(enum gr_failpoint point)
{
    bool fails = false;

    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];

        if (rule->point != point)
            continue;
        if (atomic_fetch_add(&rule->reached, 1) + 1 == rule->at || rule->at == 0)
            fails = act(rule) || fails;
    }
    return fails;
}

bool gr_failpoint_fails(enum gr_failpoint point)
{
    return rule_count > 0 && reach(point);
}

gr_status gr_failpoint(enum gr_failpoint point)
{
    if (!gr_failpoint_fails(point))
        return GR_OK;
    return gr_fail(GR_ERR_RETRY, NULL, "GRAFT_FAIL asked for it; start again without it",
                   "failpoint %s", gr_failpoint_table[point].name);
}
