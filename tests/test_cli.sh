#!/usr/bin/env bash
# The program as a user meets it: exit code, stdout and stderr of help, of wrong arguments, and of
# the commands config and version.  Usage: test_cli.sh PATH/TO/graft
set -euo pipefail

graft=$1
[ -x "$graft" ] || { echo "test_cli.sh: $graft is not there" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_@}"
failures=0
cases=0

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

# expect NAME EXIT_CODE ARGUMENT...: runs graft; what it prints must equal want_out and want_err,
# which are empty unless set before; "*" is anything.
expect()
{
    local name=$1 want_code=$2 code=0
    shift 2
    cases=$((cases + 1))
    "$graft" "$@" >out 2>err || code=$?
    if [ "$code" != "$want_code" ]; then
        fail "$name: exit code $code, expected $want_code"
    fi
    if [ "${want_out-}" != '*' ] && ! diff -u <(printf '%s' "${want_out-}") out; then
        fail "$name: stdout differs"
    fi
    if ! diff -u <(printf '%s' "${want_err-}") err; then
        fail "$name: stderr differs"
    fi
    unset want_out want_err
}

# slurp VARIABLE FILE: the whole file, with its last newline.
slurp()
{
    local text
    text=$(cat "$2" && printf .)
    printf -v "$1" '%s' "${text%.}"
}

# A line of the last stdout.
expect_line()
{
    if ! grep -qxF -- "$2" out; then
        fail "$1: stdout has no line \"$2\""
    fi
}

# ---- help ----
want_out='*'
expect help_lists_the_commands 0 --help
expect_line help_lists_the_commands 'usage: graft COMMAND [ARGUMENT]...'
expect_line help_lists_the_commands \
    '  version      print the version, the commit and the libraries'
cp out help
for form in help -h; do
    slurp want_out help
    expect "help_by_$form" 0 "$form"
done
slurp want_err help
expect no_command_prints_the_help_and_fails 2

# Every command listed explains itself, in both ways.
sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' help >commands
while read -r command; do
    want_out='*'
    expect "${command}_help" 0 "$command" --help
    if ! head -n 1 out | grep -q "^usage: graft $command"; then
        fail "${command}_help: no usage line"
    fi
    slurp want_out out
    expect "help_${command}" 0 help "$command"
done <commands

# ---- wrong arguments ----
want_err='graft: error: unknown command confg
  hint: did you mean graft config?
'
expect unknown_command_suggests_the_nearest 2 confg
want_err='graft: error: unknown command frobnicate
  hint: graft --help lists the commands
'
expect unknown_command_without_a_neighbour 2 frobnicate
want_err='graft: error: unknown command frobnicate
  hint: graft --help lists the commands
'
expect help_of_an_unknown_command 2 help frobnicate
want_err='graft: error: version: unknown option --jsno
  hint: did you mean --json?
'
expect unknown_option_suggests_the_nearest 2 version --jsno
want_err='graft: error: version: too many arguments (found now, expected options alone)
  hint: usage: graft version [--json] [--failpoints]
'
expect superfluous_argument 2 version now
want_err='graft: error: config: --set has no value (found nothing, expected KEY=VALUE)
  hint: a value that begins with -- is given as --set=VALUE
'
expect option_without_its_value 2 config --set

# ---- version ----
want_out='*'
expect version_prints_a_table 0 version
for name in graft commit compiler isa libc mpi openssl jansson libyaml; do
    if ! grep -Eq "^$name +[^ ]" out; then
        fail "version_prints_a_table: no $name"
    fi
done
cp out table
slurp want_out table
expect version_by_option 0 --version
want_out='*'
expect version_as_json 0 version --json
if ! [[ $(cat out) =~ ^\{\"graft\":\"[0-9.]+\",\"commit\":\"[^\"]+\",.*\}$ ]]; then
    fail 'version_as_json: not that JSON'
fi
if [ "$(wc -l <out)" != 1 ]; then
    fail 'version_as_json: not one line'
fi

# ---- failpoints ----
want_out='*'
expect version_lists_the_failpoints 0 version --failpoints
for name in micro_batch manifest.before store.op; do
    if ! grep -Eq "^$name +[a-z]" out; then
        fail "version_lists_the_failpoints: no $name"
    fi
done
want_err='graft: error: GRAFT_FAIL: unknown failpoint store.opp
  hint: did you mean store.op?
'
GRAFT_FAIL=store.opp:0:kill expect bad_failpoint 2 version

# ---- config ----
want_out='*'
expect config_without_a_file_explains_every_key 0 config
expect_line config_without_a_file_explains_every_key '  # rank of the adapters (an integer in [1, 65536])'
expect_line config_without_a_file_explains_every_key '  r: 16'
cp out defaults.yaml

want_out='*'
expect config_of_its_own_output_is_the_defaults 0 config defaults.yaml
if ! diff <(grep -v -e '^ *#' -e '^$' defaults.yaml) out; then
    fail config_of_its_own_output_is_the_defaults
fi

cat >run.yaml <<'YAML'
model: models/m
output: runs/first
data: {train: [a.jsonl]}
lora: {r: 4, lora_alpha: 4}
YAML
want_out='*'
export KUBEFLOW_TRAINER_OPT_LORA_ALPHA=8 KUBEFLOW_TRAINER_OPT_R=8
expect config_resolves_file_environment_and_set 0 config run.yaml --set lora.r=16 \
    --set=data.train=b.jsonl,c.jsonl
unset KUBEFLOW_TRAINER_OPT_LORA_ALPHA KUBEFLOW_TRAINER_OPT_R
expect_line config_resolves_file_environment_and_set 'model: models/m'
expect_line config_resolves_file_environment_and_set '  train: [b.jsonl, c.jsonl]'
expect_line config_resolves_file_environment_and_set '  r: 16'
expect_line config_resolves_file_environment_and_set '  lora_alpha: 8'
expect_line config_resolves_file_environment_and_set \
    '# device.dtype: auto is chosen once the model can be read'

golden=$GRAFT_SOURCE_DIR/tests/golden/llama
want_out='*'
GRAFT_ISA=v3 expect config_says_what_auto_is 0 config --set model="$golden" --set output=kept
expect_line config_says_what_auto_is \
    '# device.dtype: auto is f32 here; a run keeps what it began with'
mkdir kept
echo '{"dtype": "bf16"}' >kept/run.json
want_out='*'
expect config_says_what_the_run_began_with 0 config --set model="$golden" --set output=kept
expect_line config_says_what_the_run_began_with \
    '# device.dtype: auto is bf16 here; a run keeps what it began with'

printf 'model: m\nlora:\n  r: 0\n' >bad.yaml
want_err='graft: error: bad.yaml:3: lora.r is out of range (found 0, expected an integer in [1, 65536])
  hint: graft config prints every key with what it takes
'
expect config_of_a_bad_file 2 config bad.yaml
want_err='graft: error: missing.yaml: the configuration cannot be read (found nothing, expected a file)
  hint: name the YAML file of the run
'
expect config_of_a_missing_file 2 config missing.yaml

# ---- output that cannot be written, and ranks ----
code=0
"$graft" version >/dev/full 2>err || code=$?
cases=$((cases + 1))
if [ "$code" != 2 ] || ! grep -qx 'graft: error: stdout: the output cannot be written' err; then
    fail full_disk_is_no_success
fi
want_err='graft: error: unknown command x
  hint: graft --help lists the commands
'
OMPI_COMM_WORLD_RANK=0 expect first_rank_speaks 2 x
want_err='graft: error: rank 1: unknown command x
  hint: graft --help lists the commands
'
OMPI_COMM_WORLD_RANK=1 expect another_rank_that_nobody_ends_speaks_too 2 x

printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" -eq 0 ]
