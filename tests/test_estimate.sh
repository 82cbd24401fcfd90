#!/usr/bin/env bash
# graft estimate: the memory that training then has at most is within 10 % of the plan (and 8 MiB,
# which small runs would miss by what the allocator keeps); what is printed and what is refused.
#   test_estimate.sh GRAFT TOOL_RANDOM_MODEL TOOL_PEAK_MEMORY [qwen]
# qwen: a model with the shapes of Qwen2.5-0.5B trains 20 steps.  It needs 4 GB and takes minutes.
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") peak=$(realpath "$3") which=${4-small}
. "$(dirname "$0")/command_rig.sh"
percent=10 slack=$((8 << 20)) save_ms=0

number() # number NAME: of the JSON in `plan`
{
    tr ',{}' '\n\n\n' <plan | sed -n "s/^\"$1\"://p"
}

# compare NAME PLANNED MEASURED, in bytes
compare()
{
    local off=$(($3 > $2 ? $3 - $2 : $2 - $3))
    printf '%-40s planned %5d MiB, measured %5d MiB\n' "$1" $(($2 >> 20)) $(($3 >> 20))
    [ "$off" -le $(($2 * percent / 100 + slack)) ] || fail "$1: the plan is off by $off bytes"
}

# train NAME KEY=VALUE...: alone, against its plan
train()
{
    local name=$1 sets=() kib
    shift
    for key in "$@"; do sets+=(--set "$key"); done
    rm -rf run
    "$graft" estimate run.yaml "${sets[@]}" --json >plan 2>err || fail "$name: $(cat err)"
    # a slow save, so that the last one finds the one before still in its buffer: the most there can be
    kib=$(GRAFT_FAIL="save.object@1:0:delay=$save_ms" "$peak" "$graft" train run.yaml "${sets[@]}" 2>log | tail -n 1) ||
        fail "$name: $(tail -n 2 log)"
    compare "$name" "$(number host_bytes)" $((kib * 1024))
}

lines() # lines COUNT: documents of 600 bytes, thus tokens
{
    awk -v count="$1" 'BEGIN {
        for (i = 0; i < count; i++) {
            text = "";
            for (w = 0; length(text) < 600; w++) text = text " w" (i * w) % 97
            print "{\"text\": \"" text "\"}"
        }
    }'
}

cat >run.yaml <<'EOF'
model: model
output: run
data: {train: [data.jsonl], max_length: 512}
train: {micro_batches: 4, max_steps: 3, save_steps: 2}
device: {threads: 2, dtype: f32}
EOF
lines 60 >data.jsonl
mkdir model bf16

if [ "$which" = qwen ]; then
    available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    free=$(df -kP . | awk 'NR == 2 { print $4 }')
    if [ "$available" -lt 4000000 ] || [ "$free" -lt 1200000 ]; then
        echo "skipped: 4 GB of memory and 1.2 GB of disk are not free ($available, $free KiB are)"
        exit 77
    fi
    "$tool" model model_type=qwen2 hidden_size=896 intermediate_size=4864 num_attention_heads=14 \
        num_key_value_heads=2 head_dim=64 num_hidden_layers=24 vocab_size=151936 dtype=BF16
    save_ms=20000 # longer than two steps, also on a busy machine
    train "Qwen2.5-0.5B" data.max_length=32 train.micro_batches=1 train.max_steps=20
    [ "$(grep -c '"train_loss"' run/metrics.jsonl)" = 20 ] || fail "not 20 steps"
    # matrices as in the file, 71,552 elements of norms and biases in f32
    [ "$(number weights_bytes)" = $((494032768 * 2 + 71552 * 2)) ] || fail "not the parameters of Qwen2.5-0.5B"
    report
    exit
fi

shape=(hidden_size=256 intermediate_size=704 num_attention_heads=4 num_key_value_heads=2
    head_dim=64 num_hidden_layers=6 vocab_size=16384)
"$tool" model "${shape[@]}"
"$tool" bf16 vocab_size=65536 "${shape[@]}" dtype=BF16

# ---- plan and truth ----
train 'plain'
# The matrices of a bf16 file stay mapped, in f32 too.
train 'bf16 file, widened where it is used' model=bf16 train.micro_batches=1 train.max_steps=1
train 'bf16 computed, file mapped' model=bf16 device.dtype=bf16 train.micro_batches=1 \
    train.max_steps=1
train 'bf16 computed, file converted' device.dtype=bf16 train.max_steps=1
train 'two packs, one micro-batch' train.micro_batch_size=2 train.micro_batches=1
save_ms=8000 # longer than a step, also on a busy machine
train 'large adapter' lora.r=128
train 'evaluation' data.eval=data.jsonl train.eval_steps=2 lora.r=64
train 'many micro-batches, short packs' train.micro_batches=32 data.max_length=64 lora.r=64
save_ms=0
"$graft" estimate run.yaml --json >plan 2>err
logged=$(sed -n 's/.*memory: weights \([0-9.]*\) MiB per host; adapter, optimizer and gradients \([0-9.]*\) .*/\1 \2/p' log)
"$graft" estimate run.yaml --set train.micro_batches=32 --set data.max_length=64 --set lora.r=64 \
    --json >plan 2>err
state=$(($(number adapter_bytes) + $(number optimizer_bytes) + $(number gradients_bytes)))
expected=$(awk -v w="$(number weights_bytes)" -v s="$state" \
    'BEGIN { printf "%.1f %.1f", w / 1048576, s / 1048576 }')
[ "$logged" = "$expected" ] || fail "train says $logged, estimate $expected"

# ---- several processes: the sum of a host, whose weights are one ----
rm -rf run
"$graft" estimate run.yaml --ranks 2 --json >plan 2>err
one=$(number weights_bytes) process=$(number process_bytes) saving=$(number saving_bytes)
[ "$(number host_bytes)" = $((one + saving + 2 * process)) ] || fail "the sum of two processes"
if command -v mpirun >/dev/null; then
    mpirun -n 2 --oversubscribe --bind-to none "$peak" "$graft" train run.yaml 2>log >kib ||
        fail "two ranks: $(tail -n 2 log)"
    slack=$((40 << 20)) # Open MPI's own
    for kib in $(sort -n kib); do
        compare 'one of two ranks' $((one + process + saving / 2)) $((kib * 1024))
    done
fi

# ---- what is printed ----
rm -rf run
"$graft" estimate run.yaml >table 2>err
for row in weights adapter optimizer gradients activations program saving total; do
    grep -Eq "^$row +[0-9.]+ MiB  " table || fail "the table has no row $row"
done
grep -Eq '^[0-9]+ trained parameters, 3 steps, [0-9.e+-]+ TFLOP per step$' table || fail "no steps"
grep -Eq '^about [0-9.]+ (s|min) on an idle machine like this one: [0-9.]+ s a step$' table ||
    fail "no time: $(tail -n 2 table)"
grep -Eq '^\(matrix products: [1-9][0-9]* GFLOP/s with 2 threads, measured just now; ' table || fail "no rate"
sum=$(awk '/MiB/ && !/^total/ { sum += $2 } END { printf "%.0f", sum }' table)
total=$(awk '/^total/ { printf "%.0f", $2 }' table)
[ $((sum - total)) -le 1 ] && [ $((total - sum)) -le 1 ] || fail "rows sum to $sum, total $total"
"$graft" estimate run.yaml --json >first 2>err
"$graft" estimate run.yaml --set train.micro_batches=8 --json >plan 2>err
twice=$(number flop_per_step)
cp first plan
awk -v one="$(number flop_per_step)" -v two="$twice" \
    'BEGIN { exit !(two > 1.5 * one && two < 2.5 * one) }' || fail "FLOP do not follow the batch"
# Time is arithmetic over the rate; evaluations and the last, uneven rank's share come on top.
times() # times STEP_FACTOR EVALUATIONS ARGUMENT...
{
    "$graft" estimate run.yaml "${@:3}" --json >plan 2>err || fail "${*:3}: $(cat err)"
    awk -v f="$(number flop_per_step)" -v r="$(number flop_per_second)" -v s="$(number step_seconds)" \
        -v e="$(number eval_seconds)" -v all="$(number run_seconds)" -v factor="$1" -v evals="$2" '
        function near(a, b) { return a > 0.999 * b && a < 1.001 * b }
        BEGIN { exit !(r > 1e8 && r < 1e14 && near(s, factor * f / (0.8 * r)) &&
            near(all, 3 * s + evals * e) && (evals > 0) == (e > 0)) }' ||
        fail "${*:3}: the time does not follow: $(cat plan)"
}
times 1 0
times 1 2 --set data.eval=data.jsonl --set train.eval_steps=2
times 1 3 --set data.eval=data.jsonl --set train.eval_steps=1
times 1.5 0 --ranks 3 --set train.micro_batches=4
[ ! -e run ] || fail "estimate wrote into the output"

# ---- a system that does not say what is available ----
blind()
{
    # shellcheck disable=SC2016  # the inner shell expands it
    unshare -rm sh -c 'mount -t tmpfs none /proc && mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"' \
        "$graft" "$@"
}
if blind version >out 2>err; then
    blind estimate run.yaml --json >plan 2>err || fail "without /proc: $(cat err)"
    [ "$(number available_bytes)" = null ] || fail "without /proc: $(number available_bytes) available"
    ! grep -q 'does not fit' err || fail "without /proc: $(cat err)"
    blind estimate run.yaml >table 2>err || fail "without /proc: $(cat err)"
    grep -q '^total .*(what is available is not known)$' table || fail "without /proc: $(cat table)"
else
    echo "left out, as mounts are not allowed here: a system that does not say what is available"
fi

# ---- what is refused ----
refuse()
{
    local code=0
    "$graft" estimate run.yaml "${@:3}" >out 2>err || code=$?
    [ "$code" = "$1" ] || fail "${*:3}: exit code $code, expected $1"
    grep -qF -- "$2" err || fail "${*:3}: $(cat err)"
}
refuse 2 'a rank would have nothing to do' --ranks 5
refuse 3 'there is no such file' --set data.train=absent.jsonl
refuse 2 'data.max_length: the model has no such position' --set data.max_length=5000
report
