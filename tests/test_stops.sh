#!/usr/bin/env bash
# Stops on request at many moments, a second start, and a takeover from a launcher that sleeps: the
# right exit codes, one writer, nothing left running, the same adapter.
#   test_stops.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$1 tool=$2
. "$(dirname "$0")/run_rig.sh"

# start OUTPUT RANKS [ARG...]: in the background; $launcher is the pid of mpirun, $log its own file
start()
{
    log=$work/log-$1
    train "$1" "$2" 1 "${@:3}" &
    shell=$!
    launcher=''
    for _ in $(seq 100); do
        launcher=$(pgrep -P "$shell" -x mpirun) && break
        sleep 0.02
    done
}
# ended: its exit code, and that no process of the output is left
ended()
{
    code=0
    wait "$shell" || code=$?
    # mpirun itself may die of the signal once its ranks have ended well and it listens no more
    if [ "$code" = 138 ] && grep -q '^graft: finished:' "$log" && ! grep -q 'non-zero' "$log"; then
        code=0
    fi
    for _ in $(seq 50); do
        pgrep -f "output=$work/$1 " > /dev/null || return 0
        sleep 0.1
    done
    fail "$1: processes are left running"
}
until_line()
{
    for _ in $(seq 300); do
        if grep -q "$1" "$log" 2> /dev/null; then return 0; fi
        sleep 0.05
    done
    fail "no line '$1' came"
}

# check_stop OUTPUT: said what it did, and the next start goes on from there.  Dying of SIGUSR1 would
# be 138 too.
durable=0
check_stop()
{
    local resumed said
    resumed=$(sed -n 's/^graft: resumed: step \([0-9]*\).*/\1/p' "$log")
    said=$(sed -n 's/.*stopped on request \(after step \([0-9]*\) of .*, which is durable\|before the first step.*\)/\2/p' "$log")
    if [ "${resumed:-0}" -lt "$durable" ]; then fail "stop $stops: resumed at ${resumed:-0}, not $durable"; fi
    if [ "$code" = 0 ]; then
        durable=0
        # the last save and the export do not stop any more
        if grep -q "^step $steps/\|^graft: finished:" "$log"; then pass; else fail "stop $stops: lost"; fi
    elif [ "$code" = 138 ] && grep -q 'stopped on request' "$log"; then
        if [ -z "$said" ]; then early=$((early + 1)); fi
        if [ "${said:-0}" -lt "$durable" ]; then fail "stop $stops: step ${said:-0} after $durable"; fi
        durable=${said:-0}
        pass
    else
        fail "stop $stops: exit $code"
    fi
}
early=0

# ---- 20 stops: before step 1, in steps, in saves, twice ----
export GRAFT_FAIL='step.updated@*:0:delay=20,save.object@*:0:delay=10'
RANDOM=${SEED:-7}
saves=$(seq -s '\|' 3 3 "$steps") # train.save_steps; a start that resumes at 29 has the last of them alone
output=0 stops=0 codes=''
while [ "$stops" -lt 20 ]; do
    case $stops in # a moment is hit when what stands there takes long
    0) slow=,term.after:0:delay=900 ;;
    6 | 15) slow=,save.begin@*:0:delay=400 ;;
    *) slow= ;;
    esac
    GRAFT_FAIL=$GRAFT_FAIL$slow start "stop-$output" $((RANDOM % 3 + 1))
    log=$work/log-stop-$output
    # mpirun forwards to ranks that hold the signal; before that it is lost
    case $stops in
    0) until_line '^graft: run:' ;;                       # before step 1
    3 | 9 | 12) until_line '^graft: durable:' ;;          # behind a save
    6 | 15) until_line "^step \\($saves\\)/" ;;              # a save of this step is under way
    *) until_line '^graft: data:' && sleep "0.$(printf %03d $((RANDOM % 900)))" ;;
    esac
    kill -USR1 "$launcher" 2> /dev/null || true
    if [ $((stops % 4)) = 3 ]; then kill -USR1 "$launcher" 2> /dev/null || true; fi
    ended "stop-$output"
    check_stop "stop-$output"
    stops=$((stops + 1)) codes+=" $code"
    if [ "$code" = 0 ]; then
        [ "$(hash_of "stop-$output")" = "$reference" ] || fail "stop-$output: another adapter"
        output=$((output + 1))
    fi
done
unset GRAFT_FAIL
echo "exit codes of the stops:$codes; $early before the first step"
[ "$early" -ge 1 ] || fail "no stop came before the first step"
log=$work/log
train "stop-$output" 2 1 || fail "the last start failed"
if [ "$(hash_of "stop-$output")" = "$reference" ]; then pass; else fail "another adapter"; fi

# ---- a second start while the first works ----
GRAFT_FAIL='step.updated@*:0:delay=700' start both 2
until_line '^step 1/'
first=$shell
code=0
log=$work/log-second
train both 1 1 || code=$?
if [ "$code" = 6 ] && grep -q 'in use by' "$log"; then pass; else fail "second start: exit $code"; fi
shell=$first log=$work/log-both
ended both
if [ "$code" = 0 ] && [ "$(hash_of both)" = "$reference" ]; then pass; else fail "first start: exit $code"; fi

# ---- a takeover from a launcher that sleeps, which then wakes up ----
GRAFT_FAIL='step.updated@*:0:delay=100' start taken 2
until_line '^graft: durable: step 6'
sleepers="$launcher $(pgrep -P "$launcher" -x graft)"
kill -STOP $sleepers
first=$shell
log=$work/log-taker
if train taken 1 1 --takeover && [ "$(hash_of taken)" = "$reference" ]; then
    pass
else
    fail "the takeover did not finish with the same adapter"
fi
kill -CONT $sleepers
shell=$first log=$work/log-taken
ended taken
if [ "$code" = 6 ] && [ "$(hash_of taken)" = "$reference" ]; then pass; else fail "zombie: exit $code"; fi

# ---- a resume that sleeps right before it puts the metrics of the steps that stand ----
GRAFT_FAIL='step.updated@10:0:kill' train slept 1 1 || true
GRAFT_FAIL='resume.metrics:0:stop' start slept 1
first=$shell
for _ in $(seq 300); do
    sleeper=$(pgrep -P "$launcher" -x graft || true)
    if [ -n "$sleeper" ] && grep -q '^State:.*stopped' "/proc/$sleeper/status"; then break; fi
    sleep 0.05
done
log=$work/log-waker
train slept 1 1 --takeover || fail "the takeover from a resume failed"
written=$(sha256sum <"$work/slept/metrics.jsonl")
kill -CONT "$sleeper"
shell=$first log=$work/log-slept
ended slept
if [ "$code" = 6 ] && [ "$(sha256sum <"$work/slept/metrics.jsonl")" = "$written" ]; then
    pass
else
    fail "slept resume: exit $code, or metrics.jsonl is not its successor's"
fi
report
