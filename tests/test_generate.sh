#!/usr/bin/env bash
# graft generate on the demo model: what the options do to the text.  Usage: test_generate.sh GRAFT
set -euo pipefail
graft=$(realpath "$1")
model=$GRAFT_SOURCE_DIR/data/demo/model
XDG_CACHE_HOME=$(mktemp -d)
export XDG_CACHE_HOME OMP_WAIT_POLICY=passive
trap 'rm -rf "$XDG_CACHE_HOME"' EXIT
failures=0

# text TOKENS ARGUMENT...: what follows the prompt
text()
{
    "$graft" generate --model "$model" --prompt "The keeper of the shop" --max-new-tokens "$@" \
        2>"$XDG_CACHE_HOME/err" | tr -d '\0' || cat "$XDG_CACHE_HOME/err" >&2
}

# check NAME LEFT OPERATOR RIGHT
check()
{
    if ! test "$2" "$3" "$4"; then
        printf 'FAIL %s: "%s" %s "%s"\n' "$1" "$2" "$3" "$4"
        failures=$((failures + 1))
    fi
}

greedy=$(text 30)
check greedy_is_a_text "${#greedy}" -gt 30
check greedy_twice "$greedy" = "$(text 30)"
check seed_does_not_matter_to_greedy "$greedy" = "$(text 30 --seed 7)"
check top_p_0_is_greedy "$greedy" = "$(text 30 --temperature 2 --top-p 0)"
check cold_is_greedy "$greedy" = "$(text 30 --temperature 0.00001)"

warm=$(text 30 --temperature 1.5)
check warm_is_another_text "$warm" != "$greedy"
check same_seed_same_text "$warm" = "$(text 30 --temperature 1.5 --seed 42)"
check other_seed_other_text "$warm" != "$(text 30 --temperature 1.5 --seed 43)"
check threads_do_not_matter "$warm" = "$(text 30 --temperature 1.5 --set device.threads=3)"

few=$(text 5)
check fewer_tokens_are_the_beginning "${greedy#"$few"}" != "$greedy"
few=$(text 30 --set data.max_length=12)
check positions_are_an_end "${greedy#"$few"}" != "$greedy"
text 30 --set data.max_length=12 >"$XDG_CACHE_HOME/out"
grep -q 'the text ends here: all 12 positions are taken' "$XDG_CACHE_HOME/err" ||
    check positions_end_is_told said = nothing

# refused MESSAGE HINT ARGUMENT...
refused()
{
    local code=0
    "$graft" generate --model "$model" "${@:3}" >"$XDG_CACHE_HOME/out" 2>"$XDG_CACHE_HOME/err" || code=$?
    check "code_of: $1" "$code" = 2
    check "no_text: $1" "$(wc -c <"$XDG_CACHE_HOME/out")" = 0
    check message "$(cat "$XDG_CACHE_HOME/err")" = "graft: error: $1"$'\n'"  hint: $2"
}
for prompt in $'\xff' $'a\xff'; do
    for chat in '' --chat; do
        refused "--prompt: bad UTF-8 (found byte 0xff as byte ${#prompt} of the text, expected a character)" \
            'give it in UTF-8: what it comes from, a file or the terminal, has another encoding' \
            --prompt "$prompt" $chat
    done
done
options='graft generate --help lists its options'
refused 'generate: --max-new-tokens is wrong (found 0, expected an integer from 1 to 1000000)' \
    "$options" --prompt x --max-new-tokens 0
for value in -1 nan 1e30; do
    refused "generate: --temperature is wrong (found $value, expected a number from 0 to 100)" \
        "$options" --prompt x --temperature "$value"
done

# With an end of text that never comes, an answer still ends with its turn, a continuation does not.
cp -r "$model" "$XDG_CACHE_HOME/model"
model=$XDG_CACHE_HOME/model
sed -i 's/"eos_token_id": 2/"eos_token_id": 1387/' "$model/config.json"
sed -i 's/"eos_token": "<|im_end|>"/"eos_token": null/' "$model/tokenizer_config.json"
# At this temperature every token is as likely, and with this seed the turn's end comes early.
answer=$(text 200 --chat --temperature 100 --seed 32)
check chat_is_an_answer "${#answer}" -gt 5
check chat_answer_ends_with_its_turn "$answer" = "$(text 400 --chat --temperature 100 --seed 32)"
long=$(text 200 --temperature 100 --seed 32)
check text_goes_on "${#long}" -gt "${#answer}"

printf '%d failures\n' "$failures"
[ "$failures" = 0 ]
