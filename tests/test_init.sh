#!/usr/bin/env bash
# graft init: the values it chooses, with their reasons, what it refuses, and no file is written over.
# test_init_pairs.sh trains what it writes.
#   test_init.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
source=${GRAFT_SOURCE_DIR:?}
. "$(dirname "$0")/command_rig.sh"
cases=0

# init CODE ARGUMENT...: into run.yaml, messages into err
init()
{
    local want=$1 code=0
    shift
    cases=$((cases + 1))
    "$graft" init "$@" 2>err || code=$?
    if [ "$code" != "$want" ]; then
        fail "init $*: exit code $code, expected $want: $(cat err)"
    fi
}

# has FILE LINE: a line as it stands, or any part of one
has()
{
    if ! grep -qF -- "$2" "$1"; then
        fail "$1 has no \"$2\": $(cat "$1")"
    fi
}

has_not()
{
    if grep -qF -- "$2" "$1"; then
        fail "$1 has \"$2\""
    fi
}

demo=$source/data/demo
model=$demo/model

# ---- the file ----
init 0 "$model" "$demo/train.jsonl" "$demo/test.jsonl"
has run.yaml "output: runs/model-train"
has run.yaml "480 documents, format messages as chat format chatml"
has run.yaml "eval: [$demo/test.jsonl]"
has run.yaml "max_length: 256"
has err "written: run.yaml"
has run.yaml "llama, 0.9 M parameters"
has run.yaml "trained parameters in all linears but the head."
if [ "$(grep -c '^ *[a-z_]*: ' run.yaml)" -gt 12 ]; then
    fail "run.yaml has more keys than those that matter"
fi
cp run.yaml before
init 2 "$model" "$demo/train.jsonl"
has err "run.yaml: the file exists"
cmp run.yaml before || fail "the file was written over"
mkdir -p runs/model-train
init 0 "$model" "$demo/train.jsonl" -o second.yaml
has second.yaml "output: runs/model-train-2"
has second.yaml "eval_split: 0.05"
has second.yaml "24 documents are held out"

# ---- values follow the data ----
lines 40 20 >few.jsonl
init 0 "$model" few.jsonl -o few.yaml
has_not few.yaml "eval_split"
has_not few.yaml "eval_steps"
has few.yaml "micro_batches: 1"
lines 3000 20 >many.jsonl
init 0 "$model" many.jsonl -o many.yaml
has many.yaml "micro_batches: 8"
{ lines 200 20; lines 40 400; } >long.jsonl
init 0 "$model" long.jsonl -o long.yaml
has long.yaml "max_length: 512"
has long.yaml "# 40 of 240 are cut"
{ lines 300 20; lines 1 400; lines 1 100; } >rare.jsonl # one is longer than was read, both than a pack
init 0 "$model" rare.jsonl -o rare.yaml
has rare.yaml "max_length: 256"
has rare.yaml "# 2 of 302 are cut"
for name in train valid test contest; do lines 20 10 >"$name.jsonl"; done
init 0 "$model" train.jsonl valid.jsonl test.jsonl contest.jsonl -o names.yaml
has names.yaml "train: [train.jsonl, contest.jsonl]"
has names.yaml "eval: [valid.jsonl]"
has names.yaml "Left for \`graft eval\` at the end: test.jsonl"
init 0 "$model" valid.jsonl -o only.yaml
has only.yaml "train: [valid.jsonl]"
init 0 "$model" train.jsonl -o set.yaml --set lora.r=4 --set train.max_steps=7 --set device.threads=1 \
    --set data.packing=false
has set.yaml "r: 4"
for key in 'train: 7' 'device: 1' 'data: false'; do
    section=${key%%:*} value=${key##* }
    "$graft" config set.yaml | sed -n "/^$section:/,/^[a-z]/p" | grep -qF ": $value" ||
        fail "set.yaml does not hold what was set in $section"
done
init 0 "$model" train.jsonl -o asked.yaml --set train.learning_rate=1e-5 --set train.num_train_epochs=1 \
    --set lora.target_modules=[q_proj] --set device.dtype=f32
has asked.yaml "llama, 0.9 M parameters"
for reason in 'usual rate' 'More than once' 'in all linears'; do
    has set.yaml "$reason"
    has_not asked.yaml "$reason" # the user's own choice has none
done

# ---- a prepared store decides the length ----
"$graft" data prepare few.yaml --set data.max_length=100 -o store >out 2>err
init 0 "$model" store/train.h5 -o store.yaml
has store.yaml "max_length: 100"
has store.yaml "train: [store/train.h5]"
"$graft" train store.yaml --set output=store-run --set train.max_steps=1 --set device.threads=1 2>err ||
    fail "train refuses init's file for a store: $(tail -n 2 err)"
init 3 "$model" store/train.h5 -o none.yaml --set data.max_length=64
has err "made with another data.max_length (found 100, expected 64)"

# ---- refusals: nothing is written ----
cp -r "$model" unknown
sed -i 's/"chat_template": "/&{# new #}/' unknown/tokenizer_config.json
[ "$(sha256sum <unknown/tokenizer_config.json)" != "$(sha256sum <"$model/tokenizer_config.json")" ] ||
    fail "the template is the old one"
init 3 unknown "$demo/train.jsonl" -o none.yaml
has err "chat_template is unknown"
init 0 unknown "$demo/train.jsonl" -o named.yaml --set data.chat_format=chatml
has named.yaml "chat_format: chatml"
init 3 "$model" absent.jsonl -o none.yaml
has err "absent.jsonl: there is no such file"
init 3 absent train.jsonl -o none.yaml
init 2 "$model" train.jsonl -o none.yaml --set lora.rr=4
mkdir -p random
"$tool" random hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=8
cp -r random nan
size=$(stat -c %s nan/model.safetensors)
printf '\xff\xff\xff\xff' | dd of=nan/model.safetensors bs=1 seek=$((size - 4)) conv=notrunc 2>dd
init 3 nan train.jsonl -o none.yaml
has err "is not finite"
init 2 "$model" -o none.yaml
[ ! -e none.yaml ] || fail "a refused file was written"

echo "$cases cases, $failures failures"
[ "$failures" = 0 ]
