#!/usr/bin/env bash
# From a fresh clone to a fine-tuned model: installs what is missing, builds graft, fine-tunes the
# demo model with two processes and shows what it learned. Debian 12; needs no GPU.
# Writes to build/, runs/ and the cache (~/.cache/graft). Run again, it finds the finished adapter and shows it.
set -euo pipefail
cd "$(dirname "$0")/.."

ranks=2
graft=build/release/bin/graft
model=data/demo/model
run=runs/demo
log=build/quickstart.log
question="Please send Mira three apples, a jar of honey and half a dozen candles on Friday."

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say()
{
    printf '\n%s%s%s\n' "$bold" "$1" "$plain"
}

failed()
{
    tail -n 40 "$log" >&2
    echo "quickstart.sh: '$*' failed; its whole output is in $log" >&2
    exit 1
}

# quietly COMMAND...: shows the output only if the command fails.
quietly()
{
    "$@" > "$log" 2>&1 || failed "$@"
}

# answer [--adapter DIR]: what the model says to the question.
answer()
{
    "$graft" generate --model "$model" "$@" --chat --prompt "$question" --max-new-tokens 48 \
        2> "$log" | sed 's/^/    /' || failed graft generate
}

# Slots that mpirun sees are physical cores, not hardware threads.
cores()
{
    local physical usable
    usable=$(nproc)
    physical=$(lscpu -p=CORE,SOCKET 2> /dev/null | grep -v '^#' | sort -u | wc -l) || physical=0
    echo $((physical > 0 && physical < usable ? physical : usable))
}

say "1. Packages"
launch/install.sh
echo "All there."

say "2. Build"
mkdir -p build
quietly cmake --preset release
quietly cmake --build --preset release --target graft
"$graft" version | sed -n '1,4p'

say "3. Before: the base model, asked"
echo "    ${dim}$question${plain}"
answer

say "4. Fine-tuning on $(wc -l < data/demo/train.jsonl) conversations, $ranks processes"
mpirun=(mpirun -n "$ranks" --bind-to none)
if [ "$(cores)" -lt "$ranks" ]; then mpirun+=(--oversubscribe); fi
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
"${mpirun[@]}" "$graft" train data/demo/run.yaml

say "5. After: the same question, with the adapter"
echo "    ${dim}$question${plain}"
answer --adapter "$run/adapter"

say "6. The loss on the way"
sed -n 's/.*"step": *\([0-9]*\).*"train_loss": *\([0-9.eE+-]*\).*/\1 \2/p' "$run/metrics.jsonl" |
    awk '
        { step[NR] = $1; loss[NR] = $2; top = $2 > top ? $2 : top }
        END {
            full = "##################################################"
            for (i = 1; i <= NR; i++)
                printf "    step %4d  loss %7.4f  %s\n", step[i], loss[i],
                    substr(full, 1, 1 + length(full) * loss[i] / top)
        }'

say "Done"
cat << END
    adapter   $run/adapter (a PEFT adapter)
    report    $run/report.html (open it in a browser)
    metrics   $run/metrics.jsonl
    ask it    $graft generate --model $model \\
                  --adapter $run/adapter --chat --prompt "..."
    yours     $graft init MODEL DATA.jsonl, then $graft train run.yaml
END
