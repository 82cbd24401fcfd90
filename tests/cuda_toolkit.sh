#!/usr/bin/env bash
# Prints where the CUDA toolkit is that the plug-in is built with, for cmake -DGR_CUDA_ROOT=: CUDA_HOME,
# that of an nvcc on the PATH, /usr/local/cuda.  Where there is none of CUDA 12 or newer it installs
# NVIDIA's wheels into the cache, once.  tests/run.sh calls it.
#   --find        installs nothing: exit code 1 if there is none
#   --cuobjdump   the disassembler instead, which not every toolkit has
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/graft-tests
install=true wheels='^nvidia' only_cuobjdump=false

for argument in "$@"; do
    case $argument in
    --find) install=false ;;
    --cuobjdump) only_cuobjdump=true ;;
    *)
        printf 'cuda_toolkit.sh: unknown option %s\n  hint: --find, --cuobjdump\n' "$argument" >&2
        exit 2
        ;;
    esac
done

# is_toolkit FOLDER: an nvcc of CUDA 12 or newer, with cuBLASLt.
is_toolkit()
{
    local major
    [ -x "$1/bin/nvcc" ] && [ -f "$1/include/cublasLt.h" ] || return 1
    major=$("$1/bin/nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge 12 ]
}

# wanted: the lines of the list that are to be installed.
wanted()
{
    grep -E "$wheels" "$here/cuda-requirements.txt"
}

# install_wheels FOLDER: appears there whole or not at all.
install_wheels()
{
    work=$1.$$
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"
    wanted >"$work/wheels"
    {
        "$here/../launch/install.sh" python3-venv
        python3 -m venv "$work/pip"
        "$work/pip/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps \
            --only-binary :all: --target "$work/tree" -r "$work/wheels"
        rm -rf "$work/pip"
        mv "$work/tree/nvidia"/cu* "$work/toolkit" # CUDA 13's wheels share one folder
        if [ -d "$work/tree/nvidia/nccl" ]; then # its header alone, for the tests
            cp -r "$work/tree/nvidia/nccl/include" "$work/toolkit"
        fi
        rm -rf "$work/tree"
        [ ! -d "$work/toolkit/lib" ] || ln -s lib "$work/toolkit/lib64"
        rm -rf "$1"
        mv "$work" "$1"
    } >&2
    trap - EXIT
}

# find_wheels NAME: $toolkit is their folder in the cache.
find_wheels()
{
    toolkit=$cache/$1/toolkit
    if ! wanted | cmp -s - "$cache/$1/wheels" 2>/dev/null; then
        $install || exit 1
        install_wheels "$cache/$1"
    fi
}

if $only_cuobjdump; then
    for program in "$(command -v cuobjdump || true)" "${CUDA_HOME-}/bin/cuobjdump" \
        /usr/local/cuda/bin/cuobjdump "$cache/cuda/toolkit/bin/cuobjdump"; do
        if [ -x "$program" ] && [ -x "$(dirname "$program")/nvdisasm" ]; then # which it calls
            echo "$program"
            exit
        fi
    done
    wheels='cuobjdump|nvdisasm'
    find_wheels cuobjdump
    echo "$toolkit/bin/cuobjdump"
    exit
fi
nvcc=$(command -v nvcc || true)
for root in "${CUDA_HOME-}" "${nvcc:+$(dirname "$(dirname "$(realpath "$nvcc")")")}" /usr/local/cuda; do
    if [ -n "$root" ] && is_toolkit "$root"; then
        echo "$root"
        exit
    fi
done
find_wheels cuda
echo "$toolkit"
