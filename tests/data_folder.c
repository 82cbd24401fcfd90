/* See data_folder.h. */
#include "tests/data_folder.h"

#include "kernels/base/log.h"
#include "tests/files.h"
#include "tests/test.h"

static const char chatml_template[] =
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

void write_json(const char *path, json_t *json)
{
    ASSERT(json != NULL);
    ASSERT_INT(json_dump_file(json, path, 0), 0);
    json_decref(json);
}

/* Token id = byte, in the alphabet byte-level tokenizers write bytes in; then the special tokens.
 */
static json_t *byte_vocabulary(void)
{
    json_t *vocab = json_object();
    int next = 256;

    for (int byte = 0; byte < 256; byte++) {
        bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
        int code = plain ? byte : next++;
        char utf8[3] = {(char)code, 0, 0};

        if (code >= 0x80) {
            utf8[0] = (char)(0xc0 | code >> 6);
            utf8[1] = (char)(0x80 | (code & 0x3f));
        }
        json_object_set_new(vocab, utf8, json_integer(byte));
    }
    return vocab;
}

static json_t *special_token(int id, const char *content)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

static void write_tokenizer(void)
{
    json_t *specials =
        json_pack("[o, o, o, o]", special_token(BOS, "<s>"), special_token(EOS, "</s>"),
                  special_token(IM_START, "<|im_start|>"), special_token(IM_END, "<|im_end|>"));
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 0, "use_regex", 1);
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", 0, "vocab", byte_vocabulary(), "merges");
    json_t *bos = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", "<s>", "type_id", 0);
    json_t *text = json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0);
    json_t *post = json_pack("{s:s, s:[O, O], s:[o, o], s:{s:{s:s, s:[i], s:[s]}}}", "type",
                             "TemplateProcessing", "single", bos, text, "pair", bos, text,
                             "special_tokens", "<s>", "id", "<s>", "ids", BOS, "tokens", "<s>");

    write_json("tokenizer.json",
               json_pack("{s:s, s:n, s:n, s:o, s:n, s:O, s:o, s:o, s:o}", "version", "1.0",
                         "truncation", "padding", "added_tokens", specials, "normalizer",
                         "pre_tokenizer", bytes, "post_processor", post, "decoder", bytes, "model",
                         model));
    write_json("tokenizer_config.json",
               json_pack("{s:s, s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>",
                         "chat_template", chatml_template));
}

void data_folder_begin(struct data_folder *f)
{
    *f = (struct data_folder){.data = "data.jsonl",
                              .options = {.format = "auto",
                                          .chat_format = "auto",
                                          .too_long = "truncate",
                                          .loss_on = "assistant",
                                          .max_length = 2048,
                                          .fallback_eos = -1}};
    gr_log_speaks(false);
    gr_test_enter_folder();
    write_tokenizer();
    ASSERT_OK(gr_tokenizer_create(&f->tokenizer, "."));
}

void data_folder_end(struct data_folder *f)
{
    gr_documents_release(&f->documents);
    gr_tokenizer_destroy(f->tokenizer);
}

gr_status read_records(struct gr_documents *documents, const struct gr_tokenizer *tokenizer,
                       const char *const *files, int64_t count,
                       const struct gr_records_options *options)
{
    struct gr_sources sources = {0};
    gr_status status = gr_records_read(documents, &sources, tokenizer, files, count, options);

    for (int64_t i = 0; i < sources.count; i++) {
        gr_documents_count(documents, &sources.item[i]);
        if (status == GR_OK)
            gr_source_note(&sources.item[i], options->max_length);
    }
    if (status == GR_OK)
        status = gr_sources_check_learned(&sources, options->max_length);
    gr_sources_release(&sources);
    return status;
}

gr_status data_folder_read(struct data_folder *f, const char *text)
{
    gr_test_write_text(f->data, text);
    gr_documents_release(&f->documents);
    return read_records(&f->documents, f->tokenizer, &f->data, 1, &f->options);
}
