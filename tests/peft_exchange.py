#!/usr/bin/env python3
"""Adapters travel both ways: one trained by graft opens in PEFT, one made by PEFT opens in graft.

    peft_exchange.py GRAFT      GRAFT: the program. Uses data/demo; exits 77 without torch and PEFT.
"""

import json
import sys
import tempfile
from pathlib import Path

from twin import (
    SOURCE, Graft, check, epoch_steps, load_base, load_file, peft, read_documents, read_dump,
    supervised_logits, torch, train_with_peft, transformers,
)  # fmt: skip

DEMO = SOURCE / "data" / "demo"
MODEL = DEMO / "model"
CONVERSATIONS = 20
MAX_LENGTH = 192  # no test conversation is longer
DIFFERENT = 1e-2
EQUAL = 1e-4

# Adapters PEFT makes: an ordinary one, which it trains too, and random ones that are easily read
# wrong.
TRAINED = "all linears"
TRAINED_STEPS = 8
PEFT_ADAPTERS = {
    "all linears": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "rsLoRA on q, v and down": dict(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]
    ),
    "patterns": dict(
        r=4, lora_alpha=8, target_modules="all-linear",
        rank_pattern={"q_proj": 7, r"layers\.2\.mlp\.down_proj": 2},
        alpha_pattern={"v_proj": 3, "up_proj": 20},
    ),
    "a regular expression": dict(
        r=5, lora_alpha=7, target_modules=r".*layers\.[13]\.self_attn\.[qo]_proj"
    ),
}

# Keys of graft's runs, on top of data/demo/run.yaml: what an adapter's files must tell of.
GRAFT_ADAPTERS = {
    "plain": [],
    "rsLoRA": ["lora.use_rslora=true"],
    "patterns": [
        r"lora.rank_pattern={q_proj: 7, 'layers\.2\.mlp\.down_proj': 2}",
        "lora.alpha_pattern={v_proj: 3, up_proj: 90}",
    ],
    "a regular expression": [
        r"lora.target_modules=(?!.*\.0\.).*?\b(?i:Self)_attn\.[^k]\w+(?<=_proj)|.*up_proj$"
    ],
}


def largest_difference(left: list, right: list) -> float:
    return max((a - b).abs().max().item() for a, b in zip(left, right, strict=True))


def largest_excess(found, expected) -> float:
    """Of a difference over a step of bf16 (at most |x| / 128), or over the rounding errors of f32
    where the sum nearly vanishes."""
    found, expected = found.float(), expected.float()
    allowed = expected.abs() / 128 + 1e-6 * expected.abs().max()
    return ((found - expected).abs() / allowed).max().item()


def compare_merged(graft: Graft, adapter: Path, merged: Path, what: str) -> None:
    """In the base's bf16: PEFT's merge in f32, rounded once; the rest is the base's, bit by bit."""
    graft("merge", "--model", MODEL, "--adapter", adapter, "-o", merged)
    names = [file.name for file in MODEL.iterdir()]
    check(sorted(names) == sorted(file.name for file in merged.iterdir()), f"{what}: same files")
    model = peft.PeftModel.from_pretrained(load_base(MODEL), adapter)
    expected = model.merge_and_unload().state_dict()
    base, found = load_file(MODEL / "model.safetensors"), load_file(merged / "model.safetensors")
    changed, equal, worst, untouched = 0, 0, 0.0, True
    for name, weight in base.items():
        adapted = not torch.equal(weight.float(), expected[name])
        rounded = expected[name].bfloat16()
        untouched = untouched and (adapted or torch.equal(found[name], weight))
        worst = max(worst, largest_excess(found[name], rounded))
        equal += (found[name] == rounded).sum().item()
        changed += adapted
    total = sum(weight.numel() for weight in base.values())
    check(changed > 0 and "lm_head.weight" not in found, f"{what}: {changed} linears merged")
    check(untouched, f"{what}: all other weights are the base's")
    check(worst <= 1, f"{what}: merged bf16 weights are PEFT's to a step ({worst:.2f} <= 1)")
    check(equal >= 0.9999 * total, f"{what}: {total - equal} of {total} of them are not its bits")
    model = transformers.AutoModelForCausalLM.from_pretrained(merged)
    check(model.dtype == torch.bfloat16, f"{what}: the merged model loads as bf16")


def compare_logits(
    graft: Graft, adapter: Path, work: Path, what: str, merges: bool = True
) -> None:
    data = work / "test.jsonl"
    lines = (DEMO / "test.jsonl").read_text().splitlines(keepends=True)
    data.write_text("".join(lines[:CONVERSATIONS]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    documents = read_documents(tokenizer, data, MAX_LENGTH)
    model = load_base(MODEL)
    base = [supervised_logits(model, document) for document in documents]
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    expected = [supervised_logits(model, document) for document in documents]

    def graft_logits(*arguments: object) -> list:
        dump = work / "dump.safetensors"
        graft("eval", *arguments, "--data", data, "--set", f"data.max_length={MAX_LENGTH}",
              "--dump", dump)  # fmt: skip
        return read_dump(dump, documents)

    def check_equal(found: list, name: str) -> None:
        apart = largest_difference(found, expected)
        check(apart <= EQUAL, f"{what}: {name} ({apart:.2e} <= {EQUAL})")

    moved = largest_difference(base, expected)
    check(moved > DIFFERENT, f"{what}: the adapter moves logits ({moved:.3g} > {DIFFERENT})")
    found = graft_logits("--model", MODEL, "--adapter", adapter)
    check_equal(found, "logits of graft and PEFT are equal")
    if not merges:
        return

    merged = work / "merged" / what.replace(" ", "-")
    merged.parent.mkdir(exist_ok=True)
    graft("merge", "--model", MODEL, "--adapter", adapter, "-o", merged, "--dtype", "f32")
    check_equal(graft_logits("--model", merged), "graft's logits of the merged model")
    model = load_base(merged)
    found = [supervised_logits(model, document) for document in documents]
    check_equal(found, "logits of the merged model in transformers")
    compare_merged(graft, adapter, merged.with_name(f"{merged.name}-bf16"), what)


def check_graft_adapter(graft: Graft, work: Path, name: str, settings: list[str]) -> None:
    run, what = work / f"run-{name}", f"trained by graft, {name}"
    keys = [f"model={MODEL}", f"output={run}", f"data.train=[{DEMO / 'train.jsonl'}]"]
    keys += ["train.max_steps=12", *settings]
    graft("train", DEMO / "run.yaml", *(word for key in keys for word in ("--set", key)))
    adapter = run / "adapter"

    config = peft.LoraConfig.from_pretrained(adapter)
    fresh = peft.get_peft_model(load_base(MODEL), config)
    expected = peft.get_peft_model_state_dict(fresh)
    found = load_file(adapter / "adapter_model.safetensors")
    check(sorted(found) == sorted(expected), f"{what}: PEFT's {len(expected)} keys")
    check(
        all(found[key].shape == value.shape for key, value in expected.items()),
        f"{what}: PEFT's shapes",
    )
    check(
        all(found[key].any() for key in found if "lora_B" in key),
        f"{what}: every lora_B is non-zero",
    )
    keys = json.loads((adapter / "adapter_config.json").read_text())
    check(list(keys) == sorted(keys), f"{what}: adapter_config.json is sorted")
    check(
        set(keys) <= set(peft.LoraConfig(r=1).to_dict()) | {"peft_version"},
        f"{what}: adapter_config.json has only keys PEFT knows",
    )
    compare_logits(graft, adapter, work, what, merges=not settings)


def train(model) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    documents = read_documents(tokenizer, DEMO / "train.jsonl", MAX_LENGTH)
    steps = epoch_steps(documents, MAX_LENGTH, 2, 3, 0)[:TRAINED_STEPS]
    losses = train_with_peft(model, steps, 1e-2, 0.0, 1.0)
    check(losses[-1] < losses[0] / 2, "PEFT's training halves the loss")


def check_peft_adapter(graft: Graft, work: Path, name: str, settings: dict) -> None:
    torch.manual_seed(3)
    trains = name == TRAINED
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=trains, **settings)
    adapter = work / "made-by-peft" / name.replace(" ", "-")
    model = peft.get_peft_model(load_base(MODEL), config)
    if trains:
        train(model)
    model.save_pretrained(adapter)
    how = "trained" if trains else "made"
    compare_logits(graft, adapter, work, f"{how} by PEFT, {name}")


def main() -> None:
    graft = Graft(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in GRAFT_ADAPTERS.items():
            check_graft_adapter(graft, Path(folder), name, settings)
        for name, settings in PEFT_ADAPTERS.items():
            check_peft_adapter(graft, Path(folder), name, settings)


if __name__ == "__main__":
    main()
