#!/usr/bin/env bash
# Allocation k of a short run fails, of graft or of a library: the run ends as the README says, with a
# message, or goes on where that is right; and the next start finishes with the same adapter.  So for a
# new run, and for one that goes on from a checkpoint.
#   test_failing_allocations.sh GRAFT_FAILING TOOL_RANDOM_MODEL [--every N | --all | --only K...]
# --every N: of the call stacks that allocate each N-th is tried, where it allocates first; 200 by
# default, 1: every one.  --all: every k, which takes hours.  --only: these, of the new run.
set -euo pipefail
graft=$1 tool=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export XDG_CACHE_HOME=$work/cache
tried=0 went_on=0 failures=0 stacks=0 reference=

"$tool" "$work/model" hidden_size=16 intermediate_size=32 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=8 num_hidden_layers=1
for i in 1 2 3 4; do
    printf '{"prompt": "a%d", "completion": "b c"}\n' "$i"
done >"$work/data.jsonl"

# train WHAT: a run of two steps with a checkpoint after each, and the first argument of graft_failing.
train()
{
    timeout 60 "$graft" "$1" train /dev/null --set model="$work/model" --set output="$work/run" \
        --set data.train="$work/data.jsonl" --set data.max_length=64 \
        --set lora.r=2 --set train.micro_batches=2 --set train.max_steps=2 --set train.save_steps=1 \
        --set device.threads=1
}
hash_of_run()
{
    sha256sum <"$work/run/adapter/adapter_model.safetensors"
}
fail()
{
    failures=$((failures + 1))
    echo "FAIL $1 run, allocation $2 ($3): $4"
    sed 's/^/    /' "$work/log" | tail -5
}

# begin KIND: as before the start that is to fail.
begin()
{
    rm -rf "$work/run" "$work/cache"
    if [ "$1" = resumed ]; then
        cp -a "$work/resumed/." "$work"
    fi
}

# try KIND K
try()
{
    local code=0 whose
    begin "$1"
    train "$2" 3>"$work/whose" >"$work/log" 2>&1 || code=$?
    read -r _ whose <"$work/whose" || whose=nobody # here k is beyond the last
    whose=${whose##*/}
    tried=$((tried + 1))
    case $code in
    0) went_on=$((went_on + 1)) ;;
    5 | 138)
        if ! grep -q '^graft: error: ' "$work/log"; then
            fail "$1" "$2" "$whose" "exit $code without a message"
        fi
        ;;
    1)
        if ! grep -q '^libgomp: Out of memory' "$work/log"; then # which ends the program itself
            fail "$1" "$2" "$whose" "exit $code"
        fi
        ;;
    134 | 139 | 255)
        case $whose in
        libhdf5* | libonig*) ;; # none of them lives through it everywhere
        *) fail "$1" "$2" "$whose" "exit $code" ;;
        esac
        ;;
    *) fail "$1" "$2" "$whose" "exit $code" ;;
    esac
    if [ $code = 0 ] && [ "$(hash_of_run)" != "$reference" ]; then
        fail "$1" "$2" "$whose" 'another adapter'
    fi
    if ! train 0 >"$work/log" 2>&1 || [ "$(hash_of_run)" != "$reference" ]; then
        fail "$1" "$2" "$whose" 'the next start does not finish with the same adapter'
    fi
}

# try_all KIND ARGUMENT...
try_all()
{
    local kind=$1 found
    shift
    begin "$kind"
    train list 3>"$work/stacks" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    found=$(hash_of_run)
    if [ "${reference:-$found}" != "$found" ]; then
        echo "FAIL $kind run: without a failure another adapter than a new run's"
        exit 1
    fi
    reference=$found
    stacks=$((stacks + $(wc -l <"$work/stacks")))
    case ${1---every} in
    --all) seq 1 "$(tail -n 1 "$work/stacks" | cut -d' ' -f1)" ;;
    --only) printf '%s\n' "${@:2}" ;;
    --every) awk -v every="${2-200}" 'NR % every == 0 { print $1 }' "$work/stacks" ;;
    esac >"$work/chosen"
    while read -r number; do
        try "$kind" "$number"
    done <"$work/chosen"
}

try_all new "$@"
if [ "${1-}" != --only ]; then
    # As a kill before the second checkpoint leaves it.
    begin new
    train 0 >"$work/log" 2>&1
    rm -r "$work/run/adapter" "$work/run/done.json" "$work"/run/ckpt/*2-*.json
    mkdir "$work/resumed"
    cp -a "$work/run" "$work/cache" "$work/resumed"
    try_all resumed "$@"
fi
echo "$tried allocations of $stacks call stacks tried: $went_on went on, $failures failures"
[ "$failures" = 0 ] && [ "$tried" -gt 0 ]
