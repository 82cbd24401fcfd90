"""The table of golden cases: one row is one tiny model with one adapter and one pack of documents.

make_golden.py reads it. Adding an architecture or a rope kind is adding a row. Sizes are as small as
the point of a row allows (all files together stay below 3 MB), and awkward where kernels round up:
widths that are not multiples of 16, documents of one and two tokens, a tail outside every document.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    name: str
    shows: str  # what this row is for, copied into the golden file
    model_type: str
    config: dict  # keys of the model's configuration, on top of COMMON
    documents: tuple[int, ...]  # lengths, packed in this order from row 0
    tail: int = 0  # rows after the last document that belong to none
    lora: dict = field(default_factory=dict)  # keys of peft.LoraConfig, on top of LORA
    legacy_keys: bool = False  # config.json with rope_theta, rope_scaling, torch_dtype, as before v5
    bf16_shards: str = ""  # not empty: weights rounded to bf16, in shards of at most this size


COMMON = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0),
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = dict(r=4, lora_alpha=8, target_modules=LINEARS)

# original_max_position_embeddings is small so that T = 256 reaches all three bands of the llama3
# formula: frequencies kept, divided by the factor, and interpolated between.
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
YARN = dict(
    rope_type="yarn",
    rope_theta=10000.0,
    factor=4.0,
    beta_fast=32.0,
    beta_slow=1.0,
    original_max_position_embeddings=64,
)

CASES = (
    Case(
        name="llama",
        shows="rope default, GQA 4:2, untied, target_modules as PEFT spells out all-linear",
        model_type="llama",
        config=dict(hidden_size=64, intermediate_size=72),
        documents=(37, 1, 64, 2, 41),
        tail=15,
        lora=dict(r=6, lora_alpha=12, target_modules="all-linear"),
    ),
    Case(
        name="llama-rope-llama3",
        shows="rope llama3 with all three bands, GQA 3:1, head_dim 32, tied",
        model_type="llama",
        config=dict(
            hidden_size=48,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=32,
            tie_word_embeddings=True,
            rope_parameters=LLAMA3,
        ),
        documents=(201, 50),
        tail=5,
        legacy_keys=True,
    ),
    Case(
        name="llama-bias",
        shows="attention_bias and mlp_bias, hidden 90 and head_dim 30, adapters on q, v and down only",
        model_type="llama",
        config=dict(
            hidden_size=90,
            intermediate_size=70,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=30,
            attention_bias=True,
            mlp_bias=True,
            num_hidden_layers=1,
        ),
        documents=(70, 33, 20),
        lora=dict(r=5, lora_alpha=12, target_modules=["q_proj", "v_proj", "down_proj"]),
    ),
    Case(
        name="llama-bf16",
        shows="bf16 weights in two shards; the truth uses the rounded weights",
        model_type="llama",
        config=dict(tie_word_embeddings=True),
        documents=(40, 24),
        bf16_shards="60KB",
    ),
    Case(
        name="llama-rope-linear",
        shows="rope linear",
        model_type="llama",
        config=dict(
            hidden_size=32,
            intermediate_size=40,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            rope_parameters=LINEAR,
        ),
        documents=(180, 40),
    ),
    Case(
        name="llama-rope-yarn",
        shows="rope yarn with its attention factor",
        model_type="llama",
        config=dict(
            hidden_size=32,
            intermediate_size=40,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            rope_parameters=YARN,
        ),
        documents=(190, 30),
        legacy_keys=True,
    ),
    Case(
        name="qwen3",
        shows="q/k norm, head_dim 32 that is not hidden/heads, tied",
        model_type="qwen3",
        config=dict(head_dim=32, tie_word_embeddings=True),
        documents=(50, 2, 61, 1),
        tail=14,
    ),
    Case(
        name="qwen3-rslora",
        shows="rsLoRA on all linears, untied, GQA 3:1",
        model_type="qwen3",
        config=dict(
            hidden_size=36,
            intermediate_size=52,
            num_attention_heads=3,
            num_key_value_heads=1,
        ),
        documents=(90, 60),
        lora=dict(r=6, lora_alpha=9, use_rslora=True),
    ),
    Case(
        name="mistral",
        shows="sliding window of 24 tokens in documents longer and shorter than it",
        model_type="mistral",
        config=dict(hidden_size=44, sliding_window=24),
        documents=(100, 20, 25),
        tail=3,
    ),
    Case(
        name="qwen2",
        shows="bias on q, k and v but not on o, target_modules a regular expression",
        model_type="qwen2",
        config=dict(
            hidden_size=56, head_dim=None, tie_word_embeddings=True, use_sliding_window=False
        ),
        documents=(80, 30),
        lora=dict(target_modules=r".*\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj"),
    ),
)
