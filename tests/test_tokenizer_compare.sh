#!/usr/bin/env bash
# The short form of tokenizer_compare.py; by hand it takes --full.
# Usage: test_tokenizer_compare.sh PATH/TO/tokenizer_dump
set -euo pipefail

if [ ! -x "${GRAFT_PEFT_PYTHON-}" ]; then
    printf 'skipped: GRAFT_PEFT_PYTHON names no python with tokenizers\n'
    exit 77
fi
exec "$GRAFT_PEFT_PYTHON" "$(dirname "$0")/tokenizer_compare.py" "$1"
