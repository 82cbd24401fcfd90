#!/usr/bin/env bash
# A run's memory does not grow: less than 2 MiB from step 100 to step 600.  The run stops itself at
# both steps (failpoints), so that its size is read at rest.
#   test_memory_growth.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
work=$(mktemp -d)
pid=
trap 'kill -9 "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive XDG_CACHE_HOME=$work/cache
unset "${!OMPI_@}"
limit_kb=2048

"$tool" "$work/model" hidden_size=16 intermediate_size=32 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=8 num_hidden_layers=2
for ((i = 0; i < 40; i++)); do
    printf '{"text": "%s"}\n' "$(printf 'w%d ' $(seq 1 $((i * 37 % 60 + 1))))"
done >"$work/data.jsonl"

GRAFT_FAIL=step.updated@100:0:stop,step.updated@600:0:stop "$graft" train /dev/null \
    --set model="$work/model" --set data.train="$work/data.jsonl" --set data.eval="$work/data.jsonl" \
    --set data.max_length=256 --set output="$work/run" --set lora.r=2 --set train.micro_batches=2 \
    --set train.max_steps=601 --set train.eval_steps=10 --set device.threads=2 2>"$work/log" &
pid=$!

# size: waits until the run has stopped itself, then prints its resident KiB.
size()
{
    for ((i = 0; i < 3000; i++)); do
        if grep -q '^State:.*stopped' "/proc/$pid/status" 2>/dev/null; then
            sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"
            return
        fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo 'FAIL the run does not reach the step' >&2
    tail "$work/log" >&2
    return 1
}

before=$(size)
kill -CONT "$pid"
sleep 0.2
after=$(size)
kill -CONT "$pid"
wait "$pid"
printf 'resident: %d KiB at step 100, %d KiB at step 600\n' "$before" "$after"
if [ $((after - before)) -ge "$limit_kb" ]; then
    echo "FAIL it grew by $((after - before)) KiB, expected less than $limit_kb"
    exit 1
fi
