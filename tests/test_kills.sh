#!/usr/bin/env bash
# Promise 1: kill any process at any moment, start again: the finished adapter is that of a run nobody
# touched.  Each start is killed at the place its row names, until the run finishes; other ranks and
# threads on the way.  Every restart must go on from the last durable step or later.
#   test_kills.sh GRAFT TOOL_RANDOM_MODEL               the table below: 24 kills
#   test_kills.sh GRAFT TOOL_RANDOM_MODEL --random N    N kills at random moments (seed: SEED)
set -euo pipefail
graft=$1 tool=$2
. "$(dirname "$0")/run_rig.sh"
kills=0 durable=0 more=()

# check_resume: what the last start resumed from, against the last durable line of all before it
check_resume() {
    local resumed
    resumed=$(sed -n 's/^graft: resumed: step \([0-9]*\).*/\1/p' "$log")
    # a start that died before it told has nothing to check
    if [ -n "$resumed" ] && [ "$resumed" -lt "$durable" ]; then
        fail "$1: resumed at $resumed, but step $durable was durable"
    fi
    if [ "$durable" -gt 0 ] && [ -z "$resumed" ] && grep -q '^step ' "$log"; then
        fail "$1: began anew, but step $durable was durable"
    fi
    local last
    last=$(sed -n 's/^graft: durable: step \([0-9]*\)$/\1/p' "$log" | tail -1)
    if [ -n "$last" ] && [ "$last" -gt "$durable" ]; then durable=$last; fi
}

declare -A histogram
after_durable=0
# died CODE WHAT: SIGKILL, of a rank or of mpirun, is 137; any other end is a failure of its own
died() {
    if [ "$1" != 137 ]; then fail "$2: exit $1, expected 137"; fi
    kills=$((kills + 1))
    if [ "$durable" -gt 0 ]; then after_durable=$((after_durable + 1)); fi
}

# killed OUTPUT RANKS THREADS FAILPOINT: a start that must die there
killed() {
    local code=0 kind=${4%%[@:]*}
    GRAFT_FAIL=$4 train "$1" "$2" "$3" "${more[@]}" || code=$?
    died "$code" "$4"
    check_resume "$4"
    histogram[$kind]=$((${histogram[$kind]:-0} + 1))
}
finished() {
    if ! train "$1" "$2" "$3" "${more[@]}"; then fail "the last start of $1 failed"; fi
    check_resume "the end of $1"
    if [ "$(hash_of "$1")" != "$reference" ]; then fail "$1: another adapter"; fi
    durable=0
}

if [ "${3-}" = --random ]; then
    RANDOM=${SEED:-1}
    run=0
    # slow enough that the moments fall into the steps and the saves, not only before and after
    export GRAFT_FAIL='step.updated@*:0:delay=20,save.object@*:0:delay=10'
    while [ "$kills" -lt "$4" ]; do
        ranks=$((RANDOM % 3 + 1)) threads=$((RANDOM % 2 + 1)) ms=$((RANDOM % 1200 + 200))
        train "random-$run" "$ranks" "$threads" 2> /dev/null &
        launcher=$!
        sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
        # one of the ranks, or mpirun itself: all are children of this shell's child
        mpirun=$(pgrep -P "$launcher" -x mpirun || true)
        victims=(${mpirun:+$mpirun} ${mpirun:+$(pgrep -P "$mpirun" -x graft || true)})
        if [ "${#victims[@]}" -gt 0 ]; then
            kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2> /dev/null || true
        fi
        code=0
        wait "$launcher" || code=$?
        if [ "$code" = 0 ]; then
            check_resume "end of random-$run"
            [ "$(hash_of "random-$run")" = "$reference" ] || fail "random-$run: another adapter"
            rm -rf "${work:?}/random-$run"
            run=$((run + 1)) durable=0
        else
            # ranks of a killed mpirun end by themselves
            while pgrep -f "$work/random-$run" > /dev/null; do sleep 0.1; done
            died "$code" "kill $kills"
            check_resume "kill $kills"
            histogram[$((durable * 10 / steps))0%]=$((${histogram[$((durable * 10 / steps))0%]:-0} + 1))
        fi
    done
    unset GRAFT_FAIL
    durable=0
    train "random-$run" 1 1 || fail "the last start failed"
    [ "$(hash_of "random-$run")" = "$reference" ] || fail "random-$run: another adapter"
else
    killed a 1 1 term.before:0:kill
    killed a 2 1 step.computed@5:1:kill
    killed a 3 1 step.updated@2:2:kill
    killed a 1 2 micro_batch@7:0:kill
    killed a 2 2 save.object@2:0:kill
    killed a 2 1 resume.object@2:0:kill
    killed a 1 3 term.after:0:kill
    killed a 3 2 save.fence@2:0:kill
    killed a 2 1 step.updated@3:0:kill
    killed a 1 1 manifest.after@1:0:kill
    killed a 2 1 export.config:0:kill
    finished a 2 1
    killed b 2 1 step.updated@4:1:kill
    killed b 1 1 resume.staged:0:kill
    killed b 3 1 micro_batch@5:2:kill
    killed b 1 2 term.after@2:0:kill
    killed b 2 1 step.computed@5:0:kill
    killed b 1 1 micro_batch@11:0:kill
    killed b 2 2 step.updated@5:1:kill
    killed b 3 1 step.computed@2:1:kill
    killed b 1 1 done.before:0:kill
    finished b 3 1
    # in bf16, where a resumed run must compute with the copy of its f32 adapter
    more=(--set device.dtype=bf16) f32=$reference
    train undisturbed-bf16 1 1 "${more[@]}" || fail 'the run in bf16 that nobody touched'
    reference=$(hash_of undisturbed-bf16)
    [ "$reference" != "$f32" ] || fail 'bf16 gives the adapter of f32'
    killed c 2 1 step.updated@5:1:kill
    killed c 1 2 step.computed@4:0:kill
    killed c 3 1 save.object@2:0:kill
    killed c 1 3 micro_batch@8:0:kill
    finished c 2 2
    [ "$after_durable" -ge 12 ] || fail "only $after_durable kills after a durable line"
fi
echo "kills: $kills, $after_durable of them after a durable line; by place:"
for kind in "${!histogram[@]}"; do printf '  %-16s %d\n' "$kind" "${histogram[$kind]}"; done | sort
passed=$((kills - failed))
report
