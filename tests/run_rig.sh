# Sourced by the tests that start, stop and kill whole runs: a tiny model and data in $work, and
#   train OUTPUT RANKS THREADS [ARG...]   one start under mpirun; its messages are in $log
#   hash_of OUTPUT                        SHA-256 of the finished adapter
#   pass / fail TEXT                      counted; `report` prints the sum and gives the exit code
# Needs $graft and $tool.
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
export XDG_CACHE_HOME=$work/cache
steps=30 passed=0 failed=0

"$tool" "$work/model" hidden_size=48 num_attention_heads=3 num_key_value_heads=1 head_dim=16 \
    intermediate_size=90 num_hidden_layers=2
for i in $(seq 1 60); do
    printf '{"text": "document %d %s"}\n' "$i" "$(printf 'w%d ' $(seq 1 $((i * 37 % 50 + 3))))"
done > "$work/data.jsonl"

train()
{
    # its own folder for mpirun's sessions: the end of another run removes a shared one
    OMPI_MCA_orte_tmpdir_base=$work/mpi-$1 mpirun -n "$2" --bind-to none --oversubscribe \
        "$graft" train /dev/null \
        --set device.dtype=f32 \
        --set model="$work/model" --set data.train="$work/data.jsonl" --set output="$work/$1" \
        --set data.max_length=256 --set lora.r=3 --set lora.lora_dropout=0.1 \
        --set train.micro_batches=3 --set train.max_steps=$steps --set train.learning_rate=1e-2 \
        --set train.save_steps=3 --set device.threads="$3" "${@:4}" > "$log" 2>&1
}
hash_of()
{
    sha256sum < "$work/$1/adapter/adapter_model.safetensors" | cut -d' ' -f1
}
pass()
{
    passed=$((passed + 1))
}
fail()
{
    failed=$((failed + 1))
    echo "FAIL $*"
    tail -20 "$log"
}
report()
{
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# The adapter every other way of getting there must equal.
train undisturbed 1 1 || { cat "$log"; exit 1; }
reference=$(hash_of undisturbed)
echo "undisturbed $reference"
