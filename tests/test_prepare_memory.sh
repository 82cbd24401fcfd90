#!/usr/bin/env bash
# graft data prepare streams: its peak memory for a file of 100 MB is that for one of 20 MB, and below
# 300 MB, in the cache and into a folder.
#   test_prepare_memory.sh GRAFT TOOL_RANDOM_MODEL TOOL_PEAK_MEMORY [MEGABYTES]
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2") peak=$(realpath "$3") large=${4-100}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
unset "${!OMPI_@}"
small=20 may_grow_kb=16384 most_kb=292968 failed=0

cd "$work"
mkdir model
"$tool" model hidden_size=16 intermediate_size=32 num_attention_heads=2 num_key_value_heads=1 \
    head_dim=8 num_hidden_layers=2

# data MEGABYTES: records of 50 to 1,000 bytes, no two the same.
data()
{
    awk -v bytes="$(($1 * 1000000))" 'BEGIN {
        for (made = i = 0; made < bytes; i++) {
            text = "record " i
            for (w = i % 97; w >= 0; w--) text = text " word" (i * w) % 9973
            made += printf_length("{\"text\": \"" text "\"}")
        }
    }
    function printf_length(line) { print line; return length(line) + 1 }'
}

# prepare MEGABYTES ARGUMENT...: the peak in KiB
prepare()
{
    "$peak" "$graft" data prepare /dev/null --set model=model --set data.train="$1.jsonl" \
        --set data.max_length=2048 "${@:2}" 2>log | tail -n 1
}

data "$small" >"$small.jsonl"
data "$large" >"$large.jsonl"
for place in cache folder; do
    arguments=()
    if [ "$place" = folder ]; then arguments=(-o folder); fi
    before=$(prepare "$small" "${arguments[@]}")
    after=$(prepare "$large" "${arguments[@]}")
    echo "$place: peak $before KiB for $small MB, $after KiB for $large MB"
    if [ $((after - before)) -ge "$may_grow_kb" ]; then
        echo "FAIL it grew by $((after - before)) KiB, expected less than $may_grow_kb"
        failed=1
    fi
    if [ "$after" -ge "$most_kb" ]; then
        echo "FAIL it takes $after KiB, expected less than $most_kb"
        failed=1
    fi
done
exit "$failed"
