#!/usr/bin/env bash
# Which emulated GPU a rank takes, how the gradients go then, and what memory it plans with: several GPUs that
# all ranks see, one that each sees alone, one for all.
#   test_gpus_of_ranks.sh GRAFT PLUGIN FOLDER_OF_LIBNCCL
set -euo pipefail
graft=$1
export GRAFT_CUDA_PLUGIN=$2 LD_LIBRARY_PATH=$3${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
demo=$GRAFT_SOURCE_DIR/data/demo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
passed=0 failed=0

settings=(/dev/null --set model="$demo/model" --set data.train="$demo/train.jsonl" --set data.max_length=64
    --set train.micro_batches=2 --set train.max_steps=1 --set lora.r=4 --set train.report_samples=0
    --set device.backend=cuda --set device.deterministic=true)

# train NAME WRAPPER KEY=VALUE: two ranks, their messages in $work/log
train()
{
    code=0
    mpirun -n 2 --oversubscribe --bind-to none "$2" "$graft" train "${settings[@]}" --set output="$work/$1" --set "$3" \
        >"$work/log" 2>&1 || code=$?
}

# says NAME EXIT_CODE WORDS FILE
says()
{
    if [ "$code" = "$2" ] && grep -q "$3" "$4"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $1: exit code $code, expected $2 and \"$3\""
        cat "$4"
    fi
}

wrapper()
{
    printf '#!/bin/sh\n%s\nexec "$@"\n' "$2" >"$work/as-$1"
    chmod +x "$work/as-$1"
}
wrapper alone 'export CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK'
wrapper same 'export CUDA_VISIBLE_DEVICES=1'
# what another launcher sets: nothing of Open MPI's mpirun
wrapper pmix 'unset OMPI_COMM_WORLD_LOCAL_RANK OMPI_COMM_WORLD_LOCAL_SIZE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE'

by_nccl='gradients: from GPU to GPU by NCCL'
by_host='gradients: through the host: dist.backend: NCCL needs a GPU for each rank (found 2 ranks on one GPU)'

export EMU_DEVICES=2
train all env dist.backend=auto
says all 0 "$by_nccl" "$work/log"
train alone "$work/as-alone" dist.backend=nccl
says 'each sees its own' 0 "$by_nccl" "$work/log"
train pmix "$work/as-pmix" dist.backend=nccl
says 'PMIx alone' 0 "$by_nccl" "$work/log"
train same "$work/as-same" dist.backend=auto
says 'the same for both' 0 "$by_host" "$work/log"
train refused "$work/as-same" dist.backend=nccl
says 'the same for both, but NCCL' 5 'NCCL needs a GPU for each rank (found 2 ranks on one GPU)' "$work/log"
train mpi env dist.backend=mpi
says mpi 0 'gradients: through the host: dist.backend is mpi' "$work/log"

# ---- the memory does for one rank as it is, and for two that compute something again ----
settings+=(--set data.max_length=512)
for devices in 1 2; do
    export EMU_DEVICES=$devices
    EMU_MEM_MB=60 train "memory-$devices" env dist.backend=auto
    cp "$work/log" "$work/log-$devices"
    EMU_MEM_MB=100 "$graft" estimate "${settings[@]}" --set output="$work/none" --set train.micro_batch_size=4 \
        --ranks 2 >"$work/estimate-$devices" 2>&1 || code=$?
done
again='computed again in the backward'
says 'two ranks on one GPU' 0 "$again" "$work/log-1"
says 'estimate, one GPU' 0 "$again" "$work/estimate-1"
if grep -q "$again" "$work/log-2" "$work/estimate-2"; then
    failed=$((failed + 1))
    echo 'FAIL two ranks on two GPUs: something is computed again'
    cat "$work/log-2" "$work/estimate-2"
fi
# what all processes of it take together
of_gpu() { sed -n 's/^total *\([0-9]*\).* of each GPU.*/\1/p' "$work/estimate-$1"; }
if [ "$(of_gpu 1)" -gt "$(of_gpu 2)" ]; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo 'FAIL estimate: two processes on a GPU take no more of it than one'
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
