"""Texts for tokenizer_compare.py: generated strings, the fixtures' data sets and vectors, and real
text in many languages.  Everything follows from a seed and the files that are there."""

import gettext
import glob
import gzip
import json
import os
import unicodedata

from tokenizers import Regex, pre_tokenizers

# Assigned characters: of Unicode 14 with Python 3.11, the version of the libraries graft is built with.
ASSIGNED = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
COMBINING = [c for c in ASSIGNED if unicodedata.combining(chr(c))]
DECOMPOSING = [c for c in ASSIGNED if unicodedata.decomposition(chr(c))]
SPACES = [c for c in ASSIGNED if chr(c).isspace() or unicodedata.category(chr(c)) in ("Zs", "Cc", "Cf")]
DIGITS = [c for c in ASSIGNED if unicodedata.category(chr(c))[0] == "N"]
CONTROLS = [c for c in range(0x110000) if unicodedata.category(chr(c)) in ("Cc", "Cf", "Zl", "Zp")]
# Around the surrogates, noncharacters, private use, the ends of the planes and of UTF-8's lengths.
EDGES = [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xF8FF, 0xFDD0, 0xFDEF, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF,
         0x10000, 0x1FFFE, 0xE0001, 0xE007F, 0xF0000, 0xFFFFD, 0x100000, 0x10FFFE, 0x10FFFF]
EMOJI = ["👍🏽", "👩‍👩‍👧‍👦", "🇩🇪", "☺️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🫠", "❤️‍🔥", "👨🏿‍🚀", "🧑🏻‍❤️‍💋‍🧑🏾"]
WORDS = ("the of don't I'll WE'VE they're it's 'S 'll hello World graft naïve Straße 東京 привет 안녕 नमस्ते "
         "ภาษาไทย العربية עברית ქართული አማርኛ").split()
PIECES = ["'", "''", "...", "!?", "\n", "\n\n", "\r\n", "\r", "\t", "  ", "   ", " " * 9, "_", "▁", "<0x0A>",
          "<0x", "0", "12", "3456", "1,000.50", "$", "=>", "//", "<", ">", "\u0130", "'\u017f", "\ufeff", "\x00", "\u200d"]
JOINS = ["", "", " ", "  ", "\n", "\u3000", "a", "_", "é", "-", "1", "\u0301", "\u200d"]


def never_assigned():
    """The characters of no Unicode version, the real library's newer one included."""
    text = "".join(chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn")
    kept = pre_tokenizers.Split(Regex("\\P{Cn}"), "removed").pre_tokenize_str(text)
    return "".join(piece for piece, _ in kept)


UNASSIGNED = never_assigned()


def any_character(rng):
    """A character of any kind and plane, surrogates aside."""
    return rng.choice([chr(rng.choice(ASSIGNED)), chr(rng.choice(EDGES)), rng.choice(UNASSIGNED),
                       chr(rng.randrange(0xE000, 0xF900)), chr(rng.randrange(0xF0000, 0x110000))])


def characters(share, rng):
    """Assigned characters, each beside letters, digits, spaces, marks and itself; some in one text."""
    picked = [chr(c) for c in ASSIGNED if share == 1 or rng.random() < share]
    contexts = [f"a{c}b {c}1{c}. {c}a{c}{c}\n'{c}\u0301 {c}\u0323" for c in picked]
    return ["".join(contexts[at:at + 64]) for at in range(0, len(contexts), 64)]


def block_character(rng):
    """A function that picks from one block of 128 characters."""
    block = rng.randrange(0, 0x20000, 0x80)
    inside = [c for c in range(block, block + 0x80) if unicodedata.category(chr(c))[0] != "C"] or ASSIGNED
    return lambda: chr(rng.choice(inside))


def with_special_tokens(rng, tokens, length):
    """Special tokens, whole or cut, side by side or behind words and spaces."""
    parts = []
    for _ in range(length):
        token = rng.choice(tokens)
        if rng.random() < 0.3:
            token = token[rng.randrange(len(token)):] if rng.random() < 0.5 else token[:rng.randrange(len(token))]
        parts += [token, rng.choice(JOINS)]
    return "".join(parts)


def mixture(rng, tokens, length):
    parts = []
    for _ in range(length):
        part = rng.choice([rng.choice(WORDS), rng.choice(PIECES), rng.choice(tokens), rng.choice(EMOJI), " ",
                           chr(rng.choice(ASSIGNED)), chr(rng.choice(EDGES)), any_character(rng)])
        parts.append(part[:rng.randrange(len(part) + 1)] if rng.random() < 0.1 else part)
    return "".join(parts)


def runs(rng, length):
    """Runs of one space, newline, digit or letter, among words."""
    parts = []
    for _ in range(min(length, 8)):
        unit = rng.choice([" ", "\t", "\n", "\r\n", chr(rng.choice(SPACES)), str(rng.randrange(10)), "a", "日", "'"])
        parts += [unit * rng.choice([1, 2, 3, 4, 7, 16, 33, 80]), rng.choice(["", "x", "the", "."])]
    return "".join(parts)


def long_word(rng):
    pick = rng.choice([lambda: chr(rng.randrange(0x61, 0x7B)), lambda: rng.choice("ab"), block_character(rng),
                       lambda: chr(rng.choice(COMBINING)), lambda: str(rng.randrange(10))])
    return "".join(pick() for _ in range(rng.choice([200, 700, 3000])))


def random_string(rng, tokens):
    """One string of a kind; tokens: special tokens, and texts that look like them."""
    length = rng.choice([1, 2, 3, 5, 8, 13, 30])
    pick = rng.choice
    block = block_character(rng)
    kinds = [
        lambda: "".join(chr(pick(ASSIGNED)) for _ in range(length)),
        lambda: "".join(any_character(rng) for _ in range(length)),
        lambda: "".join(chr(pick(pick([COMBINING, DECOMPOSING, ASSIGNED[:600], DIGITS]))) for _ in range(length)),
        lambda: "".join(pick([chr(pick(SPACES)), " ", "a", "1"]) for _ in range(length)),
        lambda: "".join(pick([chr(pick(CONTROLS)), chr(pick(EDGES)), "a", " "]) for _ in range(length)),
        lambda: "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(length)),
        lambda: "".join(block() for _ in range(length)),
        lambda: " ".join(pick(WORDS) for _ in range(length)),
        lambda: runs(rng, length),
        lambda: with_special_tokens(rng, tokens, length),
        lambda: mixture(rng, tokens, length),
        lambda: mixture(rng, tokens, length),
        lambda: long_word(rng) if rng.random() < 0.1 else mixture(rng, EMOJI, length),
    ]
    return pick(kinds)()


# ---- files ----

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


def read_file(path):
    """The texts of a data file: strings of JSON, paragraphs of anything else."""
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        text = file.read()
    name = path.removesuffix(".gz")
    try:
        if name.endswith(".jsonl"):
            return [t for line in text.split("\n") if line.strip() for t in texts_of(json.loads(line))]
        if name.endswith((".json", ".tokenized", ".tokenized_llama2chat")):
            return list(texts_of(json.loads(text)))
    except ValueError:
        pass  # broken on purpose: as it stands
    if name.endswith(".inp"):
        return text.split("\n__ggml_vocab_test__\n")
    return text.split("\n\n")


def read_folder(folder):
    """file name -> texts; Parquet files have twins in JSON."""
    found = {}
    for path in sorted(glob.glob(folder + "/**/*", recursive=True)):
        if os.path.isfile(path) and not path.endswith((".parquet", ".out", ".md", ".csv")):
            found[os.path.relpath(path, folder)] = [t for t in read_file(path) if t]
    return found


def locale_texts(rng):
    """Translated messages of the programs installed here, some together: text in up to 100 languages."""
    paths = sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo"))
    rng.shuffle(paths)
    for path in paths:
        try:
            with open(path, "rb") as file:
                catalog = gettext.GNUTranslations(file)._catalog
        except (OSError, UnicodeError, ValueError, LookupError):
            continue
        messages = [m for m in catalog.values() if isinstance(m, str) and m]
        for at in range(0, len(messages), 16):
            yield "\n".join(messages[at:at + 16])


def made_up_languages(rng):
    """Words of one block's characters: where no real text is left."""
    while True:
        letter = block_character(rng)
        yield " ".join("".join(letter() for _ in range(rng.randrange(1, 12))) for _ in range(60))


def multilingual(fixtures, byte_count, rng):
    """byte_count bytes: half of the declaration of human rights in its languages, the rest translated
    messages, and made-up words if those do not reach."""
    path = fixtures + "/datasets/udhr/udhr.jsonl"
    declarations = [json.loads(line)["text"] for line in open(path, encoding="utf-8")] if os.path.exists(path) else []
    rng.shuffle(declarations)
    texts, total = [], 0
    for source, limit in ((declarations, byte_count // 2), (locale_texts(rng), byte_count),
                          (made_up_languages(rng), byte_count)):
        for text in source:
            if total >= limit:
                break
            text = text if byte_count > 1e6 else text[:4000]
            texts.append(text)
            total += len(text.encode("utf-8"))
    return texts


def sample(texts, byte_count, rng):
    """Some of the texts, at random: at most byte_count bytes together."""
    picked, total = [], 0
    for text in rng.sample(texts, len(texts)):
        size = len(text.encode("utf-8"))
        if total + size <= byte_count:
            picked.append(text)
            total += size
    return picked
