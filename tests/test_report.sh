#!/usr/bin/env bash
# report.html of real runs: finished, killed, damaged; what it holds, and that it reaches nowhere else.
#   test_report.sh GRAFT TOOL_RANDOM_MODEL
set -euo pipefail
graft=$(realpath "$1") tool=$(realpath "$2")
. "$(dirname "$0")/command_rig.sh"

# has NAME FILE TEXT, lacks NAME FILE TEXT
has() { grep -qF -- "$3" "$2" || fail "$1: '$3' is not in $2"; }
lacks() { ! grep -qiE -- "$3" "$2" || fail "$1: '$3' is in $2: $(grep -ioE -m1 -- ".{0,40}$3.{0,40}" "$2")"; }

# page NAME FILE: well-formed, and it asks for nothing from elsewhere.
page()
{
    if command -v xmllint >/dev/null; then
        xmllint --noout "$2" 2>err || fail "$1: $(head -n 3 err)"
    elif command -v python3 >/dev/null; then
        python3 -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' "$2" 2>err ||
            fail "$1: $(tail -n 1 err)"
    fi
    lacks "$1" "$2" '<script|<link|<img|<iframe|src=|href=|url\(|@import'
    sed 's|xmlns="http://www.w3.org/2000/svg"||g' "$2" >bare
    lacks "$1" bare 'https?://'
    lacks "$1" "$2" 'nan|[^a-z]inf[^a-z]'
}

tool_options=(hidden_size=32 intermediate_size=64 num_attention_heads=2 num_key_value_heads=1 head_dim=16)
mkdir 'mo<b>&del'
"$tool" 'mo<b>&del' "${tool_options[@]}"
for ((i = 0; i < 30; i++)); do
    printf '{"prompt": "Question %d <script>alert(1)</script> & \\"co\\"", "completion": "<i>answer</i> %d"}\n' "$i" "$i"
done >data.jsonl
train()
{
    "$graft" train /dev/null --set "model='mo<b>&del'" --set data.train=data.jsonl \
        --set data.max_length=128 --set lora.r=2 --set train.micro_batches=2 \
        --set train.learning_rate=1e-2 --set train.save_steps=4 --set device.threads=2 \
        --set output="$1" "${@:2}" 2>log
}

# ---- a finished run writes it ----
train 'run<i>' --set train.max_steps=12 --set data.eval_split=0.2 --set train.eval_steps=5 ||
    fail "finished: $(tail -n 3 log)"
finished='run<i>/report.html'
has finished log 'graft: report: run<i>/report.html'
page finished "$finished"
for text in '<h1>run&lt;i&gt;</h1>' 'finished</span> after step 12 of 12' 'training loss' \
    'best evaluation loss' '<b>Loss</b>' '<b>Learning rate</b>' '<b>Throughput</b>' 'tokens/s' \
    'Prompts from the evaluation documents' 'before: base model' 'after: with the adapter' \
    'mo&lt;b&gt;&amp;del' '24 documents' '6 documents' 'data.jsonl' 'r 2, alpha 32' \
    '&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;co&quot;' '&lt;i&gt;answer&lt;/i&gt;' \
    '<td>cpu ' 'max_length: 128' 'Written by graft '; do
    has finished "$finished" "$text"
done
[ "$(grep -c '<svg' "$finished")" = 4 ] || fail "finished: $(grep -c '<svg' "$finished") charts"
[ "$(grep -c 'class="sample"' "$finished")" = 3 ] || fail "finished: not three samples"
[ "$(grep -c 'class="line l1"' "$finished")" = 1 ] || fail "finished: no line of evaluations"

texts() { tr '\n' ' ' <"$finished" | grep -o "$1</h3><pre>[^<]*" | sed 's/.*<pre>//'; }
cmp -s <(texts 'base model') <(texts 'with the adapter') && fail "finished: the adapter changes nothing"

# The command writes the same, but for the time: also the samples, from the exported adapter.
same() { sed -E 's/, [0-9-]+ [0-9:]+ UTC\.<\/footer>//' "$1"; }
cp "$finished" first.html
"$graft" report 'run<i>' >out 2>err || fail "report: $(cat err)"
has report out 'run<i>/report.html'
cmp <(same first.html) <(same "$finished") || fail "graft report differs from the end of the run"

# ---- what a run without evaluation, samples, or a place for the page does ----
mkdir -p blocked/report.html/full
train blocked --set train.max_steps=3 --set train.report_samples=0 || fail "blocked: exit code $?"
has blocked log 'warning: report.html is not written'
[ -f blocked/done.json ] || fail "blocked: the run is not finished"
"$graft" report blocked -o page.html --samples 0 >out 2>err || fail "blocked: $(cat err)"
page blocked page.html
lacks blocked page.html 'evaluation|<h2>Samples'
has blocked page.html 'finished</span> after step 3 of 3'
train none --set train.max_steps=3 --set train.report_samples=0 || fail "none: $(tail -n 3 log)"
lacks none none/report.html '<h2>Samples'

# done.json alone tells how far a finished run came, and a file may hold any numbers.
cp -r none lost
rm lost/metrics.jsonl
"$graft" report lost >out 2>err || fail "lost: $(cat err)"
has lost lost/report.html 'finished</span> after step 3 of 3'
lacks lost lost/report.html 'early stopping'
for value in 5e-324 1e-310 9.9e29 -9e29; do
    sed "2~2s/\"\(train_loss\|tokens_per_s\|step_time_ms\|train_tokens\)\": *[0-9.e+-]*/\"\1\": $value/g" none/metrics.jsonl >lost/metrics.jsonl
    grep -qF "\"train_loss\": $value" lost/metrics.jsonl || fail "$value: not in the metrics"
    timeout 20 "$graft" report lost >out 2>err || fail "$value: $(cat err)"
    page "$value" lost/report.html
    lacks "$value" lost/report.html '223,372,036'
done

# ---- a killed run, taken up again, killed again ----
GRAFT_FAIL='save.durable@2:0:kill' train killed --set train.max_steps=40 2>/dev/null && fail "no kill"
[ ! -e killed/report.html ] || fail "killed: there is a page already"
GRAFT_FAIL='save.durable@1:0:kill' train killed --set train.max_steps=40 2>/dev/null && fail "no kill"
cp -a killed damaged
sums() { find . -type f ! -path './cache/*' ! -name sums_\* ! -name changed ! -name out ! -name err -print0 | sort -z | xargs -0 sha256sum; }
sums >sums_before
"$graft" report killed >out 2>err || fail "killed: $(cat err)"
sums >sums_after
diff sums_before sums_after >changed || true
[ "$(grep '^[<>]' changed | sed 's/^\(.\) [0-9a-f]*  /\1 /')" = '> ./killed/report.html' ] ||
    fail "killed: other files changed: $(cat changed)"
page killed killed/report.html
for text in 'not finished</span> after step' 'of 40' 'the same command goes on from step 12' \
    'Dashed: the run was taken up again there.' 'class="restart"' 'Prompts from the training documents' \
    'with the adapter after step 12' '30 documents'; do
    has killed killed/report.html "$text"
done
[ "$(sed -n '/<h2>Starts/,/<\/table>/p' killed/report.html | grep -c '^<tr><td>')" = 2 ] ||
    fail "killed: not two starts"

# ---- elsewhere, without the model, without a cache ----
mv 'mo<b>&del' away
rm -rf cache damaged/config.yaml
printf '{"event":"step","step":9999,"tim' >>damaged/metrics.jsonl
sums >sums_before
"$graft" report damaged -o elsewhere.html >out 2>err || fail "damaged: $(cat err)"
sums | grep -v elsewhere.html >sums_after
cmp sums_before sums_after || fail "-o: other files changed"
[ ! -e cache ] || fail "a page without samples needs no cache"
page damaged elsewhere.html
has damaged elsewhere.html '1 line of metrics.jsonl cannot be read and is left out'
has damaged elsewhere.html 'config.yaml is missing'
"$graft" report killed >out 2>err || fail "no model: $(cat err)"
has 'no model' err 'warning: the report has no samples: mo<b>&del: there is no such model'
page 'no model' killed/report.html
has 'no model' killed/report.html 'Left out: mo&lt;b&gt;&amp;del: there is no such model'
rm damaged/metrics.jsonl
"$graft" report damaged >out 2>err || fail "no metrics: $(cat err)"
page 'no metrics' damaged/report.html
has 'no metrics' damaged/report.html 'No step has been logged.'

# ---- what is no run ----
refuse() # refuse CODE TEXT ARGUMENT...
{
    local code=0
    "$graft" report "${@:3}" >out 2>err || code=$?
    [ "$code" = "$1" ] || fail "${*:3}: exit code $code, expected $1"
    has "${*:3}" err "$2"
    [ ! -s out ] || fail "${*:3}: $(cat out)"
}
mkdir empty
refuse 3 'absent: there is no such directory' absent
refuse 3 "hint: give the run's output directory" empty
if [ -e absent ] || [ -n "$(ls empty)" ]; then fail "something was made where no run is"; fi
refuse 2 'data.jsonl' data.jsonl
refuse 2 'graft report' none more
refuse 2 '--samples' none --samples -1
echo broken >none/run.json
refuse 3 'none/run.json' none

report
