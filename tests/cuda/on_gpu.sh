#!/usr/bin/env bash
# The tests of the CUDA backend on a GPU instead of the emulated one: each op beside its f64 twin, the golden
# models beside PEFT, training beside the CPU; then the ops once more under NVIDIA's compute-sanitizer where
# it is on the PATH.  A line for each program; what it said is in BUILD/on_gpu/.
#   tests/cuda/on_gpu.sh [BUILD [PLUGIN [PROGRAM...]]]
# BUILD: a dev build with nvcc, build/dev; PLUGIN: its own; PROGRAM: those of bin/ that are run.  SECONDS_EACH:
# the patience with one, 300.
set -euo pipefail
build=$(realpath "${1:-build/dev}")
GRAFT_CUDA_PLUGIN=$(realpath -m "${2:-$build/bin/libgraft_cuda.so}")
GRAFT_SOURCE_DIR=$(realpath "$(dirname "$0")/../..")
export GRAFT_CUDA_PLUGIN GRAFT_SOURCE_DIR GRAFT_TEST_DEVICE=cuda OMP_WAIT_POLICY=passive
said=$build/on_gpu
failures=0

# run NAME COMMAND...: 77 is skipped, with its reason
run()
{
    local code=0
    timeout "${SECONDS_EACH:-300}" "${@:2}" >"$said/$1" 2>&1 || code=$?
    if [ "$code" != 0 ] && grep -q 'there is no cuDNN' "$said/$1"; then code=77; fi
    case $code in
    0) echo "ok       $1" ;;
    77) echo "skipped  $1: $(grep -m 1 -o "there is no cuDNN.*" "$said/$1" || tail -n 1 "$said/$1")" ;;
    *)
        failures=$((failures + 1))
        echo "FAIL     $1, exit $code: $(grep -m 1 -E 'FAIL|error|ERROR' "$said/$1" || tail -n 1 "$said/$1")"
        ;;
    esac
}

if [ ! -f "$GRAFT_CUDA_PLUGIN" ]; then
    echo "on_gpu.sh: there is no $GRAFT_CUDA_PLUGIN"
    echo '  hint: cmake --preset dev && cmake --build --preset dev, with nvcc on the PATH'
    exit 5
fi >&2
mkdir -p "$said"
cd "$build/bin"
ops=(test_ops_adamw test_ops_attention test_ops_attention_bits test_ops_attention_last test_ops_flat
    test_ops_head_loss test_ops_lora_bits test_ops_lora_group test_ops_rows test_ops_threads)
programs=("${ops[@]}" test_model_golden test_cuda_layouts test_recompute test_offload test_cuda_steps)
if [ $# -gt 2 ]; then programs=("${@:3}") ops=("${@:3}"); fi
for program in "${programs[@]}"; do
    run "$program" "./$program"
done
GRAFT_ATTENTION=cudnn run test_ops_attention-cudnn ./test_ops_attention
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
        for program in "${ops[@]}"; do
            run "$program-$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all "./$program"
        done
    done
else
    echo 'skipped  compute-sanitizer: it is not on the PATH'
fi
echo "$failures failures"
[ "$failures" = 0 ]
