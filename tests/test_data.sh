#!/usr/bin/env bash
# graft data, and runs on what it prepares: the same bits as from the text; killed in the middle it is
# never half used; many processes at once tokenize once; a split is the same at any number of ranks.
#   test_data.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 XDG_CACHE_HOME=$work/cache LC_ALL=C
unset "${!OMPI_COMM@}"
tokens=$work/cache/graft/tokens
passed=0 failed=0

# check NAME COMMAND...: whether the command succeeds
check()
{
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $1"
    fi
}

# stores: how many there are in the cache, whole or not; records: how many count
stores() { find "$tokens" -name '*.h5' 2>/dev/null | wc -l; }
records() { find "$tokens" -name '*.json' 2>/dev/null | wc -l; }

cd "$work"
mkdir model
"$tool" model hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=8 num_hidden_layers=2
for i in $(seq 1 60); do
    printf '{"prompt": "question %d", "completion": "%s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 7 % 20 + 1))))"
done >train.jsonl
for i in $(seq 1 20); do printf '{"text": "another %d"}\n' "$i"; done >more.jsonl
head -n 15 train.jsonl >eval.jsonl
cat >run.yaml <<'YAML'
model: model
output: out
data: {train: [train.jsonl, more.jsonl], eval: [eval.jsonl], max_length: 64}
lora: {r: 2}
train: {micro_batches: 3, max_steps: 6, eval_steps: 3, learning_rate: 1.0e-2}
device: {threads: 1, dtype: f32}
YAML

# train RANKS OUTPUT ARGUMENT...: the hash of the adapter, and of all evaluation losses
train()
{
    # its own folder for mpirun's sessions: the end of another run removes a shared one
    OMPI_MCA_orte_tmpdir_base=$work/mpi-$2 mpirun -n "$1" --bind-to none "$graft" train run.yaml \
        --set output="$2" "${@:3}" >log 2>&1 ||
        { cat log >&2; return 1; }
    sha256sum <"$2/adapter/adapter_model.safetensors"
    sed -n 's/.*"eval_loss": *\([0-9.e+-]*\).*/\1/p' "$2/metrics.jsonl"
}

# ---- text, cache and stores give the same run ----
from_text=$(train 1 text)
check 'two lists make two stores' [ "$(stores) $(records)" = '2 2' ]
check 'evaluations are in the metrics' [ "$(wc -l <<<"$from_text")" -ge 3 ]
check 'the cache gives the same run' [ "$(train 1 cached)" = "$from_text" ]
check 'the cache is used' [ "$(stores)" = 2 ]
"$graft" data prepare run.yaml -o prepared >prepared.out 2>/dev/null
check 'prepare -o says what it wrote' \
    diff prepared.out <(printf 'train prepared/train.h5\neval prepared/eval.h5\n')
check 'a hash lies beside each store' bash -c 'cd prepared && sha256sum --quiet -c train.h5.sha256 eval.h5.sha256'
in_store=(--set data.train=prepared/train.h5 --set data.eval=prepared/eval.h5)
check 'stores give the same run' [ "$(train 1 stored "${in_store[@]}")" = "$from_text" ]
check 'stores give the same run on 3 ranks' [ "$(train 3 stored3 "${in_store[@]}")" = "$from_text" ]
check 'a store beside text gives the same run' \
    [ "$(train 1 mixed --set data.eval=prepared/eval.h5)" = "$from_text" ]
check 'a run may go on from the store of its text' [ "$(train 1 text "${in_store[@]}")" = "$from_text" ]
check 'it had been finished' grep -q 'already finished' log
check 'a store says which tokenizer it is not of' bash -c "
    cp -r model other && sed -i 's/{/{\"x\": 1, /' other/tokenizer_config.json
    code=0; '$graft' train run.yaml --set model=other ${in_store[*]} 2>err || code=\$?
    [ \$code = 3 ] && grep -q 'prepared/train.h5: the tokens were made with another tokenizer' err"
loss() { "$graft" eval --model model --data "$1" --set data.max_length=64 --json 2>/dev/null; }
check 'eval takes a store' [ "$(loss prepared/eval.h5)" = "$(loss eval.jsonl)" ]
check 'eval of it says something' grep -q '"eval_loss":[0-9]' <(loss prepared/eval.h5)

# ---- show and info ----
"$graft" data show run.yaml -n 1 --from 60 2>/dev/null >show
check 'show marks what is supervised' diff show - <<'TEXT'
-- document 60 of 80: train.jsonl, 15 tokens, 4 supervised
question 60[[w1 </s>]]
TEXT
"$graft" data info run.yaml --json 2>/dev/null >text.json
"$graft" data info run.yaml --json "${in_store[@]}" 2>/dev/null >store.json
check 'info of a store is that of its text' cmp text.json store.json
for word in '"documents":80' '"records":60' '"supervised":' '"lengths":{' '"tokenizer_sha256":"' \
    '"path":"more.jsonl","sha256":"'; do
    check "info says $word" grep -qF "$word" text.json
done
check 'info in words names the tokenizer and the sources' \
    [ "$("$graft" data info run.yaml 2>/dev/null | grep -c 'sha256 [0-9a-f]\{64\}$')" = 4 ]

# refused MESSAGE ARGUMENT...: of graft data show
refused()
{
    local code=0
    "$graft" data show run.yaml "${@:2}" >out 2>err || code=$?
    [ "$code" = 2 ] && grep -qF "error: $1" err && grep -q '^  hint: .' err && [ ! -s out ]
}
check 'show -n 0 is refused by its name' \
    refused 'data: -n is wrong (found 0, expected an integer from 1 to 1000000000)' -n 0
check 'show beyond the last is refused' \
    refused '--from: there is no such document (found 81, expected at most 80)' --from 81
check 'show --eval without evaluation data is refused' \
    refused '--eval: there is nothing to evaluate on' --eval --set data.eval=

# ---- killed while it prepares ----
for place in tokens.document@40 tokens.written; do
    rm -rf "$tokens"
    code=0
    { GRAFT_FAIL=$place:0:kill "$graft" data prepare run.yaml; } >/dev/null 2>&1 || code=$?
    check "$place: it was killed" [ "$code" = 137 ]
    check "$place: nothing counts" [ "$(stores) $(records)" = '1 0' ]
    check "$place: started again it is the same run" [ "$(train 1 "after-$place")" = "$from_text" ]
    check "$place: what was half made is gone" [ "$(stores) $(records)" = '2 2' ]
    rm -rf again
    code=0
    { GRAFT_FAIL=$place:0:kill "$graft" data prepare run.yaml -o again; } >/dev/null 2>&1 || code=$?
    check "$place: -o leaves nothing under its name" [ ! -e again/train.h5 -a "$code" = 137 ]
    check "$place: -o leaves what it was at" [ "$(ls -A again | sed 's/[^.]*$/X/')" = train.h5.partial.X ]
    "$graft" data prepare run.yaml -o again >/dev/null 2>&1
    check "$place: -o once more sweeps it" \
        [ "$(ls -A again | tr '\n' ' ')" = 'eval.h5 eval.h5.sha256 train.h5 train.h5.sha256 ' ]
    check "$place: and makes the same" cmp again/train.h5 prepared/train.h5
done

# ---- no room ----
for limit in 4 100 330; do # KiB; a store of two lists needs 410
    rm -rf "$tokens" full
    code=0
    (ulimit -f "$limit" && "$graft" data prepare run.yaml) >/dev/null 2>err || code=$?
    check "$limit KiB: prepare ends" [ "$code" = 138 ]
    check "$limit KiB: it says why" grep -q 'cannot be written: no space left below the limit' err
    check "$limit KiB: nothing is left" [ "$(stores) $(records)" = '0 0' ]
    code=0
    (ulimit -f "$limit" && "$graft" data prepare run.yaml -o full) >/dev/null 2>&1 || code=$?
    check "$limit KiB: -o leaves nothing" [ "$code $(find full -type f | wc -l)" = '138 0' ]
    check "$limit KiB: a reading goes on without the cache" \
        cmp text.json <(ulimit -f "$limit" && "$graft" data info run.yaml --json 2>err)
    check "$limit KiB: and says so" grep -q 'warning: the tokens are not kept: ' err
done

# ---- many at once ----
rm -rf "$tokens"
for i in 1 2 3 4; do
    GRAFT_FAIL=tokens.written:0:delay=300 "$graft" data prepare run.yaml >"at-once-$i" 2>/dev/null &
done
wait
check 'all of four have both lists' [ "$(cat at-once-* | grep -c '\.h5')" = 8 ]
check 'one of four has made each' [ "$(cat at-once-* | grep -cv 'was there')" = 2 ]
rm -rf "$tokens"
train 3 together1 >together1.out &
train2=$(log=log2; mpirun -n 3 --bind-to none "$graft" train run.yaml --set output=together2 >log2 2>&1 &&
    sha256sum <together2/adapter/adapter_model.safetensors)
wait
check 'two jobs of three ranks at once are the same run' \
    [ "$train2 $(head -n 1 together1.out)" = "$(head -n 1 <<<"$from_text") $(head -n 1 <<<"$from_text")" ]
check 'they made each store once' [ "$(stores) $(records)" = '2 2' ]

# ---- data.eval_split ----
split=(--set data.eval= --set data.eval_split=0.25)
from_split=$(train 1 split1 "${split[@]}")
check 'a quarter is held out' grep -q 'data.eval_split: 20 documents held out for evaluation, 60 left' log
check 'a split is the same on 3 ranks' [ "$(train 3 split3 "${split[@]}")" = "$from_split" ]
check 'a split is not the whole' [ "$from_split" != "$from_text" ]
check 'a split of a store is that of its text' \
    [ "$(train 1 split-store "${split[@]}" --set data.train=prepared/train.h5)" = "$from_split" ]
held() { "$graft" data show run.yaml "${split[@]}" -n 99 --eval "$@" 2>/dev/null; }
check 'the held out documents are 20' [ "$(held | grep -c '^-- document .* of 20: ')" = 20 ]
check 'another seed holds out the same' [ "$(held --set train.seed=7)" = "$(held)" ]
code=0
"$graft" train run.yaml --set output=split1 "${split[@]}" --set data.eval_split=0.5 2>err || code=$?
check 'the split is part of what a run is' [ "$code" = 2 ]
check 'the message names it' grep -q 'another run stands here (data.eval_split: found 0.5, expected 0.25)' err

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
