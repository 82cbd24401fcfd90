#!/usr/bin/env python3
"""Training in bf16 stays as near to f32 as PEFT's own bf16 does: base in bf16, adapter in f32, no autocast.

    bf16_training.py GRAFT      GRAFT: the program. Uses data/demo; exits 77 without torch and PEFT.

The same first adapter and the same packs, 200 steps at a rate of 1e-3, in which the loss halves.
"""

import sys
import tempfile
from pathlib import Path

from twin import (
    SOURCE, Graft, cached, check, epoch_steps, load_base, peft, read_documents, torch,
    train_with_graft, train_with_peft, transformers,
)  # fmt: skip

MODEL = SOURCE / "data" / "demo" / "model"
DATA = SOURCE / "data" / "demo" / "train.jsonl"
STEPS = 200
RATE = 1e-3
WARMUP_RATIO = 0.03
MAX_GRAD_NORM = 1.0
MAX_LENGTH = 192
MICRO_BATCHES = 2
SEED = 42


def settings(output: Path, dtype: str, steps: int) -> list[str]:
    values = {
        "model": MODEL,
        "output": output,
        "data.train": f"[{DATA}]",
        "data.max_length": MAX_LENGTH,
        "lora.r": 8,
        "lora.lora_alpha": 16,
        "train.micro_batches": MICRO_BATCHES,
        "train.seed": SEED,
        "train.learning_rate": RATE,
        "train.warmup_ratio": WARMUP_RATIO,
        "train.max_grad_norm": MAX_GRAD_NORM,
        "train.max_steps": steps,
        "device.dtype": dtype,
        "device.threads": 1,
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def first_adapter(graft: Graft, work: Path) -> Path:
    """Where all runs begin: one step so small that A keeps its bits and B stays near zero."""
    run = work / "first"
    graft("train", "/dev/null", *settings(run, "f32", 1),
          "--set", "train.learning_rate=1e-30", "--set", "train.warmup_ratio=0")  # fmt: skip
    return run / "adapter"


def make_steps() -> list:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    documents = read_documents(tokenizer, DATA, MAX_LENGTH)
    steps: list = []
    epoch = 0
    while len(steps) < STEPS:
        steps += epoch_steps(documents, MAX_LENGTH, MICRO_BATCHES, SEED, epoch)
        epoch += 1
    return steps[:STEPS]


def train_peft(adapter: Path, steps: list, dtype) -> list[float]:
    model = peft.PeftModel.from_pretrained(load_base(MODEL, dtype), adapter, is_trainable=True)
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    check(trained == {torch.float32}, f"PEFT trains an f32 adapter over a base in {dtype}")
    return train_with_peft(model, steps, RATE, WARMUP_RATIO, MAX_GRAD_NORM)


def peft_losses(adapter: Path, steps: list, dtype) -> list[float]:
    return cached(
        [MODEL / "model.safetensors", DATA, adapter / "adapter_model.safetensors",
         adapter / "adapter_config.json"],
        [str(dtype), STEPS, RATE, WARMUP_RATIO, MAX_GRAD_NORM, MAX_LENGTH, MICRO_BATCHES, SEED],
        lambda: train_peft(adapter, steps, dtype),
    )  # fmt: skip


def apart(losses: list[float], expected: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(losses, expected, strict=True)) / len(expected)


def main() -> None:
    torch.set_num_threads(1)  # so small a model gains nothing from two that wait for each other
    graft = Graft(sys.argv[1])
    steps = make_steps()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        first = first_adapter(graft, work)
        found = {
            dtype: [
                event["train_loss"]
                for event in train_with_graft(graft, work / dtype, settings(work / dtype, dtype, STEPS))
            ]
            for dtype in ("f32", "bf16")
        }
        expected = peft_losses(first, steps, torch.float32)
        peft_bf16 = peft_losses(first, steps, torch.bfloat16)
    tail = sum(expected[-20:]) / 20
    check(tail <= expected[0] / 2, f"the loss halves: from {expected[0]:.3f} to {tail:.3f}")
    gap = apart(found["f32"], expected)
    check(gap <= 1e-4, f"f32: {gap:.1e} from PEFT's losses in the mean")
    gap, peft_gap = apart(found["bf16"], expected), apart(peft_bf16, expected)
    check(gap > 1e-5, f"bf16: the losses are not those of f32 ({gap:.1e} apart)")
    check(
        gap <= 1.5 * peft_gap + 1e-4,
        f"bf16: {gap:.1e} from PEFT's f32 losses in the mean; PEFT's own bf16 is {peft_gap:.1e}",
    )


if __name__ == "__main__":
    main()
