#!/usr/bin/env bash
# Whole runs on the CUDA backend under emulation: the losses of the CPU, the same bits at any number of
# ranks, however much is computed again, after a kill; a checkpoint of one backend goes on on the other.
#   test_cuda_train.sh GRAFT TOOL_RANDOM_MODEL PLUGIN
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
GRAFT_CUDA_PLUGIN=$(realpath "$3")
export GRAFT_CUDA_PLUGIN
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export XDG_CACHE_HOME=$work/cache
passed=0 failed=0
pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL $*"; tail -20 log; }

declare -A shapes=(
    [llama]='num_key_value_heads=2'
    [mistral]='model_type=mistral sliding_window=20 num_key_value_heads=1'
    [qwen2]='model_type=qwen2 num_key_value_heads=2'
    [qwen3]='model_type=qwen3 num_key_value_heads=2'
)
for name in "${!shapes[@]}"; do
    # shellcheck disable=SC2086
    "$tool" "$name" hidden_size=64 num_attention_heads=4 head_dim=16 intermediate_size=96 \
        num_hidden_layers=2 ${shapes[$name]}
done
for i in $(seq 1 20); do
    printf '{"text": "document %d %s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 37 % 50 + 3))))"
done >data.jsonl

# train OUTPUT RANKS MODEL BACKEND [ARG...]
train()
{
    mpirun -n "$2" --bind-to none --oversubscribe "$graft" train /dev/null --set model="$3" \
        --set output="$1" --set data.train=data.jsonl --set data.max_length=128 --set lora.r=4 \
        --set train.micro_batches=3 --set train.learning_rate=1e-3 --set train.save_steps=2 \
        --set train.report_samples=0 --set device.dtype=bf16 --set device.threads=1 \
        --set device.backend="$4" "${@:5}" >log 2>&1
}
hash_of() { sha256sum <"$1/adapter/adapter_model.safetensors"; }
losses() { sed -n 's/.*"train_loss": *\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"; }

# ---- beside the CPU: each loss within 1 %, in the mean within 0.2 %; 50 steps of one model, 10 of the
# others, of which test_cuda_steps trains 50 each ----
for name in "${!shapes[@]}"; do
    count=10
    if [ "$name" = qwen3 ]; then count=50; fi
    for backend in cpu cuda; do
        train "$name-$backend" 1 "$name" "$backend" --set train.max_steps=$count || fail "$name on $backend"
    done
    if paste <(losses "$name-cpu") <(losses "$name-cuda") | awk -v count=$count '
        { d = ($2 - $1) / $1; if (d < 0) d = -d; sum += d; if (d > most) most = d }
        END { printf "%d steps, losses apart: mean %.1e, most %.1e\n", NR, sum / NR, most
              exit !(NR == count && sum / NR < 2e-3 && most < 1e-2) }'; then
        pass
    else
        fail "$name: other losses on cuda than on the cpu"
    fi
done

# ---- the same bits; without dropout weights and adapter are joined ----
same() { if [ "$(hash_of "$1")" = "$reference" ]; then pass; else fail "$1: other bits"; fi; }
for dropout in 0 0.1; do
    steps=(--set train.max_steps=6 --set lora.lora_dropout=$dropout)
    train one-$dropout 1 qwen3 cuda "${steps[@]}" || fail one-$dropout
    reference=$(hash_of one-$dropout)
    train two-$dropout 2 qwen3 cuda "${steps[@]}" || fail two-$dropout
    same two-$dropout
    train three-$dropout 3 qwen3 cuda "${steps[@]}" || fail three-$dropout
    same three-$dropout
    train redone-$dropout 1 qwen3 cuda "${steps[@]}" --set device.recompute=all || fail redone-$dropout
    grep -q 'computed again in the backward' log || fail "redone-$dropout: nothing is computed again"
    same redone-$dropout
    EMU_SEED=5 train shuffled-$dropout 1 qwen3 cuda "${steps[@]}" || fail shuffled-$dropout
    same shuffled-$dropout
    GRAFT_FAIL='save.durable@2:0:kill' train killed-$dropout 2 qwen3 cuda "${steps[@]}" &&
        fail "killed-$dropout: it lives"
    train killed-$dropout 1 qwen3 cuda "${steps[@]}" || fail "killed-$dropout, again"
    grep -q 'resumed: step' log || fail "killed-$dropout: began anew"
    same killed-$dropout
done

# ---- where the time goes: without stalls, so the bits stay; of the times an emulated GPU says nothing ----
train timed 1 qwen3 cuda "${steps[@]}" --profile || fail timed
same timed
for line in 'forward and backward  *[0-9.]* ms' 'linear layers, backward .* TF/s' 'attention, forward .* TF/s' \
    'SwiGLU .* TB/s' 'sums, AdamW .* TB/s' 'model: .* TFLOP a step' 'MFU: [0-9.]* % of 23 TF/s'; do
    if grep -q "^graft: *$line" log; then pass; else fail "the profile has no line $line"; fi
done

# ---- inputs of layers in the host's memory: five layers, of which the last two need not go ----
"$tool" deep model_type=qwen3 hidden_size=64 num_attention_heads=4 head_dim=16 intermediate_size=96 \
    num_hidden_layers=5 num_key_value_heads=2
steps=(--set train.max_steps=3)
train here 1 deep cuda "${steps[@]}" || fail here
reference=$(hash_of here)
for ranks in 1 3; do
    train "away-$ranks" "$ranks" deep cuda "${steps[@]}" --set device.recompute=offload || fail "away-$ranks"
    if grep -q "in the host's memory until the backward: the inputs of 3 layers, 0.0 MiB per process" log; then
        pass
    else
        fail "away-$ranks: the inputs of 3 layers do not go"
    fi
    same "away-$ranks"
done
"$graft" estimate /dev/null --json --set model=deep --set output=x --set data.train=data.jsonl --set data.max_length=128 \
    --set device.backend=cuda --set device.dtype=bf16 --set device.recompute=offload >estimate 2>log || fail estimate
if grep -q '"offloaded_layers":3,"offloaded_bytes":49152' estimate; then
    pass
else
    fail "estimate: $(grep offloaded estimate)"
fi

# ---- from one backend to the other, joined: the losses of the run that stayed on one ----
steps=(--set train.max_steps=6)
for pair in cpu:cuda cuda:cpu; do
    output=from-${pair%:*}
    GRAFT_FAIL='save.durable@1:0:kill' train "$output" 1 qwen3 "${pair%:*}" "${steps[@]}" && fail "$output lives"
    if train "$output" 1 qwen3 "${pair#*:}" "${steps[@]}" && grep -q 'resumed: step [24]' log; then
        pass
    else
        fail "$pair: does not go on"
    fi
    if paste <(losses one-0) <(losses "$output") | awk '
        { d = ($2 - $1) / $1; if (d < 0) d = -d; if (d > most) most = d }
        END { printf "losses apart: most %.1e\n", most; exit !(NR == 6 && most < 1e-3) }'; then
        pass
    else
        fail "$pair: other losses than on cuda alone"
    fi
done

# ---- evaluation: with the trained adapter in both layouts, and of the base, beside the CPU's ----
# loss BACKEND [ARG...]: of data.jsonl
loss()
{
    "$graft" eval --model qwen3 --data data.jsonl --json --set device.backend="$1" --set device.dtype=bf16 \
        --set data.max_length=128 "${@:2}" 2>log | sed -n 's/.*"eval_loss": *\([0-9.e+-]*\).*/\1/p'
}
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = (a - b) / b; exit !(a > 0 && d < 5e-3 && d > -5e-3) }'; }
for adapter in '' '--adapter qwen3-cpu/adapter'; do
    # shellcheck disable=SC2086
    on_cpu=$(loss cpu $adapter) joined=$(loss cuda $adapter)
    # shellcheck disable=SC2086
    composed=$(GRAFT_LORA_LAYOUT=composed loss cuda $adapter)
    if near "$joined" "$on_cpu" && near "$composed" "$on_cpu"; then
        pass
    else
        fail "eval $adapter: $on_cpu on the cpu, $joined joined, $composed composed"
    fi
done

# ---- what is refused ----
code=0
train refused 1 qwen3 cuda --set device.dtype=f32 || code=$?
if [ "$code" = 2 ] && grep -q 'computes in bf16 (found f32)' log; then pass; else fail "f32: exit $code"; fi
"$tool" wide hidden_size=64 num_attention_heads=2 num_key_value_heads=1 head_dim=264 intermediate_size=64 \
    num_hidden_layers=1
for ranks in 1 2; do
    code=0
    train refused "$ranks" wide cuda || code=$?
    if [ "$code" = 3 ] && [ ! -e refused ] &&
        grep -q 'wide/config.json: attention on a GPU has no such head_dim (found 264, expected at most 256)' log; then
        pass
    else
        fail "a head_dim of 264: exit $code"
    fi
done
train wide-cpu 1 wide cpu --set train.max_steps=1 || fail "a head_dim of 264 on the CPU"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
