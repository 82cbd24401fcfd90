#!/usr/bin/env bash
# graft doctor: what it says of this machine, of one with less, and its exit codes; it leaves nothing
# behind.   test_doctor.sh GRAFT
set -euo pipefail
graft=$(realpath "$1")
. "$(dirname "$0")/command_rig.sh"
unset "${!OMP_@}"

# doctor CODE [ARGUMENT...]: into out and err
doctor()
{
    local want=$1 code=0
    shift
    "$graft" doctor "$@" >out 2>err || code=$?
    [ "$code" = "$want" ] || fail "doctor $*: exit code $code, expected $want: $(cat out err)"
}

says() # says PATTERN: a line of out
{
    grep -Eq -- "$1" out || fail "no line $1 in: $(cat out)"
}

rows='program cpu cores openmp mpi memory shared output cache'
doctor 0 -o runs
[ ! -s err ] || fail "stderr: $(cat err)"
for row in $rows; do says "^(ok|warning) +$row +[^ ]"; done
[ "$(grep -cE '^(ok|warning|problem) ' out)" = "$(wc -w <<<"$rows")" ] || fail "other rows: $(cat out)"
says '^ok +program .*libc glibc [0-9.]+, .*oniguruma [0-9.]+'
says '^ok +output +runs: [0-9.]+ GiB free, durable'
[ -z "$(find . -type f ! -name out ! -name err)" ] || fail "files were left behind: $(find .)"

doctor 0 --json
[ "$(wc -l <out)" = 1 ] || fail "--json is not one line"
for row in $rows; do
    says "\"$row\":\{\"verdict\":\"(ok|warning)\",\"found\":\"[^\"]+\",\"hint\":\"[^\"]*\"\}"
done

# ---- a machine in the way ----
touch file
doctor 2 -o file
says '^problem +output '
grep -q 'hint: ' out || fail "a problem without a hint"
grep -q '^graft: error: graft doctor: .*found 1 problem, expected none' err || fail "$(cat err)"
doctor 2 --json -o file
says '"output":\{"verdict":"problem"'
OMP_PROC_BIND=true OMPI_COMM_WORLD_LOCAL_SIZE=2 doctor 0
says '^warning +openmp +OMP_PROC_BIND is true, with 2 ranks'
OMP_PROC_BIND=true doctor 0
says '^ok +openmp '
OMP_THREAD_LIMIT=1 doctor 0
says '^warning +openmp +OMP_THREAD_LIMIT is 1'
OMPI_COMM_WORLD_LOCAL_SIZE=4096 doctor 0
says '^warning +cores .* 4096 ranks'
says '^warning +openmp +4096 ranks, OMP_WAIT_POLICY is not set'
OMP_WAIT_POLICY=PASSIVE OMPI_COMM_WORLD_LOCAL_SIZE=4096 doctor 0
says '^ok +openmp '
doctor 2 --json -o /proc/nowhere
says '"output":\{"verdict":"problem"'
grep -q 'found 1 problem' err || fail "$(cat err)"
PATH=/nowhere doctor 0
[ ! -s err ] || fail "stderr: $(cat err)"
for row in $rows; do says "^(ok|warning) +$row +[^ ]"; done
says '^warning +mpi .*no mpirun on the PATH'
GRAFT_ISA=v3 doctor 0
says '^ok +cpu +v3 \(AVX2\)'
GRAFT_ISA=v9 doctor 2
says '^problem +cpu '
if command -v taskset >/dev/null; then
    code=0
    taskset -c 0 "$graft" doctor >out 2>err || code=$?
    says '^(ok|warning) +cores +1 '
fi

# ---- under mpirun: once ----
if command -v mpirun >/dev/null; then
    mpirun -n 2 --oversubscribe --bind-to none "$graft" doctor >out 2>err || fail "mpirun: $(cat err)"
    says '^(ok|warning) +cores .* 2 ranks'
    [ "$(grep -c ' cpu ' out)" = 1 ] || fail "not once: $(cat out)"
fi
report
