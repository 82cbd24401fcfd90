/* The chat formats graft writes, and the templates it knows them by.  Facts only: chat.c renders.
 * A new format is one entry here and its conversations in the test.  Sources: the chat_template of
 * the models named; llama2 and mistral-v1 are the templates of meta-llama/Llama-2-7b-chat-hf and
 * the v1 tokenizer of mistral-common. */
#include "data/chat_formats.h"

#define CHATML_TURNS                                                                               \
    {                                                                                              \
        [GR_CHAT_SYSTEM] = {"<|im_start|>system\n", "<|im_end|>", "\n"},                           \
        [GR_CHAT_USER] = {"<|im_start|>user\n", "<|im_end|>", "\n"},                               \
        [GR_CHAT_ASSISTANT] = {"<|im_start|>assistant\n", "<|im_end|>", "\n"},                     \
    }

#define LLAMA3_TURNS                                                                               \
    {                                                                                              \
        [GR_CHAT_SYSTEM] = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", ""},   \
        [GR_CHAT_USER] = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", ""},       \
        [GR_CHAT_ASSISTANT] = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>",  \
                               ""},                                                                \
    }

const struct gr_chat_format gr_chat_formats[] = {
    {
        .name = "chatml",
        .opening = "",
        .turn = CHATML_TURNS,
        .generation = "<|im_start|>assistant\n",
    },
    {
        .name = "qwen2.5",
        .opening = "",
        .turn = CHATML_TURNS,
        .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        .generation = "<|im_start|>assistant\n",
    },
    {
        .name = "smollm2",
        .opening = "",
        .turn = CHATML_TURNS,
        .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        .generation = "<|im_start|>assistant\n",
    },
    {
        .name = "llama3",
        .opening = "{bos}",
        .turn = LLAMA3_TURNS,
        .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
        .trim = true,
    },
    {
        .name = "llama-3.1",
        .opening = "{bos}",
        .turn = LLAMA3_TURNS,
        .system_preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        .default_system = "",
        .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
        .trim = true,
    },
    {
        .name = "llama2",
        .opening = "",
        .turn = {[GR_CHAT_SYSTEM] = {"<<SYS>>\n", "", "\n<</SYS>>\n\n"},
                 [GR_CHAT_USER] = {"{bos}[INST] ", "", " [/INST]"},
                 [GR_CHAT_ASSISTANT] = {" ", " {eos}", ""}},
        .generation = "",
        .trim = true,
        .alternate = true,
        .system_in_user = true,
    },
    {
        .name = "mistral-v1",
        .opening = "{bos}",
        .turn = {[GR_CHAT_SYSTEM] = {"", "", "\n\n"},
                 [GR_CHAT_USER] = {" [INST] ", "", " [/INST]"},
                 [GR_CHAT_ASSISTANT] = {" ", "{eos}", ""}},
        .generation = "",
        .alternate = true,
        .system_in_user = true,
    },
    {.name = NULL},
};

const struct gr_chat_template gr_chat_templates[] = {
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", "chatml", "the demo"},
    {"cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f", "qwen2.5",
     "Qwen2.5-Instruct"},
    {"e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65", "llama-3.1",
     "Llama-3.1-Instruct"},
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", "smollm2",
     "SmolLM2-Instruct"},
    {NULL, NULL, NULL},
};
