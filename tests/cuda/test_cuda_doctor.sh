#!/usr/bin/env bash
# graft doctor --device cuda on the emulated GPU, with the double of cuDNN: what it says and records, and
# what a run then computes with: cuDNN's attention where it was found to be the same and faster, ours
# where it is missing, wrong, too old, of another version, or device.deterministic is set.
#   test_cuda_doctor.sh GRAFT TOOL_RANDOM_MODEL PLUGIN FOLDER_OF_CUDNN
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") plugin=$(realpath "$3") double=$(realpath "$4")
. "$(dirname "$0")/../command_rig.sh"
without=${LD_LIBRARY_PATH-}
mkdir cache
export GRAFT_CUDA_PLUGIN=$plugin EMU_CLOCK=1 LD_LIBRARY_PATH=$double:$without

# doctor [ARGUMENT...]: into out
doctor()
{
    local code=0
    "$graft" doctor --device cuda --rows 256 "$@" >out 2>err || code=$?
    [ "$code" = 0 ] || fail "doctor $*: exit code $code: $(cat out err)"
}
says() { grep -Eq -- "$1" out || fail "no line $1 in: $(cat out)"; }
record() { cat cache/graft/attention/*/* | tr -d '\0'; }
records() { record | grep -aq -- "$1" || fail "the record does not say $1: $(record)"; }
plans() { find cache -path '*/cudnn/*' -type f | wc -l; }

# ---- a run of 5 steps with documents of 256 rows in all ----
"$tool" model hidden_size=64 num_attention_heads=2 num_key_value_heads=1 head_dim=32 intermediate_size=64 \
    num_hidden_layers=1
for i in $(seq 1 40); do
    printf '{"text": "document %d %s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 37 % 60 + 20))))"
done >train.jsonl
bits() { cksum <"$1/adapter/adapter_model.safetensors"; }
train() # NAME OWN|PLAIN|CUDNN [ARGUMENT...]: and with whose attention, known by the bits it leaves
{       # PLAIN: ours, and products that nothing has timed
    local name=$1 as=before
    [ "$2" != CUDNN ] || as=recorded
    [ "$2" != PLAIN ] || as=before_deterministic
    shift 2
    "$graft" train /dev/null --set model=model --set data.train=train.jsonl --set output="$name" \
        --set data.max_length=256 --set train.micro_batches=1 --set train.max_steps=5 --set lora.r=4 \
        --set train.learning_rate=1e-3 --set device.dtype=bf16 --set device.backend=cuda \
        --set device.threads=1 "$@" >log 2>&1 || fail "train $name: $(cat log)"
    [ "$(bits "$name")" = "$(bits $as)" ] || fail "train $name: other bits than $as"
}
losses() { sed -n 's/.*"train_loss": *\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"; }
near() # NAME NAME
{
    paste <(losses "$1") <(losses "$2") | awk '
        { d = ($2 - $1) / $1; if (d < 0) d = -d; if (d > 5e-3) bad = 1 }
        END { exit bad || NR != 5 }' || fail "other losses: $(paste <(losses "$1") <(losses "$2"))"
}

train before OWN # no record: ours
train before_deterministic PLAIN --set device.deterministic=true

# ---- found the same, and faster ----
doctor
says '^ok +gpu +sm_80 emulated GPU, 8 multiprocessors$'
says '^ok +driver +of CUDA [0-9]+\.[0-9]'
says '^ok +free +[0-9.]+ of [0-9.]+ GiB$'
says '^ok +cublas +cuBLASLt [0-9.]+$'
says '^ok +cudnn +9\.19\.0$'
says '^ok +ops +20 of 20 as on the CPU; the worst: [a-z_]+, (f32|bf16) [a-z].*, apart [^ ]+ of the largest, at most '
says '^ok +product +[0-9.e-]+ TF/s, [0-9]+ % of '
says '^ok +copy +[0-9.e-]+ TB/s, '
says "^ok +uses +cuDNN's: the same results \([0-9.e-]+ apart\), [0-9.]+ times as fast"
[ "$(grep -Ec '^ +(64|128|256) +[124] +2/1 +(64|128) .* [0-9.]+e-0[2-9]$' out)" = 6 ] ||
    fail "not six shapes: $(cat out)"
records '^.*uses cudnn 91900$'
records 'rows 256 documents 4 heads 2/1 dim 128 own [0-9.]* [0-9.]* ms cudnn [0-9.]* [0-9.]* ms apart '
train recorded CUDNN
near before recorded
[ "$(bits before)" != "$(bits recorded)" ] || fail "cuDNN's attention gives the very bits of ours"
made=$(plans)
train again CUDNN
[ "$(plans)" = "$made" ] || fail "plans are made again"
train deterministic PLAIN --set device.deterministic=true
GRAFT_ATTENTION=own train forced OWN
EMU_CUDNN_VERSION=92000 train another OWN
LD_LIBRARY_PATH=$without train missing OWN

# ---- plans are kept: damaged ones are made anew ----
for file in cache/graft/cudnn/*/*; do
    printf 'x' | dd of="$file" bs=1 seek=300 conv=notrunc 2>/dev/null
done
train repaired CUDNN
[ "$(plans)" = "$made" ] || fail "damaged plans are not replaced"
rm -r cache/graft/cudnn
EMU_CUDNN_REFUSE=1 train refused OWN

# ---- ours, and why ----
EMU_CUDNN_WRONG=1 doctor
says "^ok +uses +ours: cuDNN's results are not the same \(0\.[0-9]+ apart"
records '^.*uses own 91900$'
train wrong OWN
rm -rf cache/graft/cudnn
EMU_CUDNN_REFUSE=1 doctor
says '^ok +uses +ours: cuDNN does not compute it \(it makes no plan that serves: .*EMU_CUDNN_REFUSE'
EMU_CUDNN_LARGE=1 doctor
says '^ok +uses +ours: cuDNN does not compute it \(it makes no plan that serves: its plan takes [0-9.]+ GiB'
EMU_CUDNN_VERSION=91800 doctor
says '^ok +cudnn +none \(cuDNN 9\.18\.0 is too old, expected 9\.18\.1\)'
EMU_CLOCK=0 doctor # all takes as long
says '^ok +uses +ours: cuDNN is not faster'
LD_LIBRARY_PATH=$without doctor --json
[ "$(wc -l <out)" = 1 ] || fail "--json is not one line"
says '"uses":"own"'
[ "$(grep -o '"verdict":"ok","where"' out | wc -l)" = 20 ] || fail "not 20 ops: $(cat out)"
says '"ceilings":\{"size":256,"product_flop_per_s":[0-9.e+]+,"copy_bytes_per_s":'

# ---- what is refused ----
code=0
"$graft" doctor --device tpu >out 2>err || code=$?
[ "$code" = 2 ] && grep -q 'unknown device (found tpu, expected cuda)' err || fail "tpu: $code: $(cat err)"
code=0
EMU_DEVICES=0 "$graft" doctor --device cuda >out 2>err || code=$?
[ "$code" = 5 ] && grep -q 'there is no NVIDIA GPU' err || fail "no GPU: $code: $(cat err)"
report
