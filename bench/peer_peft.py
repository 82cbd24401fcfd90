"""PEFT's side of peft_cpu and start, a process that serves the commands at the end of this file.

What it trains on and how is that of tests/twin.py, so that both programs see the same documents in
the same order. Nothing of graft is measured here.
"""

import sys
import time
from pathlib import Path

from serve import serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from twin import (
    PeftTrainer, epoch_steps, load_base, padded_loss, peft, read_documents, torch, transformers,
)  # fmt: skip

MAX_GRAD_NORM = 1.0


def versions() -> dict:
    return {module.__name__: module.__version__ for module in (torch, transformers, peft)} | {
        "python": sys.version.split()[0]
    }


def make_model(folder: str, tokenizer: str, dtype: str, shape: dict) -> dict:
    """Random weights in a shape, with another model's tokenizer."""
    torch.manual_seed(1)
    shape = dict(shape)
    config = transformers.AutoConfig.for_model(shape.pop("model_type"), **shape)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path(folder, name).write_bytes(Path(tokenizer, name).read_bytes())
    return {"parameters": sum(p.numel() for p in model.parameters())}


class Training:
    """A model and its data; the steps are taken in order, epoch after epoch."""

    def __init__(self, model, data, adapter, max_length, micro_batches, seed, batch, dtype, attention,
                 compiled, rate, threads):  # fmt: skip
        torch.set_num_threads(threads)
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
        documents = read_documents(tokenizer, Path(data), max_length)
        self.documents = [document for document in documents if document.supervised > 0]
        self.order = (max_length, micro_batches, seed)
        self.batch, self.compiled, self.rate = batch, compiled, rate
        base = load_base(model, getattr(torch, dtype), attn_implementation=attention)
        network = peft.PeftModel.from_pretrained(base, adapter, is_trainable=True)
        if compiled:
            network = torch.compile(network, dynamic=batch > 1)
        self.trainer = PeftTrainer(network, MAX_GRAD_NORM, padded_loss)
        self.source = self.all_steps()

    def all_steps(self):
        """Of each step the batches, which hold the documents of graft's packs."""
        epoch = 0
        while True:
            for packs in epoch_steps(self.documents, *self.order, epoch):
                documents = [document for pack in packs for document in pack]
                yield [
                    documents[i : i + self.batch] for i in range(0, len(documents), self.batch)
                ]
            epoch += 1

    def probe(self, batches: int) -> float:
        """Seconds of a pass over the first batches: the better of two, after one to warm up."""
        first = next(self.all_steps())[:batches]
        self.trainer.backward(first)
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            self.trainer.backward(first)
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    def train(self, steps: int) -> list[dict]:
        """What was in each of the next steps, its loss, and the seconds it took."""
        coming = [next(self.source) for _ in range(steps)]
        if self.compiled:  # what was not compiled yet for these lengths is compiled now; the first
            for step in coming[1:]:  # step is not counted
                self.trainer.backward(step)
        return [self.one_step(step) for step in coming]

    def one_step(self, step: list) -> dict:
        begin = time.perf_counter()
        loss = self.trainer.step(step, self.rate)
        seconds = time.perf_counter() - begin
        documents = [document for batch in step for document in batch]
        return {
            "loss": loss,
            "seconds": seconds,
            "tokens": sum(len(document.tokens) for document in documents),
            "supervised": sum(document.supervised for document in documents),
            "rows": sum(len(batch) * max(len(d.tokens) for d in batch) for batch in step),
        }


training: Training


def open_training(**options) -> dict:
    global training
    training = Training(**options)
    return {"documents": len(training.documents)}


COMMANDS = {
    "versions": versions,
    "make_model": make_model,
    "open": open_training,
    "probe": lambda batches: {"seconds": training.probe(batches)},
    "train": lambda steps: {"steps": training.train(steps)},
}


if __name__ == "__main__":
    serve(COMMANDS)
