#!/usr/bin/env bash
# A short run of tokenizer_vs_hf.py; by hand it takes more strings.
# Usage: test_tokenizer_vs_hf.sh PATH/TO/tokenizer_dump
set -euo pipefail

if [ ! -x "${GRAFT_PEFT_PYTHON-}" ]; then
    printf 'skipped: GRAFT_PEFT_PYTHON names no python with tokenizers\n'
    exit 77
fi
export TOKENIZERS_PARALLELISM=false
exec "$GRAFT_PEFT_PYTHON" "$(dirname "$0")/tokenizer_vs_hf.py" "$1" --strings 200 --share 0.002
