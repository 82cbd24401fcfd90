#!/usr/bin/env bash
# cuDNN makes a plan of each graph of attention, without a GPU: it asks the driver for little, and a
# made-up libcuda answers.  The GPUs are described by files of ../shared.
#   test_plans.sh CUDNN_PLANS NVCC_LIBRARIES
set -euo pipefail
plans=$1 libraries=$2
devices=$GRAFT_SOURCE_DIR/../shared/probes/device
driver=$libraries/stubs/libcuda.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for needed in "$devices" "$driver" "$libraries/libcudnn.so.9"; do
    if [ ! -e "$needed" ]; then
        echo "skipped: there is no $needed"
        exit 77
    fi
done

# Every function of the driver fails, but for the two that load a kernel.
nm -D --defined-only "$driver" | awk '
    $NF ~ /^cu[A-Z]/ {
        sub(/@.*/, "", $NF)
        if ($NF ~ /^cuLibrary(LoadData|GetKernel)$/)
            printf "int %s(void **made) { *made = (void *)16; return 0; }\n", $NF
        else if (!seen[$NF]++)
            printf "int %s(void) { return 100; }\n", $NF
    }' >"$work/libcuda.c"
cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" "$work/libcuda.c"

code=0
export LD_LIBRARY_PATH=$work:$libraries
"$plans" "$devices/h200.json" packed || code=$?
"$plans" "$devices/a100.json" padded || code=$?
exit "$code"
