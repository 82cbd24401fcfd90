/* The tree of checkpoints, and the invariants over it.  See judge.h. */
#include "tests/sim/judge.h"

#include "kernels/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    int64_t step, term, parent;
    uint64_t history;
    int64_t best_step;
    int64_t highest_term; /* there when its save began */
    int64_t damaged_ns;   /* 0: never */
    char name[48];        /* of its manifest */
    bool is_committed;    /* its manifest was there once */
    bool is_durable;      /* its save said OK */
    bool is_removed;      /* its manifest was taken away once */
    bool is_pinned;
};
struct start {
    int64_t term, base;
};
struct sim_judge {
    struct sim_world *world;
    struct sim_bucket *bucket;
    struct node *node;
    int64_t node_count;
    struct start *start;
    int64_t start_count;
    int64_t highest_term;
};

static const char *const blob_names[] = {SIM_ADAPTER, SIM_OPTIMIZER};

void sim_blob(struct gr_buffer *bytes, const char *name, int64_t step, uint64_t history)
{
    gr_buffer_clear(bytes);
    gr_buffer_add_format(bytes, "%s %" PRId64 " %016" PRIx64 "\n", name, step, history);
    for (int64_t i = 0; i < (int64_t)(history % 50); i++)
        gr_buffer_add(bytes, "graft", 1 + (size_t)(i % 5));
}

/* ---- the tree ---------------------------------------------------------------------------- */

static int64_t find_name(const struct sim_judge *judge, const char *name)
{
    for (int64_t i = judge->node_count - 1; i >= 0; i--) {
        if (strcmp(judge->node[i].name, name) == 0)
            return i;
    }
    return SIM_NO_NODE;
}

static int64_t find_history(const struct sim_judge *judge, uint64_t history)
{
    for (int64_t i = judge->node_count - 1; i >= 0; i--) {
        if (judge->node[i].history == history)
            return i;
    }
    return SIM_NO_NODE;
}

/* Whether `node` is `of` or one of its ancestors. */
static bool is_in_line(const struct sim_judge *judge, int64_t node, int64_t of)
{
    while (of != SIM_NO_NODE && of != node)
        of = judge->node[of].parent;
    return of == node;
}

/* The node's name, for messages. */
static const char *name_of(const struct sim_judge *judge, int64_t node)
{
    return node == SIM_NO_NODE ? "the beginning" : judge->node[node].name;
}

uint64_t sim_judge_history(const struct sim_judge *judge, int64_t node)
{
    return node == SIM_NO_NODE ? 0 : judge->node[node].history;
}

/* ---- what lies in the bucket ------------------------------------------------------------- */

static bool is_there(const struct sim_judge *judge, const char *folder, const char *name)
{
    char *key = gr_format("%s/%s.json", folder, name);
    bool there = sim_bucket_find(judge->bucket, key) != NULL;

    gr_free(key);
    return there;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Whether some folder of objects of this node holds this blob, whole and right.  *key, if not NULL,
 * receives its key. */
static bool has_blob(const struct sim_judge *judge, int64_t node, const char *blob_name,
                     const char **found_key)
{
    const struct node *n = &judge->node[node];
    char *folder = gr_format("objects/%s-", n->name);
    struct gr_buffer expected = {0};
    bool found = false;

    sim_blob(&expected, blob_name, n->step, n->history);
    for (int64_t i = 0; i < sim_bucket_count(judge->bucket) && !found; i++) {
        const char *key = sim_bucket_key(judge->bucket, i);
        const struct gr_buffer *bytes = NULL;

        if (strncmp(key, folder, strlen(folder)) != 0 || !ends_with(key, blob_name))
            continue;
        bytes = sim_bucket_find(judge->bucket, key);
        found = bytes->length == expected.length &&
                memcmp(bytes->data, expected.data, expected.length) == 0;
        if (found && found_key != NULL)
            *found_key = key;
    }
    gr_buffer_release(&expected);
    gr_free(folder);
    return found;
}

static bool has_data(const struct sim_judge *judge, int64_t node)
{
    for (int64_t i = 0; i < GR_COUNT(blob_names); i++) {
        if (!has_blob(judge, node, blob_names[i], NULL))
            return false;
    }
    return true;
}

static void demand_present(struct sim_judge *judge, int64_t node, const char *invariant)
{
    const struct node *n = &judge->node[node];

    if (n->damaged_ns == 0 && !(is_there(judge, "ckpt", n->name) && has_data(judge, node)))
        sim_violation(judge->world, invariant, "%s has %s", n->name,
                      is_there(judge, "ckpt", n->name) ? "lost its data" : "no manifest any more");
}

/* The name in "FOLDER/NAME.json"; false if the key is not of that form. */
static bool parse_record(char name[GR_CHECKPOINT_NAME_BYTES], const char *folder, const char *key)
{
    size_t length = strlen(folder);

    if (strncmp(key, folder, length) != 0 || key[length] != '/' ||
        strlen(key) != length + GR_CHECKPOINT_NAME_BYTES + strlen(".json"))
        return false;
    snprintf(name, GR_CHECKPOINT_NAME_BYTES, "%s", key + length + 1);
    return true;
}

static void see_manifest(struct sim_judge *judge, const char *who, const char *name)
{
    int64_t i = find_name(judge, name);
    struct node *n = NULL;

    if (i == SIM_NO_NODE) {
        sim_violation(judge->world, "no mixing", "%s commits %s, which nobody saved", who, name);
        return;
    }
    n = &judge->node[i];
    if (!is_there(judge, "ckpt", name)) {
        n->is_removed = true;
        return;
    }
    n->is_committed = true;
    if (n->highest_term > n->term)
        sim_violation(judge->world, "one writer",
                      "%s commits %s, though term %" PRId64 " was there when its save began", who,
                      name, n->highest_term);
    /* What arrives once more after it was collected has no data and needs none. */
    if (!n->is_removed && !has_data(judge, i))
        sim_violation(judge->world, "a manifest follows its data", "%s commits %s before its data",
                      who, name);
}

static void see_verdict(struct sim_judge *judge, const char *who, const char *name)
{
    int64_t i = find_name(judge, name);

    if (i != SIM_NO_NODE && is_there(judge, "bad", name) && judge->node[i].damaged_ns == 0 &&
        has_data(judge, i))
        sim_violation(judge->world, "only bad ones are called bad", "%s condemns %s, which is good",
                      who, name);
}

static void watch(void *context, const char *who, const char *key)
{
    struct sim_judge *judge = context;
    char name[GR_CHECKPOINT_NAME_BYTES];
    int64_t term = 0;

    if (sscanf(key, "term/%" SCNd64 ".json", &term) == 1 && term > judge->highest_term)
        judge->highest_term = term;
    else if (parse_record(name, "ckpt", key))
        see_manifest(judge, who, name);
    else if (parse_record(name, "bad", key))
        see_verdict(judge, who, name);
}

struct sim_judge *sim_judge_create(struct sim_world *world, struct sim_bucket *bucket)
{
    struct sim_judge *judge = GR_NEW(struct sim_judge);

    judge->world = world;
    judge->bucket = bucket;
    sim_bucket_watch(bucket, watch, judge);
    return judge;
}

void sim_judge_destroy(struct sim_judge *judge)
{
    if (judge == NULL)
        return;
    gr_free(judge->node);
    gr_free(judge->start);
    gr_free(judge);
}

/* ---- saves and starts -------------------------------------------------------------------- */

int64_t sim_judge_save_begins(struct sim_judge *judge, int64_t term, const struct gr_checkpoint *c,
                              uint64_t history, int64_t parent)
{
    struct node *n = NULL;

    judge->node = gr_realloc(judge->node, judge->node_count + 1, sizeof *judge->node);
    n = &judge->node[judge->node_count];
    *n = (struct node){
        .step = c->step,
        .term = term,
        .parent = parent,
        .history = history,
        .best_step = c->best_step,
        .highest_term = judge->highest_term,
    };
    snprintf(n->name, sizeof n->name, "%012" PRId64 "-%08" PRId64, c->step, term);
    return judge->node_count++;
}

/* What was promised is in the line that a later term goes on from. */
static void demand_kept(struct sim_judge *judge, int64_t durable, const struct start *start)
{
    const struct node *n = &judge->node[durable];

    if (n->is_durable && n->damaged_ns == 0 && n->term < start->term &&
        !is_in_line(judge, durable, start->base))
        sim_violation(judge->world, "nothing durable is lost",
                      "term %" PRId64 " goes on from %s, but the save of %s had said OK",
                      start->term, name_of(judge, start->base), n->name);
}

void sim_judge_save_ends(struct sim_judge *judge, int64_t node, gr_status status)
{
    struct node *n = &judge->node[node];

    if (status != GR_OK)
        return;
    n->is_durable = true;
    if (n->highest_term > n->term)
        sim_violation(judge->world, "one writer", "%s was saved, though term %" PRId64 " was there",
                      n->name, n->highest_term);
    if (!n->is_removed) /* its writer may have slept until others were far ahead */
        demand_present(judge, node, "a save that says OK is durable");
    for (int64_t i = 0; i < judge->start_count; i++)
        demand_kept(judge, node, &judge->start[i]);
}

static bool is_blob_of(const struct gr_checkpoint *c, const char *name, const struct node *n)
{
    struct gr_buffer expected = {0};
    const struct gr_buffer *found = gr_checkpoint_object(c, name);
    bool same = false;

    sim_blob(&expected, name, n->step, n->history);
    same = found != NULL && found->length == expected.length &&
           memcmp(found->data, expected.data, expected.length) == 0;
    gr_buffer_release(&expected);
    return same;
}

static bool is_whole(const struct gr_checkpoint *c, const struct node *n)
{
    return c->step == n->step && c->best_step == n->best_step &&
           c->object_count == GR_COUNT(blob_names) && is_blob_of(c, SIM_ADAPTER, n) &&
           is_blob_of(c, SIM_OPTIMIZER, n);
}

/* The node a loaded checkpoint is, if it is one, whole. */
static int64_t identify(const struct sim_judge *judge, const struct gr_checkpoint *c)
{
    const struct gr_buffer *adapter = gr_checkpoint_object(c, SIM_ADAPTER);
    uint64_t history = 0;
    int64_t node = SIM_NO_NODE;

    if (adapter != NULL && adapter->data != NULL &&
        sscanf(adapter->data, SIM_ADAPTER " %*d %" SCNx64, &history) == 1)
        node = find_history(judge, history);
    return node != SIM_NO_NODE && is_whole(c, &judge->node[node]) ? node : SIM_NO_NODE;
}

/* The checkpoints after the base that were promised must all have been found bad. */
static void demand_verdicts(struct sim_judge *judge, int64_t base, int64_t began_ns)
{
    for (int64_t i = 0; i < judge->node_count; i++) {
        const struct node *n = &judge->node[i];

        if (i != base && n->is_durable && n->damaged_ns != 0 && n->damaged_ns < began_ns &&
            is_there(judge, "ckpt", n->name) && is_in_line(judge, base, i) &&
            !is_there(judge, "bad", n->name))
            sim_violation(judge->world, "a damaged checkpoint gets a verdict",
                          "the start skipped %s without a word", n->name);
    }
}

/* The best checkpoint of the line that ends at `node`, as that one tells it. */
static void demand_best(struct sim_judge *judge, int64_t node)
{
    for (int64_t i = node; i != SIM_NO_NODE; i = judge->node[i].parent) {
        if (judge->node[i].step == judge->node[node].best_step)
            demand_present(judge, i, "the best is kept");
    }
}

int64_t sim_judge_started(struct sim_judge *judge, int64_t term, const struct gr_checkpoint *found,
                          int64_t began_ns)
{
    int64_t base = SIM_NO_NODE;

    if (found->step != 0) {
        base = identify(judge, found);
        if (base == SIM_NO_NODE || !judge->node[base].is_committed) {
            sim_violation(judge->world, "no mixing",
                          "term %" PRId64 " starts from step %" PRId64
                          " of no committed checkpoint",
                          term, found->step);
            return SIM_NO_NODE;
        }
    }
    judge->start = gr_realloc(judge->start, judge->start_count + 1, sizeof *judge->start);
    judge->start[judge->start_count++] = (struct start){.term = term, .base = base};
    for (int64_t i = 0; i < judge->node_count; i++)
        demand_kept(judge, i, &judge->start[judge->start_count - 1]);
    if (term == judge->highest_term) /* else others have gone on, and collected */
        demand_best(judge, base);
    demand_verdicts(judge, base, began_ns);
    return base;
}

/* ---- pins, readers, damage --------------------------------------------------------------- */

void sim_judge_pinned(struct sim_judge *judge, const char *name)
{
    int64_t node = find_name(judge, name);

    if (node == SIM_NO_NODE) {
        sim_violation(judge->world, "no mixing", "%s is pinned, which nobody saved", name);
        return;
    }
    judge->node[node].is_pinned = true;
}

void sim_judge_loaded(struct sim_judge *judge, const char *name, const struct gr_checkpoint *c,
                      gr_status status)
{
    int64_t i = find_name(judge, name);
    const struct node *n = i == SIM_NO_NODE ? NULL : &judge->node[i];

    if (n == NULL || (status == GR_OK && !is_whole(c, n)))
        sim_violation(judge->world, "no mixing", "%s was loaded wrong", name);
    else if ((status == GR_ERR_DATA || status == GR_ERR_NOT_FOUND) && n->damaged_ns == 0 &&
             !n->is_removed)
        sim_violation(judge->world, "good ones can be read", "%s: %s", name, gr_error_message());
}

void sim_judge_called_bad(struct sim_judge *judge, const char *name, const char *reason)
{
    int64_t i = find_name(judge, name);

    if (i != SIM_NO_NODE && judge->node[i].damaged_ns == 0 && !judge->node[i].is_removed)
        sim_violation(judge->world, "only bad ones are called bad", "%s: %s", name, reason);
}

bool sim_judge_damage_newest(struct sim_judge *judge, int64_t last_step)
{
    int64_t newest = SIM_NO_NODE;
    int64_t good = 0;
    const char *key = NULL;
    char *manifest = NULL;

    for (int64_t i = 0; i < judge->node_count; i++) {
        const struct node *n = &judge->node[i];

        if (n->is_durable && n->damaged_ns == 0 && is_there(judge, "ckpt", n->name)) {
            newest = i;
            good++;
        }
    }
    if (good < GR_STATE_LIMIT_LEAST || judge->node[newest].step == last_step)
        return false;
    manifest = gr_format("ckpt/%s.json", judge->node[newest].name);
    key = manifest;
    if (sim_chance(judge->world, 700) &&
        !has_blob(judge, newest, blob_names[sim_random(judge->world, 2)], &key))
        key = manifest;
    sim_trace(judge->world, NULL, "a bit of %s turns over", key);
    judge->node[newest].damaged_ns = sim_now(judge->world);
    sim_bucket_damage(
        judge->bucket, key,
        sim_random(judge->world, 8 * (int64_t)sim_bucket_find(judge->bucket, key)->length));
    gr_free(manifest);
    return true;
}

/* ---- the end ----------------------------------------------------------------------------- */

/* An object belongs to a manifest that is there and names its folder's uuid. */
static void demand_owner(struct sim_judge *judge, const char *key)
{
    char name[GR_CHECKPOINT_NAME_BYTES] = "";
    char uuid[GR_STATE_UUID_BYTES] = "";
    char *manifest = NULL;
    const struct gr_buffer *bytes = NULL;
    int64_t node = SIM_NO_NODE;

    if (strlen(key) > strlen("objects/") + sizeof name + sizeof uuid) {
        snprintf(name, sizeof name, "%s", key + strlen("objects/"));
        snprintf(uuid, sizeof uuid, "%s", key + strlen("objects/") + sizeof name);
    }
    node = find_name(judge, name);
    manifest = gr_format("ckpt/%s.json", name);
    bytes = sim_bucket_find(judge->bucket, manifest);
    if (node == SIM_NO_NODE || bytes == NULL ||
        (judge->node[node].damaged_ns == 0 && strstr(bytes->data, uuid) == NULL))
        sim_violation(judge->world, "no orphans", "nobody owns %s", key);
    gr_free(manifest);
}

void sim_judge_end(struct sim_judge *judge, int64_t final_node, int64_t save_total_limit)
{
    char name[GR_CHECKPOINT_NAME_BYTES];
    int64_t manifests = 0, extra = 1; /* the best */

    for (int64_t i = 0; i < judge->node_count; i++) {
        const struct node *n = &judge->node[i];

        extra += n->is_pinned || n->damaged_ns != 0;
        if (n->is_pinned)
            demand_present(judge, i, "what is pinned is kept");
    }
    for (int64_t i = 0; i < sim_bucket_count(judge->bucket); i++) {
        const char *key = sim_bucket_key(judge->bucket, i);

        manifests += parse_record(name, "ckpt", key);
        extra += parse_record(name, "pin", key) && !judge->node[find_name(judge, name)].is_pinned;
        if (strncmp(key, "objects/", strlen("objects/")) == 0)
            demand_owner(judge, key);
    }
    if (manifests > save_total_limit + extra)
        sim_violation(judge->world, "old ones go",
                      "%" PRId64 " manifests are left, expected %" PRId64 " and %" PRId64
                      " for a reason",
                      manifests, save_total_limit, extra);
    for (int64_t i = 0; i < judge->node_count; i++) {
        const struct node *n = &judge->node[i];

        if (n->is_durable && n->damaged_ns == 0 && !is_in_line(judge, i, final_node))
            sim_violation(judge->world, "one line", "%s was durable and is not in the line of %s",
                          n->name, name_of(judge, final_node));
    }
}
