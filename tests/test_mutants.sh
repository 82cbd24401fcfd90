#!/usr/bin/env bash
# Plants one mistake after the other into a copy of the source and demands that the golden test
# notices each.  A mutant: name | file | sed command that must change the file | case that must fail
#   tests/test_mutants.sh [NAME]     one mutant, or all
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)

mutants() {
    cat <<'LIST'
eps x10 | trainer/model/transformer.c | s/eps = c->rms_norm_eps;/eps = 10 * c->rms_norm_eps;/ | llama
theta x2 | trainer/model/rope.c | s/powf((float)c->rope.theta/powf(2 * (float)c->rope.theta/ | llama
softmax scale x1.1 | trainer/model/arch.c | s/(float)(1.0 \/ sqrt/(float)(1.1 \/ sqrt/ | llama
window + 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window + 1/ | mistral
window - 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window - 1/ | mistral
GQA map | kernels/cpu/attention.c | s/kv_head = head \/ (a->q.dim\[1\] \/ a->k.dim\[1\])/kv_head = head % a->k.dim[1]/ | llama
leak across documents | trainer/model/pass_inputs.c | s/^    p->doc_count += batch->doc_count;/    host->docs[1] = host->docs[2 * batch->doc_count - 1]; p->doc_count += 1;/ | llama
s = alpha | trainer/model/lora.c | s/? alpha \/ sqrt(r) : alpha \/ r/? alpha : alpha/ | llama
q/k norm after RoPE | trainer/model/transformer.c | /^    if (c->qk_norm) {$/,/^    }$/{H;d};/gr_attention_forward(d/{x;G} | qwen3
LIST
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$source_dir" && git ls-files -z --cached --others --exclude-standard -- CMakeLists.txt kernels \
    data trainer launch tests) | (cd "$source_dir" && tar --null -T - -cf -) | tar -xf - -C "$work"
ln -s "$source_dir/tests/golden" "$work/golden"
cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo > "$work/log"

# Builds and runs one case; 0: it passed.
golden_passes() {
    cmake --build "$work/build" --target test_model_golden -j 2 > "$work/log" 2>&1 ||
        { tail -20 "$work/log"; echo "FAIL $name: the mutant does not build"; exit 1; }
    GRAFT_SOURCE_DIR=$source_dir "$work/build/bin/test_model_golden" \
        "model_golden_$1_equals_peft" > "$work/log" 2>&1
}

name=original passed=0 failed=0
golden_passes llama || { cat "$work/log"; echo "FAIL the original does not pass"; exit 1; }
while IFS='|' read -r name file edit golden; do
    name=$(echo $name) file=$(echo $file) golden=$(echo $golden) edit=${edit# } edit=${edit% }
    [ -z "${1:-}" ] || [ "$1" = "$name" ] || continue
    cp "$work/$file" "$work/saved"
    sed -i "$edit" "$work/$file"
    if cmp -s "$work/$file" "$work/saved"; then
        echo "FAIL $name: the edit does not fit $file any more"; failed=$((failed + 1))
    elif golden_passes "$golden"; then
        echo "FAIL $name: nothing noticed"; failed=$((failed + 1))
    else
        echo "ok   $name: $(grep -m1 'off by' "$work/log" | sed 's/.*: //' || echo noticed)"
        passed=$((passed + 1))
    fi
    cp "$work/saved" "$work/$file"
done < <(mutants)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
