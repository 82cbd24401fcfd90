#!/usr/bin/env python3
"""Real models on real data: graft against Transformers and PEFT on SmolLM2-135M-Instruct and WikiSQL.

    real_models.py GRAFT [--steps N] [--model DIR] [--data DIR]

Compares the loss before training, every step of fine-tuning from the same adapter on the same packs,
and the loss after it; after a whole epoch (the default) it also looks at an answer. An epoch takes a
quarter of an hour or more on two cores, most of it PEFT's, whose losses are kept in the cache.
Exits 77 where something is missing.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twin import (
    CACHE, SOURCE, Document, Graft, cached, check, epoch_steps, load_base, mean_loss, peft,
    read_documents, skip, train_with_graft, train_with_peft, transformers,
)  # fmt: skip

SHARED = SOURCE.parent / "shared"

MAX_LENGTH = 128
MICRO_BATCHES = 8
EPOCH_STEPS = 125
SEED = 42
RATE = 2e-4
WARMUP_RATIO = 0.03
MAX_GRAD_NORM = 1.0
R = 16
LORA_ALPHA = 32

SHORT_DOCUMENTS = 25  # of the 100 by which the loss is compared before and after training

EVAL_EQUAL = 1e-4  # loss before training, absolute
TRAINED_EQUAL = 0.01  # loss after it, relative


def settings(model: Path, data: Path, output: Path, steps: int) -> list[str]:
    """What peft_result() repeats."""
    values = {
        "model": model,
        "output": output,
        "data.train": f"[{data / 'train.jsonl'}]",
        "data.max_length": MAX_LENGTH,
        "lora.r": R,
        "lora.lora_alpha": LORA_ALPHA,
        "train.micro_batches": MICRO_BATCHES,
        "train.seed": SEED,
        "train.learning_rate": RATE,
        "train.warmup_ratio": WARMUP_RATIO,
        "train.max_grad_norm": MAX_GRAD_NORM,
        "train.num_train_epochs": 1,
        "train.max_steps": steps,
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def find_model(folder: Path | None) -> Path:
    if folder is not None:
        return folder
    made = CACHE / "smollm2-135m-instruct"
    script = SHARED / "tools" / "smollm2.sh"
    if not made.exists():
        if not script.exists():
            skip(f"there is no {script}, which makes the model")
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["bash", script, made, sys.executable], check=True)
    return made


def eval_loss(graft: Graft, model: Path, data: Path, *more: object) -> dict:
    lines = graft("eval", "--model", model, "--data", data, "--json", *more)
    return json.loads(lines.splitlines()[-1])


def compare_eval(graft: Graft, model: Path, valid: Path, documents: list[Document]) -> float:
    found = eval_loss(graft, model, valid)
    supervised = sum(document.supervised for document in documents)
    check(
        found["supervised_tokens"] == supervised,
        f"eval counts {found['supervised_tokens']} supervised tokens, expected {supervised}",
    )
    expected = cached(
        [model / "model.safetensors", valid],
        ["base"],
        lambda: mean_loss(load_base(model), documents),
    )
    apart = abs(found["eval_loss"] - expected)
    check(
        apart <= EVAL_EQUAL,
        f"loss before training: graft {found['eval_loss']:.6f}, transformers {expected:.6f}",
    )
    return found["eval_loss"]


def first_adapter(graft: Graft, model: Path, data: Path, work: Path) -> Path:
    """Where graft's run begins: one step so small that A keeps its bits and B stays near zero."""
    run = work / "first"
    graft("train", "/dev/null", *settings(model, data, run, 1), "--set", "train.micro_batches=1",
          "--set", "train.learning_rate=1e-30", "--set", "train.warmup_ratio=0")  # fmt: skip
    return run / "adapter"


def peft_result(model_folder: Path, adapter: Path, steps: list, valid: list) -> dict:
    """The losses of all steps and the one after them."""
    model = peft.PeftModel.from_pretrained(load_base(model_folder), adapter, is_trainable=True)
    losses = train_with_peft(model, steps, RATE, WARMUP_RATIO, MAX_GRAD_NORM)
    return {"losses": losses, "eval_loss": mean_loss(model.eval(), valid)}


def compare_training(
    graft: Graft, model: Path, data: Path, valid: Path, work: Path, before: float, count: int,
) -> Path:  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    documents = read_documents(tokenizer, data / "train.jsonl", MAX_LENGTH)
    steps = epoch_steps(documents, MAX_LENGTH, MICRO_BATCHES, SEED, 0)
    check(len(steps) == EPOCH_STEPS, f"an epoch has {len(steps)} steps, expected {EPOCH_STEPS}")
    steps = steps[: count or len(steps)]

    run = work / "run"
    events = train_with_graft(graft, run, settings(model, data, run, count or -1))
    counts = [sum(d.supervised for pack in step for d in pack) for step in steps]
    check(
        [event["supervised_tokens"] for event in events] == counts,
        f"the {len(steps)} steps hold the documents that the decided order and packing give",
    )
    first = first_adapter(graft, model, data, work)
    expected = cached(
        [model / "model.safetensors", data / "train.jsonl", valid,
         first / "adapter_model.safetensors", first / "adapter_config.json"],
        [MAX_LENGTH, MICRO_BATCHES, SEED, RATE, WARMUP_RATIO, MAX_GRAD_NORM, len(steps)],
        lambda: peft_result(model, first, steps, read_documents(tokenizer, valid, 10**6)),
    )  # fmt: skip

    apart = max(
        abs(event["train_loss"] - loss) / loss
        for event, loss in zip(events, expected["losses"], strict=True)
    )
    check(apart <= TRAINED_EQUAL, f"losses of the steps differ by at most {apart:.2e}")
    after = eval_loss(graft, model, valid, "--adapter", run / "adapter")["eval_loss"]
    check(
        abs(after - expected["eval_loss"]) <= TRAINED_EQUAL * expected["eval_loss"],
        f"loss after training: graft {after:.5f}, PEFT {expected['eval_loss']:.5f}",
    )
    check(after < before, f"training brought the loss down, from {before:.4f} to {after:.4f}")
    return run / "adapter"


def is_sql(answer: str) -> bool:
    return answer.lstrip().startswith("SELECT") and "FROM" in answer


def check_answer(graft: Graft, model: Path, adapter: Path, test: Path) -> None:
    text = json.loads(test.read_text().splitlines()[0])["text"]
    prompt = text[: text.index("\nA:") + len("\nA:")]
    asked = ("generate", "--model", model, "--prompt", prompt, "--max-new-tokens", 40)
    base, trained = graft(*asked), graft(*asked, "--adapter", adapter)
    print(f"     asked    {prompt!r}\n     before   {base!r}\n     after    {trained!r}")
    check(not is_sql(base), "the base answers a test question with something else than SQL")
    check(is_sql(trained), "the fine-tuned model answers it with SQL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graft")
    parser.add_argument("--steps", type=int, default=0,
                        help="instead of a whole epoch; fewer documents are evaluated, too")  # fmt: skip
    parser.add_argument("--model", type=Path, help="a directory that tools/smollm2.sh made")
    parser.add_argument("--data", type=Path, default=SHARED / "fixtures/datasets/wikisql-mlx")
    options = parser.parse_args()
    if not options.data.exists():
        skip(f"there is no {options.data}")
    model = find_model(options.model)
    graft = Graft(options.graft)

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    work = Path(tempfile.mkdtemp())
    try:
        valid = options.data / "valid.jsonl"
        if options.steps:
            lines = valid.read_text().splitlines(keepends=True)[:SHORT_DOCUMENTS]
            valid = work / "valid.jsonl"
            valid.write_text("".join(lines))
        before = compare_eval(graft, model, valid, read_documents(tokenizer, valid, 10**6))
        adapter = compare_training(
            graft, model, options.data, valid, work, before, options.steps
        )
        if options.steps == 0:
            check_answer(graft, model, adapter, options.data / "test.jsonl")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
