/* graft generate: what a model answers, with or without an adapter. */
#include "launch/cmd.h"

#include "data/chat.h"
#include "data/tokenizer/tokenizer.h"
#include "data/utf8.h"
#include "kernels/base/alloc.h"
#include "kernels/base/log.h"
#include "launch/model_args.h"
#include "trainer/run/generate.h"
#include "trainer/run/inputs.h"

#include <stdio.h>
#include <string.h>

static const struct gr_option options[] = {
    GR_MODEL_OPTIONS,
    {"prompt", 0, GR_OPTION_REQUIRED, "TEXT", "text to continue, or with --chat to answer", 0, 0},
    {"chat", 0, GR_OPTION_FLAG, NULL, "the prompt is a user's message in the model's chat format",
     0, 0},
    {"max-new-tokens", 0, GR_OPTION_INTEGER, "N", "at most so many tokens (128)", 1, 1e6},
    {"temperature", 0, GR_OPTION_REAL, "X", "randomness; 0, the default: the likeliest token", 0,
     100},
    {"top-p", 0, GR_OPTION_REAL, "X", "choose among the likeliest tokens of this probability (1)",
     0, 1},
    {"seed", 0, GR_OPTION_INTEGER, "N", "of the choices (42)", 0, 4294967295.0},
    {0},
};

struct printer {
    const struct gr_tokenizer *tokenizer;
    uint32_t *ids;
    int64_t count;
    size_t printed; /* bytes of the text so far */
};

/* Decodes everything again and prints what is new: a character may span tokens. */
static gr_status print_token(void *context, uint32_t id)
{
    gr_status status = GR_OK;
    struct printer *p = context;
    struct gr_buffer text = {0};

    p->ids[p->count++] = id;
    GR_TRY(gr_tokenizer_decode(p->tokenizer, &text, p->ids, p->count, true));
    if (text.length >= 3 && memcmp(text.data + text.length - 3, "\xEF\xBF\xBD", 3) == 0)
        goto out; /* half a character: wait for the rest */
    if (text.length > p->printed) {
        fwrite(text.data + p->printed, 1, text.length - p->printed, stdout);
        fflush(stdout);
        p->printed = text.length;
    }
out:
    gr_buffer_release(&text);
    return status;
}

/* The ids to continue, and (o->stop) what ends the answer. */
static gr_status encode_prompt(struct gr_encoding *encoding, struct gr_generate_options *o,
                               const struct gr_tokenizer *tokenizer, const char *prompt, bool chat,
                               const char *chat_format)
{
    gr_status status = GR_OK;
    struct gr_chat format = {0};
    struct gr_chat_text text = {0};
    struct gr_chat_message message = {.role = GR_CHAT_USER, .content = prompt};

    if (!chat)
        return gr_tokenizer_encode(tokenizer, encoding, prompt, strlen(prompt), true);
    GR_TRY(gr_chat_choose(&format, chat_format, tokenizer));
    gr_generate_add_stop(o, format.end_token);
    GR_TRY(gr_chat_render(&format, &text, &message, 1, true, "--prompt"));
    GR_TRY(gr_tokenizer_encode(tokenizer, encoding, text.text.data, text.text.length, false));
out:
    gr_chat_text_release(&text);
    return status;
}

static gr_status check_utf8(const char *prompt)
{
    int64_t invalid = gr_utf8_invalid_at(prompt, (int64_t)strlen(prompt));

    if (invalid < 0)
        return GR_OK;
    return gr_fail(
        GR_ERR_USAGE, "--prompt",
        "give it in UTF-8: what it comes from, a file or the terminal, has another encoding",
        "bad UTF-8 (found byte 0x%02x as byte %lld of the text, expected a character)",
        (unsigned)(unsigned char)prompt[invalid], (long long)invalid + 1);
}

/* The prompt and at least one token more must have a position each. */
static gr_status check_length(int64_t tokens, int64_t positions, int64_t model_positions)
{
    if (tokens == 0)
        return gr_fail(GR_ERR_USAGE, "--prompt", "give a text to continue",
                       "the prompt has no tokens (found 0, expected at least 1)");
    if (tokens >= positions)
        return gr_fail(GR_ERR_USAGE, "--prompt",
                       tokens < model_positions
                           ? "raise data.max_length"
                           : "shorten it, or use a model with a longer context",
                       "the prompt does not fit (found %lld tokens, expected less than %lld)",
                       (long long)tokens, (long long)positions);
    return GR_OK;
}

/* Everything that can be wrong with the prompt is found before the weights are read. */
static gr_status read_prompt(struct gr_encoding *encoding, struct gr_tokenizer **tokenizer,
                             struct gr_generate_options *o, struct gr_model_session *s,
                             const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_config *config = &s->config;
    struct gr_model_config model;
    int64_t positions = config->data.max_length;

    GR_TRY(check_utf8(gr_args_text(args, "prompt")));
    GR_TRY(gr_model_config_load(&model, config->model));
    GR_TRY(gr_tokenizer_create(tokenizer, config->model));
    GR_TRY(encode_prompt(encoding, o, *tokenizer, gr_args_text(args, "prompt"),
                         gr_args_flag(args, "chat"), config->data.chat_format));
    GR_TRY(gr_check_vocabulary(encoding->ids, encoding->count, &model, config->model));
    GR_TRY(check_length(encoding->count, positions, model.max_position_embeddings));
    if (positions - encoding->count > o->max_new_tokens)
        config->data.max_length = encoding->count + o->max_new_tokens;
    o->tokens = gr_tokenizer_vocab_size(*tokenizer);
    gr_generate_add_stop(o, gr_tokenizer_eos(*tokenizer));
    for (int64_t i = 0; i < model.eos_count; i++)
        gr_generate_add_stop(o, model.eos[i]);
out:
    return status;
}

static gr_status generate(struct gr_model_session *s, const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_tokenizer *tokenizer = NULL;
    struct gr_encoding encoding = {0};
    struct printer printer = {0};
    struct gr_generate_options o = {
        .max_new_tokens = gr_args_integer(args, "max-new-tokens", 128),
        .sampling = {.temperature = gr_args_real(args, "temperature", 0),
                     .top_p = gr_args_real(args, "top-p", 1),
                     .seed = (uint64_t)gr_args_integer(args, "seed", 42)},
    };
    int64_t tokens;

    GR_TRY(read_prompt(&encoding, &tokenizer, &o, s, args));
    tokens = s->config.data.max_length;
    GR_TRY(gr_model_session_open(s, args));
    GR_TRY(gr_model_session_prepare_generate(s, encoding.count, tokens));
    printer.tokenizer = tokenizer;
    printer.ids = GR_NEW_ARRAY(uint32_t, tokens);
    GR_TRY(gr_generate(&s->engine, encoding.ids, encoding.count, &o, print_token, &printer));
    printf("\n");
    if (printer.count == tokens - encoding.count && printer.count < o.max_new_tokens)
        gr_note("the text ends here: all %lld positions are taken", (long long)tokens);
out:
    gr_free(printer.ids);
    gr_encoding_release(&encoding);
    gr_tokenizer_destroy(tokenizer);
    return status;
}

static gr_status run(const struct gr_args *args)
{
    gr_status status = GR_OK;
    struct gr_model_session session;

    GR_TRY(gr_model_session_configure(&session, args, true));
    GR_TRY(generate(&session, args));
out:
    gr_model_session_close(&session, status);
    return status;
}

const struct gr_command gr_cmd_generate = {
    .name = "generate",
    .run = run,
    .usage = "--model DIR [--adapter DIR] --prompt TEXT [--chat] [--set KEY=VALUE]...\n"
             "           [--max-new-tokens N] [--temperature X] [--top-p X] [--seed N]",
    .summary = "continue a text or answer a message",
    .details = "Ends with the model's end of text, with --chat at the end of the turn, after\n"
               "--max-new-tokens, or at the model's last position.  The same options give the "
               "same text.",
    .options = options,
    .is_alone = true,
};
