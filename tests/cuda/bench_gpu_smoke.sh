#!/usr/bin/env bash
# bench/gpu from end to end: on the emulated GPU with toys, without time, and where there is no GPU.  That
# both programs did the same work is checked by their losses; no time is looked at.
#   bench_gpu_smoke.sh GRAFT PLUGIN      exits 77 without the Python that tests/run.sh --with-peft makes
set -euo pipefail

if [ -z "${GRAFT_PEFT_PYTHON-}" ]; then
    echo 'skipped: GRAFT_PEFT_PYTHON is not set; tests/run.sh --with-peft makes it'
    exit 77
fi
graft=$(realpath "$1") plugin=$(realpath "$2")
gpu=$(realpath "$(dirname "$0")/../../bench")/gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=(--graft "$graft" --threads 1 --out "$work" --work "$work")

fail()
{
    echo "FAIL $*"
    cat "$work/log"
    exit 1
}

# ends CODE ARG...: what bench/gpu does with them; its messages are in log, its results in out
ends()
{
    local code=0
    "$gpu" "${common[@]}" "${@:2}" >"$work/out" 2>"$work/log" || code=$?
    [ "$code" = "$1" ] || fail "bench/gpu ${*:2} ends with $code, expected $1"
}

# ---- without a plug-in there is no GPU: one line ----
GRAFT_CUDA_PLUGIN=none ends 5
[ "$(wc -l <"$work/log")" = 1 ] && [ ! -s "$work/out" ] || fail 'no GPU is not one line'
echo 'ok   no GPU'

# ---- all parts with toys ----
export GRAFT_CUDA_PLUGIN=$plugin
ends 0 --small --steps 3
python3 - "$work" <<'END' || fail 'the results are not as they should be'
import json, math, sys
from pathlib import Path

work = Path(sys.argv[1])
(path,) = work.glob("gpu-small-*.json")
found, text = json.loads(path.read_text()), path.with_suffix(".md").read_text()
assert "EMULATION" in text.splitlines()[0] and found["about"]["emulated"]
assert [(row["model"], row["tokens"]) for row in found["steps"]] == [
    ("a tiny Llama", 128), ("a tiny Llama", 64), ("a tiny Qwen2", 64)
]
for row in found["steps"]:
    graft, peft = row["graft"], row["peft"]
    assert len(graft["blocks_seconds"]) == 2, "graft, PEFT, graft"
    assert graft["seconds"] > 0 and peft["seconds"] > 0 and row["ratio"] > 0
    # B is zero, so the adapter does not show in the first loss: it is the base's, and the document's
    assert abs(graft["first_loss"] - peft["first_loss"]) < 5e-5 * peft["first_loss"], row
    assert abs(peft["first_loss"] - math.log(1536)) < 0.5, row
    assert f"| {row['model']}, {row['tokens']} |" in text
tried = [one["setting"] for one in found["steps"][0]["peft_tried"] if "seconds" in one]
assert len(tried) == 2 and any("checkpointing" in name for name in tried), tried
ops = [op["op"] for op in found["ops"]["ops"]]
assert "failed" not in found["ops"] and len(ops) == len(set(ops)) == 47, (len(ops), found["ops"])
assert all(op["share"] > 0 and op["ms"] > 0 for op in found["ops"]["ops"])
assert len(found["torch_products"]["products"]) == 2 and found["ceiling_tera_flop_per_s"] > 0
assert any("linear layers, backward" in line for line in found["profile"]["lines"])
assert "alone:" in text and "doctor --device cuda" in text
END
echo 'ok   small'

# ---- no time: every shape is left out with the reason ----
ends 0 --small --minutes 0 --only steps
[ "$(grep -c '^| .* | skipped: no more time |' "$work"/gpu-small-*.md)" = 3 ] || fail 'no time is not told'
echo 'ok   no time'

# ---- counted work ----
if [ -x "$(dirname "$graft")/bench_gpu_model" ]; then
    ends 0 --model
    grep -q '^| ' "$work/out" || fail 'there is no table of counted work'
else
    ends 2 --model
    grep -q 'there is no bench_gpu_model' "$work/log" || fail 'the program that counts is not named'
fi
echo 'ok   model'
