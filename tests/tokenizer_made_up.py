"""Small tokenizers for tokenizer_compare.py: each component and option that graft knows, each flag of
added tokens; and one of every component that `tokenizers` has, to see it known or refused."""

import itertools

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


def flag_tokens():
    """A token for each combination of flags: a word, and one that is none."""
    combinations = ["".join(c) for n in range(6) for c in itertools.combinations("wlrns", n)]
    return [(form.format(flags), flags) for flags in combinations for form in ("tok{}", "<{}>")]


def random_tokens(rng):
    """Tokens with random flags out of few characters: they overlap, hold and touch each other."""
    contents = {"".join(rng.choice("ab <\u00e9\u2581\n") for _ in range(rng.randrange(1, 5))) for _ in range(12)}
    found = []
    for content in sorted(contents):
        flags = "".join(f for f in "wlrns" if rng.random() < 0.4)
        if not content.strip(" \n<b") and "r" not in flags:
            flags = flags.replace("l", "")  # spaces that only strip to the left make `tokenizers` panic
        if content.strip("<b"):
            found.append((content, flags))  # one that is normalized to nothing would match everywhere
    return found


def without_twins(tokens, normalize):
    """Of tokens that are one text once normalized `tokenizers` takes any (by a hash, from 0.23 on)."""
    found = {}
    for content, flags in tokens:
        found.setdefault(normalize(content), (content, flags))
    return list(found.values())


def added_token_tokenizers(rng):
    """name -> tokenizer.json: added tokens with all flags, under normalizers that change them."""
    vocab = byte_level_alphabet() + ["<unk>", "\u2581", *"\u00e9\u0301"]
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    normalizers = {
        "plain": (None, str),
        "nfd": ({"type": "NFD"}, str),
        "prepend": (prepend, str),
        "llama": (sequence("normalizers", prepend, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}),
                  lambda text: text.replace(" ", "\u2581")),
        "shrink": ({"type": "Replace", "pattern": {"Regex": "[<>b]"}, "content": ""},
                   lambda text: "".join(c for c in text if c not in "<>b")),
    }
    found = {}
    for name, (normalizer, normalize) in normalizers.items():
        for kind, tokens in {"flags": flag_tokens(), "random": random_tokens(rng)}.items():
            found[f"added-{kind}-{name}"] = made_up(vocab, (), without_twins(tokens, normalize), normalizer=normalizer,
                                                    pre=byte_level(), decoder=byte_level(), unk_token="<unk>")
    return found


CLASSES = ["\\p{L}", "\\p{Lu}", "\\p{Ll}", "\\p{Lt}", "\\p{Lm}", "\\p{Lo}", "\\p{M}", "\\p{N}", "\\p{Nd}", "\\p{P}",
           "\\p{S}", "\\p{Z}", "\\p{C}", "\\p{Han}", "\\s", "\\w", "\\d", "(?i:'s|'t|'k)", "(?i)\u00df|\u00e5|\u03c3"]


def unicode_tokenizers():
    """name -> tokenizer.json: what the Unicode tables say of a character shows in ids or offsets.  The
    model knows nothing, so that each piece is one token."""
    unknown = {"vocab": ["<unk>"], "unk_token": "<unk>", "fuse_unk": True}
    found = {f"unicode-{c}": made_up(pre=split({"Regex": c}, "Contiguous"), **unknown) for c in CLASSES}
    for individual in (False, True):
        pre = {"type": "Digits", "individual_digits": individual}
        found[f"unicode-digits-{individual}"] = made_up(pre=pre, **unknown)
    found["unicode-words"] = made_up(added=[("1", "w"), ("a", "lr")], **unknown)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        found["unicode-" + form] = made_up(byte_level_alphabet(), normalizer={"type": form}, pre=byte_level(),
                                           decoder=byte_level())
    return found


SMALL_BPE = ({"<s>": 0, "a": 1, "b": 2, "_": 3}, [])

# What the constructors of `tokenizers` need; those that are not here need nothing.
ARGUMENTS = {
    "BPE": SMALL_BPE,
    "Replace": (" ", "_"), "Prepend": ("_",), "Split": (" ", "isolated"), "CharDelimiterSplit": ("-",),
    "BertProcessing": (("</s>", 1), ("<s>", 0)), "RobertaProcessing": (("</s>", 1), ("<s>", 0)),
    "Strip": {"decoders": (" ", 1, 0)}, "Precompiled": None, "TemplateProcessing": ("<s> $A",),
    "Sequence": ([],),
}
STAGES = {"normalizers": ("normalizer", "Normalizer"), "pre_tokenizers": ("pre_tokenizer", "PreTokenizer"),
          "decoders": ("decoder", "Decoder"), "processors": ("post_processor", "PostProcessor"),
          "models": ("model", "Model")}


def component_tokenizers():
    """(stage, component, tokenizer) of the real library: one for each component that it exports."""
    import tokenizers
    for module_name, (attribute, base_name) in STAGES.items():
        module = getattr(tokenizers, module_name)
        base = getattr(module, base_name)
        for name, component in sorted(vars(module).items()):
            if not isinstance(component, type) or not issubclass(component, base) or component is base:
                continue
            arguments = ARGUMENTS.get(name, ())
            if isinstance(arguments, dict):
                arguments = arguments.get(module_name, ())
            if arguments is None:
                continue  # made from compiled bytes
            options = {"special_tokens": [("<s>", 0)]} if name == "TemplateProcessing" else {}
            tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(*SMALL_BPE))
            setattr(tokenizer, attribute, component(*arguments, **options))
            yield module_name, name, tokenizer
