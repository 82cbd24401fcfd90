#!/usr/bin/env bash
# The proof that graft doctor --device cuda names the ops that a GPU computes wrongly, and no other:
# mistakes are planted in the emulated plug-in, all but the last into the same one.
#   test_doctor_mutants.sh GRAFT COMPILER CUDA_INCLUDE OBJECT...
set -euo pipefail
source=$GRAFT_SOURCE_DIR graft=$(realpath "$1") compiler=$2 include=$3
. "$source/tests/command_rig.sh"
. "$source/tests/cuda/plugin_rig.sh"
shift 3
all=("$@")
mkdir -p kernels/cuda cache
export GRAFT_CUDA_PLUGIN=$work/libgraft_cuda.so

mutants() # op that is wrong | where it shows | file | sed command
{
    cat <<'END'
rope | f32 x back | rope.cu | s/s_i = sign \* s\[i\]/s_i = s[i]/
swiglu_backward | f32 dgate | swiglu.cu | s/g\[i\] \* (1.0f - sigma)/g[i] * (1.00001f - sigma)/
rmsnorm_backward | [a-z0-9]+ dx added.* | rmsnorm.cu | s/__fadd_rn(x_v\[i\], dy_v\[i\])/dy_v[i]/
attention_backward | bf16 d[kv], .* | attention_backward.cu | s/first_key\[j\].x <= row \&\& row <= at,/first_key[j].x <= row \&\& row < at,/
adamw | f32 [a-z0-9]+ | adamw.cu | s/__fmaf_rn(s.lerp, __fsub_rn(g\[i\], m\[i\]), \(.*\));/__fadd_rn(__fmul_rn(s.lerp, __fsub_rn(g[i], m[i])), \1);/
END
}

# plant FILE SED
plant()
{
    sed "$2" "$source/kernels/cuda/$1" >"kernels/cuda/$1"
    if cmp -s "$source/kernels/cuda/$1" "kernels/cuda/$1"; then
        fail "the edit does not fit $1 any more"
    fi
    compile "$1"
}

# doctor CODE [ARGUMENT...]: into out and err
doctor()
{
    local want=$1 code=0
    shift
    "$graft" doctor --device cuda --rows 256 "$@" >out 2>err || code=$?
    [ "$code" = "$want" ] || fail "doctor $*: exit code $code, expected $want: $(cat out err)"
}
says() { grep -Eq -- "$1" "${2-out}" || fail "no line $1 in: $(cat "${2-out}")"; }

names=() files=()
while IFS='|' read -r op _ file edit; do
    names+=($op) files+=($file)
    plant $file "${edit# }" &
    [ $((${#files[@]} % 2)) = 1 ] || wait
done < <(mutants)
wait
link "${files[@]}"

# ---- what is wrong is named, with where and how much; nothing is recorded ----
doctor 2
while IFS='|' read -r op where _ _; do
    says "^problem +$(echo $op) +$(echo $where): element [0-9]+ is [^ ]+, on the CPU [^ ]+; apart [^ ]+ of the largest, expected at most "
done < <(mutants)
[ "$(grep -Ec '^problem ' out)" = $((${#names[@]} + 2)) ] || fail "others are wrong, too: $(cat out)"
says "^problem +ops +$((20 - ${#names[@]})) of 20 as on the CPU$"
says '^ +hint: train on the CPU'
says "this GPU computes wrongly \(found ${#names[@]} of 20 ops not as on the CPU, expected none\)" err
says '^problem +uses +nothing is recorded: ops are wrong$'
[ -z "$(find cache -path '*/attention/*')" ] || fail "attention was recorded: $(find cache)"
doctor 2 --json
says '"rope":\{"verdict":"problem","where":"f32 x back","element":[0-9]+,'
says '"rmsnorm_forward":\{"verdict":"ok"'

# ---- an op that makes the GPU fail ----
plant rope.cu 's/block.x = /block.x = 2048 + /'
link rope.cu
doctor 5
says '^graft: error: graft doctor: in the trial of rope: rope: CUDA: ' err
says '^ok +gpu '
report
