#!/usr/bin/env bash
# Runs the tests: installs what is missing, builds, runs everything, then the quick tests again under
# AddressSanitizer, then each fuzz target for some seconds.  The last lines are ctest's own summary; the
# exit code is that of the tests.
#   --quick        only the quick tests, without AddressSanitizer and without fuzzing
#   --with-peft    make the Python environment with torch and PEFT if it is missing (3 GB, once);
#                  so does CI=true.  Without it the tests that need it skip with a reason.
#   --no-peft      leave it out even where it is there
#   --with-cuda    install NVIDIA's compiler if there is no CUDA toolkit (730 MB, once); so does
#                  CI=true.  Without either the CUDA backend is not built, and not tested under emulation
set -euo pipefail
cd "$(dirname "$0")/.."

usage()
{
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' tests/run.sh
}

quick=false
peft=auto
cuda='find'
if [ "${CI-}" = true ]; then
    peft=create
    cuda='create'
fi
for argument in "$@"; do
    case $argument in
    --quick) quick=true ;;
    --with-peft) peft=create ;;
    --no-peft) peft=none ;;
    --with-cuda) cuda='create' ;;
    --help | -h)
        usage
        exit 0
        ;;
    *)
        printf 'run.sh: unknown option %s\n  hint: run.sh --help\n' "$argument" >&2
        exit 2
        ;;
    esac
done

step()
{
    printf '\n== %s\n' "$1"
}

# has_peft PYTHON: the environment holds what peft-requirements.txt names, in these versions.
has_peft()
{
    [ -x "$1" ] && "$1" - tests/peft-requirements.txt <<'END'
import importlib.metadata as metadata, sys
for line in open(sys.argv[1]):
    if "==" in line:
        name, version = line.strip().split("==")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "nothing"
        if found != version:
            sys.exit(f"{name}: found {found}, expected {version}")
END
}

find_peft()
{
    local folder=${XDG_CACHE_HOME:-$HOME/.cache}/graft-tests/peft
    local python=$folder/bin/python
    if [ "$peft" = none ]; then
        unset GRAFT_PEFT_PYTHON
        return
    fi
    if [ "$peft" = create ] && ! has_peft "$python"; then
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$python" -m pip install --quiet --disable-pip-version-check -r tests/peft-requirements.txt
    fi
    if has_peft "$python"; then
        export GRAFT_PEFT_PYTHON=$python
        echo "$python"
    else
        echo 'none: the tests that need it skip (--with-peft makes it)'
    fi
}

find_cuda()
{
    if [ "$cuda" = create ]; then
        cuda_root=$(tests/cuda_toolkit.sh)
        GRAFT_CUOBJDUMP=$(tests/cuda_toolkit.sh --cuobjdump)
    else
        cuda_root=$(tests/cuda_toolkit.sh --find || true)
        GRAFT_CUOBJDUMP=$(tests/cuda_toolkit.sh --cuobjdump --find || true)
    fi
    export GRAFT_CUOBJDUMP
    echo "${cuda_root:-none: the CUDA backend is not built (--with-cuda installs one)}"
}

# build_and_test PRESET CTEST_ARGUMENT...
build_and_test()
{
    local preset=$1
    shift
    step "build ($preset)"
    cmake --preset "$preset" -DGR_CUDA_ROOT="$cuda_root"
    cmake --build --preset "$preset" --parallel "$(nproc)"
    step "test ($preset)"
    # Two more than cores: tests that kill, stop and lose processes wait most of their time.
    ctest --test-dir "build/$preset" --parallel $(($(nproc) + 2)) --output-on-failure --no-tests=error "$@"
}

# can_fuzz: clang is here with libFuzzer, AddressSanitizer and OpenMP.
can_fuzz()
{
    echo 'int LLVMFuzzerTestOneInput(const char *bytes, long count) { return !bytes + !count; }' |
        clang -x c - -fsanitize=fuzzer,address -fopenmp -o /dev/null 2>/dev/null
}

step 'packages'
packages=(git clang-format ccache)
if ! $quick; then
    packages+=(clang libclang-rt-dev libomp-dev)
fi
if [ "$peft" = create ]; then
    packages+=(python3-venv)
fi
launch/install.sh "${packages[@]}"
step 'python with PEFT'
find_peft
step 'CUDA toolkit'
find_cuda

if $quick; then
    build_and_test dev --label-regex '^quick$'
else
    build_and_test dev
    build_and_test asan --label-regex '^(quick|short)$'
    if can_fuzz; then
        build_and_test fuzz
    else
        step 'test (fuzz)'
        echo 'skipped: clang with libFuzzer, AddressSanitizer and OpenMP is not here'
    fi
fi
