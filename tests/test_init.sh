#!/usr/bin/env bash
# graft init: what it writes passes `graft config` and trains, what train refuses it refuses with
# the same words, and no file is written over.
#   test_init.sh GRAFT TOOL_RANDOM_MODEL [--all]      --all: also the large data sets
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") all=${3-}
source=${GRAFT_SOURCE_DIR:?}
fixtures=$(realpath "$source/../shared/fixtures" 2>/dev/null || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export XDG_CACHE_HOME=$work/cache OMP_WAIT_POLICY=passive
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_@}"
failures=0 cases=0 refused=0 trained=0

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

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

# lines COUNT WORDS: documents of so many words
lines()
{
    awk -v count="$1" -v words="$2" 'BEGIN {
        for (i = 0; i < count; i++) {
            text = "";
            for (w = 0; w < words; w++) text = text " w" (i * w) % 97
            print "{\"text\": \"" text "\"}"
        }
    }'
}

# ---- the file ----
init 0 "$model" "$demo/train.jsonl" "$demo/test.jsonl"
has run.yaml "output: runs/model-train"
has run.yaml "480 documents, format messages as chat format chatml"
has run.yaml "eval: [$demo/test.jsonl]"
has run.yaml "max_length: 256"
has err "written: run.yaml"
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

# ---- every model with every data set: init and train agree, and what init writes trains ----
mkdir -p qwen
"$tool" qwen model_type=qwen2 hidden_size=32 intermediate_size=64 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=16 num_hidden_layers=2
models=("$model" random qwen)
data=("$demo/train.jsonl" few.jsonl long.jsonl)
if [ -d "$fixtures" ]; then
    models+=("$fixtures/models/stories260k")
    while read -r file; do
        if [ -n "$all" ] || [ "$(stat -c %s "$file")" -lt 120000 ]; then data+=("$file"); fi
    done < <(find "$fixtures/datasets" \( -name '*.json' -o -name '*.jsonl' \) | sort)
else
    echo "fixtures are missing: fewer models and data sets"
fi
steps=(--set train.max_steps=2 --set device.threads=1 --set train.save_steps=0)
for m in "${models[@]}"; do
    for d in "${data[@]}"; do
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
