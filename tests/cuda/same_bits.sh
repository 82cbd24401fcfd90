#!/usr/bin/env bash
# graft train on emulated GPUs: one rank, and several whose gradients go from GPU to GPU, give the same
# adapter, bit by bit; also where products are chosen by time, and each rank, or the next start, has
# another cache and would choose others.
#   same_bits.sh GRAFT PLUGIN FOLDER_OF_LIBNCCL (and of libcudnn)
set -euo pipefail
graft=$1
export GRAFT_CUDA_PLUGIN=$2 LD_LIBRARY_PATH=$3${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} EMU_DEVICES=3
demo=$GRAFT_SOURCE_DIR/data/demo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache

# start NAME RANKS KEY=VALUE...: by the commands in $by
by=()
start()
{
    local name=$1 ranks=$2 sets=()
    for value in "${@:3}"; do
        sets+=(--set "$value")
    done
    mpirun -n "$ranks" --oversubscribe --bind-to none "${by[@]}" "$graft" train /dev/null \
        --set model="$demo/model" --set data.train="$demo/train.jsonl" --set output="$work/$name" \
        --set data.max_length=128 --set train.micro_batches=3 --set train.max_steps=2 --set lora.r=4 \
        --set train.report_samples=0 --set device.backend=cuda "${sets[@]}" >"$work/log" 2>&1
}
train() { start "$@" device.deterministic=true; }

failures=0
train one 1 || { cat "$work/log"; exit 1; }
for ranks in 2 3; do
    if ! train "$ranks" "$ranks" dist.backend=nccl ||
        ! cmp "$work/one/adapter/adapter_model.safetensors" "$work/$ranks/adapter/adapter_model.safetensors"; then
        cat "$work/log"
        failures=$((failures + 1))
    fi
done

# NCCL takes one rank on a GPU, which is said before anything begins.
code=0
EMU_DEVICES=1 train shared 2 dist.backend=nccl || code=$?
if [ "$code" != 5 ] || ! grep -q 'NCCL needs a GPU for each rank (found 2 ranks on one GPU)' "$work/log"; then
    echo "FAIL two ranks on one GPU: exit code $code, expected 5"
    cat "$work/log"
    failures=$((failures + 1))
fi

# NCCL's own sum: says that it gives up the bits, and is refused where gradients go another way.
check() # EXIT_CODE WORDS
{
    if [ "$code" != "$1" ] || ! grep -q "$2" "$work/log"; then
        echo "FAIL $2: exit code $code, expected $1"
        cat "$work/log"
        failures=$((failures + 1))
    fi
}
for ranks in 1 3; do
    code=0
    train "all-$ranks" "$ranks" dist.reduce=all_reduce || code=$?
    check 0 "warning: dist.reduce: all_reduce: the adapter's bits depend on the number of ranks"
done
code=0
train all-3 3 || code=$?
check 2 'dist.reduce: found "tree", expected "all_reduce"'
code=0
train refused 3 dist.reduce=all_reduce dist.backend=mpi || code=$?
check 2 'all_reduce is NCCL.s (found dist.backend mpi'
code=0
EMU_DEVICES=1 train refused 3 dist.reduce=all_reduce || code=$?
check 2 'all_reduce is NCCL.s (found gradients that go through the host'
code=0
train refused 1 dist.reduce=all_reduce device.backend=cpu || code=$?
check 2 'all_reduce is NCCL.s, between GPUs (found device.backend cpu'
if [ -e "$work/refused" ]; then
    echo "FAIL a run that is refused leaves a directory"
    failures=$((failures + 1))
fi

# ---- what is chosen by time ----
# A host of its own for each rank: a cache, and a clock by which other algorithms are the fastest.
# RANK_n: variables of rank n.
cat >"$work/apart" <<'SH'
#!/usr/bin/env bash
rank=$((${HOST_OF_RANK_0:-0} + OMPI_COMM_WORLD_RANK)) variables=RANK_$OMPI_COMM_WORLD_RANK
export XDG_CACHE_HOME=$WORK/host-$rank EMU_CLOCK=2 EMU_SEED=$((100 + rank))
# shellcheck disable=SC2086
exec env ${!variables-} "$@"
SH
chmod +x "$work/apart"
export WORK=$work
by=("$work/apart")
adapter() { echo "$work/$1/adapter/adapter_model.safetensors"; }
same() # NAME: as `alone`
{
    if ! cmp "$(adapter alone)" "$(adapter "$1")"; then
        cat "$work/log"
        failures=$((failures + 1))
    fi
}
other() # NAME
{
    if cmp -s "$(adapter alone)" "$(adapter "$1")"; then
        echo "FAIL $1: the same bits, although it chose others"
        failures=$((failures + 1))
    fi
}
finishes() { "$@" || { cat "$work/log"; failures=$((failures + 1)); }; }
finishes start alone 1
HOST_OF_RANK_0=1 finishes start elsewhere 1
other elsewhere
for ranks in 2 3; do
    finishes start "apart-$ranks" "$ranks"
    same "apart-$ranks"
done
kinds=$(grep -ho '"kind": *"[^"]*"' "$work"/alone/term/* "$work"/apart-3/term/* | sort -u)
if [ "$(wc -l <<<"$kinds")" != 1 ] || ! grep -Eq '"cuda sm_80 emulated GPU, glibc [0-9.]+, CUDA driver [0-9.]+, cuBLASLt [0-9.]+, plug-in [0-9a-f]{12}, attention own, choices [0-9a-f]{12}, bf16"' <<<"$kinds"; then
    echo "FAIL kinds of device: $kinds"
    failures=$((failures + 1))
fi

# An evaluation, too, is computed as the first rank chooses.
losses=
for ranks in 1 2 3; do
    losses+=$(mpirun -n "$ranks" --oversubscribe --bind-to none "${by[@]}" "$graft" eval --json --model "$demo/model" \
        --adapter "$work/alone/adapter" --data "$demo/test.jsonl" --set data.max_length=128 \
        --set device.backend=cuda 2>"$work/log")$'\n'
done
if [ "$(sort -u <<<"${losses%?}" | wc -l)" != 1 ] || ! grep -q eval_loss <<<"$losses"; then
    echo "FAIL evaluations: $losses"
    cat "$work/log"
    failures=$((failures + 1))
fi

# The next start is on another host, and takes what the run began with.
killed() # NAME
{
    code=0
    GRAFT_FAIL='save.durable@1:0:kill' start "$1" 1 train.save_steps=1 || code=$?
    if [ "$code" = 0 ] || [ ! -e "$work/$1/choices" ]; then
        echo "FAIL $1: exit code $code, expected a kill after its choices were kept"
        failures=$((failures + 1))
    fi
}
killed resumed
code=0
HOST_OF_RANK_0=1 start resumed 2 train.save_steps=1 || code=$?
same resumed
check 0 'resumed: step 1'
if grep -q 'the bits differ' "$work/log"; then
    echo "FAIL resumed: a warning about bits that are the same"
    failures=$((failures + 1))
fi
# What was kept is lost, or damaged.
killed lost
rm -r "$work/lost/choices"
code=0
HOST_OF_RANK_0=1 start lost 1 train.save_steps=1 || code=$?
check 0 'the bits differ from here'
other lost
killed damaged
kept=("$work"/damaged/choices/*)
printf x | dd of="${kept[0]}" bs=1 seek=300 conv=notrunc 2>"$work/dd"
code=0
HOST_OF_RANK_0=1 start damaged 1 train.save_steps=1 || code=$?
check 0 'is damaged: what computes is chosen anew'

# ---- whose attention: that of the first rank ----
code=0
RANK_0='GRAFT_ATTENTION=cudnn' start cudnn-1 1 || code=$?
check 0 finished
other cudnn-1
grep -q 'attention cudnn 91900 all' "$work"/cudnn-1/term/* || { echo "FAIL the kind names no cuDNN"; failures=$((failures + 1)); }
RANK_0='GRAFT_ATTENTION=cudnn' finishes start cudnn-2 2
cmp "$(adapter cudnn-1)" "$(adapter cudnn-2)" || failures=$((failures + 1))
code=0
RANK_0='GRAFT_ATTENTION=cudnn' RANK_1='EMU_CUDNN_VERSION=92000' start refused 2 || code=$?
check 5 'with another cuDNN (found 92000, expected 91900)'
code=0
RANK_0='GRAFT_ATTENTION=cudnn' RANK_1='GRAFT_ATTENTION=own' start refused 2 || code=$?
check 2 'GRAFT_ATTENTION: the run computes another attention (found own, expected cudnn)'

# ---- GPUs of two kinds ----
code=0
RANK_1='EMU_CAPABILITY=90' start refused 2 || code=$?
check 2 'rank 1 has another kind of GPU than rank 0 (found sm_90 emulated GPU, expected sm_80 emulated GPU)'
if grep -q GRAFT_ISA "$work/log"; then
    echo "FAIL a hint for CPUs about GPUs"
    failures=$((failures + 1))
fi
echo "$failures failures"
[ "$failures" = 0 ]
