#!/usr/bin/env bash
# The proof that the double of cuDNN notices mistakes: each edit of the graphs of attention, or of what is
# bound to them, must fail against the f64 twin, or break a rule of cuDNN's.
#   test_cudnn_mutants.sh TEST_OPS_ATTENTION FOLDER_OF_CUDNN COMPILER CUDA_INCLUDE OBJECT...
set -euo pipefail
cd "$GRAFT_SOURCE_DIR"
. tests/cuda/plugin_rig.sh
source=$PWD
test=$1 double=$2 compiler=$3 include=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/kernels/cuda"
case=attention_wide_heads_of_packed_documents_equal_twin

mutants()
{
    cat <<'END'
rows closer than they are | cudnn_attention.cu | s/{stride \* a->rows, a->head_dim, stride, 1}/{stride * a->rows, a->head_dim, count * a->head_dim, 1}/
keys not transposed | cudnn_attention.cu | s/{stride \* a->rows, a->head_dim, 1, stride}/{stride * a->rows, a->head_dim, stride, 1}/
forward not causal | cudnn_attention.cu | /^static void forward/,/^}/s/ s = causal(g, &in, &s);//
backward not causal | cudnn_attention.cu | /^static void backward/,/^}/s/ s = causal(g, &in, &s);//
a row does not see itself | cudnn_attention.cu | s/POINTWISE_CMP_GE, &row, &column/POINTWISE_CMP_LT, \&column, \&row/
nothing masked behind the document | cudnn_attention.cu | s/choose(g, &is_inside, &s, &in->beyond)/choose(g, \&is_inside, \&s, \&s)/
lse without the largest score | cudnn_attention.cu | s/POINTWISE_ADD, &most, &log_sum/POINTWISE_ADD, \&log_sum, \&log_sum/
dS without the row sum | cudnn_attention.cu | s/POINTWISE_SUB, &dp, &sum/POINTWISE_ADD, \&dp, \&sum/
dS not scaled | cudnn_attention.cu | s/POINTWISE_MUL, &ds, &in.scale/POINTWISE_DIV, \&ds, \&in.scale/
dk from d_o | cudnn_attention.cu | s/&ds, &in.q);/\&ds, \&d_o);/
a length missing | cudnn_attention.cu | s/&p, &v, &in.q_lengths, NULL, &in.kv_lengths/\&p, \&v, \&in.q_lengths, NULL, NULL/
another scale | cudnn_run.cu | s/scale = a->scale/scale = 1.1f * a->scale/
k and v exchanged | cudnn_run.cu | s/\[GR_CUDNN_K\] = a->k/[GR_CUDNN_K] = a->v/; s/\[GR_CUDNN_V\] = a->v/[GR_CUDNN_V] = a->k/
what is to come not hidden | cudnn_run.cu | s/all\[GR_CUDNN_MASKED\] = /all[GR_CUDNN_MASKED] = \&one; /
documents a row too long | cudnn_run.cu | s/= end - begin;/= end - begin + 1;/
gradients where q lies | cudnn_run.cu | s/{GR_CUDNN_DQ_OFFSETS, k->dq_stride}/{GR_CUDNN_DQ_OFFSETS, k->q_stride}/
dq not zeroed before | cudnn_run.cu | s/cudaMemsetAsync(m.dq_sum, 0/cudaMemsetAsync(m.dq_sum, 63/
rows outside not cleared | cudnn_run.cu | s/first_key\[row\] <= row/first_key[row] != row/
END
}

# run CAPABILITY PLUGIN: exit code of the test
run()
{
    GRAFT_TEST_DEVICE=cuda GRAFT_ATTENTION=cudnn EMU_CAPABILITY=$1 GRAFT_CUDA_PLUGIN=$2 \
        LD_LIBRARY_PATH=$double:${LD_LIBRARY_PATH-} "$test" $case >"$work/log" 2>&1
}

all=("$@")
link
for capability in 80 90; do
    run $capability "$work/libgraft_cuda.so" || { cat "$work/log"; echo "FAIL the original does not pass"; exit 1; }
done
passed=0 failed=0 capability=80
while IFS='|' read -r name file edit; do
    name=$(echo $name) file=$(echo $file) capability=$((170 - capability))
    sed "${edit# }" "kernels/cuda/$file" >"$work/kernels/cuda/$file"
    if cmp -s "$work/kernels/cuda/$file" "kernels/cuda/$file"; then
        echo "FAIL $name: the edit does not fit $file any more"; failed=$((failed + 1))
    elif ! compile "$file" 2>"$work/log"; then
        cat "$work/log"; echo "FAIL $name: does not compile"; failed=$((failed + 1))
    else
        link "$file"
        if run $capability "$work/libgraft_cuda.so"; then
            echo "FAIL $name: nothing noticed"; failed=$((failed + 1))
        elif grep -Eq 'off by|EMU ERROR' "$work/log"; then
            echo "ok   $name: $(grep -Em1 'off by|EMU ERROR' "$work/log" | sed 's/.*: //')"
            passed=$((passed + 1))
        else
            cat "$work/log"; echo "FAIL $name: fails in another way"; failed=$((failed + 1))
        fi
    fi
done < <(mutants)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
