#!/usr/bin/env bash
# One SHA-256 of the finished adapter over ranks and threads, for several numbers of micro-batches,
# with dropout, on a model with awkward sizes; and again with AVX2 forced, in bf16, and in bf16 with
# AVX2 forced, equal among themselves.
#   test_same_bits.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export XDG_CACHE_HOME=$work/cache
passed=0 failed=0

# Widths that are no multiples of 16, an output of more than 512 columns, 3 layers: an odd number of
# adapter elements (21,897), more than three chunks of 4,096.
"$tool" "$work/model" hidden_size=90 num_attention_heads=3 num_key_value_heads=1 head_dim=30 \
    intermediate_size=521 num_hidden_layers=3 vocab_size=262
# Documents of 20 to 700 bytes: packs with several documents, cut ones, and tails.
for i in $(seq 1 40); do
    printf '{"text": "document %d %s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 37 % 130 + 3))))"
done > "$work/data.jsonl"

# train RANKS THREADS M OUTPUT: the adapter's hash, or nothing
train() {
    local output=$work/run-$1-$2-$3-$column
    mpirun -n "$1" --bind-to none "$graft" train /dev/null --set model="$work/model" \
        --set data.train="$work/data.jsonl" --set output="$output" --set data.max_length=640 \
        --set lora.r=3 --set lora.lora_dropout=0.1 --set train.micro_batches="$3" \
        --set device.dtype="$dtype" --set train.max_steps=3 --set train.learning_rate=1e-2 --set device.threads="$2" \
        --expect-ranks "$1" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
    sha256sum < "$output/adapter/adapter_model.safetensors" | cut -d' ' -f1
}

# shares RANKS M: the micro-batches each rank must have computed in the last run's log
shares() {
    local expected=""
    for ((p = 0; p < $1; p++)); do
        expected+=" $((3 * ((p + 1) * $2 / $1 - p * $2 / $1)))"
    done
    grep -q "micro-batches computed by rank:$expected\$" "$work/log"
}

seen=""
for column in f32 f32-v3 bf16 bf16-v3; do # f32 with the best ISA in full, the others in fewer runs
    dtype=${column%-v3} thread_counts='1 3' ms='1 3 6 8'
    unset GRAFT_ISA ONEDNN_MAX_CPU_ISA
    case $column in
    f32) thread_counts='1 2 3' ;;
    bf16*) ms='3 8' ;;
    esac
    case $column in *-v3) export GRAFT_ISA=v3 ONEDNN_MAX_CPU_ISA=AVX2 ;; esac
    for m in $ms; do
        reference="" most=$((m < 4 ? m : 4))
        for ((ranks = 1; ranks <= most; ranks++)); do
            if [ "$column" != f32 ] && [ "$ranks" -gt 1 ] && [ "$ranks" -lt "$most" ]; then continue; fi
            for threads in $thread_counts; do
                hash=$(train "$ranks" "$threads" "$m")
                : "${reference:=$hash}"
                if [ -n "$hash" ] && [ "$hash" = "$reference" ] && shares "$ranks" "$m"; then
                    passed=$((passed + 1))
                else
                    failed=$((failed + 1))
                    echo "FAIL $column: M=$m ranks=$ranks threads=$threads: $hash, not $reference;" \
                        "$(grep 'computed by rank' "$work/log")"
                fi
            done
        done
        echo "$column M=$m ${reference:0:16}"
        case "$seen" in # a column that is not computed differently proves nothing
        *"$reference"*) failed=$((failed + 1)); echo "FAIL $column: M=$m as in another column" ;;
        esac
        seen+=" $reference"
    done
done
# More ranks than micro-batches.
code=0
mpirun -n 2 --bind-to none "$graft" train /dev/null --set model="$work/model" \
    --set data.train="$work/data.jsonl" --set output="$work/refused" --set train.micro_batches=1 \
    > "$work/log" 2>&1 || code=$?
if [ "$code" = 2 ] && [ "$(grep -c 'graft: error' "$work/log")" = 1 ]; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo "FAIL 2 ranks for 1 micro-batch: exit $code"
    cat "$work/log"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
