#!/usr/bin/env python3
"""Makes the demo: a small Llama pre-trained from nothing, its tokenizer, and the chat set.

    make_demo.py [DIR]        (default: the folder of this file; about five minutes on two cores)

brindle.py writes the texts. The same versions of torch, transformers and tokenizers on the same kind
of CPU give the same files.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from random import Random

import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

import brindle

SEED = 7
VOCAB = 2048  # at most: when every word is one token, there is nothing left to merge
# A word is the same token wherever it stands: what lies between words is a token of its own. So small
# a model learns to copy a name only if the name in the answer is the token that was in the question.
# So is the end of a line: an answer's first token must not be one with the line's end before it.
WORDS = r"\p{L}+|\p{N}|\n|[^\p{L}\p{N}\n]+"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# First mostly who comes when, short texts that teach to copy; then mostly orders and their lists.
FIRST_DOCUMENTS, FIRST_STORIES = 20_000, 0.35
DOCUMENTS, STORIES = 40_000, 0.75
TRAIN_CONVERSATIONS = 480
TEST_CONVERSATIONS = 64

ROWS = 64  # documents in a step
STEPS = 1300
FIRST_STEPS = 450
LEARNING_RATE = 5e-3
# With Muon and so large a start the base repeats names after 200 to 500 steps. An earlier one, with
# AdamW from 0.02 and on other texts, did not after 2500.
INITIALIZER_RANGE = 0.07

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_json(path: Path, document: dict) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def make_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    split = [name for name in brindle.EVERYBODY if len(tokenizer.encode(name).ids) != 1]
    if split:
        sys.exit(f"not one token each: {' '.join(split)}")
    return tokenizer


def write_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": 512,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": None,
        },
    )


def make_model(vocabulary: int) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        initializer_range=INITIALIZER_RANGE,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIALS.index("<|im_end|>"),
        pad_token_id=SPECIALS.index("<|endoftext|>"),
    )
    return transformers.LlamaForCausalLM(config)


def batches(documents: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """ids and targets (-100: none) of one document per row, rows of about the same length."""
    random = Random(SEED)
    while True:
        pool = sorted(random.sample(documents, 16 * ROWS), key=len)
        groups = [pool[begin : begin + ROWS] for begin in range(0, len(pool), ROWS)]
        random.shuffle(groups)
        for group in groups:
            rows = torch.full((ROWS, len(group[-1])), -100)
            for row, document in zip(rows, group):
                row[: len(document)] = torch.tensor(document)
            yield rows[:, :-1].clamp(min=0), rows[:, 1:]


def make_optimizers(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices, others = [], []
    for name, weight in model.named_parameters():
        in_layer = weight.ndim == 2 and "embed_tokens" not in name
        (matrices if in_layer else others).append(weight)
    return [
        torch.optim.Muon(
            matrices, lr=LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05),
    ]


def pretrain(
    model: torch.nn.Module, first: list[list[int]], documents: list[list[int]]
) -> None:
    """Next-token prediction. Padding stands behind a document, where causal attention hides it."""
    optimizers = make_optimizers(model)
    warmup = STEPS // 20
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / STEPS)),
        )
        for optimizer in optimizers
    ]
    started = time.monotonic()
    lessons = chain(islice(batches(first), FIRST_STEPS), batches(documents))
    for step, (ids, targets) in zip(range(STEPS), lessons):
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            seconds = time.monotonic() - started
            print(f"step {step:5d}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    (folder / "model").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    torch.manual_seed(SEED)

    random = Random(SEED)
    texts = [brindle.document(random, FIRST_STORIES) for _ in range(FIRST_DOCUMENTS)]
    texts += [brindle.document(random, STORIES) for _ in range(DOCUMENTS)]
    train = [brindle.conversation(random, brindle.NAMES, 0.2) for _ in range(TRAIN_CONVERSATIONS)]
    test = [brindle.conversation(random, brindle.NEW_NAMES, 0.0) for _ in range(TEST_CONVERSATIONS)]
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", test)

    tokenizer = make_tokenizer(texts)
    write_tokenizer(tokenizer, folder / "model")
    documents = [
        [*encoding.ids, SPECIALS.index("<|endoftext|>")]
        for encoding in tokenizer.encode_batch(texts)
    ]
    print(f"{sum(map(len, documents))} tokens in {len(documents)} documents", flush=True)

    model = make_model(tokenizer.get_vocab_size())
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    pretrain(model, documents[:FIRST_DOCUMENTS], documents[FIRST_DOCUMENTS:])
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
