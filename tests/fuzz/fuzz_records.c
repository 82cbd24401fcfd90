/* A data file is refused, or becomes documents that hold what they promise; and a conversation is
 * refused, or rendered with spans and labels that lie in it.
 * Parts: options, "format chat_format too_long loss_on max_length"; data, the file, whose lines are
 * also the turns of a conversation (the first byte chooses who speaks). */
#include "data/chat.h"
#include "data/records.h"
#include "data/show.h"
#include "data/tokenizer/bytelevel.h"
#include "kernels/base/alloc.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

enum { WORD_BYTES = 24, TURNS = 8, FIRST_SPECIAL = 256 };

/* What the chat formats end their turns with, and the BOS and EOS. */
static const char *const specials[] = {"<s>",        "</s>",       "<|im_start|>",
                                       "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>"};

/* ---- a tokenizer that knows bytes and the special tokens ---------------------------------- */

static void write_tokenizer(void)
{
    struct gr_buffer json = {0};

    gr_buffer_add_text(&json, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
                              "\"added_tokens\": [");
    for (int i = 0; i < GR_COUNT(specials); i++)
        gr_buffer_add_format(&json,
                             "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, "
                             "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                             "\"special\": true}",
                             i == 0 ? "" : ",", FIRST_SPECIAL + i, specials[i]);
    gr_buffer_add_text(&json, "], \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                              "\"add_prefix_space\": false, \"trim_offsets\": false}, \"decoder\": "
                              "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                              "\"trim_offsets\": false}, \"model\": {\"type\": \"BPE\", "
                              "\"merges\": [], \"vocab\": {");
    for (int byte = 0; byte < 256; byte++)
        gr_buffer_add_format(&json, "%s\"\\u%04X\": %d", byte == 0 ? "" : ",",
                             (unsigned)gr_byte_level_char((unsigned char)byte), byte);
    gr_buffer_add_text(&json, "}}}");
    fuzz_write("tokenizer.json", json.data, json.length);
    gr_buffer_clear(&json);
    gr_buffer_add_text(&json, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}");
    fuzz_write("tokenizer_config.json", json.data, json.length);
    gr_buffer_release(&json);
}

static struct gr_tokenizer *the_tokenizer(void)
{
    static struct gr_tokenizer *tokenizer;

    if (tokenizer == NULL) {
        write_tokenizer();
        GR_CHECK(gr_tokenizer_create(&tokenizer, fuzz_folder()) == GR_OK, "%s", gr_error_message());
    }
    return tokenizer;
}

/* ---- documents ---------------------------------------------------------------------------- */

static void check_shown(const struct gr_documents *d, int64_t number)
{
    struct gr_buffer text = {0};
    gr_status status = gr_show_document(&text, the_tokenizer(), d, number, GR_SHOW_BRACKETS);

    for (size_t i = 0; i < text.length; i++) {
        uint8_t byte = (uint8_t)text.data[i], next = (uint8_t)text.data[i + 1];

        FUZZ_ASSERT((byte >= ' ' && byte != 0x7f) || byte == '\n' || byte == '\t');
        FUZZ_ASSERT(byte != 0xc2 || (next & 0xe0) != 0x80); /* not U+0080 to U+009F */
    }
    gr_buffer_release(&text);
    fuzz_end(status);
    FUZZ_ASSERT(status == GR_OK);
}

static void check_documents(const struct gr_documents *d, int64_t max_length)
{
    int64_t vocab = gr_tokenizer_vocab_size(the_tokenizer()), at = 0, supervised = 0;

    for (int64_t i = 0; i < d->count; i++) {
        const struct gr_document *one = &d->document[i];

        FUZZ_ASSERT(one->offset == at && one->length >= 1 && one->length <= max_length);
        FUZZ_ASSERT(d->labels[at] == 0 && one->source == 0);
        at += one->length;
        check_shown(d, i);
    }
    FUZZ_ASSERT(at == d->token_count);
    for (int64_t t = 0; t < at; t++) {
        FUZZ_ASSERT(d->tokens[t] < vocab && d->labels[t] <= 1);
        supervised += d->labels[t];
    }
    FUZZ_ASSERT(supervised == d->supervised_count && supervised > 0);
}

static void read_records(const struct fuzz_part *data, const struct gr_records_options *options)
{
    struct gr_documents documents = {0};
    struct gr_sources sources = {0};
    char *path = gr_format("%s/data", fuzz_folder());
    const char *const paths[] = {path};
    gr_status status;

    fuzz_write_part("data", data);
    status = gr_records_read(&documents, &sources, the_tokenizer(), paths, 1, options);
    if (status == GR_OK)
        status = gr_sources_check_learned(&sources, options->max_length);
    fuzz_end(status);
    if (status == GR_OK)
        check_documents(&documents, options->max_length);
    gr_sources_release(&sources);
    gr_documents_release(&documents);
    gr_free(path);
}

/* ---- a conversation ----------------------------------------------------------------------- */

static void check_rendered(const struct gr_chat_text *text)
{
    struct gr_encoding e = {0};
    gr_status status =
        gr_tokenizer_encode(the_tokenizer(), &e, text->text.data == NULL ? "" : text->text.data,
                            text->text.length, false);
    size_t at = 0;

    for (int64_t i = 0; i < text->count; i++) {
        FUZZ_ASSERT(text->span[i].begin >= at && text->span[i].begin <= text->span[i].end);
        at = text->span[i].end;
    }
    FUZZ_ASSERT(at <= text->text.length);
    for (int on = 0; on < GR_LOSS_ON_COUNT && status == GR_OK; on++) {
        uint8_t *labels = GR_NEW_ARRAY(uint8_t, e.count);

        gr_chat_label(labels, &e, text, (enum gr_loss_on)on);
        for (int64_t i = 0; i < e.count; i++)
            FUZZ_ASSERT(labels[i] <= 1 && (on != GR_LOSS_ON_ALL || labels[i] == 1));
        gr_free(labels);
    }
    gr_encoding_release(&e);
    fuzz_end(status);
}

static void render(const struct fuzz_part *data, const char *chat_format)
{
    struct gr_chat chat;
    struct gr_chat_text text = {0};
    struct gr_chat_message message[TURNS];
    char *all = gr_strndup(data->bytes, data->count), *rest = NULL;
    int64_t count = 0;
    gr_status status = gr_chat_choose(&chat, chat_format, the_tokenizer());

    fuzz_end(status);
    for (char *line = strtok_r(all, "\n", &rest); line != NULL && count < TURNS && status == GR_OK;
         line = strtok_r(NULL, "\n", &rest)) {
        message[count].role = (enum gr_chat_role)((uint8_t)line[0] % GR_CHAT_ROLE_COUNT);
        message[count++].content = line + 1;
    }
    for (int prompt = 0; prompt < 2 && count > 0; prompt++) {
        gr_status rendered =
            gr_chat_render(&chat, &text, message, count, prompt == 1, "fuzz.jsonl:1");

        fuzz_end(rendered);
        if (rendered == GR_OK)
            check_rendered(&text);
    }
    gr_chat_text_release(&text);
    gr_free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_part part[FUZZ_PARTS];
    int count = fuzz_split(part, data, size);
    const struct fuzz_part *asked = fuzz_find(part, count, "options");
    const struct fuzz_part *file = fuzz_find(part, count, "data");
    char word[4][WORD_BYTES] = {"auto", "chatml", "truncate", "assistant"};
    struct gr_records_options options = {.format = word[0],
                                         .chat_format = word[1],
                                         .too_long = word[2],
                                         .loss_on = word[3],
                                         .max_length = 64,
                                         .fallback_eos = -1};
    char *text = asked == NULL ? gr_strdup("") : gr_strndup(asked->bytes, asked->count);
    int max_length = 0;

    if (sscanf(text, "%23s %23s %23s %23s %5d", word[0], word[1], word[2], word[3], &max_length) ==
            5 &&
        max_length > 0)
        options.max_length = max_length;
    if (file != NULL) {
        read_records(file, &options);
        render(file, options.chat_format);
    }
    gr_free(text);
    return 0;
}
