"""Compares graft's tokenizer with the real `tokenizers` library: ids, offsets, decoded text.

Every tokenizer of the fixtures and a number of small made-up ones (each component, each flag of
added tokens), over texts of the fixture data sets and generated strings.  Any difference is an
error: exit 1.

    tokenizer_vs_hf.py DUMP [--fixtures DIR] [--strings N] [--share S] [--only NAME] [--seed N]

DUMP is the program tests/tokenizer_dump.c.  Needs the Python package `tokenizers`: exit 77 without.
Where the fixtures are missing the made-up tokenizers alone are compared.
"""

import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

SKIPPED = 77
try:
    from tokenizers import Tokenizer
except ImportError:
    print("skipped: no Python package `tokenizers`")
    sys.exit(SKIPPED)

# Characters of Unicode 14, the version that the Unicode tables of graft's libraries know.
ASSIGNED = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
COMBINING = [c for c in ASSIGNED if unicodedata.combining(chr(c))]
DECOMPOSING = [c for c in ASSIGNED if unicodedata.decomposition(chr(c))]
SPACES = [c for c in ASSIGNED if chr(c).isspace() or unicodedata.category(chr(c)) in ("Zs", "Cc", "Cf")]
DIGITS = [c for c in ASSIGNED if unicodedata.category(chr(c))[0] == "N"]
EMOJI = ["👍🏽", "👩‍👩‍👧‍👦", "🇩🇪", "☺️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🫠", "❤️‍🔥"]
WORDS = "the of don't I'll WE'VE they're it's 'S 'll hello World graft naïve Straße 東京 привет 안녕 नमस्ते".split()
PIECES = ["'", "''", "...", "!?", "\n", "\n\n", "\r\n", "\t", "  ", "   ", " " * 9, "_", "▁", "<0x0A>",
          "<0x", "0", "12", "3456", "1,000.50", "$", "=>", "//", "<", ">", "\u0130", "\ufeff", "\x00"]


def random_string(rng, look_alikes):
    """A string of one of several kinds, or a mixture."""
    kind = rng.randrange(8)
    length = rng.choice([1, 2, 3, 5, 8, 13, 30])
    pick = rng.choice
    if kind == 0:
        return "".join(chr(pick(ASSIGNED)) for _ in range(length))
    if kind == 1:
        return "".join(chr(pick(rng.choice([COMBINING, DECOMPOSING, ASSIGNED[:600], DIGITS])))
                       for _ in range(length))
    if kind == 2:
        return "".join(pick([chr(pick(SPACES)), " ", "a", "1"]) for _ in range(length))
    if kind == 3:
        return "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(length))
    if kind == 4:
        block = rng.randrange(0, 0x20000, 0x80)
        inside = [c for c in range(block, block + 0x80) if unicodedata.category(chr(c))[0] != "C"]
        return "".join(chr(pick(inside or ASSIGNED)) for _ in range(length))
    if kind == 5:
        return " ".join(pick(WORDS) for _ in range(length))
    parts = []
    for _ in range(length):
        parts.append(pick([pick(WORDS), pick(PIECES), pick(look_alikes), pick(EMOJI), " ", chr(pick(ASSIGNED))]))
        if rng.random() < 0.1:
            cut = rng.randrange(len(parts[-1]) + 1)
            parts[-1] = parts[-1][:cut]
    return "".join(parts)


def texts_of(value):
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from texts_of(member)
    elif isinstance(value, list):
        for member in value:
            yield from texts_of(member)


def read_dataset(path):
    text = open(path, encoding="utf-8").read()
    if path.endswith(".jsonl"):
        return [t for line in text.splitlines() if line.strip() for t in texts_of(json.loads(line))]
    if path.endswith(".json"):
        try:
            return list(texts_of(json.loads(text)))
        except ValueError:
            return [text]
    return text.split("\n\n")


def read_datasets(fixtures, share, rng):
    texts = []
    for path in sorted(glob.glob(fixtures + "/datasets/**/*", recursive=True)):
        if path.endswith((".json", ".jsonl", ".txt", ".en")):
            some = read_dataset(path)
            texts += [t for t in some if t and len(t) < 20000 and rng.random() < share]
    return texts


def byte_level_alphabet():
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in kept else chr(next(spare)) for b in range(256)]


def made_up(vocab, merges=(), added=(), normalizer=None, pre=None, post=None, decoder=None, **model):
    """A tokenizer.json; added: (content, flags)."""
    ids = {token: i for i, token in enumerate(vocab)}
    tokens, following = [], len(ids)
    for content, flags in added:
        token = {"id": ids.get(content, following), "content": content, "single_word": "w" in flags,
                 "lstrip": "l" in flags, "rstrip": "r" in flags, "normalized": "n" in flags,
                 "special": "s" in flags}
        following += content not in ids
        tokens.append(token)
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": False, "vocab": ids, "merges": list(merges), **model}}


def sequence(kind, *members):
    return {"type": "Sequence", kind: list(members)}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **options}


def made_up_tokenizers():
    """name -> tokenizer.json: each component and option at least once."""
    letters = byte_level_alphabet()
    merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "Ġ"],
              ["o", "r"], ["1", "2"], ["Ã", "©"], ["ĠĠ", "ĠĠ"], ["d", "o"], ["do", "n"], ["'", "t"]]
    bytes_vocab = letters + ["".join(m) for m in merges]
    flags = [("<mask>", "l"), ("<end>", "rs"), ("<word>", "w"), ("<norm>", "n"), ("<all>", "wlrns"),
             ("<ende>", ""), ("the", "n"), ("\n", ""), ("é", "n"), ("   ", "n"), ("<both>", "lr")]
    spm = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    spm_merges = [["▁", "t"], ["h", "e"], ["▁t", "he"], ["▁", "▁"], ["l", "l"], ["o", "r"]]
    spm += ["".join(m) for m in spm_merges]
    spm_model = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    marks = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spm_decoder = sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                           {"type": "ByteFallback"}, {"type": "Fuse"},
                           {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 1], "tokens": ["<s>", "<s>"]},
                                   "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    found = {}
    for name, pre in {
        "plain": byte_level(),
        "prefix": byte_level(add_prefix_space=True),
        "prefix-no-regex": byte_level(add_prefix_space=True, use_regex=False),
        "digits": sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level()),
        "digit-runs": sequence("pretokenizers", {"type": "Digits", "individual_digits": False},
                               byte_level(add_prefix_space=True)),
        "byte-level-first": sequence("pretokenizers", byte_level(), {"type": "Digits", "individual_digits": True},
                                     split({"Regex": "[0-9][0-9][0-9]"}, "Isolated")),
    }.items():
        found["byte-level-" + name] = made_up(bytes_vocab, merges, flags, pre=pre, decoder=byte_level())
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            pre = sequence("pretokenizers", split({"Regex": "\\s|[aeiou]+|\\p{P}"}, behavior, invert),
                           byte_level(use_regex=False))
            found[f"split-{behavior}-{invert}"] = made_up(bytes_vocab, merges, flags, pre=pre, decoder=byte_level())
        pre = sequence("pretokenizers", split({"String": " "}, behavior), split({"Regex": "x*"}, behavior),
                       byte_level(use_regex=False))
        found[f"split-text-{behavior}"] = made_up(bytes_vocab, merges, flags, pre=pre, decoder=byte_level())
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        found[form] = made_up(bytes_vocab, merges, flags, normalizer={"type": form}, pre=byte_level(),
                              decoder=byte_level())
    found["spm"] = made_up(spm, spm_merges, flags, normalizer=sequence("normalizers", marks, spaces),
                           decoder=spm_decoder, post=template, **spm_model)
    found["spm-nfkc"] = made_up(spm, spm_merges, flags, decoder=spm_decoder, post=template, **spm_model,
                                normalizer=sequence("normalizers", {"type": "NFKC"}, spaces, marks))
    found["spm-regex"] = made_up(spm, spm_merges, flags, decoder=spm_decoder, **spm_model,
                                 normalizer={"type": "Replace", "pattern": {"Regex": "\\s+|x*"}, "content": "▁▁"})
    found["spm-no-bytes"] = made_up(spm, spm_merges, flags, normalizer=marks, unk_token="<unk>", fuse_unk=True)
    found["spm-unk"] = made_up(spm, spm_merges, flags, normalizer=marks, unk_token="<unk>")
    found["spm-some-bytes"] = made_up([t for t in spm if t not in ("<0xC3>", "<0xE6>")], spm_merges, flags,
                                      decoder=spm_decoder, **spm_model)
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
            found[f"metaspace-{scheme}-{cut}"] = made_up(spm, spm_merges, flags, pre=meta, decoder=meta, post=template,
                                                         **spm_model)
    meta = {"type": "Metaspace", "replacement": "_", "add_prefix_space": True}
    found["metaspace-old"] = made_up(spm + ["_"], spm_merges, flags, pre=meta, decoder=meta, **spm_model)
    found["ignore-merges"] = made_up(bytes_vocab + ["Ġworld", "12345"], merges, flags, pre=byte_level(),
                                     decoder=byte_level(), ignore_merges=True,
                                     post=sequence("processors", byte_level(), template))
    return found


def fixture_tokenizers(fixtures):
    found = {}
    for path in sorted(glob.glob(fixtures + "/tokenizers/*/*.json") + glob.glob(fixtures + "/models/*/tokenizer.json")):
        name = os.path.relpath(path, fixtures).split("/", 1)[1].removesuffix(".json")
        contents = json.load(open(path, encoding="utf-8"))
        if isinstance(contents, dict) and isinstance(contents.get("model"), dict) and "cropped" not in name:
            if name.startswith("added-tokens-synthetic"):
                continue  # its merges and ids are refused, by `tokenizers` or by graft
            found[name] = contents
    return found


def keep_offsets(post):
    """graft's offsets hold the spaces of a token, so `tokenizers` must not trim them either."""
    for processor in [post, *post.get("processors", [])] if post else []:
        if processor["type"] == "ByteLevel":
            processor["trim_offsets"] = False


def decoding_twin(contents):
    """The tokenizer to decode with.  Version 0.23 decodes an added token that is `normalized` to its
    normalized text, and does not skip it where it is special; 0.22 gives its own text, as graft."""
    contents = json.loads(json.dumps(contents))
    for token in contents["added_tokens"]:
        token["normalized"] = False
    return Tokenizer.from_str(json.dumps(contents))


def byte_map(text):
    """byte -> index of its character, one past the end included."""
    places = []
    for index, character in enumerate(text):
        places += [index] * len(character.encode("utf-8"))
    return places + [len(text)]


def offsets_of(result, text):
    places = byte_map(text)
    return [(places[b], places[e - 1] + 1) if b < e else None for b, e in zip(result["begin"], result["end"])]


def may_lose(contents):
    """Characters without a token are dropped; `tokenizers` then shifts the offsets behind them."""
    model = contents["model"]
    return model.get("unk_token") is None and not set(byte_level_alphabet()) <= set(model["vocab"])


def unknown_moves(contents):
    """Unknown characters held back over byte tokens: `tokenizers` gives them shifted offsets."""
    model = contents["model"]
    return model.get("byte_fallback") and any(f"<0x{b:02X}>" not in model["vocab"] for b in range(256))


def compare(name, contents, texts, dump):
    contents = json.loads(json.dumps(contents))
    keep_offsets(contents.get("post_processor"))
    theirs = Tokenizer.from_str(json.dumps(contents))
    decoding = decoding_twin(contents)
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/tokenizer.json", "w", encoding="utf-8") as file:
            json.dump(contents, file)
        lines = "".join(json.dumps(t) + "\n" for t in texts)
        run = subprocess.run([dump, folder], input=lines.encode(), stdout=subprocess.PIPE, check=False)
    results = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 or len(results) != len(texts):
        print(f"{name}: the program ended with {run.returncode} after {len(results)} of {len(texts)} texts")
        return 1
    differences = 0
    for text, ours, full, bare in zip(texts, results, theirs.encode_batch(texts),
                                      theirs.encode_batch(texts, add_special_tokens=False)):
        expected = {"ids": full.ids, "bare": bare.ids, "offsets": [o if o[0] < o[1] else None for o in full.offsets],
                    "text": decoding.decode(full.ids, skip_special_tokens=False),
                    "skipped": decoding.decode(full.ids, skip_special_tokens=True)}
        if "error" not in ours:
            ours["offsets"] = offsets_of(ours, text)
        if may_lose(contents) and expected["text"] != text or unknown_moves(contents):
            del expected["offsets"]
        wrong = [key for key in expected if ours.get(key) != expected[key]]
        differences += bool(wrong)
        if wrong and differences <= 3:
            print(f"{name}: {text!r}: {ours.get('error', '')}")
            for key in wrong:
                print(f"  {key}: {ours.get(key)!r}\n  expected {expected[key]!r}")
    return differences


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dump")
    parser.add_argument("--fixtures", default=os.path.join(os.path.dirname(__file__), "../../shared/fixtures"))
    parser.add_argument("--strings", type=int, default=2000, help="generated strings for each tokenizer")
    parser.add_argument("--share", type=float, default=0.02, help="of the data sets' texts, at random")
    parser.add_argument("--only", default="", help="tokenizers whose name contains this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    tokenizers = {**fixture_tokenizers(options.fixtures), **made_up_tokenizers()}
    rng = random.Random(options.seed)
    data = read_datasets(options.fixtures, options.share, rng)
    total = checked = 0
    for name, contents in tokenizers.items():
        if options.only not in name:
            continue
        look_alikes = [t["content"] for t in contents["added_tokens"]] + ["<s>", "</s>", "<|im_start|>", "<unk>"]
        texts = data + [random_string(rng, look_alikes) for _ in range(options.strings)]
        differences = compare(name, contents, texts, options.dump)
        print(f"{'ok  ' if differences == 0 else 'FAIL'} {name}: {len(texts)} texts, {differences} differences",
              flush=True)
        total += differences
        checked += 1
    print(f"{checked} tokenizers, {total} differences")
    return 1 if total or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
