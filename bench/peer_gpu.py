"""PEFT's side of bench/gpu, a process that serves the commands at the end of this file.

A bf16 model is loaded once and trained in one setting after the other: attention, number format of the
adapter, what torch.compile compiles, gradient checkpointing. A step is one document of max_length tokens,
all supervised: one sequence without padding, whose mask is the causal one, so that attention takes its
fastest way. The documents and their order are those of tests/twin.py. Nothing of graft is measured here.
"""

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

from serve import serve

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from twin import epoch_steps, load_base, peft, read_documents, torch, transformers

MAX_GRAD_NORM = 1.0
WARM_UP = 2  # steps


def versions() -> dict:
    found = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    return found | {"python": sys.version.split()[0]}


def settings_here() -> dict:
    """What a setting can name on this machine."""
    attention = ["sdpa"]
    if torch.cuda.is_available() and transformers.utils.is_flash_attn_2_available():
        attention.append("flash_attention_2")
    return {"cuda": torch.cuda.is_available(), "attention": attention}


class Training:
    """A model on a device; choose() first, then the rest."""

    def __init__(self, model, data, device, r, alpha, seed, rate, threads):
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.recompile_limit = 256  # a layer each, if they do not share one graph
        self.model, self.data, self.seed, self.rate, self.device = Path(model), Path(data), seed, rate, device
        base = load_base(model, torch.bfloat16, attn_implementation="sdpa", device_map={"": device})
        lora = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        self.base = base
        self.network = peft.get_peft_model(base, lora)
        self.network.train()
        self.layers = base.get_decoder().layers
        self.loss_function = base.loss_function
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.begin = [p.detach().clone() for p in self.parameters]
        self.batches: list = []

    def choose(self, attention, adapter, compiled, checkpointing) -> None:
        """From the untrained adapter on. adapter: bf16, or f32 under autocast as transformers' Trainer has it. compiled: off; layers, each
        by itself, and the loss; or whole, the network as one."""
        self.forget()
        self.base.set_attn_implementation(attention)
        for parameter, begin in zip(self.parameters, self.begin):
            parameter.data = begin.to({"bf16": torch.bfloat16, "f32": torch.float32}[adapter], copy=True)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=0.0, fused=True)
        self.autocast = adapter == "f32"
        if checkpointing:
            self.base.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.base.gradient_checkpointing_disable()
        if compiled == "layers":
            for layer in self.layers:
                layer.compile(dynamic=False)
            self.base.loss_function = torch.compile(self.loss_function, dynamic=False)
        self.callable = torch.compile(self.network, dynamic=False) if compiled == "whole" else self.network

    def forget(self) -> None:
        """What the setting before has left."""
        self.callable = self.optimizer = None
        for layer in self.layers:
            layer._compiled_call_impl = None
        self.base.loss_function = self.loss_function
        for parameter in self.parameters:
            parameter.grad = None
        torch._dynamo.reset()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def read(self, max_length: int) -> int:
        """The batches from now on; returns how many an epoch has."""
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(self.model)
        documents = read_documents(tokenizer, self.data, max_length)
        for document in documents:
            assert len(document.tokens) == max_length, f"a document of {len(document.tokens)} tokens"
        steps = epoch_steps(documents, max_length, 1, self.seed, 0)
        self.batches = [torch.tensor([step[0][0].tokens], device=self.device) for step in steps]
        return len(self.batches)

    def loss(self, ids):
        """The mean over the tokens that have one before them."""
        with torch.autocast(self.device, torch.bfloat16) if self.autocast else contextlib.nullcontext():
            out = self.callable(input_ids=ids, labels=ids, use_cache=False, num_items_in_batch=ids.shape[1] - 1)
        return out.loss

    def step(self, ids) -> None:
        self.optimizer.zero_grad()
        self.loss(ids).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.optimizer.step()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def first_loss(self) -> float:
        """With gradients, as in a step: compiled code is not made twice."""
        return self.loss(self.batches[0]).item()

    def run(self, steps: int, seconds: float) -> dict:
        """The seconds of each step, of so many or so long, at least three, after some to warm up; bytes of the
        device at the most, those that tensors had and those that torch had taken."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for i in range(WARM_UP):
            self.step(self.batches[i % len(self.batches)])
        self.wait()
        times, end = [], time.perf_counter() + seconds
        while len(times) < steps and (len(times) < 3 or time.perf_counter() < end):
            begin = time.perf_counter()
            self.step(self.batches[len(times) % len(self.batches)])
            self.wait()
            times.append(time.perf_counter() - begin)
        found = {"seconds": times}
        if self.device == "cuda":
            found |= {"allocated_bytes": torch.cuda.max_memory_allocated(),
                      "reserved_bytes": torch.cuda.max_memory_reserved()}  # fmt: skip
        return found


def products(sizes: list, seconds: float, device: str) -> dict:
    """What torch.matmul does of x (m, k) by w (n, k) transposed, both bf16: milliseconds of each, the medians
    of batches of calls."""
    found = []
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for m, n, k in sizes:
        x, w = (torch.randn(rows, k, device=device).to(torch.bfloat16) for rows in (m, n))
        y = torch.matmul(x, w.T)
        wait()
        begin = time.perf_counter()
        torch.matmul(x, w.T, out=y)
        wait()
        calls = int(2e-3 / max(time.perf_counter() - begin, 1e-6)) + 1
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            for _ in range(calls):
                torch.matmul(x, w.T, out=y)
            wait()
            times.append((time.perf_counter() - begin) / calls)
        found.append(1000 * sorted(times)[len(times) // 2])
    return {"ms": found}


training: Training


def open_training(**options) -> dict:
    global training
    training = Training(**options)
    return {"trainable": sum(p.numel() for p in training.parameters)}


def choose(**setting) -> dict:
    training.choose(**setting)
    return {}


COMMANDS = {
    "versions": versions,
    "settings": settings_here,
    "products": products,
    "open": open_training,
    "read": lambda max_length: {"batches": training.read(max_length)},
    "choose": choose,
    "first_loss": lambda: {"loss": training.first_loss()},
    "run": lambda steps, seconds: training.run(steps, seconds),
}


if __name__ == "__main__":
    serve(COMMANDS)
