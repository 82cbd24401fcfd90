#!/usr/bin/env bash
# The programs of bench/ still run, on toys, and write their tables.  No number is looked at.
#   bench_smoke.sh GRAFT      exits 77 without the Python that tests/run.sh --with-peft makes
set -euo pipefail

if [ -z "${GRAFT_PEFT_PYTHON-}" ]; then
    echo 'skipped: GRAFT_PEFT_PYTHON is not set; tests/run.sh --with-peft makes it'
    exit 77
fi
graft=$(realpath "$1")
bench=$(realpath "$(dirname "$0")/../bench")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=(--graft "$graft" --rounds 1 --threads 1 --out "$work" --work "$work")

# table NAME ROWS: the Markdown has as many rows, headings included, and the JSON can be read
table()
{
    local file
    file=$(echo "$work/$1"-*.md)
    [ "$(grep -c '^| ' "$file")" -eq "$2" ] || {
        echo "FAIL $1: not $2 rows in"
        cat "$file"
        exit 1
    }
    python3 -m json.tool "${file%.md}.json" >/dev/null
    echo "ok   $1"
}

"$bench/peft_cpu" "${common[@]}" --tiny --case a --steps 1 --dtype f32 >/dev/null
table peft_cpu-a 6
"$bench/ops" "${common[@]}" --seconds 0.01 --only norm >/dev/null
table ops 4
"$bench/ops" "${common[@]}" --step --tiny --steps 1 --seconds 0.001 >/dev/null
table step 8
if [ -d "$bench/../../shared/fixtures" ]; then
    "$bench/start" "${common[@]}" --tiny >/dev/null
    table start 5
    "$bench/tokenize" "${common[@]}" --megabytes 0.1 >/dev/null
    table tokenize 5
fi
