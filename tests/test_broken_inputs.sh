#!/usr/bin/env bash
# Broken inputs: for every case of broken_inputs.txt a good run is broken in one way, and the exit
# code and the whole of stderr are compared with what the table says.  At the end one rank of two is
# killed in the middle of a run.
#   test_broken_inputs.sh GRAFT TOOL_RANDOM_MODEL [CASE]
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") only=${3-}
table=$(dirname "$(realpath "$0")")/broken_inputs.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_@}"
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export XDG_CACHE_HOME=$work/cache LC_ALL=C
cases=0 failures=0

# What the cases break: run.yaml, 10 records in data.jsonl, and a model with 2 layers.
mkdir "$work/good" "$work/good/model"
"$tool" "$work/good/model" hidden_size=16 intermediate_size=32 num_attention_heads=2 \
    num_key_value_heads=1 head_dim=8 num_hidden_layers=2
for i in 1 2 3 4 5 6 7 8 9 10; do
    printf '{"text": "this is record %d"}\n' "$i"
done >"$work/good/data.jsonl"
cat >"$work/good/run.yaml" <<'YAML'
model: model
output: out
data: {train: [data.jsonl], max_length: 64}
lora: {r: 2}
train: {micro_batches: 2, max_steps: 2}
device: {threads: 1}
YAML

# ---- what the table's `do` lines use ----

# weights OLD NEW: replaces text in the header of the model's safetensors file.  It stays as long as
# it was, so OLD and NEW must be equally long.
weights()
{
    [ "${#1}" = "${#2}" ] && grep -qaF -- "$1" model/model.safetensors &&
        sed -i "s/$(sed 's/[][\.*^$/]/\\&/g' <<<"$1")/$(sed 's/[\/&]/\\&/g' <<<"$2")/" \
            model/model.safetensors
}

# edit FILE SED_SCRIPT: as sed -i, but the script must change something.
edit()
{
    cp "$1" before && sed -i "$2" "$1" && ! cmp -s before "$1" && rm before
}

# good ARGUMENT...: a run of graft that succeeds.
good()
{
    "$graft" "$@" >log 2>&1
}

# ---- cases ----

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

# Runs the case that has been read.  Under mpirun its own lines may stand around graft's message.
run_case()
{
    local code=0 folder=$work/$name
    if [ -z "$name" ] || { [ -n "$only" ] && [ "$only" != "$name" ]; }; then
        return
    fi
    cases=$((cases + 1))
    cp -r "$work/good" "$folder"
    cd "$folder"
    if ! (eval "$prepare"); then
        fail "$name: the input cannot be prepared"
        return
    fi
    if [ "$ranks" = 1 ]; then
        ASAN_OPTIONS=detect_leaks=1 "$graft" "${arguments[@]}" </dev/null >/dev/null 2>stderr || code=$?
    else
        ASAN_OPTIONS=detect_leaks=0 mpirun -n "$ranks" --bind-to none --oversubscribe \
            "$graft" "${arguments[@]}" </dev/null >/dev/null 2>all || code=$?
        grep -E '^(graft: |  hint: )' all >stderr || true
    fi
    if [ "$code" != "$exit_code" ]; then
        fail "$name: exit code $code, expected $exit_code"
    fi
    printf '%s' "$expected" >expected
    sed -i 's/activations [0-9.]* MiB/activations N MiB/' stderr # each instruction set has its own
    if ! diff -u expected stderr; then
        fail "$name: stderr differs"
    fi
    cd "$work"
    rm -rf "$folder"
}

begin_case()
{
    name=$1 prepare='' exit_code='' ranks=1 expected='' arguments=()
}

begin_case ''
while IFS= read -r line; do
    case $line in
    '' | '#'*) ;;
    '    do '*) prepare+="${line#    do } || exit 1"$'\n' ;;
    '    graft '*) read -ra arguments <<<"${line#    graft }" ;;
    '    mpirun '*) ranks=2 && read -ra arguments <<<"${line#    mpirun }" ;;
    '    exit '*) exit_code=${line#    exit } ;;
    '    | '*) expected+=${line#    | }$'\n' ;;
    [a-z]*) run_case && begin_case "$line" ;;
    *) fail "broken_inputs.txt: cannot read \"$line\"" ;;
    esac
done <"$table"
run_case

# ---- a rank that dies ----

# A zombie, which some containers keep, runs no more.
is_running()
{
    [ -e "/proc/$1" ] && ! grep -q '^State:.*zombie' "/proc/$1/status" 2>/dev/null
}

# is_lost RANK <STDERR: it has no message of graft's, or one that RANK is lost, and in which phase.
is_lost()
{
    local said
    said=$(grep -E '^(graft: error: |  hint: )' || true)
    local line="graft: error: dist: rank $1 on [^ ]+ lost during [a-z_ ]+ \\(found [^)]+\\)"
    local hint='  hint: look at the messages of that rank and its host, then start the run again'
    [ -z "$said" ] || [[ $said =~ ^$line$'\n'"$hint"$ ]]
}

# kill_rank RANK: of two, in the middle of a run.  The job must end by itself, soon, and whole: as
# killed, or as one that may be started again, whichever of mpirun and the other rank is faster.
kill_rank()
{
    local name=rank_$1_killed folder=$work/rank_$1_killed code=0 job pids begin
    cases=$((cases + 1))
    cp -r "$work/good" "$folder"
    cd "$folder"
    # shellcheck disable=SC2016  # the ranks' shells expand it
    ASAN_OPTIONS=detect_leaks=0 mpirun -n 2 --bind-to none --oversubscribe bash -c \
        'echo $$ >pid.$OMPI_COMM_WORLD_RANK && exec "$0" train run.yaml --set train.max_steps=100000' \
        "$graft" </dev/null >/dev/null 2>all &
    job=$!
    for ((i = 0; i < 600; i++)); do
        if [ -s out/metrics.jsonl ]; then break; fi
        sleep 0.1
    done
    if ! [ -s out/metrics.jsonl ]; then
        fail "$name: the run does not begin"
    fi
    pids=$(cat pid.0 pid.1)
    begin=$SECONDS
    kill -9 "$(cat "pid.$1")"
    wait "$job" || code=$?
    if [ $((SECONDS - begin)) -ge 60 ]; then
        fail "$name: the job ended after $((SECONDS - begin)) s, expected less than 60"
    fi
    if [ "$code" != 137 ] && [ "$code" != 138 ]; then
        fail "$name: exit code $code, expected 137 or 138"
    fi
    sleep 1
    for pid in $pids; do
        if is_running "$pid"; then fail "$name: process $pid is left"; fi
    done
    if ! is_lost "$1" <all; then
        fail "$name: more than the message that rank $1 is lost"
        cat all
    fi
    cd "$work"
    rm -rf "$folder"
}

if [ -z "$only" ]; then
    kill_rank 0
    kill_rank 1
fi

printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" = 0 ] && [ "$cases" -gt 0 ]
