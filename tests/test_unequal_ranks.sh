#!/usr/bin/env bash
# Two ranks that do not have the same: one fails where the other does not, or they would compute
# different things.  However late it shows, the job ends soon, with one message and its exit code: no
# rank waits until dist.timeout_seconds for one that has given up.
#   test_unequal_ranks.sh GRAFT TOOL_RANDOM_MODEL OTHER_LIBC [CASE]
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") libc=$(realpath "$3") only=${4-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_@}"
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export XDG_CACHE_HOME=$work/cache LC_ALL=C ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0
cases=0 failures=0
cd "$work"

# The weights are F32 and the runs in bf16: the ranks of a host convert once and share.
mkdir model
"$tool" model hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=8 num_hidden_layers=2
cp -r model broken
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' broken/config.json
for i in 1 2 3 4 5 6 7 8 9 10; do
    printf '{"text": "this is record %d"}\n' "$i"
done >data.jsonl
sed '3s/}//' data.jsonl >broken.jsonl
head -n 9 data.jsonl >other.jsonl
cat >run.yaml <<'YAML'
model: model
output: out
data: {train: [data.jsonl], max_length: 64}
lora: {r: 2}
train: {micro_batches: 2, max_steps: 2}
device: {threads: 1, dtype: f32}
dist: {timeout_seconds: 100}
YAML
# Other hosts: the same names, but one file of another content.
# host NAME FILE SED_SCRIPT: the script must change the file.
host()
{
    mkdir "$1"
    cp -r model data.jsonl run.yaml "$1"
    sed -i "$3" "$1/$2"
    ! cmp -s "$2" "$1/$2"
}
host other_model model/config.json 's/"rms_norm_eps": 1e-05/"rms_norm_eps": 1e-04/'
host other_tokenizer model/tokenizer.json 's/"normalized": *false/"normalized":true/'
host other_train data.jsonl '3s/record/recorD/'
train=("$graft" train run.yaml --set device.dtype=bf16)
eval=("$graft" eval --model model --set device.threads=1 --set dist.timeout_seconds=100 --data)

# ranks NAME EXIT_CODE ARGUMENT... : ARGUMENT...: runs the first command as rank 0, the other one as
# rank 1.  Of stderr, graft's errors and warnings must be $expected.
ranks()
{
    local name=$1 exit_code=$2 code=0 begin=$SECONDS first=()
    shift 2
    if [ -n "$only" ] && [ "$only" != "$name" ]; then return; fi
    while [ "$1" != : ]; do
        first+=("$1")
        shift
    done
    shift
    cases=$((cases + 1))
    rm -rf out
    mpirun --bind-to none --oversubscribe -n 1 "${first[@]}" : -n 1 "$@" </dev/null >stdout 2>all ||
        code=$?
    grep -E '^(graft: (error|warning): |  hint: )' all >stderr || true
    if [ "$code" != "$exit_code" ] || [ $((SECONDS - begin)) -ge 60 ] ||
        ! diff -u <(printf '%s' "$expected") stderr; then
        printf 'FAIL %s: exit code %s after %s s, expected %s; stderr:\n' "$name" "$code" \
            $((SECONDS - begin)) "$exit_code"
        cat all
        failures=$((failures + 1))
    fi
}

# ---- before the ranks know each other ----
expected='graft: error: rank 1: nowhere.yaml: the configuration cannot be read (found nothing, expected a file)
  hint: name the YAML file of the run
'
ranks run_yaml_of_rank_1 2 "${train[@]}" : "$graft" train nowhere.yaml
expected=${expected/rank 1: /}
ranks run_yaml_of_rank_0 2 "$graft" train nowhere.yaml : "${train[@]}"
ranks run_yaml_of_both 2 "$graft" train nowhere.yaml : "$graft" train nowhere.yaml

# ---- starting ----
expected='graft: error: GRAFT_ISA: unknown instruction set (found v9, expected one of v4amx, v4bf16, v4, v3)
  hint: unset it to let graft choose
'
ranks device_of_rank_0 2 env GRAFT_ISA=v9 "${train[@]}" : "${train[@]}"
ranks device_of_rank_1 2 "${train[@]}" : env GRAFT_ISA=v9 "${train[@]}"

expected='graft: error: broken: tensor "model.layers.2.input_layernorm.weight" is missing (found nothing, expected shape (16))
  hint: config.json and the weights do not belong together, or a file is incomplete: download both again
'
ranks weights_of_rank_0 3 "${train[@]}" --set model=broken : "${train[@]}"
ranks weights_of_rank_1 3 "${train[@]}" : "${train[@]}" --set model=broken
# Local rank 0 cannot place the converted weights: files, and its memory is one, end at 8 KiB.
expected='graft: error: host memory: converted weights of 0 MiB cannot be placed (File too large)
  hint: give the job more memory, or a model saved in the dtype it computes with, which needs no copy
'
OMPI_MCA_btl=self,tcp ranks weights_that_rank_0_cannot_place 5 \
    bash -c 'trap "" XFSZ && ulimit -f 8 && exec "$@"' bash "${train[@]}" : "${train[@]}"

# ---- ranks that would compute different things ----
hint='  hint: every rank needs the same program, files and settings'
cp "$graft" other_graft
echo >>other_graft
expected="graft: error: start: rank 1 has another graft program than rank 0
$hint
"
ranks other_program 2 "${train[@]}" : "$work/other_graft" train run.yaml
# unequal NAME WHAT ARGUMENT...: as rank 1, beside the ordinary rank 0
unequal()
{
    expected="graft: error: start: rank 1 has $2 than rank 0
$hint
"
    ranks "$1" 2 "${train[@]}" : "${@:3}"
}
unequal other_model 'another model' env -C other_model "${train[@]}"
unequal other_tokenizer 'another tokenizer' env -C other_tokenizer "${train[@]}"
unequal other_train 'other training data' env -C other_train "${train[@]}"
unequal other_libraries 'other libraries (graft version tells which)' \
    env LD_PRELOAD="$libc" "${train[@]}"
unequal other_config 'another configuration' "${train[@]}" --set train.seed=7
if "$graft" version --json | grep -q '"isa":"v3"'; then
    echo 'SKIP other_isa: this CPU has v3 alone'
else
    unequal other_isa 'another CPU instruction set (GRAFT_ISA=v3 on all ranks makes them equal)' \
        env GRAFT_ISA=v3 "${train[@]}"
fi

# ---- evaluation ----
expected='graft: error: GRAFT_ISA: unknown instruction set (found v9, expected one of v4amx, v4bf16, v4, v3)
  hint: unset it to let graft choose
'
ranks eval_device_of_rank_0 2 env GRAFT_ISA=v9 "${eval[@]}" data.jsonl : "${eval[@]}" data.jsonl
expected='graft: error: nowhere/adapter_config.json: there is no such file (found nothing, expected a file)
  hint: check the path; a relative one starts at the working directory
'
ranks eval_adapter_of_rank_1 3 "${eval[@]}" data.jsonl : "${eval[@]}" data.jsonl --adapter nowhere
expected='graft: error: broken.jsonl:3: broken JSON in column 27 ('"'}'"' expected near end of file)
  hint: every line must hold one whole object, such as {"text": "..."}
'
ranks eval_data_of_rank_1 3 "${eval[@]}" data.jsonl : "${eval[@]}" broken.jsonl
expected='graft: error: ./model: cannot be written: a folder has this name
  hint: remove it or choose another place
'
ranks eval_dump_of_rank_0 2 "${eval[@]}" data.jsonl --dump model : "${eval[@]}" data.jsonl
expected='graft: error: start: rank 1 has other evaluation data than rank 0
  hint: every rank needs the same program, files and settings
'
ranks eval_other_data 2 "${eval[@]}" data.jsonl : "${eval[@]}" other.jsonl
for seed in 1 2; do
    "${train[@]}" --set output="run$seed" --set train.seed="$seed" 2>log
done
cp -r run1/adapter copy
expected=${expected/other evaluation data/another adapter}
eval+=(data.jsonl)
ranks eval_other_adapter 2 "${eval[@]}" --adapter run1/adapter : "${eval[@]}" --adapter run2/adapter
ranks eval_adapter_of_rank_1_alone 2 "${eval[@]}" : "${eval[@]}" --adapter copy
expected=''
ranks eval_equal_adapter 0 "${eval[@]}" --adapter run1/adapter : "${eval[@]}" --adapter copy

# ---- the rank that writes files is another one ----
# The launcher's pod, by its hostfile.  Files of rank 1 end at 12 KiB: its metrics and its report fail,
# and it says so itself.
launcher=(unshare -m bash -c 'mount -t tmpfs none /mnt && mkdir -p /mnt/etc/mpi /mnt/work &&
    touch /mnt/etc/mpi/hostfile &&
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc && exec "$@"' bash)
expected='graft: warning: metrics.jsonl gets no more metrics: out/metrics.jsonl: cannot be written (File too large)
graft: warning: report.html is not written: out/report.html: cannot be written: no space left below the limit on file sizes
'
if "${launcher[@]}" true 2>/dev/null; then
    OMPI_MCA_btl=self,tcp ranks warning_of_rank_1 0 "${train[@]}" --set train.max_steps=100 : \
        "${launcher[@]}" bash -c 'trap "" XFSZ && ulimit -f 12 && exec "$@"' bash \
        "${train[@]}" --set train.max_steps=100
else
    echo 'SKIP warning_of_rank_1: this user cannot mount a hostfile over /etc/mpi'
fi

printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" = 0 ] && [ "$cases" -gt 0 ]
