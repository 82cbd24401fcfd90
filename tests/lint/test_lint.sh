#!/usr/bin/env bash
# The checks find what they look for: each is run in a small tree of its own, where it passes, and
# then with one planted violation, which it must name.
set -euo pipefail

lint=$(realpath "$(dirname "$0")")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0
cases=0

git -C "$tree" init -q
cp "$lint/../../.clang-format" "$tree"
mkdir -p "$tree"/{kernels/{base,cpu,cuda},data,trainer,launch,tests/{emu,lint}}

# plant FILE LINE...
plant()
{
    local file=$tree/$1
    shift
    printf '%s\n' "$@" >"$file"
}

plant kernels/base/env.c 'char *value = getenv(name);'
plant kernels/cpu/vector.h '#include <immintrin.h>'
plant kernels/cpu/a.c '#include "kernels/backend.h"'
plant kernels/cuda/device.c '#ifdef GR_CUDA_EMULATED' '#endif'
plant data/a.c '#include "kernels/base/status.h"' '#include <string.h>'
plant trainer/a.c '#include "data/a.h"' '#include "kernels/ops.h"'
plant launch/a.c '#include "launch/a.h"' '#include "trainer/a.h"'
plant tests/a.c '#include "kernels/cpu/isa.h"' '' 'char *value = getenv(name);'
plant build.md "mktemp -d foo-XX""XXXX, ../work/x, \${root}/root"

# run CHECK: its exit code in $code, its output in $tree.out.
run()
{
    code=0
    "$lint/$1" "$tree" >"$tree.out" 2>&1 || code=$?
}

for check in check_layers.sh check_sizes.sh check_format.sh check_words.sh; do
    cases=$((cases + 1))
    run "$check"
    if [ "$code" = 77 ]; then
        printf 'skipped: %s cannot run here\n' "$check"
    elif [ "$code" != 0 ]; then
        printf 'FAIL %s refuses a good tree:\n' "$check"
        cat "$tree.out"
        failures=$((failures + 1))
    fi
done

# finds CHECK FILE:LINE PLANTED...: with a file of these lines the check fails and names the place.
finds()
{
    local check=$1 place=$2
    shift 2
    cases=$((cases + 1))
    plant "${place%:*}" "$@"
    run "$check"
    rm "$tree/${place%:*}"
    if [ "$code" = 77 ]; then
        return
    fi
    if [ "$code" != 1 ] || ! grep -qF "$place: " "$tree.out" || ! grep -qx '1 violations' "$tree.out"; then
        printf 'FAIL %s does not find %s (exit code %s):\n' "$check" "$place" "$code"
        cat "$tree.out"
        failures=$((failures + 1))
    fi
}

finds check_layers.sh kernels/base/b.c:1 '#include "kernels/tensor.h"'
finds check_layers.sh kernels/b.c:2 '' '#include "data/a.h"'
finds check_layers.sh data/b.c:1 '#include "kernels/tensor.h"'
finds check_layers.sh data/b.h:1 '#include "trainer/a.h"'
finds check_layers.sh trainer/b.c:1 '#include "launch/a.h"'
finds check_layers.sh trainer/b.c:1 '#include "kernels/cpu/isa.h"'
finds check_layers.sh trainer/b.c:1 '#  include "kernels/backend.h"'
finds check_layers.sh launch/b.c:1 '#include "tests/test.h"'
finds check_layers.sh launch/b.c:1 '#include "a.h"'
finds check_layers.sh launch/b.c:1 'char *value = getenv("HOME");'
finds check_layers.sh kernels/base/env_more.c:1 'char *value = secure_getenv("HOME");'
finds check_layers.sh kernels/cpu/b.c:1 '#include <immintrin.h>'
finds check_layers.sh kernels/b.c:1 '#if defined(GR_CUDA)'
finds check_layers.sh tests/b.c:1 '#ifdef __CUDACC__'

many()
{
    for ((i = 0; i < $1; i++)); do
        printf '%s\n' "$2"
    done
}
mapfile -t lines < <(many 601 '# x')
finds check_sizes.sh launch/b.sh:601 "${lines[@]}"
mapfile -t lines < <(many 61 '    x++;')
plant tests/lint/long_functions.txt '# names' listed_long
plant data/listed.c 'int listed_long(int x)' '{' "${lines[@]}" '}'
finds check_sizes.sh launch/b.c:2 'static int *long_one(int x)' '{' "${lines[@]}" '}'
finds check_sizes.sh tests/b.c:2 'TEST(long_test)' '{' "${lines[@]}" '}'
finds check_sizes.sh data/b.c:2 'int listed_long(int x)' '{' "${lines[@]}" "${lines[@]}" '}'

finds check_format.sh launch/b.c:1 'int  x;'

finds check_words.sh launch/b.c:1 "/* TO""DO: later */"
finds check_words.sh launch/b.sh:1 "# FI""XME"
finds check_words.sh launch/b.md:2 '' "XX""X"
finds check_words.sh launch/b.json:1 "{\"model\": \"/ro""ot/models\"}"
finds check_words.sh launch/b.py:1 "path = '/wo""rk/x'"

# Without a list of files a check must fail, not find nothing.
rm -rf "$tree/.git"
for check in check_layers.sh check_sizes.sh check_words.sh; do
    cases=$((cases + 1))
    run "$check"
    if [ "$code" != 2 ]; then
        printf 'FAIL %s passes where git cannot list the files (exit code %s)\n' "$check" "$code"
        failures=$((failures + 1))
    fi
done

rm -f "$tree.out"
printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" -eq 0 ]
