#!/usr/bin/env python3
"""Writes the seeds of corpus/ that are not text: safetensors files and run directories.  The others
are written by hand, and inputs that once broke something come from the fuzzer."""
import json
import os
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(unit, name, data):
    os.makedirs(os.path.join(CORPUS, unit), exist_ok=True)
    with open(os.path.join(CORPUS, unit, name), "wb") as file:
        file.write(data)


def safetensors(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors(named):
    """named: [(name, dtype, shape, bytes)]"""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, dtype, shape, values in named:
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return safetensors(header, data)


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


write("safetensors", "two_tensors",
      tensors([("a", "F32", [2, 3], bytes(24)), ("b", "BF16", [2], bytes(4))]))
write("safetensors", "scalar_and_empty",
      tensors([("s", "I64", [], bytes(8)), ("e", "F16", [4, 0], b"")]))
write("safetensors", "empty", safetensors({}, b""))

# ---- run directories, for the adapter of fuzz_state.c: q_proj, r 1, 4 x 4 ----

UUID = "00000000-0000-4000-8000-000000000001"
PREFIX = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
OBJECTS = {
    "adapter_model.safetensors": tensors([(PREFIX + "A.weight", "F32", [1, 4], floats(1, 2, 3, 4)),
                                          (PREFIX + "B.weight", "F32", [4, 1], floats(5, 6, 7, 8))]),
    "adapter_config.json": json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1,
        "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj"],
        "init_lora_weights": True, "base_model_name_or_path": "base"}, indent=1).encode(),
    "optimizer.safetensors": tensors([("moment1", "F32", [8], floats(*range(8))),
                                      ("moment2", "F32", [8], floats(*range(8)))]),
}


def record(members):
    """Without the brace that closes it: fuzz_state.c puts the seal there."""
    return json.dumps(members, indent=1).encode()[:-2]


def term(number, fence_only=0, base="", base_hash="", base_step=0):
    return (f"term/{number:08d}.json", record({
        "format": 1, "run_sha256": "@run.json@", "term": number, "uuid": UUID, "unix_s": 17,
        "kind": "cpu", "host": "h", "pid": 1, "world_size": 1, "fence_only": fence_only,
        "base": base, "base_sha256": base_hash, "base_step": base_step}))


def checkpoint(step, number, previous="", base_step=0, best_step=0):
    name = f"{step:012d}-{number:08d}"
    parts = [(f"objects/{name}-{UUID}/{key}", data) for key, data in OBJECTS.items()]
    manifest = record({
        "format": 1, "run_sha256": "@run.json@", "step": step, "term": number,
        "base_step": base_step, "uuid": UUID, "unix_s": 17, "world_size": 1, "epoch": 0,
        "epoch_first_step": 0, "best_step": best_step, "best_loss": 0.5, "evals_since_best": 0,
        "previous": previous, "previous_sha256": f"@ckpt/{previous}.json@" if previous else "",
        "objects": [{"name": os.path.basename(key), "bytes": len(data), "sha256": f"@{key}@"}
                    for key, data in parts]})
    return parts + [(f"ckpt/{name}.json", manifest)]


def join(parts):
    return b"\n".join(b"==== " + key.encode() + b"\n" + data for key, data in parts)


def run(name, parts):
    write("state", name, join(parts))


RUN = ("run.json", b'{"format": 1, "dtype": "f32", "config": {"lora.r": 1}, "total_steps": 2}\n')
CK1, CK2 = "000000000001-00000001", "000000000002-00000001"
HASH = "0" * 64

run("new", [("metrics.jsonl", b'{"step": 1}\n')])
run("one_checkpoint", [RUN, term(1)] + checkpoint(1, 1))
run("taken_over", [RUN, term(1)] + checkpoint(1, 1) + checkpoint(2, 1, CK1, best_step=1) +
    [term(2, fence_only=1), term(3, base=CK2, base_hash=f"@ckpt/{CK2}.json@", base_step=2)] +
    checkpoint(3, 3, CK2, base_step=2) +
    [(f"bad/{CK1}.json", record({"reason": "wrong bytes", "unix_s": 18})),
     (f"pin/{CK2}.json", b"{}\n")])
run("finished", [RUN, ("adapter/adapter_model.safetensors", OBJECTS["adapter_model.safetensors"]),
                 ("adapter/adapter_config.json", OBJECTS["adapter_config.json"]),
                 ("parent.json", b'{"values_sha256": "%s"}\n' % HASH.encode()),
                 ("done.json", b'{"adapter_sha256": {"adapter/adapter_model.safetensors": '
                  b'"@adapter/adapter_model.safetensors@", "adapter/adapter_config.json": '
                  b'"@adapter/adapter_config.json@"}, "step": 2}\n')])
run("damaged", [("run.json", b"[]"), ("done.json", b'{"adapter_sha256": {}}'),
                ("parent.json", b"null"), term(1), ("ckpt/" + CK1 + ".json", b"{")])

# ---- models with adapters ----

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8,
          "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
          "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu",
          "rope_theta": 10000.0, "tie_word_embeddings": True, "eos_token_id": [1, 2]}
ROPES = {
    "llama": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1,
             "original_max_position_embeddings": 32},
}
for name, rope in ROPES.items():
    parts = [("config.json", json.dumps(dict(CONFIG, rope_scaling=rope), indent=1).encode())]
    parts += [("model.safetensors", tensors([("model.norm.weight", "F32", [4], floats(1, 1, 1, 1))]))]
    parts += [(key, OBJECTS[key]) for key in ("adapter_config.json", "adapter_model.safetensors")]
    write("model", name, join(parts))
SHARD = tensors([("a", "F32", [1], floats(1))])
write("model", "index", join([
    ("config.json", json.dumps(dict(CONFIG, model_type="qwen2", use_sliding_window=True,
                                    sliding_window=16, max_window_layers=0)).encode()),
    ("model.safetensors", SHARD),
    ("model.safetensors.index.json",
     b'{"metadata": {}, "weight_map": {"a": "model.safetensors"}}')]))
