#!/usr/bin/env bash
# One SHA-256 of the finished adapter over ranks and threads, for several numbers of micro-batches,
# with dropout, on a model with awkward sizes; and again in bf16 and with lesser instruction sets
# forced, equal among themselves.
#   test_same_bits.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export XDG_CACHE_HOME=$work/cache
passed=0 failed=0
steps=2 # before the first, B is zero and A has no gradient

# Widths that are no multiples of 16, an output of more than 512 columns, 3 layers, and an odd number
# of adapter elements, more than three chunks of 4,096 (checked below).
"$tool" "$work/model" hidden_size=90 num_attention_heads=3 num_key_value_heads=1 head_dim=30 \
    intermediate_size=521 num_hidden_layers=3 vocab_size=262
# Documents of 20 to 760 tokens for packs of 640: several in a pack, some cut, and, as they do not
# fill their packs, tails.
for i in $(seq 1 40); do
    printf '{"text": "document %d %s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 37 % 170 + 3))))"
done > "$work/data.jsonl"

# train RANKS THREADS M OUTPUT: the adapter's hash, or nothing
train() {
    local output=$work/run-$1-$2-$3-$column
    mpirun -n "$1" --bind-to none "$graft" train /dev/null --set model="$work/model" \
        --set data.train="$work/data.jsonl" --set output="$output" --set data.max_length=640 \
        --set lora.r=3 --set lora.lora_dropout=0.1 --set train.micro_batches="$3" \
        --set device.dtype="$dtype" --set train.max_steps=$steps --set train.learning_rate=1e-2 --set device.threads="$2" \
        --expect-ranks "$1" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
    sha256sum < "$output/adapter/adapter_model.safetensors" | cut -d' ' -f1
}

# shares RANKS M: the micro-batches each rank must have computed in the last run's log; one rank alone
# says nothing of it
shares() {
    local expected=""
    if [ "$1" = 1 ]; then
        ! grep -q 'computed by rank' "$work/log"
        return
    fi
    for ((p = 0; p < $1; p++)); do
        expected+=" $((steps * ((p + 1) * $2 / $1 - p * $2 / $1)))"
    done
    grep -q "micro-batches computed by rank:$expected\$" "$work/log"
}

# number PATTERN: in the last run's log, where it stands in \(\)
number()
{
    sed -n "s/^graft: $1.*/\1/p" "$work/log"
}

# check_shape: what the last run says of its shape is what this test promises.
check_shape()
{
    local elements tokens cut
    elements=$(number 'run: .*, \([0-9]*\) trained parameters')
    tokens=$(number 'data: .* documents, \([0-9]*\) tokens')
    cut=$(number '.*: longer than 640 tokens: \([0-9]*\) cut, 0 dropped')
    if ((elements > 12288 && elements % 2 == 1 && tokens % 640 > 0 && cut > 0)); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL shape: $elements elements, $tokens tokens, $cut documents cut"
    fi
}

# The CPU's own instruction set, and lesser ones forced (f32 is the same code in v4 and v4bf16).
best=$(env -u GRAFT_ISA "$graft" version --json | sed 's/.*"isa":"\([^"]*\)".*/\1/')
case $best in
v3) columns='f32 bf16' ;;
v4bf16) columns='f32 f32-v3 bf16 bf16-v3 bf16-v4' ;;
v4amx) columns='f32 f32-v3 f32-v4 bf16 bf16-v3 bf16-v4 bf16-v4bf16' ;;
*) columns='f32 f32-v3 bf16 bf16-v3' ;;
esac
# cells M: RANKS:THREADS of the runs of a column that must be equal: all pairs in the instruction set that is
# chosen.  A lesser one has what could differ in it, as the tree over ranks and the sharing of tiles among
# threads are the same code: threads, and threads in the most ranks.
cells()
{
    local most=$(($1 < 4 ? $1 : 4)) ranks
    case $column in
    *-*) echo "1:1 1:3 $most:2" ;;
    *) for ((ranks = 1; ranks <= most; ranks++)); do echo "$ranks:1 $ranks:2 $ranks:3"; done ;;
    esac
}

declare -A of_f32
for column in $columns; do
    dtype=${column%-*} isa=$best ms='3 8'
    unset GRAFT_ISA
    case $column in
    f32) ms='1 3 6 8' ;;
    *-*) isa=${column#*-} && export GRAFT_ISA=$isa ;;
    esac
    for m in $ms; do
        reference=""
        for cell in $(cells "$m"); do
            ranks=${cell%:*} threads=${cell#*:}
            hash=$(train "$ranks" "$threads" "$m")
            : "${reference:=$hash}"
            if [ -n "$hash" ] && [ "$hash" = "$reference" ] && shares "$ranks" "$m" &&
                grep -q "^graft: run: .* ($isa, $dtype)\$" "$work/log"; then
                passed=$((passed + 1))
            else
                failed=$((failed + 1))
                echo "FAIL $column: M=$m ranks=$ranks threads=$threads: $hash, not $reference;" \
                    "$(grep 'computed by rank\|^graft: run:' "$work/log")"
            fi
        done
        echo "$column M=$m ${reference:0:16}"
        if [ "$dtype" = f32 ]; then
            of_f32[$m]+=" $reference"
        elif [[ ${of_f32[$m]} = *"$reference"* ]]; then
            failed=$((failed + 1))
            echo "FAIL $column: M=$m has the bits of f32"
        fi
    done
done
check_shape
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
