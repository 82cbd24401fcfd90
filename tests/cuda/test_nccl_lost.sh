#!/usr/bin/env bash
# graft train on emulated GPUs that NCCL joins, where a rank stops or never comes: the others say so within
# dist.timeout_seconds and end the job with 138, although NCCL itself waits for ever.
#   test_nccl_lost.sh GRAFT PLUGIN FOLDER_OF_LIBNCCL
set -euo pipefail
graft=$1
export GRAFT_CUDA_PLUGIN=$2 LD_LIBRARY_PATH=$3${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} EMU_DEVICES=3
demo=$GRAFT_SOURCE_DIR/data/demo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache TMPDIR=$work
timeout_seconds=6 limit_seconds=90
passed=0 failed=0

# train NAME RANKS COMMAND...: its exit code in $code, its messages in $work/log
train()
{
    code=0 begin=$SECONDS
    timeout -s KILL "$limit_seconds" mpirun -n "$2" --oversubscribe --bind-to none "${@:3}" train /dev/null \
        --set model="$demo/model" --set data.train="$demo/train.jsonl" --set output="$work/$1" \
        --set data.max_length=64 --set train.micro_batches=3 --set train.max_steps=4 --set train.save_steps=1 \
        --set lora.r=4 --set device.backend=cuda --set device.deterministic=true --set dist.backend=nccl \
        --set dist.timeout_seconds=$timeout_seconds --set train.report_samples=0 >"$work/log" 2>&1 || code=$?
}

# lost NAME WORDS: what train just did
lost()
{
    if [ "$code" = 138 ] && grep -q "graft: error: .*$2" "$work/log" && [ $((SECONDS - begin)) -lt $limit_seconds ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $1: exit code $code after $((SECONDS - begin)) s, expected 138 and \"$2\""
        tail -20 "$work/log"
    fi
}

# ---- where the ranks wait for one another by MPI; and in the first exchange by NCCL, for which it connects
# them, and in the third ----
for place in micro_batch@3 gradients gradients@3; do
    GRAFT_FAIL=$place:1:stop train "$place" 2 "$graft"
    case $place in
    micro_batch@3) lost "$place" 'rank 1 on .* lost during step' ;;
    gradients) lost "$place" 'rank 1 on .* lost during gradients (found NCCL: no connection' ;;
    gradients@3) lost "$place" 'rank 1 on .* lost during gradients (found NCCL: nothing came' ;;
    esac
done
if ! grep -q 'durable: step 2' "$work/log"; then
    echo "FAIL gradients@3: the step before is not durable"
    failed=$((failed + 1))
fi

# ---- before it joins ----
GRAFT_FAIL=peers.join:1:stop train join 3 "$graft"
lost join 'NCCL: not all ranks joined'

# ---- all are well, but have no network in common ----
cat >"$work/apart" <<'END'
#!/bin/sh
mkdir -p "$TMPDIR/$OMPI_COMM_WORLD_RANK"
TMPDIR=$TMPDIR/$OMPI_COMM_WORLD_RANK exec "$@"
END
chmod +x "$work/apart"
train alone 2 "$work/apart" "$graft"
lost alone 'NCCL: not all ranks joined'
grep -q 'hint: .*NCCL_SOCKET_IFNAME' "$work/log" || lost alone 'a hint'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
