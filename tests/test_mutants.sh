#!/usr/bin/env bash
# Plants one mistake after the other into a copy of the source and demands that a test measures each.
# A mutant: name | file | sed command that must change the file | test and case that must fail
#   tests/test_mutants.sh [NAME]     one mutant, or all
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)

mutants() {
    cat <<'LIST'
eps x10 | trainer/model/transformer.c | s/eps = c->rms_norm_eps;/eps = 10 * c->rms_norm_eps;/ | test_model_golden model_golden_llama_equals_peft
theta x2 | trainer/model/rope.c | s/powf((float)c->rope.theta/powf(2 * (float)c->rope.theta/ | test_model_golden model_golden_llama_equals_peft
softmax scale x1.1 | trainer/model/arch.c | s/(float)(1.0 \/ sqrt/(float)(1.1 \/ sqrt/ | test_model_golden model_golden_llama_equals_peft
window + 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window + 1/ | test_model_golden model_golden_mistral_equals_peft
window - 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window - 1/ | test_model_golden model_golden_mistral_equals_peft
GQA map | kernels/cpu/attention.c | s/kv_head = head \/ (a->q.dim\[1\] \/ a->k.dim\[1\])/kv_head = head % a->k.dim[1]/ | test_model_golden model_golden_llama_equals_peft
leak across documents | trainer/model/pass_inputs.c | s/^    p->doc_count += batch->doc_count;/    host->docs[1] = host->docs[2 * batch->doc_count - 1]; p->doc_count += 1;/ | test_model_golden model_golden_llama_equals_peft
s = alpha | trainer/model/lora.c | s/? alpha \/ sqrt(r) : alpha \/ r/? alpha : alpha/ | test_model_golden model_golden_llama_equals_peft
cached window + 1 | trainer/model/transformer.c | s/? end - a->window : 0/? end - a->window - 1 : 0/ | test_generate generate_mistral_window_below_the_text_equals_whole_passes
cached positions from 0 | trainer/run/generate.c | s/(int32_t)(p->cache->length + i) : 0/(int32_t)i : 0/ | test_generate generate_llama_equals_whole_passes
q/k norm after RoPE | trainer/model/transformer.c | /^    if (c->qk_norm) {$/,/^    }$/{H;d};/attention_forward(p, &attention/{x;G} | test_model_golden model_golden_qwen3_equals_peft
bf16 cut, not rounded | kernels/base/widen.h | s/(bits + 0x7fffu + (bits >> 16 & 1u)) >> 16/bits >> 16/ | test_ops_rows swiglu_any_shape_equals_twin
bf16 ties away from even | kernels/base/widen.h | s/0x7fffu + (bits >> 16 & 1u)/0x8000u/ | test_ops_flat copy_to_bf16_rounds_to_nearest_even
products summed in bf16 | kernels/cpu/product.c | s/multiply(c, piece(a, begin, end), piece(b, begin, end).*/&\nfor (int64_t i = 0; i < c.dim[0]; i++) for (int64_t j = 0; j < c.dim[1]; j++) gr_row_f32(c, i)[j] = gr_float_from_bf16(gr_float_to_bf16(gr_row_f32(c, i)[j]));/ | test_ops_lora_group lora_group_mixed_segments_equal_twin
attention summed in bf16 | kernels/cpu/attention.c | s/^        gr_cpu_matmul_nn(o, scores, v.*/&\n        gr_store_tile(stored, o); o = gr_load_tile(stored, o.data);/ | test_ops_attention attention_packed_documents_equal_twin
dx rounded per linear | kernels/cpu/lora_group.c | s/^        ds = s_part(g, g->ds, rows, i, lora->a.dim\[0\]);/&\n        gr_store_tile(to, dx); dx = gr_load_tile(to, dx.data);/ | test_ops_lora_group lora_group_mixed_segments_equal_twin
rmsnorm added rounded | kernels/cpu/rmsnorm.c | s/dx\[i\] += rstd \* (w\[i\] \* dy\[i\] - x\[i\] \* rstd \* mean);/dx[i] += gr_float_from_bf16(gr_float_to_bf16(rstd * (w[i] * dy[i] - x[i] * rstd * mean)));/ | test_ops_rows rmsnorm_in_place_and_accumulating_same_bits
masters in bf16 | kernels/cpu/adamw.c | s/^            gr_store_run(s->copy, 0, i - s->begin, n, p + i);/{ & gr_load_run(s->copy, 0, i - s->begin, n, p + i); }/ | test_ops_flat adamw_small_update_moves_master_and_rounds_copy
copy not rewritten | trainer/run/trial.c | s/i < trial->spans && trial->adapter->copy.ndim/i < 0 \&\& trial->adapter->copy.ndim/ | test_engine engine_bf16_computes_with_what_it_updated
loss over the padded N | trainer/run/engine.c | s/.supervised = trial->batch.label_count,/.supervised = trial->batch.label_padded,/ | test_engine engine_packed_equals_unpacked
LIST
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$source_dir" && git ls-files -z --cached --others --exclude-standard -- CMakeLists.txt kernels \
    data trainer launch tests bench) | (cd "$source_dir" && tar --null -T - -cf -) | tar -xf - -C "$work"
ln -s "$source_dir/tests/golden" "$work/golden"
cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo > "$work/log"

# Builds a test and runs one of its cases; 0: it passed.
passes() {
    cmake --build "$work/build" --target "$1" -j 2 > "$work/log" 2>&1 ||
        { tail -20 "$work/log"; echo "FAIL $name: it does not build"; exit 1; }
    GRAFT_SOURCE_DIR=$source_dir "$work/build/bin/$1" "$2" > "$work/log" 2>&1
}

passed=0 failed=0
while read -r test_case; do
    name="original, $test_case"
    passes $test_case || { cat "$work/log"; echo "FAIL $name: does not pass"; exit 1; }
done < <(mutants | sed 's/.*| //' | sort -u)
while IFS='|' read -r name file edit test_case; do
    name=$(echo $name) file=$(echo $file) edit=${edit# } edit=${edit% }
    [ -z "${1:-}" ] || [ "$1" = "$name" ] || continue
    cp "$work/$file" "$work/saved"
    sed -i "$edit" "$work/$file"
    if cmp -s "$work/$file" "$work/saved"; then
        echo "FAIL $name: the edit does not fit $file any more"; failed=$((failed + 1))
    elif passes $test_case; then
        echo "FAIL $name: nothing noticed"; failed=$((failed + 1))
    elif grep -q 'off by' "$work/log"; then
        echo "ok   $name: $(grep -m1 'off by' "$work/log" | sed 's/.*: //')"
        passed=$((passed + 1))
    else # a crash is no measurement
        cat "$work/log"; echo "FAIL $name: fails without a difference"; failed=$((failed + 1))
    fi
    cp "$work/saved" "$work/$file"
done < <(mutants)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
