"""The side of Hugging Face's `tokenizers` in bench/tokenize, a process that serves two commands."""

import sys
import time
from array import array
from pathlib import Path

import tokenizers
from serve import serve

BATCH_BYTES = 1 << 20  # as many encodings are alive at once: they take a hundred times the text

tokenizer: tokenizers.Tokenizer
batches: list[list[str]]


def versions() -> dict:
    return {"tokenizers": tokenizers.__version__, "python": sys.version.split()[0]}


def open_tokenizer(model: str, texts: str) -> dict:
    """The texts as Python's strings: reading and decoding is not part of what is measured."""
    global tokenizer, batches
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(model, "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    batches, size = [[]], 0
    for text in Path(texts).read_bytes().split(b"\0")[:-1]:
        if size > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(text.decode())
        size += len(text)
    return {}


def encode(function: str, ids: str) -> dict:
    """Encodings stay Rust's objects while the clock runs; lists of ids are made after it."""
    call = getattr(tokenizer, function)
    seconds = cpu_seconds = 0.0
    with open(ids, "wb") as file:
        for batch in batches:
            begin, begin_cpu = time.perf_counter(), time.process_time()
            encodings = call(batch)
            seconds += time.perf_counter() - begin
            cpu_seconds += time.process_time() - begin_cpu
            for encoding in encodings:
                array("I", [len(encoding.ids), *encoding.ids]).tofile(file)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


if __name__ == "__main__":
    serve({"versions": versions, "open": open_tokenizer, "encode": encode})
