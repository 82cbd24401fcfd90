#!/usr/bin/env bash
# The CUDA plug-in as nvcc made it: what it exports, needs and holds; no kernel spills, none takes more
# registers than tests/cuda/kernels.txt says, and those that multiply do so with the tensor cores.
#   check_build.sh PLUGIN GRAFT OBJECT...     the machine code is read with GRAFT_CUOBJDUMP, or cuobjdump
set -euo pipefail
plugin=$1 graft=$2
shift 2
list=$(dirname "$0")/kernels.txt
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

# none TEXT FOUND: there must be none.
none()
{
    [ -z "$2" ] || fail "$1: $(paste -sd ' ' <<<"$2")"
}

report()
{
    echo "$failures failures"
    [ "$failures" = 0 ] || exit 1
}

# ---- the library ----
exported=$(nm -D --defined-only "$plugin" | awk '{print $NF}')
[ "$exported" = gr_cuda_open ] || fail "exports $exported, expected gr_cuda_open alone"
allowed='libcublasLt\.so\.[0-9]+|lib(c|m|dl|rt|pthread|gcc_s)\.so\.[0-9]+|ld-linux.*'
none 'needs libraries that it should open at run time, or not at all' \
    "$(readelf -dW "$plugin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -Evx "$allowed")"
nm -D --undefined-only "$plugin" | awk '$1 == "U" && $2 ~ /^gr_/ {print $2}' | sort >"$work/wanted"
none 'calls what the program does not export' \
    "$(nm -D --defined-only "$graft" | awk '{print $NF}' | sort | comm -23 "$work/wanted" -)"
echo "exports $exported, calls $(wc -l <"$work/wanted") functions of the program"

# ---- the machine code ----
cuobjdump=${GRAFT_CUOBJDUMP:-$(command -v cuobjdump || true)}
if [ -z "$cuobjdump" ]; then
    report
    echo 'skipped: there is no cuobjdump to look at the kernels; tests/cuda_toolkit.sh --cuobjdump gets it'
    exit 77
fi
PATH=$(dirname "$cuobjdump"):$PATH # nvdisasm is there
{
    "$cuobjdump" --list-elf "$plugin" | sed -n 's/.*\.\(sm_[0-9a-z]*\)\.cubin$/\1/p'
    "$cuobjdump" --list-ptx "$plugin" | sed -n 's/.*\.\(sm_[0-9a-z]*\)\.ptx$/ptx_\1/p'
} | sort -u >"$work/held"
[ "$(paste -sd ' ' "$work/held")" = 'ptx_sm_80 sm_80 sm_90a' ] ||
    fail "holds $(paste -sd ' ' "$work/held"), expected code of sm_80 and sm_90a and PTX of 80"

# FILE ARCH KERNEL: registers, bytes of stack, bytes of static shared memory; then what its code has of
# HMMA, LDSM and LDGSTS, in the same order of kernels.
resources='
    /^arch = / { arch = $3 }
    /^ *Function / { name = $0; sub(/^ *Function (void )?/, "", name); sub(/[(:].*/, "", name) }
    /REG:/ && name != "" {
        for (i = 1; i <= NF; i++)
            if (split($i, part, ":") == 2)
                used[part[1]] = part[2]
        print file, arch, name, used["REG"], used["STACK"] + used["LOCAL"], used["SHARED"]
        name = ""
    }'
instructions='
    function put() { if (name != "") print file, arch, name, count["HMMA"] + 0, count["LDSM"] + 0, count["LDGSTS"] + 0 }
    /code for sm_/ { put(); name = ""; arch = $NF }
    /Function : / { put(); name = $0; sub(/.*Function : (void )?/, "", name); sub(/[(].*/, "", name); split("", count) }
    { for (i = 2; i <= 4; i++) { split($i, part, "."); if (part[1] ~ /^(HMMA|LDSM|LDGSTS)$/) count[part[1]]++ } }
    END { put() }'
for object in "$@"; do
    file=$(basename "$object" .cu.o)
    "$cuobjdump" -res-usage "$object" 2>&1 | c++filt | sed 's/, /,/g' | awk -v file="$file" "$resources" \
        >>"$work/resources"
    "$cuobjdump" -sass "$object" | c++filt | sed 's/, /,/g' | awk -v file="$file" "$instructions" \
        >>"$work/instructions"
done

# A line of the list is FILE KERNEL REGISTERS [tensor]; the first that fits counts.
awk -v list="$list" '
    BEGIN {
        while ((getline <list) > 0)
            if ($0 !~ /^(#|$)/) {
                n++
                file[n] = $1; kernel[n] = $2; most[n] = $3; tensor[n] = $4 == "tensor"
            }
        row = "%-7s %-20s %-32s %4s of %3s %6s %7s %5s %5s %6s%s\n"
        printf row, "", "file", "kernel", "regs", "", "local", "shared", "HMMA", "LDSM", "LDGSTS", ""
    }
    NR == FNR { code[$1, $2, $3] = $4 " " $5 " " $6; next }
    {
        split(code[$1, $2, $3], has, " ")
        name = $3
        sub(/<.*/, "", name)
        for (k = 1; k <= n; k++)
            if ((file[k] == "*" || file[k] == $1) && (kernel[k] == "*" || kernel[k] == name))
                break
        seen[k] = files[$1] = 1
        wrong = $5 > 0 ? " FAIL spills" : ""
        wrong = wrong ($4 > most[k] ? " FAIL registers" : "")
        wrong = wrong (tensor[k] && !(has[1] && has[2] && has[3]) ? " FAIL tensor" : "")
        printf row, $2, $1, $3, $4, most[k], $5, $6, has[1], has[2], has[3], wrong
    }
    END {
        for (k = 1; k <= n; k++)
            if (!(file[k] in files) && file[k] != "*")
                printf "%s is not built: %s skipped\n", file[k], kernel[k]
            else if (kernel[k] != "*" && !seen[k])
                printf "%s %s is listed, but there is no such kernel FAIL\n", file[k], kernel[k]
    }' "$work/instructions" "$work/resources" >"$work/kernels"
cat "$work/kernels"
wrong=$(grep -c FAIL "$work/kernels" || true)
[ "$wrong" = 0 ] || fail "$wrong kernels spill, take too many registers or do not use the tensor cores"
report
