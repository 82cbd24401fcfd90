#!/usr/bin/env bash
# The best checkpoint and early stopping: the run ends after `patience` evaluations without a better
# one, best/ is the adapter of the best evaluation, and an interruption changes neither.
#   test_best.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
. "$(dirname "$0")/run_rig.sh"

# Documents unlike those of the training: learning these by heart soon makes the others worse.
for i in $(seq 1 8); do
    printf '{"text": "%s"}\n' "$(printf 'the %d. of many other words! ' $(seq $i $((i + 6))))"
done > "$work/eval.jsonl"
keys=(--set data.eval="$work/eval.jsonl" --set train.eval_steps=2 --set train.learning_rate=5e-2
    --set train.max_steps=400 --set train.early_stopping_patience=3
    --set train.lr_scheduler_type=constant --set train.warmup_ratio=0)
check() # check TEXT COMMAND...
{
    if "${@:2}"; then pass; else fail "$1"; fi
}
field() # field OUTPUT NAME: of done.json
{
    sed -n "s/^ *\"$2\": \([0-9]*\),*$/\1/p" "$work/$1/done.json"
}
best_of() # the step of the least eval_loss in metrics.jsonl, the first of equals
{
    sed -n 's/.*"step":\([0-9]*\).*"eval_loss":\([0-9.e+-]*\).*/\2 \1/p' "$work/$1/metrics.jsonl" |
        sort -s -g -k1,1 | head -1 | cut -d' ' -f2
}

train calm 1 1 "${keys[@]}" || fail "the undisturbed run failed"
end=$(field calm step) best=$(best_of calm)
echo "best step $best, ended at $end"
check "it did not stop early" test "$end" -lt 400
check "not patience evaluations after the best" test "$end" -eq $((best + 2 * 3))
check "done.json tells of another best" test "$(field calm best_step)" = "$best"
check "no word of the end" grep -q "early stopping: none of the last 3 .* step $best's" "$log"
"$graft" checkpoints ls "$work/calm" > "$work/ls"
check "the best checkpoint is not marked" grep -Eq " $best +1 .*best" "$work/ls"
cp -r "$work/calm/best" "$work/best"
rm -r "$work/calm/best"
train calm 1 1 "${keys[@]}" || fail "the finished run, started again, failed"
check "best/ is not back" diff -r "$work/best" "$work/calm/best"

# A run that ends at the best step finishes with what best/ holds.
train short 1 1 "${keys[@]}" --set train.max_steps="$best" || fail "the short run failed"
check "its last step is not saved once" test "$(grep -c "durable: step $best$" "$log")" = 1
check "best/ is another adapter" cmp "$work/calm/best/adapter_model.safetensors" \
    "$work/short/adapter/adapter_model.safetensors"
check "best/ has another config" cmp "$work/calm/best/adapter_config.json" \
    "$work/calm/adapter/adapter_config.json"

# Killed after the best, in the last save, and in the export of best/; other ranks.
GRAFT_FAIL="step.updated@$((best + 3)):0:kill" train torn 2 1 "${keys[@]}" && fail "no kill"
GRAFT_FAIL='export.config:0:kill' train torn 1 2 "${keys[@]}" && fail "no kill"
GRAFT_FAIL='done.before:0:kill' train torn 3 1 "${keys[@]}" && fail "no kill"
train torn 2 1 "${keys[@]}" || fail "the last start failed"
check "another adapter" test "$(hash_of torn)" = "$(hash_of calm)"
check "another best" cmp "$work/torn/best/adapter_model.safetensors" \
    "$work/calm/best/adapter_model.safetensors"
check "another end" test "$(field torn step)" = "$end"
report
