"""Models with random weights, written as fast as the disk takes them, and what one step of them counts.

A shape is what config.json says of it. Used by bench/ops and bench/gpu; needs nothing but Python.
"""

import array
import json
import math
import random
import shutil
import struct
from pathlib import Path

from compare import DEMO

BYTES = {"f32": 4, "bf16": 2}
CHUNK = 1 << 25  # bytes written at a time


def linears_of(shape: dict) -> dict[str, tuple[int, int]]:
    """Rows and columns of a layer's matrices; their columns are what they multiply."""
    c, f, hd = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    q, kv = shape["num_attention_heads"] * hd, shape["num_key_value_heads"] * hd
    return {
        "self_attn.q_proj": (q, c), "self_attn.k_proj": (kv, c), "self_attn.v_proj": (kv, c),
        "self_attn.o_proj": (c, q), "mlp.gate_proj": (f, c), "mlp.up_proj": (f, c), "mlp.down_proj": (c, f),
    }  # fmt: skip


def tensors_of(shape: dict) -> dict[str, tuple[int, ...]]:
    c, vocab = shape["hidden_size"], shape["vocab_size"]
    tensors = {"model.embed_tokens.weight": (vocab, c), "model.norm.weight": (c,)}
    if not shape.get("tie_word_embeddings"):
        tensors["lm_head.weight"] = (vocab, c)
    for number in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for name, dims in linears_of(shape).items():
            tensors[f"{layer}{name}.weight"] = dims
            if shape["model_type"] == "qwen2" and name.split(".")[1] in ("q_proj", "k_proj", "v_proj"):
                tensors[f"{layer}{name}.bias"] = dims[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{name}.weight"] = (c,)
    return tensors


def parameters_of(shape: dict) -> int:
    return sum(math.prod(dims) for dims in tensors_of(shape).values())


def adapter_parameters(shape: dict, r: int) -> int:
    return shape["num_hidden_layers"] * sum(r * (rows + columns) for rows, columns in linears_of(shape).values())


def step_flop(shape: dict, tokens: int, r: int) -> float:
    """Of forward and backward of one document, adapters on all linears, nothing computed again:
    trainer/run/flop.h, written a second time."""
    layers, width = shape["num_hidden_layers"], shape["num_attention_heads"] * shape["head_dim"]
    weights = layers * sum(rows * columns for rows, columns in linears_of(shape).values())
    pairs = layers * tokens * (tokens + 1) / 2
    head = shape["hidden_size"] * shape["vocab_size"]
    return 2 * (
        tokens * (2 * weights + 3 * adapter_parameters(shape, r))
        + 7 * pairs * width
        + 2 * (tokens - 1) * head
    )


# ---- writing it ------------------------------------------------------------------------------


def some_weights(dtype: str) -> bytes:
    numbers = random.Random(1)
    some = array.array("f", (numbers.gauss(0, 0.02) for _ in range(65521))).tobytes()  # a prime: rows differ
    return upper_halves(some) if dtype == "bf16" else some


def upper_halves(floats: bytes) -> bytes:
    return b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4))


def write_model(folder: Path, shape: dict, dtype: str) -> None:
    """With the tokenizer of the demo: its ids are the first of the vocabulary."""
    tensors, header, begin = tensors_of(shape), {}, 0
    for name, dims in tensors.items():
        end = begin + BYTES[dtype] * math.prod(dims)
        header[name] = {"dtype": dtype.upper(), "shape": dims, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    some, one = some_weights(dtype), array.array("f", [1.0]).tobytes()
    some = memoryview(some * (CHUNK // len(some)))
    one = upper_halves(one) if dtype == "bf16" else one
    folder.mkdir()
    with (folder / "model.safetensors").open("wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dims in tensors.items():
            left = BYTES[dtype] * math.prod(dims)
            if len(dims) == 1:
                file.write(one * dims[0] if name.endswith("weight") else some[:left])
                continue
            while left > 0:
                left -= file.write(some[: min(left, len(some))])
    named = {"qwen2": "Qwen2ForCausalLM"}.get(shape["model_type"], "LlamaForCausalLM")
    config = {"architectures": [named], "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
              "dtype": {"f32": "float32", "bf16": "bfloat16"}[dtype]}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | shape))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "model" / name, folder / name)
