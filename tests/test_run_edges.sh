#!/usr/bin/env bash
# The edges of a run's directory: parents that change or go, exports that are damaged, checkpoints and
# run.json that are gone, a second start that waits, a report that takes long.
#   test_run_edges.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
. "$(dirname "$0")/run_rig.sh"

# ends CODE WORDS OUTPUT [ARG...]: a start on one rank that ends so and says so
ends()
{
    local code=0
    train "$3" 1 1 "${@:4}" || code=$?
    if [ "$code" = "$1" ] && grep -q -- "$2" "$log"; then
        pass
    else
        fail "$3: exit $code, expected $1 and \"$2\""
    fi
}
same() # same OUTPUT OUTPUT: the finished adapters
{
    if [ "$(hash_of "$1")" = "$(hash_of "$2")" ]; then pass; else fail "$1 and $2 differ"; fi
}
sum()
{
    sha256sum < "$1" | cut -d' ' -f1
}

# ---- a parent: read once, held to what it was ----
parent=$work/undisturbed
ends 0 finished child --set train.init_from="$parent" --set train.max_steps=9
ends 0 finished child-of-adapter --set train.init_from="$parent/adapter" --set train.max_steps=9
mkdir "$work/at@home"
cp -r "$parent" "$work/at@home/run"
ends 0 finished at --set train.init_from="$work/at@home/run@30" --set train.max_steps=9
for other in child-of-adapter at; do same child "$other"; done
if [ "$(hash_of child)" = "$reference" ]; then fail "the child is the parent"; else pass; fi
ends 2 'differs at' scaled --set train.init_from="$parent" --set lora.lora_alpha=99
ends 3 '' scaled --set train.init_from="$work/nowhere"
ends 5 'the run does not fit' scaled --set device.memory=1MiB
ends 0 finished scaled --set lora.lora_alpha=99 --set train.max_steps=9 # no refused start had claimed it
cp -r "$parent" "$work/moving"
GRAFT_FAIL='step.updated@2:0:kill' ends 137 '' torn --set train.init_from="$work/moving" --set train.max_steps=9
rm -r "$work/moving"
cp -r "$work/child" "$work/moving"
ends 2 'train.init_from is not what it was' torn --set train.init_from="$work/moving" --set train.max_steps=9
cp -r "$work/torn" "$work/damaged"
echo '{}' >"$work/damaged/parent.json"
ends 3 'parent.json: the file is damaged' damaged --set train.init_from="$work/moving" --set train.max_steps=9
rm -r "$work/moving"
cp -r "$parent" "$work/moving"
GRAFT_FAIL='save.durable@2:0:kill' ends 137 'durable: step 3' torn --set train.init_from="$work/moving" \
    --set train.max_steps=9
rm -r "$work/moving"
ends 0 'resumed: step 6' torn --set train.init_from="$work/moving" --set train.max_steps=9
same child torn

# ---- a finished run ----
adapter=$work/child/adapter
weights=$(sum "$adapter/adapter_model.safetensors")
finished=("child" --set train.init_from="$parent" --set train.max_steps=9)
echo >> "$adapter/adapter_config.json"
ends 0 'exported again' "${finished[@]}"
ends 0 'already finished' "${finished[@]}"
echo >> "$adapter/adapter_config.json"
last=$(echo "$work"/child/ckpt/000000000009-*.json)
mv "$last" "$work/last"
ends 8 'is not what done.json tells of' "${finished[@]}"
if [ "$(sum "$adapter/adapter_model.safetensors")" = "$weights" ]; then pass; else fail "weights replaced"; fi
mv "$work/last" "$last"
ends 0 'exported again' "${finished[@]}"
echo '{}' > "$work/child/done.json"
ends 3 'done.json: the file is damaged' "${finished[@]}"
rm "$work/child/done.json"
ends 0 'finished:' "${finished[@]}"
if [ "$(sum "$adapter/adapter_model.safetensors")" = "$weights" ]; then pass; else fail "another end"; fi

# ---- what is gone is missed ----
GRAFT_FAIL='save.durable@2:0:kill' ends 137 'durable: step 3' gone
GRAFT_FAIL='step.updated@3:0:kill' ends 137 'resumed: step 6' gone
cp -r "$work/gone" "$work/gone2"
cp -r "$work/gone" "$work/gone3"
cp -r "$work/gone" "$work/gone4"
mv "$work/gone/run.json" "$work/run.json"
ends 8 'run.json is gone' gone
mv "$work/run.json" "$work/gone/run.json"
ends 0 finished gone
same gone undisturbed
rm -r "$work/gone2/ckpt"
ends 8 'the checkpoints are gone' gone2
ends 0 finished gone2 --set train.resume=never
same gone2 undisturbed
ends 0 'are given up' gone4 --set train.resume=never
same gone4 undisturbed
truncate -s 1T "$work"/gone3/ckpt/000000000003-*.json
ends 0 finished gone3
same gone3 undisturbed

# ---- memory: what is computed again changes no bit, and too little is said ----
ends 0 'computed again in the backward: qkv in 2 layers, attention in 2 layers' redone --set device.recompute=all
same redone undisturbed
log=$work/log-whole ends 0 finished whole
need=$(grep -o 'weights [0-9.]* MiB per host; .* gradients [0-9.]* MiB, activations [0-9.]*' "$work/log-whole" |
    grep -o '[0-9]*\.[0-9]*' | awk '{ sum += $1 * 1048576 } END { printf "%d", sum }')
ends 0 'computed again in the backward: gate_up in 2 layers' tight --set device.memory=$((need - 100000))
same tight undisturbed
ends 5 'device.memory: the run does not fit' short --set device.memory=1MiB
ends 5 'leave device.recompute out' short --set device.memory=$((need - 100000)) --set device.recompute=none

# ---- places ----
ends 0 finished url --set output="file://$work/url"
same url undisturbed

# ---- two starts ----
GRAFT_FAIL='step.updated@28:0:delay=1500' train first 1 1 &
first=$!
log=$work/log-waits
for _ in $(seq 1200); do # its end is near: less than the patience for its lock
    if compgen -G "$work/first/ckpt/000000000024-*" > /dev/null; then break; fi
    sleep 0.05
done
ends 0 'already finished' first
wait "$first" || fail "the first start failed"
same first undisturbed

# ---- the report takes longer than the ranks wait for one another ----
if GRAFT_FAIL='report.begin:0:delay=9000' train reported 2 1 --set dist.timeout_seconds=6 && [ -f "$work/reported/report.html" ]; then
    pass
else
    fail "reported: exit $?"
fi
same reported undisturbed

report
