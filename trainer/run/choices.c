/* What computes, chosen once for a run.  See choices.h. */
#include "trainer/run/choices.h"

#include "kernels/base/alloc.h"
#include "kernels/base/log.h"

#include <stdio.h>
#include <string.h>

static const char phase[] = "choices";

enum { KEY_BYTES = 64, KIND_DIGITS = 16, SHORT_DIGITS = 12, KEPT_BYTES_MOST = 4 << 20 };

gr_status gr_device_plugin_hash(char hex[GR_SHA256_HEX_BYTES], const struct gr_device *dev)
{
    hex[0] = '\0';
    if (gr_device_plugin(dev) == NULL)
        return GR_OK;
    return gr_hash_file(hex, gr_device_plugin(dev), &(struct gr_hash_options){.threads = 1});
}

static bool has_choices(const struct gr_choices *c)
{
    return !gr_device_uses_host_memory(c->dev);
}

static bool is_io_rank(const struct gr_choices *c)
{
    return gr_comm_rank(c->comm) == gr_comm_io_rank(c->comm);
}

/* ---- kept ---- */

static void key_of(char key[KEY_BYTES], const struct gr_choices *c, int64_t number)
{
    char hash[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hash, c->kind, (int64_t)strlen(c->kind));
    snprintf(key, KEY_BYTES, "choices/%.*s-%lld", KIND_DIGITS, hash, (long long)number);
}

/* The hash of what stands before it, on a line of its own. */
static void seal(struct gr_buffer *bytes, const struct gr_buffer *text)
{
    char hash[GR_SHA256_HEX_BYTES];

    gr_sha256_hex(hash, text->data, (int64_t)text->length);
    gr_buffer_add(bytes, text->data, text->length);
    gr_buffer_add_format(bytes, "sha256 %s\n", hash);
}

/* Cuts the seal off; false: it is not that of what stands before it. */
static bool unseal(struct gr_buffer *bytes)
{
    const size_t length = strlen("sha256 ") + GR_SHA256_HEX_BYTES; /* with the end of the line */
    struct gr_buffer text = {0}, whole = {0};
    bool is_good = false;

    if (bytes->length > length) {
        gr_buffer_add(&text, bytes->data, bytes->length - length);
        seal(&whole, &text);
        is_good =
            whole.length == bytes->length && memcmp(whole.data, bytes->data, whole.length) == 0;
    }
    if (is_good) {
        gr_buffer_clear(bytes);
        gr_buffer_add(bytes, text.data, text.length);
    }
    gr_buffer_release(&text);
    gr_buffer_release(&whole);
    return is_good;
}

/* The last of the objects, which has all that those before it have; *text is empty where there is
 * none. */
static gr_status read_kept(struct gr_choices *c, struct gr_buffer *text)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0};
    char key[KEY_BYTES];

    for (;; c->kept++) {
        key_of(key, c, c->kept);
        gr_buffer_clear(&bytes);
        status = c->store->ops->get(c->store, &bytes, key, 0, KEPT_BYTES_MOST);
        if (status == GR_ERR_NOT_FOUND) {
            gr_error_clear();
            status = GR_OK;
            break;
        }
        GR_TRY(status);
        if (!unseal(&bytes)) {
            gr_warn("%s/%s is damaged: what computes is chosen anew, the bits may differ from here",
                    c->store->url, key);
            continue;
        }
        gr_buffer_clear(text);
        gr_buffer_add(text, bytes.data, bytes.length);
    }
out:
    gr_buffer_release(&bytes);
    return status;
}

/* Another start may have kept its own meanwhile: those are taken then. */
static gr_status keep(struct gr_choices *c)
{
    gr_status status = GR_OK;
    struct gr_buffer bytes = {0}, theirs = {0};
    char key[KEY_BYTES];

    seal(&bytes, &c->text);
    key_of(key, c, c->kept);
    status = c->store->ops->put_if_absent(c->store, key, bytes.data, (int64_t)bytes.length);
    if (status == GR_ERR_EXISTS) {
        gr_error_clear();
        GR_TRY(read_kept(c, &theirs));
        GR_TRY(gr_device_set_choices(c->dev, theirs.data == NULL ? "" : theirs.data));
        gr_buffer_clear(&c->text);
        gr_device_get_choices(c->dev, &c->text);
        status = GR_OK;
    }
    GR_TRY(status);
out:
    gr_buffer_release(&bytes);
    gr_buffer_release(&theirs);
    return status;
}

/* ---- shared ---- */

/* What the run began with, if this device computes so. */
static gr_status take_kept(struct gr_choices *c)
{
    gr_status status = GR_OK;

    GR_TRY(read_kept(c, &c->text));
    if (c->text.length > 0 && gr_device_set_choices(c->dev, c->text.data) != GR_OK) {
        gr_warn("what computed before is chosen anew: %s", gr_error_message());
        gr_error_clear();
    }
out:
    return status;
}

/* Everybody has the I/O rank's text, and its device computes so. */
static gr_status share(struct gr_choices *c)
{
    gr_status status = GR_OK;
    const int root = gr_comm_io_rank(c->comm);
    int64_t bytes = (int64_t)c->text.length;
    char *text = NULL;

    GR_TRY(gr_comm_broadcast(c->comm, root, &bytes, (int64_t)sizeof bytes, phase));
    text = GR_NEW_ARRAY(char, bytes + 1);
    if (is_io_rank(c))
        memcpy(text, c->text.data, (size_t)bytes);
    GR_TRY(gr_comm_broadcast(c->comm, root, text, bytes, phase));
    gr_buffer_clear(&c->text);
    gr_buffer_add(&c->text, text, (size_t)bytes);
    status = gr_device_set_choices(c->dev, c->text.data);
    GR_TRY(gr_comm_agree_status(c->comm, status, phase));
out:
    gr_free(text);
    return status;
}

static gr_status name_kind(struct gr_choices *c)
{
    gr_status status = GR_OK;
    char plugin[GR_SHA256_HEX_BYTES];

    GR_TRY(gr_device_plugin_hash(plugin, c->dev));
    c->kind = has_choices(c) ? gr_format("%s %s, %s, %s, plug-in %.*s", gr_device_name(c->dev),
                                         gr_device_isa(c->dev), gr_device_libraries(),
                                         gr_device_software(c->dev), SHORT_DIGITS, plugin)
                             : gr_format("%s %s, %s", gr_device_name(c->dev), gr_device_isa(c->dev),
                                         gr_device_libraries());
out:
    return status;
}

gr_status gr_choices_begin(struct gr_choices *c, struct gr_device *dev, struct gr_comm *comm,
                           struct gr_store *store)
{
    gr_status status = GR_OK;

    memset(c, 0, sizeof *c);
    c->dev = dev;
    c->comm = comm;
    c->store = store;
    GR_TRY(gr_comm_agree_status(comm, name_kind(c), phase));
    if (!has_choices(c))
        goto out;
    if (is_io_rank(c)) {
        if (store != NULL)
            status = take_kept(c);
        gr_buffer_clear(&c->text);
        gr_device_get_choices(dev, &c->text);
        if (status == GR_OK)
            status = gr_device_status(dev);
    }
    GR_TRY(gr_comm_agree_status(comm, status, phase));
    GR_TRY(share(c));
out:
    return status;
}

gr_status gr_choices_settle(struct gr_choices *c)
{
    gr_status status = GR_OK;
    struct gr_buffer before = c->text;

    c->text = (struct gr_buffer){0};
    if (!has_choices(c))
        goto out;
    if (is_io_rank(c)) {
        gr_device_get_choices(c->dev, &c->text);
        if (c->store != NULL && (c->kept == 0 || strcmp(before.data, c->text.data) != 0))
            status = keep(c);
    }
    GR_TRY(gr_comm_agree_status(c->comm, status, phase));
    GR_TRY(share(c));
out:
    gr_device_settle_choices(c->dev);
    gr_buffer_release(&before);
    return status;
}

void gr_choices_release(struct gr_choices *c)
{
    gr_buffer_release(&c->text);
    gr_free(c->kind);
    c->kind = NULL;
}

/* ---- the kind ---- */

char *gr_choices_kind(const struct gr_choices *c, const char *dtype)
{
    char hash[GR_SHA256_HEX_BYTES];
    int line;

    if (!has_choices(c))
        return gr_format("%s, %s", c->kind, dtype);
    line = (int)strcspn(c->text.data, "\n"); /* the first says whose attention */
    gr_sha256_hex(hash, c->text.data, (int64_t)c->text.length);
    return gr_format("%s, %.*s, choices %.*s, %s", c->kind, line, c->text.data, SHORT_DIGITS, hash,
                     dtype);
}
