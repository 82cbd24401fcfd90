#!/usr/bin/env bash
# Runs a test that is written in Python, with the interpreter that tests/run.sh prepares.
#   peft.sh SCRIPT.py ARG...     exits 77 where there is no such interpreter
set -euo pipefail

if [ -z "${GRAFT_PEFT_PYTHON-}" ]; then
    echo 'skipped: GRAFT_PEFT_PYTHON is not set; tests/run.sh --with-peft makes it'
    exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
export KUBEFLOW_TRAINER_OPT_DEVICE_DTYPE=f32 # as PEFT computes here; where bf16 is meant, it is said
exec "$GRAFT_PEFT_PYTHON" -W ignore "$(dirname "$0")/$1" "${@:2}"
