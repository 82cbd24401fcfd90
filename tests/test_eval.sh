#!/usr/bin/env bash
# graft eval: the numbers it prints, as a line and as JSON, alone and with several ranks.
#   test_eval.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export XDG_CACHE_HOME=$work/cache OMP_WAIT_POLICY=passive
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_COMM_@}"
failures=0

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

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
grep -Eqx "\{\"eval_loss\": $number, \"perplexity\": $number, \"supervised_tokens\": [0-9]+, \"tokens\": [0-9]+\}" \
    json || fail "other JSON: $(cat json)"
[ "$(wc -l <json)" = 1 ] || fail "not one line"
read -r loss perplexity supervised all < <(tr -d '{},' <json | awk '{ print $2, $4, $6, $8 }')
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
grep -Eq '"eval_loss": [0-9.e+]+, "perplexity": null,' json || fail "a large loss: $(cat json)"

"$graft" help eval | grep -qF '"supervised_tokens": 90' || fail "help does not show the JSON"
if command -v mpirun >/dev/null; then
    mpirun -n 2 --oversubscribe --bind-to none "$graft" eval --model model --data data.jsonl \
        --set data.max_length=64 --json >two 2>err || fail "mpirun: $(cat err)"
    run --set data.max_length=64 --json >one
    cmp one two || fail "two ranks print $(cat two), one $(cat one)"
fi
echo "$failures failures"
[ "$failures" = 0 ]
