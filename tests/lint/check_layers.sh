#!/usr/bin/env bash
# The arrows between the boxes: who may include whom, and things that one file alone may do.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=files.sh
. "$(dirname "$0")/files.sh"
lint_start "$@"

# FROM may include TO; the first FROM that begins the file's path counts.  kernels/ has parts that
# only it may see: the backends and their table.
may_include()
{
    case $1 in
    tests/* | bench/*) true ;;
    kernels/base/*) [[ $2 == kernels/base/* ]] ;;
    kernels/cuda/cuda.h) [[ $2 == kernels/* || $2 == emu.h ]] ;; # in CUDA's place, of the tests
    kernels/*) [[ $2 == kernels/* ]] ;;
    *)
        [[ $2 != kernels/cpu/* && $2 != kernels/cuda/* && $2 != kernels/backend.h ]] || return 1
        case $1 in
        data/*) [[ $2 == data/* || $2 == kernels/base/* ]] ;;
        trainer/*) [[ $2 == trainer/* || $2 == data/* || $2 == kernels/* ]] ;;
        launch/*) [[ $2 == launch/* || $2 == trainer/* || $2 == data/* || $2 == kernels/* ]] ;;
        *) false ;;
        esac
        ;;
    esac
}

mapfile -t sources < <(lint_files '*.c' '*.h' '*.cu' '*.cuh')
mapfile -t products < <(printf '%s\n' "${sources[@]}" | grep -Ev '^(tests|bench)/')

while IFS=: read -r file line text; do
    included=$(sed -E 's/^[^"]*"([^"]*)".*/\1/' <<<"$text")
    if ! may_include "$file" "$included"; then
        violation "$file:$line" "may not include \"$included\""
    fi
done < <(grep -HnE '^ *# *include *"' "${sources[@]}")

# only_in FILE PATTERN TEXT FILE...: lines with PATTERN elsewhere than in FILE (a pattern of paths).
only_in()
{
    local home=$1 pattern=$2 text=$3
    shift 3
    violations_of "$text" < <(grep -HnE -- "$pattern" "$@" | grep -Ev "^$home:")
}
only_in 'kernels/base/env\.c' '\b(secure_)?getenv *\(' 'only kernels/base/env.c reads the environment' \
    "${products[@]}"
only_in 'kernels/cpu/vector\.h' '^ *# *include.*immintrin' 'only kernels/cpu/vector.h has intrinsics' \
    "${products[@]}"
only_in '(kernels/cuda[/_]|tests/emu/)[^:]*' '^ *# *(el)?if.*CUDA' 'no #if for CUDA outside kernels/cuda/' \
    "${sources[@]}"
lint_end
