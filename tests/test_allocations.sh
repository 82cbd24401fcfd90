#!/usr/bin/env bash
# graft's training thread allocates nothing from step 4 on: packs of varying fill, new epochs, logs,
# evaluations and saves, alone and in ranks; what the saver's thread takes it gives back, but for fewer
# than ten pieces it uses again.
#   test_allocations.sh GRAFT_COUNTED TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export XDG_CACHE_HOME=$work/cache
failures=0

"$tool" "$work/model" hidden_size=16 intermediate_size=32 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=8 num_hidden_layers=2
# From one document that fills a pack to many in one; from one supervised byte to all.
for ((i = 0; i < 40; i++)); do
    words=$(printf 'w%d ' $(seq 1 $((i * 37 % 110 + 1))))
    printf '{"prompt": "%s", "completion": "%s"}\n' "${words:0:$((i * 53 % 300))}" \
        "${words:0:$((i * 29 % 200 + 1))}"
done >"$work/data.jsonl"

# run NAME RANKS THREADS: 60 steps over several epochs.
run()
{
    local name=$1 ranks=$2 start=() reports
    if [ "$ranks" -gt 1 ]; then start=(mpirun -n "$ranks" --bind-to none --oversubscribe); fi
    if ! "${start[@]}" "$graft" train /dev/null --set model="$work/model" \
        --set data.train="$work/data.jsonl" --set data.eval="$work/data.jsonl" \
        --set data.max_length=320 --set output="$work/$name" --set lora.r=2 \
        --set lora.lora_dropout=0.1 --set train.micro_batches=3 --set train.max_steps=60 \
        --set train.logging_steps=1 --set train.save_steps=5 --set train.eval_steps=4 --set device.threads="$3" \
        2>"$work/log"; then
        cat "$work/log"
        echo "FAIL $name: the run failed"
        failures=$((failures + 1))
        return
    fi
    grep -E '^(step [0-9]+: [0-9]+ alloc|allocations after)' "$work/log" || true
    reports=$(grep -cE '^allocations after step 3: 0 by graft, [0-9]+ by libraries, 60 steps, [1-9][0-9]+ before, (-[0-9]+|[0-9]) kept by saving$' \
        "$work/log" || true)
    if [ "$reports" != "$ranks" ]; then
        echo "FAIL $name: $reports of $ranks processes allocate nothing after step 3"
        failures=$((failures + 1))
    fi
    if [ "$(tail -n 1 "$work/$name/metrics.jsonl" | grep -oE '"epoch":[0-9]+' | cut -d: -f2)" -lt 2 ]; then
        echo "FAIL $name: fewer than two epochs"
        failures=$((failures + 1))
    fi
}

run alone 1 2
run ranks 2 1
run odd_ranks 3 1
echo "$failures failures"
[ "$failures" = 0 ]
