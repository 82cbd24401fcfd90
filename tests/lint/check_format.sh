#!/usr/bin/env bash
# Every source is as clang-format leaves it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=files.sh
. "$(dirname "$0")/files.sh"
lint_start "$@"

if ! command -v clang-format >/dev/null; then
    echo 'skipped: clang-format is not installed'
    exit 77
fi
mapfile -t sources < <(lint_files '*.c' '*.h' '*.cu' '*.cuh')
violations_of 'clang-format would change this line' < <(
    clang-format --dry-run "${sources[@]}" 2>&1 | grep -E '^[^ ]+:[0-9]+:[0-9]+: '
)
lint_end
