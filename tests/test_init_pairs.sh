#!/usr/bin/env bash
# graft init over pairs of a model and a data set: what it writes passes `graft config` and trains, and what
# train refuses it refuses with the same words.
#   test_init_pairs.sh GRAFT TOOL_RANDOM_MODEL [--large]     data sets below 120 kB, or the others
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") large=${3-}
source=${GRAFT_SOURCE_DIR:?}
fixtures=$(realpath "$source/../shared/fixtures" 2>/dev/null || true)
. "$(dirname "$0")/command_rig.sh"
cases=0 refused=0 trained=0
demo=$source/data/demo

mkdir -p random qwen
"$tool" random hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=8
"$tool" qwen model_type=qwen2 hidden_size=32 intermediate_size=64 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=16 num_hidden_layers=2
lines 40 20 >few.jsonl
{ lines 200 20; lines 40 400; } >long.jsonl
own=("$demo/train.jsonl" few.jsonl long.jsonl)
models=("$demo/model" random qwen) data=("${own[@]}") size='-size -120000c'
if [ -n "$large" ]; then models=("$demo/model" random) data=() size='-size +119999c'; fi
if [ -d "$fixtures" ]; then
    models+=("$fixtures/models/stories260k")
    # shellcheck disable=SC2086  # words on purpose
    mapfile -t -O "${#data[@]}" data < <(find "$fixtures/datasets" \( -name '*.json' -o -name '*.jsonl' \) $size | sort)
elif [ -n "$large" ]; then
    echo 'skipped: fixtures are missing'
    exit 77
else
    echo 'fixtures are missing: fewer models and data sets'
fi
steps=(--set train.max_steps=2 --set device.threads=1 --set train.save_steps=0)
for m in "${models[@]}"; do
    of_model=("${data[@]}")
    if [ "$m" = qwen ]; then of_model=("${own[@]}"); fi # its tokenizer is that of random
    for d in "${of_model[@]}"; do
        code=0
        cases=$((cases + 1))
        rm -rf pair.yaml run
        "$graft" init "$m" "$d" -o pair.yaml 2>init.err || code=$?
        if [ "$code" = 0 ]; then
            trained=$((trained + 1))
            "$graft" config pair.yaml >/dev/null 2>err || fail "config refuses $m with $d: $(cat err)"
            "$graft" train pair.yaml --set output=run "${steps[@]}" 2>err ||
                fail "train refuses init's file for $m with $d: $(tail -n 2 err)"
            continue
        fi
        refused=$((refused + 1))
        [ ! -e pair.yaml ] || fail "init refuses $m with $d, but writes"
        train_code=0
        "$graft" train /dev/null --set "model=$m" --set "data.train=[$d]" --set output=run \
            --set data.max_length=256 "${steps[@]}" 2>train.err || train_code=$?
        if [ "$code" != "$train_code" ] ||
            ! diff <(grep '^graft: error' init.err) <(grep '^graft: error' train.err); then
            fail "init refuses $m with $d ($code), train does not or otherwise ($train_code)"
        fi
    done
done
echo "$cases cases ($trained trained, $refused refused), $failures failures"
[ "$trained" -ge 8 ] || fail "hardly anything was trained"
[ "$failures" = 0 ]
