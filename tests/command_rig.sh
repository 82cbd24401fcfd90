# Sourced by the tests of one command, before they look at anything: the working directory is an
# empty folder of their own, $work, which is removed at the end; the cache is in it, and nothing that
# graft reads is left of the caller's environment.
#   fail TEXT      counted in $failures
#   report         prints their number, and gives the exit code
#   lines COUNT WORDS
#                  as many documents, of so many words, as JSONL
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export XDG_CACHE_HOME=$work/cache OMP_WAIT_POLICY=passive
unset "${!KUBEFLOW_TRAINER_OPT_@}" "${!OMPI_COMM_@}"
failures=0

fail()
{
    printf 'FAIL %s\n' "$1"
    failures=$((failures + 1))
}

report()
{
    echo "$failures failures"
    [ "$failures" = 0 ]
}

lines()
{
    awk -v count="$1" -v words="$2" 'BEGIN {
        for (i = 0; i < count; i++) {
            text = "";
            for (w = 0; w < words; w++) text = text " w" (i * w) % 97
            print "{\"text\": \"" text "\"}"
        }
    }'
}
