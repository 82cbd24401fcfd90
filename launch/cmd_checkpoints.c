/* graft checkpoints: what a run has saved; keeping, checking and deleting it.  Any process may,
 * with or without the run going on.  The rules are those of trainer/state. */
#include "launch/cmd.h"

#include "kernels/base/alloc.h"
#include "launch/print_json.h"
#include "launch/run_folder.h"
#include "trainer/state/state.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct gr_option options[] = {
    {"json", 0, GR_OPTION_FLAG, NULL, "of ls and verify: one JSON object", 0, 0},
    {0},
};

/* ---- rows ----------------------------------------------------------------------------------- */

static void print_json(const struct gr_checkpoint_rows *rows)
{
    json_t *object = json_object(), *list = json_array();

    json_object_set_new(object, "checkpoints", list);
    for (int64_t i = 0; i < rows->count; i++) {
        const struct gr_checkpoint_row *r = &rows->row[i];
        json_t *row = json_object();

        json_object_set_new(row, "name", json_string(r->name));
        json_object_set_new(row, "step", json_integer(r->step));
        json_object_set_new(row, "term", json_integer(r->term));
        json_object_set_new(row, "bytes", json_integer(r->bytes));
        json_object_set_new(row, "unix_s", json_integer((json_int_t)r->unix_s));
        json_object_set_new(row, "live", json_boolean(r->is_live));
        json_object_set_new(row, "best", json_boolean(r->is_best));
        json_object_set_new(row, "pinned", json_boolean(r->is_pinned));
        json_object_set_new(row, "bad", r->bad == NULL ? json_null() : json_string(r->bad));
        json_array_append_new(list, row);
    }
    gr_print_json(object);
    json_decref(object);
}

/* "best, pinned"; a checkpoint of which nothing is to be said is good. */
static void add_state(struct gr_buffer *text, const struct gr_checkpoint_row *r, const char *good)
{
    const struct {
        bool is_so;
        const char *word;
    } words[] = {
        {r->bad != NULL, "bad"},  {!r->is_live, "superseded"},          {r->is_best, "best"},
        {r->is_pinned, "pinned"}, {r->bad == NULL && r->is_live, good},
    };

    gr_buffer_clear(text);
    gr_buffer_add_text(text, "");
    for (int64_t i = 0; i < GR_COUNT(words); i++) {
        if (words[i].is_so && words[i].word[0] != '\0')
            gr_buffer_add_format(text, "%s%s", text->length > 0 ? ", " : "", words[i].word);
    }
}

static void print_table(const struct gr_checkpoint_rows *rows, const char *good)
{
    struct gr_buffer state = {0};

    if (rows->count > 0)
        printf("%-21s %12s %6s %14s  %-19s  %s\n", "NAME", "STEP", "TERM", "BYTES", "SAVED (UTC)",
               "STATE");
    for (int64_t i = 0; i < rows->count; i++) {
        const struct gr_checkpoint_row *r = &rows->row[i];
        time_t saved = (time_t)r->unix_s;
        struct tm utc;
        char when[32] = "?";

        if (saved > 0 && gmtime_r(&saved, &utc) != NULL)
            strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &utc);
        add_state(&state, r, good);
        printf("%-21s %12" PRId64 " %6" PRId64 " %14" PRId64 "  %-19s  %s\n", r->name, r->step,
               r->term, r->bytes, when, state.data);
        if (r->bad != NULL)
            printf("  %s\n", r->bad);
    }
    gr_buffer_release(&state);
}

static void print_rows(const struct gr_args *args, const struct gr_checkpoint_rows *rows,
                       const char *good)
{
    if (gr_args_flag(args, "json"))
        print_json(rows);
    else
        print_table(rows, good);
}

/* ---- actions -------------------------------------------------------------------------------- */

static gr_status list(const struct gr_args *args, struct gr_store *store, const char *name)
{
    struct gr_checkpoint_rows rows = {0};
    gr_status status = gr_state_list(&rows, store);

    (void)name;
    if (status == GR_OK)
        print_rows(args, &rows, "");
    gr_checkpoint_rows_release(&rows);
    return status;
}

/* Prints everything, then fails if something is bad; what a start has given up is no matter. */
static gr_status verify(const struct gr_args *args, struct gr_store *store, const char *name)
{
    gr_status status = GR_OK;
    struct gr_checkpoint_rows rows = {0};
    int64_t live = 0, bad = 0;

    (void)name;
    GR_TRY(gr_state_verify(&rows, store));
    print_rows(args, &rows, "good");
    for (int64_t i = 0; i < rows.count; i++) {
        live += rows.row[i].is_live;
        bad += rows.row[i].is_live && rows.row[i].bad != NULL;
    }
    if (bad > 0)
        status =
            gr_fail(bad == live ? GR_ERR_CORRUPT : GR_ERR_DATA, store->url,
                    "a resume takes the newest good one by itself",
                    "bad checkpoints (found %" PRId64 " of %" PRId64 ", expected none)", bad, live);
out:
    gr_checkpoint_rows_release(&rows);
    return status;
}

static gr_status pin(const struct gr_args *args, struct gr_store *store, const char *name)
{
    (void)args;
    return gr_state_pin(store, name);
}

static gr_status unpin(const struct gr_args *args, struct gr_store *store, const char *name)
{
    (void)args;
    return gr_state_unpin(store, name);
}

static gr_status remove_one(const struct gr_args *args, struct gr_store *store, const char *name)
{
    (void)args;
    return gr_state_remove(store, name);
}

static const struct action {
    const char *name;
    bool needs_checkpoint;
    gr_status (*run)(const struct gr_args *args, struct gr_store *store, const char *name);
    const char *done; /* said when it is; NULL: it has printed its result */
} actions[] = {
    {"ls", false, list, NULL},           {"verify", false, verify, NULL},
    {"pin", true, pin, "pinned"},        {"unpin", true, unpin, "unpinned"},
    {"rm", true, remove_one, "removed"},
};

static gr_status find_action(const struct action **action, const struct gr_args *args)
{
    const char *name = gr_args_positional(args, 0), *which = gr_args_positional(args, 2);

    *action = NULL;
    for (int64_t i = 0; i < GR_COUNT(actions); i++) {
        if (strcmp(actions[i].name, name) == 0)
            *action = &actions[i];
    }
    if (*action == NULL)
        return gr_fail(GR_ERR_USAGE, "graft checkpoints", "graft checkpoints --help tells more",
                       "unknown action (found %s, expected ls, verify, pin, unpin or rm)", name);
    if ((*action)->needs_checkpoint != (which != NULL))
        return gr_fail(GR_ERR_USAGE, "graft checkpoints", "graft checkpoints --help tells more",
                       "arguments of %s (found %s, expected %s)", name,
                       which == NULL ? "no checkpoint" : which,
                       which == NULL ? "its step or name" : "the run alone");
    return GR_OK;
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    const struct action *action = NULL;
    struct gr_store *store = NULL;
    char name[GR_CHECKPOINT_NAME_BYTES] = "";

    GR_TRY(find_action(&action, args));
    GR_TRY(gr_run_folder_open(&store, gr_args_positional(args, 1)));
    if (action->needs_checkpoint)
        GR_TRY(gr_state_find(name, store, gr_args_positional(args, 2)));
    GR_TRY(action->run(args, store, name));
    if (action->done != NULL)
        printf("%s %s\n", action->done, name);
out:
    gr_store_close(store);
    return status;
}

const struct gr_command gr_cmd_checkpoints = {
    .name = "checkpoints",
    .run = run,
    .usage = "ls | verify RUN [--json]\n"
             "       graft checkpoints pin | unpin | rm RUN CHECKPOINT",
    .summary = "list, verify, keep or delete what a run has saved",
    .details = "RUN is the run's output directory; CHECKPOINT is a step or a name that ls prints.\n"
               "  ls      all checkpoints, the newest first\n"
               "  verify  reads every byte; ends with 8 if none is good, with 3 if some are bad\n"
               "  pin     keeps a checkpoint until it is unpinned\n"
               "  rm      deletes one; refuses the newest three, the best and pinned ones\n"
               "\n"
               "Superseded: a later start of the run went on from an earlier step.",
    .options = options,
    .least_positionals = 2,
    .most_positionals = 3,
};
