#!/usr/bin/env bash
# graft tokenize with a tokenizer of four tokens: texts as a file, from stdin, by line; back to text;
# and what it refuses.  Usage: test_tokenize.sh PATH/TO/graft
set -euo pipefail

graft=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cases=0
failures=0

cat >tokenizer.json <<'JSON'
{"version": "1.0", "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false}],
 "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Fuse"},
 "post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
 "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "é": 2, "\n": 3}, "merges": []}}
JSON

# expect NAME EXIT_CODE STDOUT STDERR ARGUMENT...: what graft tokenize makes of the file `input`.
expect()
{
    local name=$1 want_code=$2 want_out=$3 want_err=$4 code=0
    shift 4
    cases=$((cases + 1))
    "$graft" tokenize --model . "$@" <input >out 2>err || code=$?
    # shellcheck disable=SC2053 # want_err is a pattern
    if [ "$code" != "$want_code" ] || [ "$(cat out)" != "$want_out" ] ||
        ! [[ $(head -n 1 err) == $want_err ]]; then
        printf 'FAIL %s: exit code %s, stdout and stderr:\n' "$name" "$code"
        cat out err
        failures=$((failures + 1))
    fi
}

printf 'aé\na\n' >input
expect stdin_is_one_text 0 '[0, 1, 2, 3, 1, 3]' ''
expect dash_is_stdin 0 '[1, 2, 3, 1, 3]' '' --no-specials -
cp input text
: >input
expect nothing_is_a_text 0 '[0]' ''
expect file_is_one_text 0 '[0, 1, 2, 3, 1, 3]' '' text
expect empty_list 0 '[]' '' --no-specials

printf '{"text": "a\\n"}\n\n{"id": 7, "text": ""}\n{"text": "<s>a"}' >input
expect one_array_for_each_line 0 $'[0, 1, 3]\n[0]\n[0, 0, 1]' '' --jsonl
expect no_specials_leaves_those_of_the_text 0 $'[1, 3]\n[]\n[0, 1]' '' --jsonl --no-specials

printf '[0, 1, 2, 3]\n[]\n' >input
expect decode_prints_strings 0 $'"<s>aé\\n"\n""' '' --decode
expect decode_without_specials 0 $'"aé\\n"\n""' '' --decode --no-specials

printf '[1]\n[4]\n' >input
expect unknown_id 3 '"a"' 'graft: error: stdin:2: *has no token 4 *' --decode
printf '[1, -1]\n' >input
expect negative_id 3 '' 'graft: error: stdin:1: element 1 is not an id *' --decode
printf '{}' >input
expect no_list 3 '' 'graft: error: stdin:1: *' --decode
expect no_text 3 '' 'graft: error: stdin:1: *' --jsonl
printf '{"text": "a"}\n{"text"' >input
expect no_json 3 '[0, 1]' 'graft: error: stdin:2: *' --jsonl
printf '1e999' >input
expect number_beyond 3 '' 'graft: error: stdin:1: the number that ends in column 5 does not fit (*' --jsonl
printf 'a\377' >input
expect no_utf8 3 '' 'graft: error: stdin: text: is not valid UTF-8 at byte 1 *'
expect no_file 3 '' 'graft: error: nothing: *' nothing
expect directory 3 '' 'graft: error: .: *' .
expect jsonl_and_decode 2 '' 'graft: error: --jsonl: *' --jsonl --decode

# More lines than a batch holds come out in their order, whatever the threads.
as=aaaaaaa
for ((i = 0; i < 1500; i++)); do
    printf '{"text": "%s"}\n' "${as:0:i % 7}"
done >input
"$graft" tokenize --model . --jsonl --threads 1 <input >one
for threads in 2 3 5; do
    expect "threads_$threads" 0 "$(cat one)" '' --jsonl --threads "$threads"
done
[ "$(sort -u one | wc -l)" -eq 7 ] || {
    printf 'FAIL threads: the lines are not different\n'
    failures=$((failures + 1))
}
printf '{"text": 1}\n' >>input
expect bad_last_line 3 "$(cat one)" 'graft: error: stdin:1501: *' --jsonl --threads 3

printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" -eq 0 ]
