/* Token stores: what goes in comes out; what is damaged, foreign or made with other settings is
 * refused with a reason. */
#include "data/token_layout.h"
#include "kernels/base/alloc.h"
#include "tests/files.h"
#include "tests/test.h"
#include "tests/token_shop.h"

#include <sys/stat.h>
#include <unistd.h>

/* out/x.h5 and its hash. */
static void export(struct token_shop *s)
{
    struct gr_sources sources = {0};

    ASSERT_OK(gr_token_store_export(&sources, "out/x.h5", &s->request, &s->files));
    gr_sources_release(&sources);
}

static gr_status load(struct token_shop *s)
{
    token_shop_forget(s);
    return gr_token_store_load(&s->documents, &s->sources, "out/x.h5", &s->request);
}

/* The hash beside the store becomes that of the bytes that are there now. */
static void bless(const char *path)
{
    char hex[GR_SHA256_HEX_BYTES];
    char *beside = gr_format("%s.sha256", path);

    ASSERT_OK(gr_sha256_file(hex, path));
    gr_test_write_text(beside, hex);
    gr_free(beside);
}

TEST(token_store_gives_back_what_the_text_gives)
{
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    ASSERT_OK(load(&s));
    token_shop_assert_text(&s);
    ASSERT_INT(s.sources.count, 2);
    ASSERT_TEXT(s.sources.item[0].path, "data.jsonl");
    ASSERT_TEXT(s.sources.item[0].sha256, s.files.sha256[0]);
    ASSERT_TEXT(s.sources.item[0].format, "messages");
    ASSERT_TEXT(s.sources.item[0].chat_format, "chatml");
    ASSERT_TEXT(s.sources.item[0].ignored, "id");
    ASSERT_INT(s.sources.item[0].records, 3);
    ASSERT_INT(s.sources.item[0].documents, 2);
    ASSERT_INT(s.sources.item[0].dropped_bare, 1);
    ASSERT_TEXT(s.sources.item[1].format, "text");
    ASSERT_TEXT(s.sources.item[1].chat_format, "");
    token_shop_end(&s);
}

/* Many chunks, documents across their borders, and a second store behind the first. */
TEST(token_store_of_many_chunks_is_appended_whole)
{
    enum { DOCUMENTS = 9000, STEP = 37 };
    struct token_shop s;
    FILE *file;

    token_shop_begin(&s);
    file = fopen(token_shop_paths[1], "wb");
    ASSERT(file != NULL);
    for (int i = 0; i < DOCUMENTS; i++)
        fprintf(file, "{\"text\": \"%d %.*s\"}\n", i, i % STEP,
                "abcdefghijklmnopqrstuvwxyz0123456789");
    fclose(file);
    token_shop_reopen(&s, token_shop_paths);
    export(&s);
    ASSERT_OK(load(&s));
    ASSERT(s.documents.token_count > 3 * 65536);
    token_shop_assert_text(&s);
    ASSERT_OK(gr_token_store_load(&s.documents, &s.sources, "out/x.h5", &s.request));
    ASSERT_INT(s.documents.count, 2 * (DOCUMENTS + 2));
    ASSERT_INT(s.documents.document[DOCUMENTS + 2].offset, s.documents.token_count / 2);
    ASSERT_INT(s.documents.document[DOCUMENTS + 2].source, 2);
    ASSERT_INT(s.documents.tokens[s.documents.token_count / 2], s.documents.tokens[0]);
    token_shop_end(&s);
}

TEST(token_store_is_the_same_bytes_each_time)
{
    char first[GR_SHA256_HEX_BYTES], second[GR_SHA256_HEX_BYTES];
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    ASSERT_OK(gr_sha256_file(first, "out/x.h5"));
    sleep(1); /* HDF5's times are in seconds */
    export(&s);
    ASSERT_OK(gr_sha256_file(second, "out/x.h5"));
    ASSERT_TEXT(second, first);
    token_shop_end(&s);
}

TEST(token_store_made_with_other_settings_is_refused_naming_them)
{
    static const struct {
        const char *loss_on, *too_long, *format, *chat_format, *tokenizer;
        int64_t max_length;
        const char *error;
    } cases[] = {
        {"all", "truncate", "auto", "auto", "tokens", 2048,
         "data.loss_on (found assistant, expected all)"},
        {"assistant", "drop", "auto", "auto", "tokens", 2048,
         "data.too_long (found truncate, expected drop)"},
        {"assistant", "truncate", "messages", "auto", "tokens", 2048,
         "data.format (found auto, expected messages)"},
        {"assistant", "truncate", "auto", "llama3", "tokens", 2048,
         "data.chat_format (found auto, expected llama3)"},
        {"assistant", "truncate", "auto", "auto", "others", 2048,
         "tokenizer (found tokens, expected others)"},
        {"assistant", "truncate", "auto", "auto", "tokens", 1024,
         "data.max_length (found 2048, expected 1024)"},
    };
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    for (int64_t i = 0; i < GR_COUNT(cases); i++) {
        char *expected =
            gr_format("out/x.h5: the tokens were made with another %s", cases[i].error);

        s.f.options.loss_on = cases[i].loss_on;
        s.f.options.too_long = cases[i].too_long;
        s.f.options.format = cases[i].format;
        s.f.options.chat_format = cases[i].chat_format;
        s.f.options.max_length = cases[i].max_length;
        s.request.tokenizer_hash = cases[i].tokenizer;
        ASSERT_MSG(load(&s) == GR_ERR_DATA, "%s: was taken", cases[i].error);
        ASSERT_TEXT(gr_error_message(), expected);
        gr_error_clear();
        gr_free(expected);
    }
    token_shop_end(&s);
}

TEST(token_store_fits_a_format_asked_for_by_the_name_it_was_found_by)
{
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    s.f.options.chat_format = "chatml";
    ASSERT_OK(load(&s));
    s.f.options.format = "tokens";
    ASSERT_OK(load(&s));
    token_shop_end(&s);
}

TEST(token_store_without_its_hash_or_with_another_is_refused)
{
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    unlink("out/x.h5.sha256");
    ASSERT_INT(load(&s), GR_ERR_NOT_FOUND);
    ASSERT(strncmp(gr_error_message(), "out/x.h5.sha256: ", 17) == 0);
    ASSERT(strstr(gr_error_hint(), "sha256sum out/x.h5 > out/x.h5.sha256") != NULL);
    gr_error_clear();
    gr_test_write_text("out/x.h5.sha256", "0123  x.h5\n");
    ASSERT_INT(load(&s), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "out/x.h5.sha256: no SHA-256") != NULL);
    gr_error_clear();
    gr_test_write_text("out/x.h5.sha256",
                       "00000000000000000000000000000000000000000000000000000000000000000  x\n");
    ASSERT_INT(load(&s), GR_ERR_DATA);
    ASSERT(strstr(gr_error_message(), "out/x.h5: not the file that was hashed") != NULL);
    token_shop_end(&s);
}

/* Lengths and bytes of the headers: nothing of it reaches HDF5, which dies of some of them. */
TEST(token_store_cut_or_flipped_is_refused)
{
    struct stat info;
    struct token_shop s;

    token_shop_begin(&s);
    export(&s);
    ASSERT_INT(stat("out/x.h5", &info), 0);
    for (int64_t i = 1; i <= 16; i++) {
        ASSERT_INT(truncate("out/x.h5", info.st_size - i * info.st_size / 16), 0);
        ASSERT_INT(load(&s), GR_ERR_DATA);
        ASSERT_INT(s.documents.count, 0);
        gr_error_clear();
        export(&s);
    }
    for (int64_t at = 0; at < 4096; at += 97) {
        FILE *file = fopen("out/x.h5", "r+b");
        int byte;

        fseek(file, at, SEEK_SET);
        byte = fgetc(file);
        fseek(file, at, SEEK_SET);
        fputc(byte ^ 0x10, file);
        fclose(file);
        ASSERT_MSG(load(&s) == GR_ERR_DATA, "byte %" PRId64 " was taken", at);
        gr_error_clear();
        file = fopen("out/x.h5", "r+b");
        fseek(file, at, SEEK_SET);
        fputc(byte, file);
        fclose(file);
    }
    ASSERT_OK(load(&s));
    token_shop_end(&s);
}

/* ---- stores of other programs ---- */

/* A store by hand: good but for what the case spoils. */
struct foreign {
    uint32_t tokens[6];
    uint8_t labels[6];
    struct gr_document documents[2];
    int64_t token_count, label_count, document_count;
    hid_t token_type;
    bool deflate;
    const char *leave_out;
};

static void write_column(hid_t file, const struct foreign *x, const char *name, int64_t count,
                         hid_t file_type, hid_t type, const void *elements)
{
    const hsize_t length = (hsize_t)count, chunk = 2;
    hid_t space, options, set;

    if (x->leave_out != NULL && strcmp(x->leave_out, name) == 0)
        return;
    space = H5Screate_simple(1, &length, NULL);
    options = H5Pcreate(H5P_DATASET_CREATE);
    if (x->deflate) {
        H5Pset_chunk(options, 1, &chunk);
        H5Pset_deflate(options, 6);
    }
    set = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, options, H5P_DEFAULT);
    ASSERT(set >= 0);
    ASSERT(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, elements) >= 0);
    H5Dclose(set);
    H5Pclose(options);
    H5Sclose(space);
}

static struct foreign good_foreign(void)
{
    return (struct foreign){.tokens = {1, 2, 3, 4, 5, 6},
                            .labels = {1, 1, 1, 0, 0, 1},
                            .documents = {{0, 4, 0, 1}, {4, 2, 0, 1}},
                            .token_count = 6,
                            .label_count = 6,
                            .document_count = 2,
                            .token_type = H5T_STD_U32LE};
}

static void write_foreign(const struct foreign *x)
{
    hid_t file, type = gr_token_document_type(true), file_type = gr_token_document_type(false);

    mkdir("out", 0777);
    file = H5Fcreate("out/x.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    ASSERT(file >= 0);
    write_column(file, x, GR_TOKEN_TOKENS, x->token_count, x->token_type, H5T_NATIVE_UINT32,
                 x->tokens);
    write_column(file, x, GR_TOKEN_LABELS, x->label_count, H5T_STD_U8LE, H5T_NATIVE_UINT8,
                 x->labels);
    write_column(file, x, GR_TOKEN_DOCUMENTS, x->document_count, file_type, type, x->documents);
    H5Tclose(type);
    H5Tclose(file_type);
    H5Fclose(file);
    bless("out/x.h5");
}

TEST(token_store_of_another_program_is_taken_where_the_format_says_tokens)
{
    struct foreign x = good_foreign();
    struct token_shop s;

    token_shop_begin(&s);
    write_foreign(&x);
    ASSERT_INT(load(&s), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(), "out/x.h5: the store does not say which tokenizer and settings "
                                    "made it");
    gr_error_clear();
    s.f.options.format = "tokens";
    ASSERT_OK(load(&s));
    ASSERT_INT(s.documents.count, 2);
    ASSERT_INT(s.documents.labels[0], 0); /* a document's first token is never a target */
    ASSERT_INT(s.documents.supervised_count, 3);
    ASSERT_INT(s.documents.document[1].offset, 4);
    ASSERT_INT(s.sources.count, 1);
    ASSERT_INT(s.sources.item[0].supervised, 3);
    s.f.options.max_length = 3;
    ASSERT_INT(load(&s), GR_ERR_DATA);
    ASSERT_TEXT(gr_error_message(),
                "out/x.h5: /documents[0] is too long (found 4 tokens, expected at most 3)");
    token_shop_end(&s);
}

static void assert_refused(struct token_shop *s, const char *what, const struct foreign *x)
{
    write_foreign(x);
    ASSERT_MSG(load(s) == GR_ERR_DATA, "%s: was taken", what);
    ASSERT_MSG(strncmp(gr_error_message(), "out/x.h5: /", 11) == 0, "%s: %s", what,
               gr_error_message());
    ASSERT_INT(s->documents.count, 0);
    ASSERT_INT(s->documents.token_count, 0);
    gr_error_clear();
}

TEST(token_store_that_does_not_fit_together_is_refused)
{
    static const char *const columns[] = {GR_TOKEN_TOKENS, GR_TOKEN_LABELS, GR_TOKEN_DOCUMENTS};
    struct foreign x;
    struct token_shop s;

    token_shop_begin(&s);
    s.f.options.format = "tokens";
    for (int64_t i = 0; i < GR_COUNT(columns); i++) {
        x = good_foreign();
        x.leave_out = columns[i];
        assert_refused(&s, columns[i], &x);
    }
#define SPOILED(what)                                                                              \
    x = good_foreign();                                                                            \
    x.what;                                                                                        \
    assert_refused(&s, #what, &x)
    SPOILED(documents[0].offset = 1);
    SPOILED(documents[0].offset = INT64_MIN);
    SPOILED(documents[0].length = 0);
    SPOILED(documents[0].length = -1);
    SPOILED(documents[1].length = 1);
    SPOILED(documents[1].length = 3);
    SPOILED(documents[1].length = INT32_MAX);
    SPOILED(documents[1].offset = 3);
    SPOILED(documents[1].source = 1);
    SPOILED(documents[1].source = -1);
    SPOILED(documents[1].weight = 2);
    SPOILED(documents[1].weight = NAN);
    SPOILED(document_count = 1);
    SPOILED(document_count = 0);
    SPOILED(label_count = 5);
    SPOILED(labels[2] = 2);
    SPOILED(deflate = true);
    SPOILED(token_type = H5T_STD_I64LE);
    SPOILED(token_type = H5T_STD_I32LE);
    SPOILED(token_type = H5T_IEEE_F32LE);
#undef SPOILED
    token_shop_end(&s);
}

/* /tokens of so many elements, of which none is stored, is no reason to take memory. */
static void assert_tokens_refused(struct token_shop *s, void (*make)(hid_t file))
{
    struct foreign x = good_foreign();
    hid_t file;

    x.leave_out = GR_TOKEN_TOKENS;
    write_foreign(&x);
    file = H5Fopen("out/x.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    make(file);
    H5Fclose(file);
    bless("out/x.h5");
    ASSERT_INT(load(s), GR_ERR_DATA);
    ASSERT(strncmp(gr_error_message(), "out/x.h5: /tokens is not", 24) == 0);
    gr_error_clear();
}

static void claim_much(hid_t file)
{
    const hsize_t length = (hsize_t)1 << 40, chunk = 1024;
    hid_t space = H5Screate_simple(1, &length, NULL), options = H5Pcreate(H5P_DATASET_CREATE);

    H5Pset_chunk(options, 1, &chunk);
    H5Dclose(H5Dcreate2(file, "tokens", H5T_STD_U32LE, space, H5P_DEFAULT, options, H5P_DEFAULT));
    H5Pclose(options);
    H5Sclose(space);
}

static void point_outside(hid_t file)
{
    const hsize_t length = 6;
    hid_t space = H5Screate_simple(1, &length, NULL), options = H5Pcreate(H5P_DATASET_CREATE);

    H5Pset_external(options, "data.jsonl", 0, 24);
    H5Dclose(H5Dcreate2(file, "tokens", H5T_STD_U32LE, space, H5P_DEFAULT, options, H5P_DEFAULT));
    H5Pclose(options);
    H5Sclose(space);
}

static void link_outside(hid_t file)
{
    H5Lcreate_external("other.h5", "/tokens", file, "tokens", H5P_DEFAULT, H5P_DEFAULT);
}

static void be_a_group(hid_t file)
{
    H5Gclose(H5Gcreate2(file, "tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void be_a_scalar(hid_t file)
{
    hid_t space = H5Screate(H5S_SCALAR);

    H5Dclose(
        H5Dcreate2(file, "tokens", H5T_STD_U32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
}

TEST(token_store_that_claims_too_much_or_points_elsewhere_is_refused)
{
    struct token_shop s;

    token_shop_begin(&s);
    s.f.options.format = "tokens";
    assert_tokens_refused(&s, claim_much);
    assert_tokens_refused(&s, point_outside);
    assert_tokens_refused(&s, link_outside);
    assert_tokens_refused(&s, be_a_group);
    assert_tokens_refused(&s, be_a_scalar);
    token_shop_end(&s);
}
