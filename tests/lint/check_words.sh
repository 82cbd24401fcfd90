#!/usr/bin/env bash
# No promises of later work in the source, and no path of the machine it was written on.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=files.sh
. "$(dirname "$0")/files.sh"
lint_start "$@"

# The brackets keep the patterns from finding themselves.
mapfile -t written < <(lint_files '*.c' '*.h' '*.cu' '*.cuh' '*.sh' '*.py' '*.cmake' '*CMakeLists.txt' \
    '*.md' '*.yaml' '*.yml' '.*')
mapfile -t all < <(lint_files)
violations_of 'finish it, or leave it out' < <(
    grep -IHnwE 'TO[D]O|FI[X]ME|XX[X]' "${written[@]}"
)
violations_of 'a path of one machine' < <(
    grep -IHnE '(^|[^A-Za-z0-9_.}])/(wor[k]|roo[t])/' "${all[@]}"
)
lint_end
