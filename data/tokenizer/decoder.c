/* The decoder stage: tokens back to text, as a list of parts that the components change one after
 * another.  Table at the end; called by tokenizer.c. */
#include "data/tokenizer/bytelevel.h"
#include "data/tokenizer/component.h"
#include "kernels/base/alloc.h"

#include <string.h>
#include <utf8proc.h>

static const char replacement_character[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* What was put into bytes since the last one is a part. */
static void end_part(struct gr_parts *parts)
{
    if (parts->count == parts->capacity) {
        parts->capacity = parts->capacity == 0 ? 64 : parts->capacity * 2;
        parts->end = gr_realloc(parts->end, parts->capacity, sizeof *parts->end);
    }
    parts->end[parts->count++] = parts->bytes.length;
}

void gr_parts_add(struct gr_parts *parts, const char *bytes, size_t count)
{
    gr_buffer_add(&parts->bytes, bytes, count);
    end_part(parts);
}

void gr_parts_release(struct gr_parts *parts)
{
    gr_buffer_release(&parts->bytes);
    gr_free(parts->end);
    memset(parts, 0, sizeof *parts);
}

struct part {
    const char *bytes;
    int64_t length;
};

static struct part part_at(const struct gr_parts *parts, int64_t i)
{
    size_t begin = i == 0 ? 0 : parts->end[i - 1];

    return (struct part){parts->bytes.data == NULL ? "" : parts->bytes.data + begin,
                         (int64_t)(parts->end[i] - begin)};
}

/* Takes what was made for what was there. */
static void exchange(struct gr_parts *parts, struct gr_parts *made)
{
    gr_parts_release(parts);
    *parts = *made;
}

/* Every token whose characters are all of the byte-level alphabet becomes its bytes; others (added
 * tokens) stay.  The bytes together are text. */
static void byte_level(const struct gr_component *c, struct gr_parts *parts)
{
    struct gr_buffer bytes = {0};
    struct gr_parts made = {0};

    (void)c;
    for (int64_t i = 0; i < parts->count; i++) {
        struct part part = part_at(parts, i);
        size_t before = bytes.length;
        bool spelled = true;

        for (int64_t at = 0; spelled && at < part.length; at += gr_char_bytes(part.bytes[at])) {
            int byte = gr_byte_level_byte(gr_char_at(part.bytes + at));
            char value = (char)byte;

            spelled = byte >= 0;
            if (spelled)
                gr_buffer_add(&bytes, &value, 1);
        }
        if (!spelled) {
            bytes.length = before;
            gr_buffer_add(&bytes, part.bytes, (size_t)part.length);
        }
    }
    gr_utf8_add_lossy(&made.bytes, bytes.data, (int64_t)bytes.length);
    end_part(&made);
    exchange(parts, &made);
    gr_buffer_release(&bytes);
}

/* A run of byte tokens is text if it is valid UTF-8, else one U+FFFD for each. */
static void flush_bytes(struct gr_parts *made, struct gr_buffer *run)
{
    if (run->length == 0)
        return;
    if (gr_utf8_invalid_at(run->data, (int64_t)run->length) < 0) {
        gr_parts_add(made, run->data, run->length);
    } else {
        for (size_t i = 0; i < run->length; i++)
            gr_parts_add(made, replacement_character, 3);
    }
    gr_buffer_clear(run);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static void byte_fallback(const struct gr_component *c, struct gr_parts *parts)
{
    struct gr_buffer run = {0};
    struct gr_parts made = {0};

    (void)c;
    for (int64_t i = 0; i < parts->count; i++) {
        struct part part = part_at(parts, i);

        if (part.length == 6 && memcmp(part.bytes, "<0x", 3) == 0 && part.bytes[5] == '>' &&
            hex_digit(part.bytes[3]) >= 0 && hex_digit(part.bytes[4]) >= 0) {
            char byte = (char)(hex_digit(part.bytes[3]) * 16 + hex_digit(part.bytes[4]));

            gr_buffer_add(&run, &byte, 1);
            continue;
        }
        flush_bytes(&made, &run);
        gr_parts_add(&made, part.bytes, (size_t)part.length);
    }
    flush_bytes(&made, &run);
    exchange(parts, &made);
    gr_buffer_release(&run);
}

/* Every match becomes `text`; in the first part, the first `first` bytes of it. */
static void replace_all(const struct gr_pattern *pattern, struct gr_parts *parts, const char *text,
                        size_t length, size_t first)
{
    struct gr_scan scan = {0};
    struct gr_parts made = {0};

    for (int64_t i = 0; i < parts->count; i++) {
        struct part part = part_at(parts, i);
        int64_t done = 0;

        gr_scan_begin(&scan, pattern, part.bytes, part.length);
        while (gr_scan_next(&scan)) {
            gr_buffer_add(&made.bytes, part.bytes + done, (size_t)(scan.begin - done));
            gr_buffer_add(&made.bytes, text, i == 0 ? first : length);
            done = scan.end;
        }
        gr_parts_add(&made, part.bytes + done, (size_t)(part.length - done));
    }
    exchange(parts, &made);
    gr_scan_release(&scan);
}

static void replace(const struct gr_component *c, struct gr_parts *parts)
{
    replace_all(&c->pattern, parts, c->text, (size_t)c->text_length, (size_t)c->text_length);
}

/* The replacement becomes a space, in the first part nothing: there it had been put in front. */
static void metaspace(const struct gr_component *c, struct gr_parts *parts)
{
    replace_all(&c->pattern, parts, " ", 1, c->prepend_scheme == GR_PREPEND_NEVER ? 1 : 0);
}

static void fuse(const struct gr_component *c, struct gr_parts *parts)
{
    (void)c;
    parts->count = 0;
    end_part(parts);
}

/* Takes up to `start` characters equal to the given one off the front, `stop` off the end. */
static void strip(const struct gr_component *c, struct gr_parts *parts)
{
    struct gr_parts made = {0};

    for (int64_t i = 0; i < parts->count; i++) {
        struct part part = part_at(parts, i);

        for (int64_t n = 0; n < c->start && part.length >= c->text_length &&
                            memcmp(part.bytes, c->text, (size_t)c->text_length) == 0;
             n++) {
            part.bytes += c->text_length;
            part.length -= c->text_length;
        }
        for (int64_t n = 0; n < c->stop && part.length >= c->text_length &&
                            memcmp(part.bytes + part.length - c->text_length, c->text,
                                   (size_t)c->text_length) == 0;
             n++)
            part.length -= c->text_length;
        gr_parts_add(&made, part.bytes, (size_t)part.length);
    }
    exchange(parts, &made);
}

static const struct gr_component_option strip_options[] = {
    {.key = "content", .kind = GR_AS_CHAR},
    {.key = "start", .kind = GR_AS_COUNT, .offset = GR_FIELD(start)},
    {.key = "stop", .kind = GR_AS_COUNT, .offset = GR_FIELD(stop)},
    {0},
};

static const struct gr_component_type types[] = {
    {"ByteLevel", gr_byte_level_options, .apply.to_parts = byte_level},
    {"ByteFallback", .apply.to_parts = byte_fallback},
    {"Replace", gr_replace_options, .apply.to_parts = replace},
    {"Metaspace", gr_metaspace_options, gr_metaspace_prepare, .apply.to_parts = metaspace},
    {"Fuse", .apply.to_parts = fuse},
    {"Strip", strip_options, .apply.to_parts = strip},
    {0},
};
const struct gr_stage_kind gr_decoder = {"decoder", "decoders", types};
