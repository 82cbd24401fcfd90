"""Compares graft's tokenizer with the real `tokenizers` library: ids, offsets, decoded text.

    tokenizer_compare.py DUMP [--full] [--fixtures DIR] [--only NAME] [--seed N] [--speed]

DUMP is the program tests/tokenizer_dump.c.  Every tokenizer of the fixtures goes over four bodies of
text (the vectors, the data sets, text in many languages, generated strings), every small made-up one
(each component and option, each flag of added tokens) over generated strings; each component of the
library must be known or refused by name.  Any difference is an error: exit 1.

The default is a sample for every commit.  --full takes all vectors and data sets, 10 MB of text in
many languages and 20,000 strings for each tokenizer of the fixtures, 2,000 for each made-up one: about
half an hour.  --speed compares how fast the two encode instead.

Needs the Python package `tokenizers`: exit 77 without.  Where the fixtures are missing the made-up
tokenizers alone are compared.
"""

import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
try:
    import tokenizers
    from tokenizers import Tokenizer
except ImportError:
    print("skipped: no Python package `tokenizers`")
    sys.exit(SKIPPED)

from tokenizer_made_up import (added_token_tokenizers, byte_level_alphabet, component_tokenizers,
                               made_up_tokenizers, unicode_tokenizers)
from tokenizer_texts import characters, multilingual, random_string, read_folder, sample

LOOK_ALIKES = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "[INST]", "<unk>"]
CHUNK_TEXTS = 512


def fixture_tokenizers(fixtures):
    found = {}
    for path in sorted(glob.glob(fixtures + "/tokenizers/*/*.json") + glob.glob(fixtures + "/models/*/tokenizer.json")):
        name = os.path.relpath(path, fixtures).split("/", 1)[1].removesuffix(".json").removesuffix("/tokenizer")
        with open(path, encoding="utf-8") as file:
            contents = json.load(file)
        if isinstance(contents, dict) and isinstance(contents.get("model"), dict) and "cropped" not in name:
            if name.startswith("added-tokens-synthetic"):
                continue  # its merges and ids are refused, by `tokenizers` or by graft
            found[name] = contents
    return found


def is_wanted(name, only):
    return name == only[1:] if only.startswith("=") else only in name


# ---- what the real library says ----

def keep_offsets(contents):
    """graft's offsets hold the spaces of a token, so `tokenizers` must not trim them either."""
    post = contents.get("post_processor")
    for processor in [post, *post.get("processors", [])] if post else []:
        if processor["type"] == "ByteLevel":
            processor["trim_offsets"] = False


def decoding_twin(contents):
    """The tokenizer to decode with.  From version 0.23 on `tokenizers` decodes an added token that is
    `normalized` to its normalized text, and so does not skip it where it is special ("</s>" of Llama 2
    would stay in the text); up to 0.22 it gives its own text, as graft does."""
    if tuple(int(n) for n in tokenizers.__version__.split(".")[:2]) >= (0, 23):
        contents = json.loads(json.dumps(contents))
        for token in contents["added_tokens"]:
            token["normalized"] = False
    return Tokenizer.from_str(json.dumps(contents))


def may_lose(contents):
    """Characters without a token are dropped; `tokenizers` then shifts the offsets behind them."""
    model = contents["model"]
    return model.get("unk_token") is None and not set(byte_level_alphabet()) <= set(model["vocab"])


def unknown_moves(contents):
    """Unknown characters held back over byte tokens: `tokenizers` gives them shifted offsets."""
    model = contents["model"]
    return model.get("byte_fallback") and any(f"<0x{b:02X}>" not in model["vocab"] for b in range(256))


class Reference:
    """What is expected of a tokenizer."""

    def __init__(self, contents):
        self.contents = json.loads(json.dumps(contents))
        keep_offsets(self.contents)
        self.encoding = Tokenizer.from_str(json.dumps(self.contents))
        self.encoding.no_truncation()
        self.encoding.no_padding()
        self.decoding = decoding_twin(contents)
        self.adds = "TemplateProcessing" in json.dumps(contents["post_processor"])
        self.may_lose = may_lose(contents)
        self.unknown_moves = unknown_moves(contents)

    def expect(self, texts):
        full = self.encoding.encode_batch(texts)
        bare = self.encoding.encode_batch(texts, add_special_tokens=False) if self.adds else full
        ids = [f.ids for f in full]
        kept = self.decoding.decode_batch(ids, skip_special_tokens=False)
        skipped = self.decoding.decode_batch(ids, skip_special_tokens=True)
        for i, text in enumerate(texts):
            expected = {"ids": ids[i], "bare": bare[i].ids, "text": kept[i], "skipped": skipped[i]}
            if not (self.may_lose and kept[i] != text or self.unknown_moves):
                expected["offsets"] = full[i].offsets
            yield expected


# ---- what graft says ----

def character_of_byte(text):
    """byte -> index of its character."""
    places = []
    for index, character in enumerate(text):
        places += [index] * len(character.encode("utf-8"))
    return places


def offsets_in_characters(result, text):
    begins, ends = result["begin"], result["end"]
    if text.isascii():
        return list(zip(begins, ends))
    places = character_of_byte(text)
    return [(places[b], places[e - 1] + 1) if b < e else (0, 0) for b, e in zip(begins, ends)]


def without_place(offsets):
    """A token that stands for nothing of the text may be anywhere."""
    return [(b, e) if b < e else (0, 0) for b, e in offsets]


class Program:
    """The dump over a body of texts, a chunk at a time."""

    def __init__(self, dump, folder, texts):
        with open(folder + "/texts", "w", encoding="ascii") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts)
        with open(folder + "/texts", "rb") as file:
            self.process = subprocess.Popen([dump, folder], stdin=file, stdout=subprocess.PIPE)

    def results(self, count):
        for _ in range(count):
            line = self.process.stdout.readline()
            yield json.loads(line) if line else {"error": "the program ended"}

    def end(self):
        self.process.stdout.close()
        return self.process.wait()


def show(name, text, ours, expected, wrong):
    print(f"{name}: {text[:300]!r}: {ours.get('error', '')}")
    for key in wrong:
        mine, theirs = ours.get(key), expected[key]
        at = 0
        while mine is not None and at < min(len(mine), len(theirs)) and mine[at] == theirs[at]:
            at += 1
        at = max(at - 3, 0)
        mine = mine if mine is None else mine[at:at + 40]
        print(f"  {key} from {at}: {mine!r}\n  expected {theirs[at:at + 40]!r}")


def compare_body(name, reference, texts, program):
    """The number of texts that differ."""
    differences = 0
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = texts[start:start + CHUNK_TEXTS]
        for text, ours, expected in zip(chunk, program.results(len(chunk)), reference.expect(chunk)):
            if "error" not in ours:
                ours["offsets"] = offsets_in_characters(ours, text)
                if "offsets" in expected and ours["offsets"] != expected["offsets"]:
                    ours["offsets"] = without_place(ours["offsets"])
                    expected["offsets"] = without_place(expected["offsets"])
            wrong = [key for key in expected if ours.get(key) != expected[key]]
            differences += bool(wrong)
            if wrong and differences <= 3:
                show(name, text, ours, expected, wrong)
    return differences


def compare(name, contents, bodies, dump):
    """body -> the number of its texts that differ."""
    reference = Reference(contents)
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/tokenizer.json", "w", encoding="utf-8") as file:
            json.dump(reference.contents, file)
        program = Program(dump, folder, [text for texts in bodies.values() for text in texts])
        found = {body: compare_body(f"{name}, {body}", reference, texts, program) for body, texts in bodies.items()}
        if program.end() != 0:
            found["the program failed"] = 1
    return found


def check_components(dump):
    """Every component of the library gives the same ids or is refused by name."""
    text = "a b_ab "
    failures = known = refused = 0
    for stage, name, tokenizer in component_tokenizers():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(folder + "/tokenizer.json")
            run = subprocess.run([dump, folder], input=json.dumps(text).encode(), capture_output=True, check=False)
        if run.returncode == 0:
            good = json.loads(run.stdout).get("ids") == tokenizer.encode(text).ids
            known += 1
        else:
            good = f'type "{name}" is not supported' in run.stderr.decode()
            refused += 1
        if not good:
            print(f"{stage}.{name}: {run.stdout.decode()} {run.stderr.decode()}")
            failures += 1
    print(f"{'ok  ' if failures == 0 else 'FAIL'} components: {known} known, {refused} refused by name", flush=True)
    return failures


# ---- bodies of text ----

def as_utf8(texts):
    """The texts that UTF-8 can write, each once."""
    return [t for t in dict.fromkeys(texts) if not any("\ud800" <= c <= "\udfff" for c in t)]


def read_corpora(options):
    """name -> texts, the same for every tokenizer of the fixtures."""
    rng = random.Random(options.seed)
    corpora = {}
    for name in ("vectors", "datasets"):
        files = read_folder(f"{options.fixtures}/{name}")
        corpora[name] = as_utf8(text for texts in files.values() for text in texts)
        if not options.full:
            corpora[name] = sample(corpora[name], 20_000, rng)
    corpora["languages"] = as_utf8(multilingual(options.fixtures, 10_000_000 if options.full else 60_000, rng))
    return corpora


def strings_for(name, contents, count, seed):
    rng = random.Random(f"{seed} {name}")
    tokens = [t["content"] for t in contents["added_tokens"]] + LOOK_ALIKES
    return [random_string(rng, tokens) for _ in range(count)]


def megabytes(texts):
    return sum(len(t.encode("utf-8")) for t in texts) / 1e6


def all_bodies(options):
    """(name, tokenizer.json, its bodies of text) of every tokenizer that is wanted."""
    rng = random.Random(options.seed)
    known = fixture_tokenizers(options.fixtures)
    alphabet = characters(1 if options.full else 0.01, rng)
    corpora = {**read_corpora(options), "characters": alphabet} if known else {}
    small = {**made_up_tokenizers(), **added_token_tokenizers(rng)}
    many, few = (20_000, 2_000) if options.full else (150, 60)
    for name, contents in {**known, **small, **unicode_tokenizers()}.items():
        if not is_wanted(name, options.only):
            continue
        if name in known:
            yield name, contents, {**corpora, "strings": strings_for(name, contents, many, options.seed)}
        elif name in small:
            yield name, contents, {"strings": strings_for(name, contents, few, options.seed)}
        else:
            yield name, contents, {"characters": alphabet}


def compare_all(options):
    total = checked = size = 0
    for name, contents, bodies in all_bodies(options):
        found = compare(name, contents, bodies, options.dump)
        differences = sum(found.values())
        report = [f"{body} {found.pop(body)} of {len(texts)} ({megabytes(texts):.2f} MB)"
                  for body, texts in bodies.items()] + list(found)
        print(f"{'ok  ' if differences == 0 else 'FAIL'} {name}: differences: {', '.join(report)}", flush=True)
        size += sum(megabytes(texts) for texts in bodies.values())
        total += differences
        checked += 1
    total += check_components(options.dump)
    print(f"{checked} tokenizers, {size:.1f} MB, tokenizers {tokenizers.__version__}: {total} differences")
    return 1 if total or not checked else 0


def compare_speed(options):
    """Encoding alone, one thread each, in seconds of the processor."""
    texts = as_utf8(multilingual(options.fixtures, 3_000_000, random.Random(options.seed)))
    size = megabytes(texts)
    for name, contents in fixture_tokenizers(options.fixtures).items():
        if not is_wanted(name, options.only):
            continue
        theirs = Tokenizer.from_str(json.dumps(contents))
        started = time.process_time()
        for text in texts:
            theirs.encode(text)
        seconds = time.process_time() - started
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/tokenizer.json", "w", encoding="utf-8") as file:
                json.dump(contents, file)
            lines = "".join(json.dumps(text) + "\n" for text in texts).encode()
            run = subprocess.run([options.dump, folder, "time"], input=lines, stdout=subprocess.PIPE, check=True)
        ours = float(run.stdout)
        print(f"{name}: {size / ours:.1f} MB/s, tokenizers {size / seconds:.1f} MB/s, ratio {seconds / ours:.2f}",
              flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--fixtures", default=os.path.join(os.path.dirname(__file__), "../../shared/fixtures"))
    parser.add_argument("--only", default="", help="tokenizers whose name contains this, or =NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    return compare_speed(options) if options.speed else compare_all(options)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
