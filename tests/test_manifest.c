/* Manifests as hostile input: whatever byte is wrong, they are refused with a reason. */
#include "trainer/state/manifest.h"

#include "kernels/base/alloc.h"
#include "tests/test.h"
#include "trainer/state/record.h"

#include <stdlib.h>

#define NAME "000000000100-00000003"
#define RUN  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HASH "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define UUID "00112233-4455-4677-8899-aabbccddeeff"

static struct gr_manifest example(void)
{
    return (struct gr_manifest){
        .at = {.step = 100,
               .epoch = 2,
               .epoch_first_step = 81,
               .best_step = 90,
               .best_loss = 0.1,
               .evals_since_best = 1,
               .world_size = 4},
        .term = 3,
        .uuid = UUID,
        .run_hash = RUN,
        .base_step = 50,
        .unix_s = 1700000000,
        .previous = "000000000090-00000003",
        .previous_hash = HASH,
        .object_count = 2,
        .object = {{"adapter_model.safetensors", 1000, HASH}, {"optimizer.safetensors", 0, RUN}},
    };
}

static gr_status read_as(struct gr_manifest *m, const struct gr_buffer *bytes, const char *name)
{
    gr_error_clear();
    return gr_manifest_read(m, bytes, name, "place");
}

/* ERR_DATA with a message that names the place. */
static void assert_refused(const struct gr_buffer *bytes, const char *name, const char *what)
{
    struct gr_manifest m;

    ASSERT_MSG(read_as(&m, bytes, name) == GR_ERR_DATA, "%s was accepted", what);
    ASSERT_MSG(strncmp(gr_error_message(), "place", 5) == 0, "%s: message \"%s\"", what,
               gr_error_message());
}

TEST(manifest_written_reads_back_the_same)
{
    struct gr_manifest m = example(), found;
    struct gr_buffer bytes = {0}, again = {0};

    gr_manifest_write(&bytes, &m);
    ASSERT_OK(read_as(&found, &bytes, NAME));
    ASSERT_TEXT(found.name, NAME);
    ASSERT_TEXT(found.hash, m.hash);
    ASSERT_TEXT(found.previous, m.previous);
    ASSERT_TEXT(found.object[1].name, "optimizer.safetensors");
    ASSERT_INT(found.object[0].bytes, 1000);
    ASSERT_INT(found.at.evals_since_best, 1);
    ASSERT(found.at.best_loss == 0.1);
    gr_manifest_write(&again, &found);
    ASSERT_TEXT(again.data, bytes.data);
    gr_buffer_release(&bytes);
    gr_buffer_release(&again);
}

TEST(manifest_any_byte_flipped_is_refused)
{
    struct gr_manifest m = example();
    struct gr_buffer bytes = {0};

    gr_manifest_write(&bytes, &m);
    for (size_t i = 0; i < bytes.length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
            assert_refused(&bytes, NAME, "a flipped bit");
            bytes.data[i] = (char)(bytes.data[i] ^ (1 << bit));
        }
    }
    gr_buffer_release(&bytes);
}

TEST(manifest_of_any_other_length_is_refused)
{
    struct gr_manifest m = example();
    struct gr_buffer bytes = {0};
    size_t whole = 0;

    gr_manifest_write(&bytes, &m);
    whole = bytes.length;
    for (bytes.length = 0; bytes.length < whole; bytes.length++)
        assert_refused(&bytes, NAME, "a shorter one");
    gr_buffer_add(&bytes, "\n", 1);
    assert_refused(&bytes, NAME, "a longer one");
    gr_buffer_reserve(&bytes, GR_RECORD_BYTES_MOST + 1);
    memset(bytes.data + bytes.length, ' ', GR_RECORD_BYTES_MOST + 1 - bytes.length);
    bytes.length = GR_RECORD_BYTES_MOST + 1;
    assert_refused(&bytes, NAME, "a huge one");
    ASSERT(strstr(gr_error_message(), "1048576") != NULL);
    gr_buffer_release(&bytes);
}

TEST(manifest_under_another_name_is_refused)
{
    struct gr_manifest m = example();
    struct gr_buffer bytes = {0};

    gr_manifest_write(&bytes, &m);
    assert_refused(&bytes, "000000000100-00000004", "another term");
    assert_refused(&bytes, "000000000101-00000003", "another step");
    gr_buffer_release(&bytes);
}

/* Members of a manifest whose hash is right: an attacker's, or a bug's. */
static const struct {
    const char *member, *json, *message;
} forged[] = {
    {"step", "0", "step (found 0, expected 1"},
    {"step", "-1", "step"},
    {"step", "1e2", "step (found a number, expected a whole number)"},
    {"step", "1000000000000", "step"},
    {"step", "99", "name"},
    {"term", "100000000", "term"},
    {"term", "4", "name"},
    {"uuid", "\"../../../../../etc/passwd-000000000000\"", "uuid"},
    {"uuid", "\"00112233-4455-4677-8899-AABBCCDDEEFF\"", "uuid"},
    {"uuid", "\"\"", "uuid"},
    {"run_sha256", "\"abc\"", "run_sha256"},
    {"run_sha256", "null", "run_sha256 (found null, expected 64"},
    {"base_step", "100", "base"},
    {"base_step", "95", "previous"},
    {"epoch_first_step", "101", "epoch"},
    {"best_step", "101", "best step"},
    {"best_loss", "\"low\"", "best_loss"},
    {"world_size", "0", "world_size"},
    {"previous", "\"\"", "previous"},
    {"previous", "\"000000000100-00000003\"", "previous"},
    {"previous", "\"000000000090-00000004\"", "previous"},
    {"previous", "\"000000000040-00000003\"", "previous"},
    {"previous", "\"../run.json\"", "previous"},
    {"previous_sha256", "\"\"", "previous"},
    {"objects", "{}", "objects (found 0"},
    {"objects", "[]", "objects (found 0"},
    {"objects", "[1]", "object 0"},
    {"objects", "[{\"name\":\"a\",\"bytes\":1,\"sha256\":\"" RUN "\",\"more\":1}]", "object 0"},
    {"objects", "[{\"name\":\"../a\",\"bytes\":1,\"sha256\":\"" RUN "\"}]", "name"},
    {"objects", "[{\"name\":\".a\",\"bytes\":1,\"sha256\":\"" RUN "\"}]", "name"},
    {"objects", "[{\"name\":\"\",\"bytes\":1,\"sha256\":\"" RUN "\"}]", "name"},
    {"objects", "[{\"name\":\"a\",\"bytes\":-1,\"sha256\":\"" RUN "\"}]", "bytes"},
    {"objects", "[{\"name\":\"a\",\"bytes\":9007199254740992,\"sha256\":\"" RUN "\"}]", "bytes"},
    {"objects",
     "[{\"name\":\"a\",\"bytes\":1,\"sha256\":\"" RUN "\"},"
     "{\"name\":\"a\",\"bytes\":1,\"sha256\":\"" RUN "\"}]",
     "two objects called a"},
    {"objects", "[1,2,3,4,5,6,7,8,9]", "found 9"},
    {"unknown", "1", "members"},
};

TEST(manifest_forged_members_are_refused_by_name)
{
    struct gr_manifest m = example();
    struct gr_buffer bytes = {0};
    char hash[GR_SHA256_HEX_BYTES];
    json_t *object = NULL;

    for (int64_t i = 0; i < GR_COUNT(forged); i++) {
        gr_manifest_write(&bytes, &m);
        ASSERT_OK(gr_record_open(&object, hash, "place", &bytes));
        json_object_set_new(object, forged[i].member,
                            json_loads(forged[i].json, JSON_DECODE_ANY, NULL));
        gr_record_seal(&bytes, hash, object);
        json_decref(object);
        assert_refused(&bytes, NAME, forged[i].json);
        ASSERT_MSG(strstr(gr_error_message(), forged[i].message) != NULL,
                   "%s = %s: message \"%s\" lacks \"%s\"", forged[i].member, forged[i].json,
                   gr_error_message(), forged[i].message);
    }
    gr_buffer_release(&bytes);
}

/* What a newer version wrote is nobody's damage: no verdict may come of it. */
TEST(manifest_of_another_format_is_not_damaged)
{
    static const char *const formats[] = {"2", "3"};

    for (int64_t i = 0; i < GR_COUNT(formats); i++) {
        struct gr_manifest m = example();
        struct gr_buffer bytes = {0};
        char hash[GR_SHA256_HEX_BYTES];
        json_t *object = NULL;

        gr_manifest_write(&bytes, &m);
        ASSERT_OK(gr_record_open(&object, hash, "place", &bytes));
        json_object_set_new(object, "format", json_loads(formats[i], JSON_DECODE_ANY, NULL));
        gr_record_seal(&bytes, hash, object);
        json_decref(object);
        ASSERT_INT(gr_manifest_read(&m, &bytes, m.name, "place"), GR_ERR_USAGE);
        ASSERT(strstr(gr_error_message(), "the format of the manifest") != NULL);
        gr_error_clear();
        gr_buffer_release(&bytes);
    }
}

TEST(manifest_without_any_one_member_is_refused)
{
    struct gr_manifest m = example();
    struct gr_buffer bytes = {0};
    char hash[GR_SHA256_HEX_BYTES];
    json_t *whole = NULL;
    const char *member;
    json_t *value;

    gr_manifest_write(&bytes, &m);
    ASSERT_OK(gr_record_open(&whole, hash, "place", &bytes));
    json_object_foreach(whole, member, value)
    {
        json_t *less = json_copy(whole);

        json_object_del(less, member);
        gr_record_seal(&bytes, hash, less);
        assert_refused(&bytes, NAME, member);
        json_object_set_new(less, "other", json_integer(1)); /* the right number of members */
        gr_record_seal(&bytes, hash, less);
        assert_refused(&bytes, NAME, member);
        json_decref(less);
    }
    json_decref(whole);
    gr_buffer_release(&bytes);
}

/* Bytes with a right hash that are no object. */
TEST(manifest_sealed_nonsense_is_refused)
{
    static const char *const texts[] = {"",
                                        "[",
                                        "{",
                                        "{\"a\": ",
                                        "\xff\xfe",
                                        "{\"a\": \"\\u0000\"",
                                        "{\"step\": 1, \"step\": 1",
                                        "{\"a\": 99999999999999999999"};
    struct gr_buffer bytes = {0};
    char hash[GR_SHA256_HEX_BYTES];

    for (int64_t i = 0; i < GR_COUNT(texts); i++) {
        gr_buffer_clear(&bytes);
        gr_buffer_add_text(&bytes, texts[i]);
        gr_sha256_hex(hash, bytes.data, (int64_t)bytes.length);
        gr_buffer_add_format(&bytes, ",\n  \"sha256\": \"%s\"\n}\n", hash);
        assert_refused(&bytes, NAME, texts[i]);
    }
    gr_buffer_release(&bytes);
}

TEST(manifest_first_of_a_run_has_no_previous)
{
    struct gr_manifest m = example(), found;
    struct gr_buffer bytes = {0};

    m.base_step = 0;
    m.previous[0] = m.previous_hash[0] = '\0';
    gr_manifest_write(&bytes, &m);
    ASSERT_OK(read_as(&found, &bytes, NAME));
    ASSERT_TEXT(found.previous, "");
    m.base_step = 10;
    gr_manifest_write(&bytes, &m);
    assert_refused(&bytes, NAME, "a base without previous");
    gr_buffer_release(&bytes);
}
