#!/usr/bin/env bash
# How much faster two processes are than one, one thread each, on the same step: both alternate in one
# run, and the ratio of the median step times is printed.
#   bench/scaling.sh [MODEL DATA.jsonl]     default: a random Llama of 25 million parameters
set -euo pipefail
cd "$(dirname "$0")/.."
graft=build/release/bin/graft tool=build/dev/bin/tool_random_model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

model=${1:-$work/model} data=${2:-$work/data.jsonl}
if [ $# -lt 2 ]; then
    "$tool" "$model" hidden_size=512 num_attention_heads=8 \
        num_key_value_heads=4 head_dim=64 intermediate_size=1536 num_hidden_layers=8 vocab_size=2048
    for i in $(seq 1 200); do
        printf '{"text": "document %d %s"}\n' "$i" "$(printf 'word%d ' $(seq 1 60))"
    done > "$data"
fi

# step_time RANKS ROUND: the median step time in ms, without the first step
step_time() {
    mpirun -n "$1" --bind-to none --oversubscribe "$graft" train /dev/null --set model="$model" \
        --set data.train="$data" --set output="$work/run-$1-$2" --set data.max_length=512 \
        --set train.micro_batches=2 --set train.max_steps=7 --set device.threads=1 \
        > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    sed -n 's/.*"event": *"step".*"step_time_ms": *\([0-9.e+-]*\).*/\1/p' \
        "$work/run-$1-$2/metrics.jsonl" | tail -n +2 | sort -g | awk '{t[NR]=$1} END {print t[int((NR+1)/2)]}'
}

echo "round  1 rank (ms)  2 ranks (ms)  ratio"
for round in 1 2 3 4 5; do
    one=$(step_time 1 "$round") two=$(step_time 2 "$round")
    echo "$round $one $two" | awk '{printf "%5d  %11.1f  %12.1f  %5.2f\n", $1, $2, $3, $2 / $3}'
done | tee "$work/rows"
awk '{print $4}' "$work/rows" | sort -g | awk '{r[NR]=$1} END {print "median ratio " r[int((NR+1)/2)]}'
