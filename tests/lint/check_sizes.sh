#!/usr/bin/env bash
# Files of at most 600 lines, functions of at most 60; those named in long_functions.txt of 120.
# Over that, look for the second reason to change.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=files.sh
. "$(dirname "$0")/files.sh"
lint_start "$@"

file_limit=600
while read -r file; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt "$file_limit" ]; then
        violation "$file:$lines" "the file has $lines lines, at most $file_limit are allowed"
    fi
done < <(lint_files '*.c' '*.h' '*.cu' '*.cuh' '*.sh' '*.py' '*.cmake' '*CMakeLists.txt')

# clang-format puts a function's braces alone at the beginning of their lines.
mapfile -t sources < <(lint_files '*.c' '*.h' '*.cu' '*.cuh')
while IFS=: read -r place text; do
    violation "${place/@/:}" "$text"
done < <(awk -v long_functions=tests/lint/long_functions.txt '
    BEGIN {
        while ((getline line <long_functions) > 0)
            if (line !~ /^#/ && line != "")
                is_long[line] = 1
    }
    /^[A-Za-z_].*\(/ {
        name = $0
        if (name ~ /^TEST\(/)
            sub(/^TEST\(/, "", name)
        else
            sub(/\(.*/, "", name)
        sub(/\).*/, "", name)
        sub(/.*[ *]/, "", name)
    }
    /^\{$/ { begin = FNR }
    /^\}$/ && begin > 0 {
        limit = name in is_long ? 120 : 60
        lines = FNR - begin - 1
        if (lines > limit)
            printf "%s@%d:%s has %d lines, at most %d are allowed\n", FILENAME, begin, name, lines, limit
        begin = 0
    }
    FNR == 1 { begin = 0 }
' "${sources[@]}")
lint_end
