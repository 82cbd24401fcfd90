"""What graft decides, written a second time in Python: tokens, labels, the order of documents, packs.

peft_exchange.py, real_models.py and bf16_training.py compare graft with Transformers and PEFT on it.
Nothing here reads graft's code or its output, except read_dump(), which reads `graft eval --dump`.
What PEFT computes slowly is kept in the cache.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(os.environ.get("GRAFT_SOURCE_DIR", Path(__file__).resolve().parent.parent))
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "graft-tests"
SKIP = 77  # the exit status ctest takes for "skipped"


def skip(reason: str) -> None:
    print(f"skipped: {reason}")
    sys.exit(SKIP)


try:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    skip(f"{error}; this test needs torch, transformers and peft")

torch.set_num_threads(min(2, os.cpu_count() or 1))
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class Graft:
    """The program under test."""

    def __init__(self, path: str):
        self.path = path

    def __call__(self, *arguments: object) -> str:
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stderr}")
        return done.stdout


def check(condition: bool, message: str) -> None:
    print(f"{'ok  ' if condition else 'FAIL'} {message}", flush=True)
    if not condition:
        sys.exit(1)


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached(files: list[Path], settings: list, make) -> dict | list | float:
    """The result of make(), kept under everything it depends on: files, settings, and this one."""
    versions = [torch.__version__, transformers.__version__, peft.__version__]
    key = [*map(file_hash, [Path(__file__), *files]), *settings, *versions]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    path = CACHE / f"peft-losses-{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        result = json.dumps(make())
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(result)
        part.replace(path)
    return json.loads(path.read_text())


# ---- documents -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    tokens: tuple[int, ...]
    labels: tuple[int, ...]  # 1: supervised, as the target of the token before; the first is 0

    @property
    def supervised(self) -> int:
        return sum(self.labels)


def text_document(tokenizer, text: str) -> Document:
    """The post-processor's specials, and EOS if absent; everything supervised."""
    tokens = tokenizer(text).input_ids
    if not tokens or tokens[-1] != tokenizer.eos_token_id:
        tokens = [*tokens, tokenizer.eos_token_id]
    return Document(tuple(tokens), (0,) + (1,) * (len(tokens) - 1))


def render(tokenizer, messages: list[dict], generation: bool = False) -> list[int]:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation
    )
    return tokenizer(text, add_special_tokens=False).input_ids


def chat_document(tokenizer, messages: list[dict]) -> Document:
    """ChatML through the model's own template; what the assistant says is supervised, with its
    end of turn. Turns are found by rendering ever longer beginnings of the conversation."""
    tokens: list[int] = []
    labels: list[int] = []
    for count, message in enumerate(messages, 1):
        whole = render(tokenizer, messages[:count])
        assert whole[: len(tokens)] == tokens, "a later turn changed the tokens of an earlier one"
        if message["role"] == "assistant":
            begin = len(render(tokenizer, messages[: count - 1], generation=True))
            end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)
            labels += [int(begin <= i < end) for i in range(len(tokens), len(whole))]
        else:
            labels += [0] * (len(whole) - len(tokens))
        tokens = whole
    return Document(tuple(tokens), tuple(labels))


def completion_document(tokenizer, prompt: str, completion: str) -> Document:
    """Encoded together, with the post-processor's specials and EOS; every token that holds a
    character of the completion is supervised, and EOS."""
    encoded = tokenizer(prompt + completion, return_offsets_mapping=True)
    labels = [int(end > len(prompt)) for _, end in encoded.offset_mapping]
    return Document((*encoded.input_ids, tokenizer.eos_token_id), (0, *labels[1:], 1))


def alpaca_prompt(row: dict) -> str:
    text, given = "Below is an instruction that describes a task", row.get("input", "")
    if given:
        text += ", paired with an input that provides further context"
    text += ". Write a response that appropriately completes the request.\n\n"
    text += f"### Instruction:\n{row['instruction']}\n\n"
    return text + (f"### Input:\n{given}\n\n" if given else "") + "### Response:\n"


def row_document(tokenizer, row: dict) -> Document:
    if "messages" in row:
        return chat_document(tokenizer, row["messages"])
    if "instruction" in row:
        return completion_document(tokenizer, alpaca_prompt(row), row["output"])
    return text_document(tokenizer, row["text"])


def read_documents(tokenizer, path: Path, max_length: int) -> list[Document]:
    """One document per line, or per element of a JSON array, cut to max_length."""
    text = path.read_text()
    rows = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    whole = [row_document(tokenizer, row) for row in rows]
    return [Document(d.tokens[:max_length], d.labels[:max_length]) for d in whole]


# ---- order and packs -------------------------------------------------------------------------

SHUFFLE = 1  # the purpose, in the second counter word
WINDOW = 4096


def philox(key: int, counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox 4x32-10 (Salmon et al., SC 2011)."""
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key & mask, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def draws(seed: int, epoch: int) -> Iterator[int]:
    """The 64-bit numbers of an epoch's shuffle, two per block, low word first."""
    block = 0
    while True:
        word = philox(seed, (block & 0xFFFFFFFF, SHUFFLE << 24, block >> 32, epoch))
        yield word[1] << 32 | word[0]
        yield word[3] << 32 | word[2]
        block += 1


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """Fisher-Yates from the last place down; draws that would favour small numbers are dropped."""
    order = list(range(count))
    source = draws(seed, epoch)
    for i in range(count - 1, 0, -1):
        bound = i + 1
        limit = 2**64 - 1 - (2**64 - 1) % bound
        draw = next(draw for draw in source if draw < limit)
        j = draw % bound
        order[i], order[j] = order[j], order[i]
    return order


def packs(lengths: list[int], max_length: int, order: list[int]) -> list[list[int]]:
    """Best fit within windows of documents: into the pack with the least room that suffices, the
    older of two; packs in the order they were begun."""
    made: list[list[int]] = []
    for begin in range(0, len(order), WINDOW):
        opened: list[tuple[int, int]] = []  # (room, pack)
        for document in order[begin : begin + WINDOW]:
            need = lengths[document]
            fitting = [entry for entry in opened if entry[0] >= need]
            entry = min(fitting, default=(max_length, len(made)))
            if fitting:
                opened.remove(entry)
                made[entry[1]].append(document)
            else:
                made.append([document])
            opened.append((entry[0] - need, entry[1]))
    return made


def epoch_steps(
    documents: list[Document], max_length: int, micro_batches: int, seed: int, epoch: int
) -> list[list[list[Document]]]:
    """The packs of each step of an epoch (micro_batch_size 1)."""
    order = shuffled(len(documents), seed, epoch)
    made = packs([len(document.tokens) for document in documents], max_length, order)
    return [
        [[documents[i] for i in pack] for pack in made[begin : begin + micro_batches]]
        for begin in range(0, len(made), micro_batches)
    ]


# ---- models ----------------------------------------------------------------------------------


def load_base(folder: Path, dtype=torch.float32, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


def supervised_rows(document: Document) -> list[int]:
    return [i - 1 for i, label in enumerate(document.labels) if label]


def supervised_logits(model, document: Document):
    """(S, V): logits of the row before each supervised token."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([document.tokens]), use_cache=False).logits[0]
    return logits[supervised_rows(document)]


def pack_loss(model, pack: list[Document]):
    """Sum of the losses of a pack's supervised tokens, with gradient.

    One row with positions that restart: transformers then keeps the documents apart by itself.
    """
    ids = torch.tensor([[token for document in pack for token in document.tokens]])
    positions = torch.cat([torch.arange(len(document.tokens)) for document in pack])[None]
    labels = torch.tensor([label for document in pack for label in document.labels])
    targets = labels.nonzero()[:, 0]
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(
        logits[targets - 1].double(), ids[0, targets], reduction="sum"
    )


def padded_loss(model, documents: list[Document]):
    """The same of a batch padded to its longest document, as TRL's collator and Trainer do it."""
    longest = max(len(document.tokens) for document in documents)
    ids, labels, mask = (torch.full((len(documents), longest), fill) for fill in (0, -100, 0))
    for row, document in enumerate(documents):
        tokens = torch.tensor(document.tokens)
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = torch.where(
            torch.tensor(document.labels) == 1, tokens, torch.tensor(-100)
        )
        mask[row, : len(tokens)] = 1
    return model(
        input_ids=ids,
        attention_mask=None if mask.all() else mask,
        labels=labels,
        num_items_in_batch=1,
        use_cache=False,
    ).loss


def mean_loss(model, documents: list[Document]) -> float:
    """Over all supervised tokens, the documents one by one."""
    with torch.no_grad():
        total = sum(pack_loss(model, [document]).item() for document in documents)
    return total / sum(document.supervised for document in documents)


def cosine_rate(rate: float, update: int, total: int, warmup_ratio: float) -> float:
    """The rate of an update counted from 0, as transformers' cosine schedule has it."""
    warmup = math.ceil(warmup_ratio * total)
    if update < warmup:
        return rate * update / max(1, warmup)
    progress = (update - warmup) / max(1, total - warmup)
    return rate * 0.5 * (1.0 + math.cos(math.pi * progress))


class PeftTrainer:
    """One update after the other, as plainly as it can be written.

    loss: of (model, the documents of a micro-batch), the sum over their supervised tokens.
    """

    def __init__(self, model, max_grad_norm: float, loss=pack_loss):
        self.model, self.max_grad_norm, self.loss = model, max_grad_norm, loss
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=0.0)

    def backward(self, step: list[list[Document]]) -> float:
        """New gradients; the mean loss of a step's micro-batches."""
        supervised = sum(document.supervised for documents in step for document in documents)
        self.optimizer.zero_grad()
        total = 0.0
        for documents in step:
            loss = self.loss(self.model, documents)
            (loss / supervised).backward()
            total += loss.item()
        return total / supervised

    def step(self, step: list[list[Document]], rate: float) -> float:
        loss = self.backward(step)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return loss


def train_with_peft(
    model, steps: list, rate: float, warmup_ratio: float, max_grad_norm: float
) -> list[float]:
    """The losses of all steps. steps: packs of documents of each."""
    trainer = PeftTrainer(model, max_grad_norm)
    losses = []
    for update, step in enumerate(steps):
        losses.append(trainer.step(step, cosine_rate(rate, update, len(steps), warmup_ratio)))
        print(f"     PEFT step {update + 1} of {len(steps)}: {losses[-1]:.4f}", flush=True)
    return losses


def train_with_graft(graft: Graft, run: Path, arguments: list[str]) -> list[dict]:
    """The metrics of all steps."""
    graft("train", "/dev/null", *arguments)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if "train_loss" in event]


# ---- what graft dumped -----------------------------------------------------------------------


def read_dump(path: Path, documents: list[Document]) -> list:
    """For each document its (S, V) logits from `graft eval --dump`, after comparing tokens and labels.

    The dump holds the documents in the order of graft's packs: tokens and labels of all rows, docs
    with each one's begin and end, and logits of the rows before supervised tokens.
    """
    dump = load_file(path)
    waiting: dict[Document, list[int]] = {}
    for number, document in enumerate(documents):
        waiting.setdefault(document, []).append(number)
    found: list = [None] * len(documents)
    row = 0
    for begin, end in dump["docs"].tolist():
        tokens, labels = (tuple(dump[key][begin:end].tolist()) for key in ("tokens", "labels"))
        same = waiting.get(Document(tokens, labels))
        assert same, f"the dump has tokens or labels that no document of the file has: {tokens}"
        number = same.pop(0)
        found[number] = dump["logits"][row : row + documents[number].supervised]
        row += documents[number].supervised
    assert row == len(dump["logits"]), f"{len(dump['logits'])} rows of logits, {row} labels"
    assert all(logits is not None for logits in found), "documents are missing in the dump"
    return found
