#!/usr/bin/env bash
# graft eval: the numbers it prints, as a line and as JSON, alone and with several ranks.
#   test_eval.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
. "$(dirname "$0")/command_rig.sh"

# A token per byte, and EOS; a document's first is never a target.
mkdir model
"$tool" model hidden_size=32 intermediate_size=64 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=16
documents=7 text='nine byte'
for ((i = 0; i < documents; i++)); do echo "{\"text\": \"$text\"}"; done >data.jsonl
tokens=$((documents * (${#text} + 1)))
run() { "$graft" eval --model model --data data.jsonl "$@" 2>err; }

run --json >json || fail "$(cat err)"
run >line || fail "$(cat err)"
number='[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?'
grep -Eqx "\{\"eval_loss\":$number,\"perplexity\":$number,\"supervised_tokens\":[0-9]+,\"tokens\":[0-9]+\}" \
    json || fail "other JSON: $(cat json)"
[ "$(wc -l <json)" = 1 ] || fail "not one line"
read -r loss perplexity supervised all < <(tr '{},:' ' ' <json | awk '{ print $2, $4, $6, $8 }')
[ "$all" = "$tokens" ] || fail "$all tokens, expected $tokens"
[ "$supervised" = $((tokens - documents)) ] || fail "$supervised supervised, not all but the first"
awk -v l="$loss" -v p="$perplexity" 'BEGIN { d = p / exp(l) - 1; exit !(d * d < 1e-18) }' ||
    fail "perplexity is not exp(eval_loss)"
# Untrained, a token is about as likely as any other of the 258.
awk -v l="$loss" 'BEGIN { exit !(l > 4.5 && l < 7.5) }' || fail "a loss of $loss"
expected=$(printf 'eval_loss %.6f  perplexity %.4f  supervised_tokens %d  tokens %d' \
    "$loss" "$perplexity" "$supervised" "$all")
[ "$(cat line)" = "$expected" ] || fail "the line says $(cat line), the JSON $expected"

# A final norm of 1e6 (the last tensor of the file): a loss whose exponential is no number any more.
size=$(stat -c %s model/model.safetensors)
cp -r model large
for ((i = 0; i < 32; i++)); do printf '\x00\x24\x74\x49'; done |
    dd of=large/model.safetensors bs=1 seek=$((size - 128)) conv=notrunc 2>err
"$graft" eval --model large --data data.jsonl --json >json 2>err || fail "$(cat err)"
grep -Eq '"eval_loss":[0-9.e+]+,"perplexity":null,' json || fail "a large loss: $(cat json)"

# refused MESSAGE HINT ARGUMENT...: exit code 2, this error, this hint
refused()
{
    local code=0
    "$graft" "${@:3}" >out 2>err || code=$?
    [ "$code" = 2 ] && grep -qF "error: $1" err && grep -qF "hint: $2" err && [ ! -s out ] ||
        fail "${*:3}: exit code $code, $(cat err)"
}
model=(--model model --data data.jsonl)
for key in data.eval_split=0.5 data.train=data.jsonl data.eval=data.jsonl; do
    refused "--set: the key has no effect here (found ${key%%=*}, expected one that says how data is read)" \
        'graft eval --data FILE evaluates a whole file' eval "${model[@]}" --set "$key"
done
refused 'eval: --data is empty (found nothing, expected FILE)' 'a variable' eval --model model --data ''
refused '--prompt: the prompt does not fit (found 13 tokens, expected less than 10)' \
    'raise data.max_length' generate --model model --prompt 'thirteen here' --set data.max_length=10
# What the environment of a run says of its data is not about this file.
KUBEFLOW_TRAINER_OPT_DATA_TRAIN=data.jsonl KUBEFLOW_TRAINER_OPT_DATA_EVAL_SPLIT=0.5 run --json >json
run --json >alone
cmp json alone || fail "the environment changes what is evaluated: $(cat json)"

# Without a home the cache is this user's alone, or nowhere.
mkdir tmp
lone() { env -u HOME -u XDG_CACHE_HOME TMPDIR="$work/tmp" "$graft" eval "${model[@]}" --json 2>err; }
cache=tmp/graft-$(id -u)
lone | cmp - alone || fail "without a home: $(cat err)"
[ "$(stat -c '%a %u' "$cache")" = "700 $(id -u)" ] && [ -d "$cache/tokens" ] || fail "no private cache"
chmod 770 "$cache"
! lone || fail "a cache that others can write to is taken"
grep -qF "$cache: not a folder of this user alone (found user $(id -u) and mode 770, expected $(id -u) and 700)" \
    err || fail "another message: $(cat err)"
chmod 700 "$cache"
mv "$cache" tmp/elsewhere && ln -s elsewhere "$cache"
! lone || fail "a cache behind a link is taken"
if [ "$(id -u)" = 0 ]; then
    rm "$cache" && mv tmp/elsewhere "$cache" && chown 12345 "$cache"
    ! lone || fail "another user's cache is taken"
fi

"$graft" help eval | grep -qF '"supervised_tokens": 90' || fail "help does not show the JSON"
if command -v mpirun >/dev/null; then
    mpirun -n 2 --oversubscribe --bind-to none "$graft" eval --model model --data data.jsonl \
        --set data.max_length=64 --json >two 2>err || fail "mpirun: $(cat err)"
    run --set data.max_length=64 --json >one
    cmp one two || fail "two ranks print $(cat two), one $(cat one)"
fi
report
