#!/usr/bin/env python3
"""Writes chat.json: conversations, and what the models' own Jinja templates make of them.

    make_chat.py NAME=TOKENIZER_DIR ...

NAME is a chat format of data/chat_formats.c; the directory holds tokenizer_config.json, with
chat_template inside or chat_template.jinja beside it. Contents are made up here (seeded), heavy on
what goes wrong: white space of every kind at the ends, braces, quotes, special tokens in the text,
system messages in the middle. `supervised` lists what the assistant says, and what ends each turn.
"""

import json
import random
import sys
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

END = {"chatml": "<|im_end|>", "qwen2.5": "<|im_end|>", "smollm2": "<|im_end|>", "llama-3.1": "<|eot_id|>"}
STRIPS = {"llama-3.1"}
CASES = 12
BLANK = "".join(c for c in map(chr, range(0x110000)) if c.isspace())  # what str.strip() drops
FIRST = [{"role": "user", "content": BLANK + "all" + BLANK[::-1]}, {"role": "assistant", "content": BLANK + "of them" + BLANK}]
SPACES = ["", "", "", " ", "\n", "\t \n", "\u00a0", "\u2003\n", "\u3000", "\x1f", "\u200b", "\x85"]
WORDS = ["Hi", "what's", "2+2", "世界", "🦙", "{bos}", "{{ eos }}", '"quoted"', "<|im_end|>", "a\n\nb", "<<SYS>>",
         "don't", "\\n", "Ünï", "{% if %}", "<|eot_id|>", "é", "&lt;", "'", "1e9"]


def content(rng: random.Random) -> str:
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))
    return rng.choice(SPACES) + words + rng.choice(SPACES)


def conversation(rng: random.Random) -> list[dict]:
    roles = ["system"] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        roles += rng.choice([["user", "assistant"]] * 4 + [["user"], ["assistant"], ["system", "user"]])
    return [{"role": role, "content": content(rng)} for role in roles]


def load(directory: Path) -> tuple[str, dict]:
    config = json.loads((directory / "tokenizer_config.json").read_text())
    jinja = directory / "chat_template.jinja"
    template = jinja.read_text() if jinja.exists() else config["chat_template"]
    tokens = {k: config[k] for k in ("bos_token", "eos_token") if isinstance(config.get(k), str)}
    return template, tokens


def main() -> None:
    formats = []
    for argument in sys.argv[1:]:
        name, _, directory = argument.partition("=")
        template, tokens = load(Path(directory))
        rng, cases = random.Random(7), []
        for case in range(CASES):
            messages, generation = FIRST if case == 0 else conversation(rng), rng.random() < 0.3
            said = [m["content"] for m in messages if m["role"] == "assistant"]
            said = [s.strip() if name in STRIPS else s for s in said]
            texts, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=generation,
                                             **tokens)
            cases.append({"messages": messages, "add_generation_prompt": generation, "text": texts[0],
                          "supervised": [part for s in said for part in (s, END[name])]})
        formats.append({"format": name, "bos": tokens.get("bos_token", ""), "eos": tokens.get("eos_token", ""),
                        "cases": cases})
    out = {"made_by": f"make_chat.py, transformers {transformers.__version__}, Jinja2 {jinja2.__version__}", "formats": formats}
    path = Path(__file__).parent / "chat.json"
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")).replace('{"messages"', '\n{"messages"') + "\n")


main()
