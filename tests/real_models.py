#!/usr/bin/env python3
"""Real models on real data: graft against Transformers and PEFT on SmolLM2-135M-Instruct and WikiSQL.

    real_models.py GRAFT [--steps N] [--model DIR] [--data DIR]

Compares the loss before training, every step of fine-tuning from the same adapter on the same packs,
and the loss after it; after a whole epoch (the default) it also looks at an answer. An epoch takes a
quarter of an hour or more on two cores, most of it PEFT's, whose losses are kept in the cache.
Exits 77 where something is missing.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twin import (
    SOURCE, Document, Graft, check, epoch_steps, load_base, mean_loss, peft, read_documents, skip,
    torch, train_with_graft, train_with_peft, transformers,
)  # fmt: skip

SHARED = SOURCE.parent / "shared"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "graft-tests"

MAX_LENGTH = 128
MICRO_BATCHES = 8  # 125 steps
SEED = 42
RATE = 2e-4
WARMUP_RATIO = 0.03
MAX_GRAD_NORM = 1.0
R = 16
LORA_ALPHA = 32

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
    expected = mean_loss(load_base(model), documents)
    apart = abs(found["eval_loss"] - expected)
    check(
        apart <= EVAL_EQUAL,
        f"loss before training: graft {found['eval_loss']:.6f}, transformers {expected:.6f}",
    )
    return found["eval_loss"]


def first_adapter(graft: Graft, model: Path, data: Path, work: Path) -> Path:
    """Where graft's run begins: one step so small that A keeps its bits and B stays near zero."""
    run = work / "first"
    graft("train", "/dev/null", *settings(model, data, run, 1),
          "--set", "train.learning_rate=1e-30", "--set", "train.warmup_ratio=0")  # fmt: skip
    return run / "adapter"


def peft_result(model_folder: Path, adapter: Path, steps: list, valid: list) -> dict:
    """The losses of all steps and the one after them."""
    model = peft.PeftModel.from_pretrained(load_base(model_folder), adapter, is_trainable=True)
    losses = train_with_peft(model, steps, RATE, WARMUP_RATIO, MAX_GRAD_NORM)
    return {"losses": losses, "eval_loss": mean_loss(model.eval(), valid)}


def cached(key: list, make) -> dict:
    """The result of make(), kept under everything it depends on."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    path = CACHE / f"peft-losses-{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        result = json.dumps(make())
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(result)
        part.replace(path)
    return json.loads(path.read_text())


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_training(
    graft: Graft, model: Path, data: Path, work: Path, before: float, count: int
) -> Path:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    documents = read_documents(tokenizer, data / "train.jsonl", MAX_LENGTH)
    valid = read_documents(tokenizer, data / "valid.jsonl", 10**6)
    steps = epoch_steps(documents, MAX_LENGTH, MICRO_BATCHES, SEED, 0)
    steps = steps[: count or len(steps)]

    run = work / "run"
    events = train_with_graft(graft, run, settings(model, data, run, count or -1))
    counts = [sum(d.supervised for pack in step for d in pack) for step in steps]
    check(
        [event["supervised_tokens"] for event in events] == counts,
        f"the {len(steps)} steps hold the documents that the decided order and packing give",
    )
    first = first_adapter(graft, model, data, work)
    key = [
        file_hash(path)
        for path in (model / "model.safetensors", data / "train.jsonl", data / "valid.jsonl",
                     first / "adapter_model.safetensors", first / "adapter_config.json")
    ] + [MAX_LENGTH, MICRO_BATCHES, SEED, RATE, WARMUP_RATIO, MAX_GRAD_NORM, len(steps),
         torch.__version__, transformers.__version__, peft.__version__]  # fmt: skip
    expected = cached(key, lambda: peft_result(model, first, steps, valid))

    apart = max(
        abs(event["train_loss"] - loss) / loss
        for event, loss in zip(events, expected["losses"], strict=True)
    )
    check(apart <= TRAINED_EQUAL, f"losses of the steps differ by at most {apart:.2e}")
    after = eval_loss(graft, model, data / "valid.jsonl", "--adapter", run / "adapter")["eval_loss"]
    check(
        abs(after - expected["eval_loss"]) <= TRAINED_EQUAL * expected["eval_loss"],
        f"loss after training: graft {after:.5f}, PEFT {expected['eval_loss']:.5f}",
    )
    check(after < before, f"training brought the loss down, from {before:.4f} to {after:.4f}")
    return run / "adapter"


def check_answer(graft: Graft, model: Path, adapter: Path, test: Path) -> None:
    text = json.loads(test.read_text().splitlines()[0])["text"]
    prompt = text[: text.index("\nA:") + len("\nA:")]
    asked = ("generate", "--model", model, "--prompt", prompt, "--max-new-tokens", 40)
    base, trained = graft(*asked), graft(*asked, "--adapter", adapter)
    print(f"     asked    {prompt!r}\n     before   {base!r}\n     after    {trained!r}")
    check(
        trained.lstrip().startswith("SELECT") and "FROM" in trained,
        "the fine-tuned model answers a test question with SQL",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graft")
    parser.add_argument("--steps", type=int, default=0, help="instead of a whole epoch")
    parser.add_argument("--model", type=Path, help="a directory that tools/smollm2.sh made")
    parser.add_argument("--data", type=Path, default=SHARED / "fixtures/datasets/wikisql-mlx")
    options = parser.parse_args()
    if not options.data.exists():
        skip(f"there is no {options.data}")
    model = find_model(options.model)
    graft = Graft(options.graft)

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    valid = read_documents(tokenizer, options.data / "valid.jsonl", 10**6)
    before = compare_eval(graft, model, options.data / "valid.jsonl", valid)
    work = Path(tempfile.mkdtemp())
    try:
        adapter = compare_training(graft, model, options.data, work, before, options.steps)
        if options.steps == 0:
            check_answer(graft, model, adapter, options.data / "test.jsonl")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
