#!/usr/bin/env bash
# Runs a fuzz target: its corpus, which holds what once broke it, then inputs of its own making.
#   run.sh TARGET [SECONDS]     TARGET: build/fuzz/bin/fuzz_safetensors, ...; 5 seconds by default
# An input that breaks it stays in TARGET.crash; `TARGET TARGET.crash` runs it again.
set -euo pipefail
target=$1 seconds=${2-5}
here=$(cd "$(dirname "$0")" && pwd)
unit=${target##*/fuzz_}
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

options=(-seed=1 -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=32768)
options+=(-print_final_stats=1 -exact_artifact_path="$target.crash")
if [ -f "$here/$unit.dict" ]; then
    options+=(-dict="$here/$unit.dict")
fi
rm -f "$target.crash"
# New inputs go to the first folder; the corpus that is kept is only read.
"$target" "${options[@]}" "$found" "$here/corpus/$unit" 2>&1 | grep -Ev '^#[0-9]+.*(NEW|REDUCE|pulse)|^NEW_FUNC'
