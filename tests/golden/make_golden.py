#!/usr/bin/env python3
"""Writes the golden files: tiny models, adapters and their exact losses, logits and gradients.

    make_golden.py [CASE ...]     (default: all; README.md beside this file tells what they hold)
    make_golden.py --mutants      how far planted mistakes move each case; writes nothing

Transformers and PEFT compute everything in f64 from the f32 (or bf16) files that were just saved, so
the truth is about what is on the disk. Documents are run one by one: isolation between documents
of a pack is not an assumption here but the definition.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

from cases import CASES, COMMON, LORA, Case

HERE = Path(__file__).resolve().parent
SUPERVISED_SHARE = 0.35  # of the tokens that may be targets: masks inside documents are tested too
TRAINED = ("lora_A", "lora_B")


@dataclass
class Pack:
    ids: torch.Tensor  # (T) int32, -1 outside documents
    documents: torch.Tensor  # (D, 2) int32 begin, end
    labels: torch.Tensor  # (T) uint8, 1: this token is supervised, as the target of the one before


@dataclass
class Truth:
    logits: torch.Tensor  # (S, V) at the row before each supervised token, in the order of tokens
    row_loss: torch.Tensor  # (S)
    gradients: dict[str, torch.Tensor]  # of the SUM of row_loss, by PEFT's key


# ---- what is on the disk ---------------------------------------------------------------------


def make_config(case: Case) -> transformers.PreTrainedConfig:
    values = COMMON | case.config
    values = {key: value for key, value in values.items() if value is not None}
    return transformers.AutoConfig.for_model(case.model_type, **values)


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights whose attention is far from uniform and whose every parameter matters.

    Queries and keys are large so that scores have a standard deviation well above 1; embeddings are
    small so that rms_norm_eps is felt; norm weights are not one and biases not zero.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif "embed_tokens" in name:
            value = 0.3 * noise
        elif "lora_B" in name:
            value = 0.4 * noise / parameter.shape[1] ** 0.5
        elif "lora_A" not in name and ("q_proj" in name or "k_proj" in name):
            value = 1.0 * noise / parameter.shape[1] ** 0.5
        else:
            value = 0.7 * noise / parameter.shape[1] ** 0.5
        parameter.data.copy_(value)


def write_json(path: Path, document: dict) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def use_legacy_keys(path: Path) -> None:
    """Rewrites a configuration as most published models have it."""
    document = json.loads(path.read_text())
    document["torch_dtype"] = document.pop("dtype")
    rope = document.pop("rope_parameters")
    document["rope_theta"] = rope.pop("rope_theta")
    document["rope_scaling"] = rope
    write_json(path, document)


def write_model(case: Case, folder: Path, generator: torch.Generator) -> None:
    model = transformers.AutoModelForCausalLM.from_config(make_config(case), dtype=torch.float32)
    randomise(model, generator)
    if case.bf16_shards:
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=case.bf16_shards)
    else:
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.legacy_keys:
        use_legacy_keys(folder / "config.json")


def write_adapter(case: Case, folder: Path, generator: torch.Generator) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", **(LORA | case.lora))
    model = peft.get_peft_model(load_base(folder, torch.float32), config)
    trained = torch.nn.ModuleDict()  # named_parameters() of the adapter alone
    for name, parameter in model.named_parameters():
        if any(part in name for part in TRAINED):
            holder = torch.nn.Module()
            holder.register_parameter("lora_B" if "lora_B" in name else "lora_A", parameter)
            trained[name.replace(".", "/")] = holder
    randomise(trained, generator)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    config_path = folder / "adapter" / "adapter_config.json"
    document = json.loads(config_path.read_text())
    document["base_model_name_or_path"] = f"tests/golden/{case.name}"
    if isinstance(document["target_modules"], list):
        document["target_modules"].sort()  # PEFT writes a set in any order
    write_json(config_path, document)


def make_pack(case: Case, generator: torch.Generator) -> Pack:
    total = sum(case.documents) + case.tail
    vocabulary = (COMMON | case.config)["vocab_size"]
    ids = torch.randint(0, vocabulary, (total,), generator=generator, dtype=torch.int32)
    labels = (torch.rand(total, generator=generator) < SUPERVISED_SHARE).to(torch.uint8)
    documents = []
    begin = 0
    for length in case.documents:
        documents.append((begin, begin + length))
        labels[begin] = 0  # nothing predicts a document's first token
        begin += length
    ids[begin:] = -1
    labels[begin:] = 0
    return Pack(ids, torch.tensor(documents, dtype=torch.int32), labels)


# ---- what it computes ------------------------------------------------------------------------


def load_base(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa"
    )


def rms_norm_exact(self, x: torch.Tensor) -> torch.Tensor:
    """The models' own forward goes through f32 whatever the dtype."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


def load(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """bfloat16: the base alone, as people train; the adapter stays f32, nothing is autocast."""
    bf16 = dtype == torch.bfloat16
    base = load_base(folder, dtype if bf16 else torch.float32)
    model = peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    if bf16:
        return model.eval()
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = rms_norm_exact.__get__(module)
    return model.to(dtype).eval()


def peft_key(name: str) -> str:
    return name.replace(".default", "")


def run_document(model: torch.nn.Module, pack: Pack, begin: int, end: int) -> list[torch.Tensor]:
    """Logits and losses of one document's supervised tokens; adds to the gradients."""
    ids = pack.ids[begin:end].long()
    logits = model(input_ids=ids[None], attention_mask=None, use_cache=False).logits[0]
    targets = pack.labels[begin:end].nonzero()[:, 0]
    rows = logits[targets - 1]
    if rows.dtype == torch.bfloat16:
        rows = rows.float()  # as transformers' own loss does
    row_loss = torch.logsumexp(rows, -1) - rows[torch.arange(len(rows)), ids[targets]]
    if len(targets):
        row_loss.sum().backward()
    return [rows.detach(), row_loss.detach()]


def compute(model: torch.nn.Module, pack: Pack) -> Truth:
    model.zero_grad()
    parts = [run_document(model, pack, int(b), int(e)) for b, e in pack.documents]
    return Truth(
        logits=torch.cat([part[0] for part in parts]),
        row_loss=torch.cat([part[1] for part in parts]),
        gradients={
            peft_key(name): parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        },
    )


def packed_logits(model: torch.nn.Module, pack: Pack, isolated: bool = True) -> torch.Tensor:
    """Logits of the supervised rows with all documents in one row of the batch.

    isolated: left to transformers, which finds the documents where position_ids restart. Otherwise
    with a mask of ones, which attends across documents.
    """
    used = int(pack.documents[-1, 1])
    positions = torch.cat([torch.arange(int(e - b)) for b, e in pack.documents])[None]
    mask = None if isolated else torch.ones(1, used, dtype=torch.long)
    with torch.no_grad():
        logits = model(
            input_ids=pack.ids[None, :used].long(),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        ).logits[0]
    return logits[pack.labels.nonzero()[:, 0] - 1]


def attention_peak(folder: Path, pack: Pack) -> float:
    """Mean over heads and late rows of the largest attention weight; uniform would be about 1/T."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    begin, end = max(pack.documents.tolist(), key=lambda document: document[1] - document[0])
    with torch.no_grad():
        ids = pack.ids[None, begin:end].long()
        attentions = model(input_ids=ids, output_attentions=True).attentions
    return torch.stack([layer[0, :, 16:].amax(-1).mean() for layer in attentions]).mean().item()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest magnitude."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def distance(found: Truth, expected: Truth) -> dict[str, float]:
    total = expected.row_loss.sum()
    return {
        "logits": relative(found.logits, expected.logits),
        "loss": ((found.row_loss.double().sum() - total).abs() / total).item(),
        "gradients": max(
            relative(found.gradients[key], value) for key, value in expected.gradients.items()
        ),
    }


def bf16_errors(found: Truth, expected: Truth) -> dict[str, torch.Tensor]:
    """How far PEFT is with a bf16 base: what graft's bf16 is measured by. Gradients: ||g-g64||/||g64||."""
    errors = {key: distance(found, expected)[key] for key in ("logits", "loss")}
    for key, value in expected.gradients.items():
        gap = (found.gradients[key].double() - value).norm() / value.norm()
        errors[f"grad.{key}"] = gap.item()
    return {
        f"bf16_error.{key}": torch.tensor([error], dtype=torch.float64)
        for key, error in errors.items()
    }


# ---- files -----------------------------------------------------------------------------------


def write_golden(case: Case, folder: Path, pack: Pack) -> dict[str, str]:
    model = load(folder, torch.float64)
    truth = compute(model, pack)
    packed = relative(packed_logits(model, pack), truth.logits)
    assert packed < 1e-12, f"{case.name}: packed differs from one by one by {packed}"
    own = distance(compute(load(folder, torch.float32), pack), truth)
    bf16 = bf16_errors(compute(load(folder, torch.bfloat16), pack), truth)
    rotary = next(m for n, m in model.named_modules() if n.endswith("rotary_emb"))
    metadata = {
        "shows": case.shows,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "attention_peak": f"{attention_peak(folder, pack):.3f}",
        "packed_vs_one_by_one": f"{packed:.1e}",
        "rope_attention_factor": repr(float(rotary.attention_scaling)),
        **{f"f32_error_{what}": f"{error:.1e}" for what, error in own.items()},
    }
    tensors = {
        "ids": pack.ids,
        "docs": pack.documents,
        "labels": pack.labels,
        "logits": truth.logits,
        "row_loss": truth.row_loss,
        "loss": truth.row_loss.sum()[None],
        "rope_inv_freq": rotary.inv_freq.float(),
    }
    tensors |= {f"grad.{key}": value for key, value in truth.gradients.items()} | bf16
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        folder / "golden.safetensors",
        metadata={"golden": json.dumps(metadata)},  # one key: the writer's order of keys is random
    )
    return metadata


def make_case(case: Case) -> None:
    folder = HERE / case.name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(int.from_bytes(case.name.encode()) % 2**63)
    write_model(case, folder, generator)
    write_adapter(case, folder, generator)
    pack = make_pack(case, generator)
    metadata = write_golden(case, folder, pack)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        f"{case.name:18} {size / 1000:5.0f} kB  f32 logits {metadata['f32_error_logits']}"
        f" gradients {metadata['f32_error_gradients']}  attention peak {metadata['attention_peak']}"
    )


# ---- are the goldens sharp? ------------------------------------------------------------------


def modules_with(model: torch.nn.Module, attribute: str) -> list[torch.nn.Module]:
    return [module for module in model.modules() if hasattr(module, attribute)]


def mutate_eps(model: torch.nn.Module) -> None:
    for module in modules_with(model, "variance_epsilon"):
        module.variance_epsilon *= 10


def mutate_softmax_scale(model: torch.nn.Module) -> None:
    for module in modules_with(model, "num_key_value_groups"):
        module.scaling *= 1.1


def mutate_lora_scale(model: torch.nn.Module) -> None:
    for module in modules_with(model, "lora_alpha"):
        module.scaling["default"] = float(module.lora_alpha["default"])


def mutate_theta(model: torch.nn.Module) -> None:
    """inv_freq_i = theta^(-2i/d) before any scaling, so twice theta multiplies by 2^(-2i/d)."""
    for module in modules_with(model, "inv_freq"):
        half = len(module.inv_freq)
        module.inv_freq *= 2.0 ** (-torch.arange(half, dtype=torch.float64) / half)


MUTANTS = {
    "eps x10": mutate_eps,
    "theta x2": mutate_theta,
    "softmax scale x1.1": mutate_softmax_scale,
    "s = alpha": mutate_lora_scale,
}


def report_mutants(case: Case) -> None:
    """Every planted mistake must move logits and gradients far beyond the tolerance of 1e-5."""
    from safetensors.torch import load_file

    folder = HERE / case.name
    golden = load_file(folder / "golden.safetensors")
    pack = Pack(golden["ids"], golden["docs"], golden["labels"])
    truth = compute(load(folder, torch.float64), pack)
    moved = {}
    for name, mutate in MUTANTS.items():
        model = load(folder, torch.float64)
        mutate(model)
        moved[name] = distance(compute(model, pack), truth)
    for change in (-1, +1) if case.model_type == "mistral" else ():
        model = load(folder, torch.float64)
        model.config.sliding_window += change
        moved[f"window {change:+d}"] = distance(compute(model, pack), truth)
    leaked = packed_logits(load(folder, torch.float64), pack, isolated=False)
    moved["leak"] = {"logits": relative(leaked, truth.logits)}
    for name, found in moved.items():
        shown = "  ".join(f"{what} {value:.1e}" for what, value in found.items())
        print(f"{case.name:18} {name:20} {shown}")
        assert min(found["logits"], found.get("gradients", 1.0)) > 1e-4, "not sharp enough"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("case", nargs="*", choices=[[], *(case.name for case in CASES)])
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same bits on every machine of one kind
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for case in CASES:
        if not options.case or case.name in options.case:
            (report_mutants if options.mutants else make_case)(case)


if __name__ == "__main__":
    sys.exit(main())
