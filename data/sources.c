/* Counts of data files: kept, told, written and read.  See sources.h. */
#include "data/sources.h"

#include "data/record_formats.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"

#include <stddef.h>
#include <string.h>

/* The members, once: texts and counts. */
static const struct {
    const char *name;
    size_t at;
} texts[] = {{"path", offsetof(struct gr_source, path)},
             {"sha256", offsetof(struct gr_source, sha256)},
             {"format", offsetof(struct gr_source, format)},
             {"chat_format", offsetof(struct gr_source, chat_format)},
             {"ignored", offsetof(struct gr_source, ignored)}};
static const struct {
    const char *name;
    size_t at;
} counts[] = {{"records", offsetof(struct gr_source, records)},
              {"documents", offsetof(struct gr_source, documents)},
              {"tokens", offsetof(struct gr_source, tokens)},
              {"supervised", offsetof(struct gr_source, supervised)},
              {"cut", offsetof(struct gr_source, cut)},
              {"dropped_long", offsetof(struct gr_source, dropped_long)},
              {"dropped_bare", offsetof(struct gr_source, dropped_bare)}};

static char **text_of(struct gr_source *source, int64_t i)
{
    return (char **)(void *)((char *)source + texts[i].at);
}

static int64_t *count_of(struct gr_source *source, int64_t i)
{
    return (int64_t *)(void *)((char *)source + counts[i].at);
}

void gr_source_set(char **text, const char *value)
{
    char *copy = gr_strdup(value);

    gr_free(*text);
    *text = copy;
}

struct gr_source *gr_sources_add(struct gr_sources *sources, const char *path)
{
    struct gr_source *added = NULL;

    sources->item = gr_realloc(sources->item, sources->count + 1, sizeof *sources->item);
    added = &sources->item[sources->count++];
    memset(added, 0, sizeof *added);
    for (int64_t i = 0; i < GR_COUNT(texts); i++)
        *text_of(added, i) = gr_strdup("");
    gr_source_set(&added->path, path);
    return added;
}

void gr_sources_move(struct gr_sources *sources, struct gr_sources *from)
{
    int64_t count = sources->count + from->count;

    if (from->count > 0) {
        sources->item = gr_realloc(sources->item, count, sizeof *sources->item);
        memcpy(sources->item + sources->count, from->item,
               (size_t)from->count * sizeof *from->item);
        sources->count = count;
    }
    gr_free(from->item);
    memset(from, 0, sizeof *from);
}

void gr_sources_release(struct gr_sources *sources)
{
    for (int64_t s = 0; s < sources->count; s++)
        for (int64_t i = 0; i < GR_COUNT(texts); i++)
            gr_free(*text_of(&sources->item[s], i));
    gr_free(sources->item);
    memset(sources, 0, sizeof *sources);
}

void gr_source_note(const struct gr_source *s, int64_t max_length)
{
    bool chat = s->chat_format[0] != '\0';

    gr_note("%s: %lld documents of format %s%s%s, %lld tokens, %lld supervised", s->path,
            (long long)s->documents, s->format, chat ? ", chat format " : "", s->chat_format,
            (long long)s->tokens, (long long)s->supervised);
    if (s->cut + s->dropped_long > 0)
        gr_note("%s: longer than %lld tokens: %lld cut, %lld dropped", s->path,
                (long long)max_length, (long long)s->cut, (long long)s->dropped_long);
    if (s->dropped_bare > 0)
        gr_note("%s: %lld dropped, because no token of theirs is supervised", s->path,
                (long long)s->dropped_bare);
    if (s->ignored[0] != '\0')
        gr_note("%s: keys that are not used: %s", s->path, s->ignored);
}

gr_status gr_sources_check_learned(const struct gr_sources *sources, int64_t max_length)
{
    const struct gr_source *last = NULL;
    const struct gr_record_format *format = NULL;
    int64_t records = 0;

    for (int64_t i = 0; i < sources->count; i++) {
        last = &sources->item[i];
        records += last->records;
        if (last->supervised > 0)
            return GR_OK;
    }
    if (last == NULL)
        return GR_OK;
    format = gr_record_format_find(last->format);
    return gr_fail(GR_ERR_DATA, last->path,
                   "data.format, data.loss_on and data.max_length decide what is learned",
                   "nothing to learn: no token is supervised (found none in %lld records of format "
                   "%s, each cut to %lld tokens; expected %s)",
                   (long long)records, last->format, (long long)max_length,
                   format == NULL ? "a label" : format->learned);
}

json_t *gr_sources_to_json(const struct gr_sources *sources)
{
    json_t *list = json_array();

    for (int64_t s = 0; s < sources->count; s++) {
        json_t *object = json_object();

        for (int64_t i = 0; i < GR_COUNT(texts); i++) {
            json_t *text = json_string(*text_of(&sources->item[s], i));

            json_object_set_new(object, texts[i].name,
                                text != NULL ? text : json_string("(not UTF-8)"));
        }
        for (int64_t i = 0; i < GR_COUNT(counts); i++)
            json_object_set_new(object, counts[i].name,
                                json_integer(*count_of(&sources->item[s], i)));
        json_array_append_new(list, object);
    }
    return list;
}

static gr_status read_source(struct gr_source *source, const json_t *object, const char *place)
{
    const char *bad = NULL;

    for (int64_t i = 0; i < GR_COUNT(texts); i++) {
        const char *text = json_string_value(json_object_get(object, texts[i].name));

        if (text == NULL)
            bad = texts[i].name;
        else
            gr_source_set(text_of(source, i), text);
    }
    for (int64_t i = 0; i < GR_COUNT(counts); i++) {
        const json_t *count = json_object_get(object, counts[i].name);

        if (!json_is_integer(count) || json_integer_value(count) < 0)
            bad = counts[i].name;
        else
            *count_of(source, i) = json_integer_value(count);
    }
    if (bad != NULL)
        return gr_fail(GR_ERR_DATA, place, "prepare it again", "a source has no good \"%s\"", bad);
    return GR_OK;
}

gr_status gr_sources_from_json(struct gr_sources *sources, const json_t *json, const char *place)
{
    gr_status status = GR_OK;

    if (!json_is_array(json) || json_array_size(json) == 0)
        return gr_fail(GR_ERR_DATA, place, "prepare it again",
                       "no list of sources (found %s, expected a list)",
                       json == NULL ? "nothing" : "something else");
    for (size_t i = 0; i < json_array_size(json); i++)
        GR_TRY(read_source(gr_sources_add(sources, ""), json_array_get(json, i), place));
out:
    return status;
}
