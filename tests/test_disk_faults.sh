#!/usr/bin/env bash
# A disk that refuses, at any moment of a run: a limit on file sizes, a full and a read-only file
# system, input/output errors at every single file operation, and death there.  Each time: the right
# exit code, one clean message, nothing half-written in the place of a good file, and the next start
# without the fault ends with the adapter of an undisturbed run.
#   test_disk_faults.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")

# File systems of its own, where that is allowed: the whole script runs in a mount namespace.
if [ -z "${GRAFT_TEST_MOUNTS-}" ]; then
    for how in '--mount' '--mount --map-root-user'; do
        # shellcheck disable=SC2086  # words on purpose
        if unshare $how mount -t tmpfs none /mnt 2>/dev/null; then
            GRAFT_TEST_MOUNTS=yes exec unshare $how "$0" "$@"
        fi
    done
    GRAFT_TEST_MOUNTS=no
fi

work=$(mktemp -d)
trap 'umount -l "$work/small" 2>/dev/null || true; rm -rf "$work"' EXIT
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_@}" GRAFT_FAIL
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export XDG_CACHE_HOME=$work/cache LC_ALL=C
cases=0 failures=0 refused=0 skipped=0

"$tool" "$work/model" hidden_size=16 intermediate_size=32 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=8 num_hidden_layers=2
for i in 1 2 3 4 5 6 7 8 9 10; do
    printf '{"text": "this is record %d"}\n' "$i"
done >"$work/data.jsonl"
cat >"$work/run.yaml" <<YAML
model: $work/model
data: {train: [$work/data.jsonl], max_length: 64}
lora: {r: 2}
train: {micro_batches: 2, max_steps: 3}
device: {threads: 1, dtype: f32}
YAML

fail()
{
    printf 'FAIL %s\n' "$1"
    sed 's/^/    /' "$work/log"
    failures=$((failures + 1))
}

# start OUTPUT: a run; its exit code is in `code`, what it said in the file log, which no limit binds.
# (The shell's own word on a death is dropped.)
start()
{
    code=0
    {
        "$graft" train "$work/run.yaml" --set output="$1" </dev/null 2>&1 | cat >"$work/log" ||
            code=${PIPESTATUS[0]}
    } 2>/dev/null
}

# start_limited OUTPUT KIB: the same below a limit on file sizes.
start_limited()
{
    code=0
    (
        ulimit -f "$2"
        exec "$graft" train "$work/run.yaml" --set output="$1"
    ) </dev/null 2>&1 | cat >"$work/log" || code=${PIPESTATUS[0]}
}

hash_of()
{
    sha256sum <"$1/adapter/adapter_model.safetensors" | cut -d' ' -f1
}

start "$work/undisturbed"
reference=$(hash_of "$work/undisturbed")
config_reference=$(sha256sum <"$work/undisturbed/adapter/adapter_config.json")

# check_refused NAME CODE TEXT: the last start ended with CODE and one message that has TEXT.
check_refused()
{
    refused=$((refused + 1))
    if [ "$code" != "$2" ]; then
        fail "$1: exit code $code, expected $2"
    elif [ "$(grep -c '^graft: error: ' "$work/log")" != 1 ] ||
        [ "$(grep -c '^  hint: ' "$work/log")" != 1 ] || ! grep -q "^graft: error: .*$3" "$work/log"; then
        fail "$1: not one message with \"$3\""
    fi
}

# check_files NAME OUTPUT: what is there is whole, and done.json promises nothing that is not.
check_files()
{
    local adapter=$2/adapter/adapter_model.safetensors config=$2/adapter/adapter_config.json
    if [ -e "$adapter" ] && [ "$(hash_of "$2")" != "$reference" ]; then
        fail "$1: the adapter is not whole"
    fi
    if [ -e "$config" ] && [ "$(sha256sum <"$config")" != "$config_reference" ]; then
        fail "$1: the adapter's config is not whole"
    fi
    if [ -e "$2/done.json" ]; then
        if ! grep -q "$reference" "$2/done.json" || ! [ -e "$adapter" ] || ! [ -e "$config" ]; then
            fail "$1: done.json without its adapter"
        fi
    fi
}

# check_recovers NAME OUTPUT: the next start ends well.
check_recovers()
{
    check_files "$@"
    start "$2"
    if [ "$code" != 0 ]; then
        fail "$1: the next start ends with exit code $code"
    elif ! [ -e "$2/done.json" ] || [ "$(hash_of "$2")" != "$reference" ]; then
        fail "$1: the next start makes another adapter"
    fi
    check_files "$@"
}

begin_case()
{
    cases=$((cases + 1))
    rm -rf "$work/out"
}

# check_either NAME TEXT: the last start was not bothered, or it was refused as for check_refused.
check_either()
{
    if [ "$code" = 0 ]; then
        if grep -q '^graft: error' "$work/log"; then fail "$1: a message, but exit code 0"; fi
    else
        check_refused "$1" 138 "$2"
    fi
}

# ---- a limit on file sizes ----

for kib in 0 1 2 4 8 16 32 64; do
    begin_case
    start_limited "$work/out" "$kib"
    check_either "limit_$kib" 'cannot be written: no space left below the limit on file sizes'
    check_recovers "limit_$kib" "$work/out"
done
if [ "$refused" = 0 ]; then fail 'limit: no limit was met'; fi

# ---- full and read-only file systems ----

# mount_small KIB: an empty file system at small/.
mount_small()
{
    mkdir -p "$work/small"
    mount -t tmpfs -o "size=$1k" none "$work/small"
}

if [ "$GRAFT_TEST_MOUNTS" = yes ]; then
    was_refused=$refused
    for kib in 4 8 12 16 20 24 28 32 40 64; do
        begin_case
        mount_small "$kib"
        start "$work/small/out"
        check_either "full_$kib" 'no space left'
        if find "$work/small" -name '.tmp-*' | grep -q .; then fail "full_$kib: a temporary file is left"; fi
        mount -o remount,size=10m "$work/small"
        check_recovers "full_$kib" "$work/small/out"
        umount "$work/small"
    done
    if [ "$refused" = "$was_refused" ]; then fail 'full: no disk was full'; fi

    # The disk fills up while the run is under way.
    begin_case
    mount_small 1024
    GRAFT_FAIL=step.updated@2:0:stop "$graft" train "$work/run.yaml" --set output="$work/small/out" \
        </dev/null >"$work/log" 2>&1 &
    pid=$!
    for ((i = 0; i < 600; i++)); do
        if grep -q '^State:.*stopped' "/proc/$pid/status"; then break; fi
        sleep 0.1
    done
    dd if=/dev/zero of="$work/small/filler" 2>/dev/null || true
    kill -CONT "$pid"
    code=0
    wait "$pid" || code=$?
    check_refused fills_up 138 'no space left'
    rm "$work/small/filler"
    check_recovers fills_up "$work/small/out"
    umount "$work/small"

    begin_case
    mount_small 1024
    mkdir "$work/small/out"
    mount -o remount,ro "$work/small"
    start "$work/small/out"
    check_refused read_only 2 'the file system is read-only'
    mount -o remount,rw "$work/small"
    check_recovers read_only "$work/small/out"
    umount "$work/small"
else
    echo 'skipped: full and read-only file systems (none can be mounted here)'
    skipped=$((skipped + 1))
fi

# ---- input/output errors, and death, at every file operation ----

# Death at every seventh operation, until a run has no K-th one; test_kills.sh kills elsewhere.
operations=1
while true; do
    begin_case
    GRAFT_FAIL=store.op@$operations:0:kill start "$work/out"
    if [ "$code" = 0 ]; then break; fi
    if [ "$code" != 137 ]; then fail "killed_$operations: exit code $code, expected 137"; fi
    check_recovers "killed_$operations" "$work/out"
    operations=$((operations + 7))
done
if [ "$operations" -lt 40 ]; then fail "only $operations file operations are known"; fi

was_refused=$refused
for ((k = 1; k <= operations; k++)); do
    begin_case
    GRAFT_FAIL=store.op@$k:0:fail start "$work/out"
    check_either "failed_$k" 'input/output error'
    check_recovers "failed_$k" "$work/out"
done
# Most are tried again by the commit protocol; those of the start and of the export are not.
if [ $((refused - was_refused)) -lt 20 ]; then
    fail "of $operations failing operations only $((refused - was_refused)) ended the run"
fi

# The same at the moments between operations; on every rank, where only one does them.
for point in store.written store.synced store.named store.durable; do
    for k in 1 2 3 4 5; do
        begin_case
        GRAFT_FAIL=$point@$k:0:fail start "$work/out"
        check_either "$point@$k" 'input/output error'
        check_recovers "$point@$k" "$work/out"
    done
done
for point in export.weights export.config done.before done.after; do
    begin_case
    code=0
    GRAFT_FAIL="$point:*:fail" mpirun -n 2 --bind-to none --oversubscribe "$graft" train \
        "$work/run.yaml" --set output="$work/out" </dev/null >"$work/log" 2>&1 || code=$?
    check_refused "$point" 138 "failpoint $point"
    check_recovers "$point" "$work/out"
done

printf '%d cases, %d refused, %d file operations, %d failures, %d groups skipped\n' \
    "$cases" "$refused" "$operations" "$failures" "$skipped"
[ "$failures" = 0 ]
