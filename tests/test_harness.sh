#!/usr/bin/env bash
# The test harness tested: a failing assert fails, a case without asserts fails, a skip is a skip, a
# crash fails.  Usage: test_harness.sh PATH/TO/harness_cases
set -euo pipefail

program=$1
failures=0
cases=0

# expect NAME EXIT_CODE TEXT...: runs that case alone; every text must stand in what it prints.
expect()
{
    local name=$1 want_code=$2 code=0 output
    shift 2
    cases=$((cases + 1))
    output=$("$program" "$name" 2>&1) || code=$?
    if [ "$code" != "$want_code" ]; then
        printf 'FAIL %s: exit code %s, expected %s\n%s\n' "$name" "$code" "$want_code" "$output"
        failures=$((failures + 1))
    fi
    for text in "$@"; do
        if [[ $output != *"$text"* ]]; then
            printf 'FAIL %s: does not say "%s", but\n%s\n' "$name" "$text" "$output"
            failures=$((failures + 1))
        fi
    done
}

expect passes 0 'ok   passes' '1 passed, 0 failed, 0 skipped'
expect fails_by_assert 1 'harness_cases.c:25: 1 + 1 == 3 does not hold' '0 passed, 1 failed, 0 skipped'
expect fails_by_int 1 'INT64_MIN is -9223372036854775808, expected 9223372036854775807'
expect fails_by_text 1 '"found", expected' '"expected"'
expect fails_by_near 1 '1.0 is 1, expected 1.2'
expect fails_by_nan 1 'FAIL fails_by_nan'
expect fails_by_status 1 'failed: file: it is broken'
expect fails_in_the_middle 1 'false does not hold'
expect fails_without_assert 1 'fails_without_assert:0: the case made no assertion'
expect skips 77 'skipped: there is no GPU here' 'skip skips' '0 passed, 0 failed, 1 skipped'
expect skips_after_an_assert 77 'skipped: the rest needs a GPU'
expect crashes 1 'ended by signal 6' 'FAIL crashes'
expect ends_itself 1 'FAIL ends_itself'
expect no_such_case 1 '0 passed, 0 failed, 0 skipped'

# All together: the bad ones do not keep the others from running, and the whole fails.
cases=$((cases + 1))
code=0
output=$("$program" 2>&1) || code=$?
if [ "$code" != 1 ] || [[ $output != *'ok   passes_too'*'FAIL crashes'*'2 passed, 10 failed, 2 skipped' ]]; then
    printf 'FAIL all: exit code %s\n%s\n' "$code" "$output"
    failures=$((failures + 1))
fi
if [[ $output == *'went on'* ]]; then
    printf 'FAIL fails_in_the_middle: went on after a failed assert\n'
    failures=$((failures + 1))
fi

printf '%d cases, %d failures\n' "$cases" "$failures"
[ "$failures" -eq 0 ]
