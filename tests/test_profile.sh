#!/usr/bin/env bash
# graft train --profile: the table tells where the time of the steps went, and changes no bit.
#   test_profile.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
. "$(dirname "$0")/command_rig.sh"

mkdir model
"$tool" model hidden_size=64 intermediate_size=128 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=32
for ((i = 0; i < 40; i++)); do echo "{\"text\": \"record $i of forty\"}"; done >data.jsonl

# train OUTPUT STEPS [ARGUMENT...]
train()
{
    "$graft" train /dev/null --set model=model --set data.train=data.jsonl --set output="$1" \
        --set data.max_length=64 --set train.micro_batches=1 --set train.max_steps="$2" \
        --set train.report_samples=0 --set device.threads=2 "${@:3}" 2>"$1.log" ||
        fail "$1: $(tail -n 2 "$1.log")"
}

# shares LOG FIRST LAST: the sum of the percentages of the lines between two of the table
shares()
{
    sed -n "/$2/,/$3/p" "$1" | sed -n 's/.* ms  *\([0-9.]*\) %.*/\1/p' |
        awk '{ sum += $1 } END { printf "%d\n", sum + 0.5 }'
}

train plain 5
train timed 5 --profile
grep -q 'profile:' plain.log && fail "a table without --profile"
cmp -s plain/adapter/adapter_model.safetensors timed/adapter/adapter_model.safetensors ||
    fail "another adapter"
grep -q '^graft: profile: 3 steps of [0-9.]* ms, after 2 to warm up$' timed.log || fail "no head line"
phases=$(shares timed.log 'forward and backward' 'saving and logging')
[ "$phases" -ge 99 ] && [ "$phases" -le 101 ] || fail "the phases make $phases %"
ops=$(shares timed.log 'linear layers, forward' 'sums, AdamW')
[ "$ops" -ge 10 ] && [ "$ops" -le 101 ] || fail "the ops make $ops %"
for op in 'linear layers, forward' 'linear layers, backward' 'attention, forward' \
    'attention, backward' 'head and loss'; do
    grep -Eq "^graft:   $op +[0-9.]+ ms +[0-9.]+ % +[0-9.]+ TF/s$" timed.log || fail "no line of $op"
    grep -Eq "^graft:   $op +[0-9.]+ ms +0\.0 %" timed.log && fail "no time in $op"
done
grep -Eq '^graft: matrix products: [1-9][0-9]*\.[0-9] % of the time of 2 threads$' timed.log ||
    fail "no line of products: $(grep 'matrix products' timed.log)"

for op in 'norms, rotations, embedding' SwiGLU 'sums, AdamW'; do
    grep -Eq "^graft:   $op +[0-9.]+ ms +[0-9.]+ % +[0-9.]+ TB/s$" timed.log || fail "no line of $op"
done
grep -Eq '^graft: model: [0-9.]+ TFLOP a step, [0-9.]+ TF/s$' timed.log || fail "no line of the model"
grep -q MFU timed.log && fail "an MFU of a CPU, whose best is unknown"

train short 2 --profile
grep -q '^graft: profile: 2 steps of [0-9.]* ms, after 0 to warm up$' short.log ||
    fail "two steps: $(grep profile: short.log)"
report
