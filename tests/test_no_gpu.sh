#!/usr/bin/env bash
# A machine without a GPU, its driver or NVIDIA's libraries: `device.backend: auto` trains on the CPU and
# says nothing of it, `cuda` ends with one message and exit code 5, whatever is missing.
#   test_no_gpu.sh GRAFT TOOL_RANDOM_MODEL [PLUGIN]
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") plugin=${3:+$(realpath "$3")}
. "$(dirname "$0")/command_rig.sh"
unset GRAFT_CUDA_PLUGIN

if ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo 'skipped: this machine has an NVIDIA driver'
    exit 77
fi
"$tool" model hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 head_dim=8 \
    num_hidden_layers=1
printf '{"text": "document %d"}\n' $(seq 20) >train.jsonl
mkdir bin # as the program comes without a plug-in beside it
ln "$graft" bin/graft 2>/dev/null || cp "$graft" bin/graft

# train BACKEND OUTPUT: exit code in $code; messages in err
train()
{
    code=0
    bin/graft train /dev/null --set model=model --set data.train=train.jsonl --set output="$2" \
        --set train.max_steps=2 --set device.backend="$1" --set device.threads=1 >out 2>err || code=$?
}

# trains NAME: auto does, to the CPU's adapter, and says no word of CUDA.
trains()
{
    train auto "$1"
    [ "$code" = 0 ] || fail "$1: auto ends with $code: $(cat err)"
    ! grep -Eiq 'cuda|nvidia|gpu' out err || fail "$1: auto says: $(grep -Eih 'cuda|nvidia|gpu' out err)"
    cmp -s "$1/adapter/adapter_model.safetensors" cpu/adapter/adapter_model.safetensors ||
        fail "$1: auto trains another adapter than cpu"
}

# trains_with NAME: also if it must try the plug-in that is there, as it does if that is named
trains_with()
{
    trains "$1"
    GRAFT_CUDA_PLUGIN=$work/bin/libgraft_cuda.so trains "$1, named"
}

# refused NAME MESSAGE HINT: what cuda ends with, and the doctor who is to look at the GPU
refused()
{
    train cuda "$1.cuda"
    [ "$code" = 5 ] || fail "$1: cuda ends with $code, expected 5"
    printf 'graft: error: device.backend: %s\n  hint: %s\n' "$2" "$3" | diff - err >difference ||
        fail "$1: cuda says otherwise than expected: $(cat difference)"
    code=0
    bin/graft doctor --device cuda >out 2>err || code=$?
    [ "$code" = 5 ] && [ ! -s out ] || fail "$1: the doctor ends with $code, expected 5, and says: $(cat out)"
    printf 'graft: error: device.backend: %s\n  hint: %s\n' "$2" "$3" | diff - err >difference ||
        fail "$1: the doctor says otherwise than expected: $(cat difference)"
}

train cpu cpu
[ "$code" = 0 ] || fail "cpu ends with $code: $(cat err)"
refused 'no plug-in' "there is no CUDA plug-in (found no libgraft_cuda.so in $work/bin)" \
    'build graft where there is an nvcc, or set device.backend to cpu'
trains 'no plug-in'

echo 'no library' >bin/libgraft_cuda.so
train cuda damaged.cuda
[ "$code" = 5 ] || fail "a damaged plug-in: cuda ends with $code, expected 5: $(cat err)"
trains_with 'damaged'
install='install the CUDA libraries it names, or add their folder to LD_LIBRARY_PATH, '
install+='or set device.backend to cpu'
export GRAFT_CUDA_PLUGIN=$work/nowhere.so
refused 'named nowhere' "the CUDA plug-in cannot be loaded (found $work/nowhere.so: cannot open shared \
object file: No such file or directory)" "$install"
trains 'named nowhere'
unset GRAFT_CUDA_PLUGIN

if [ -z "$plugin" ]; then
    report
    echo 'the rest needs a plug-in that nvcc made: there is no nvcc here'
    exit
fi
# Its library is asked for by a name that no machine has.
sed 's/libcublasLt\.so\./libcublasXx.so./g' "$plugin" >bin/libgraft_cuda.so
library=$(readelf -dW bin/libgraft_cuda.so | sed -n 's/.*NEEDED.*\[\(libcublasXx.*\)\]/\1/p')
[ -n "$library" ] || fail 'the plug-in needs no cuBLASLt'
refused 'no library' "the CUDA plug-in cannot be loaded (found $library: cannot open shared object file: No \
such file or directory)" "$install"
trains_with 'no library'

cp "$plugin" bin/libgraft_cuda.so
refused 'no driver' 'there is no NVIDIA driver (found no libcuda.so.1)' \
    'set device.backend to cpu, or to auto'
trains_with 'no driver'
report
