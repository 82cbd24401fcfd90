#!/usr/bin/env bash
# Plants one mistake after the other in the model, the ops and the loop, and demands that a test measures each.
#   test_mutants.sh BUILD [NAME]     one mutant, or all
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/tests/mutant_rig.sh"

mutants() {
    cat <<'LIST'
eps x10 | trainer/model/transformer.c | s/eps = c->rms_norm_eps;/eps = 10 * c->rms_norm_eps;/ | test_model_golden model_golden_llama_equals_peft
theta x2 | trainer/model/rope.c | s/powf((float)c->rope.theta/powf(2 * (float)c->rope.theta/ | test_model_golden model_golden_llama_equals_peft
softmax scale x1.1 | trainer/model/arch.c | s/(float)(1.0 \/ sqrt/(float)(1.1 \/ sqrt/ | test_model_golden model_golden_llama_equals_peft
window + 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window + 1/ | test_model_golden model_golden_mistral_equals_peft
window - 1 | trainer/model/arch.c | s/window_from ? config->sliding_window/window_from ? config->sliding_window - 1/ | test_model_golden model_golden_mistral_equals_peft
GQA map | kernels/cpu/attention.c | s/kv_head = head \/ (a->q.dim\[1\] \/ a->k.dim\[1\])/kv_head = head % a->k.dim[1]/ | test_model_golden model_golden_llama_equals_peft
a stage not again | trainer/model/transformer.c | s/compute_stages(p, layer, true, a->level)/compute_stages(p, layer, true, (enum gr_recompute)(a->level > 0 ? a->level - 1 : 0))/ | test_recompute recompute_any_amount_same_bits
other dropout again | trainer/model/transformer.c | s/compute_stages(p, layer, true, a->level)/compute_stages(p, layer, false, a->level)/ | test_recompute recompute_any_amount_same_bits
backward ends a group early | trainer/model/transformer.c | s/group > p->lowest.group/group > p->lowest.group + 1/ | test_recompute recompute_lowest_adapter_same_gradient
an input not back | trainer/model/transformer.c | s/layer > p->lowest.layer \&\& is_away/layer > p->lowest.layer + 1 \&\& is_away/ | test_offload offload_any_amount_same_bits
leak across documents | trainer/model/pass_inputs.c | s/^    p->doc_count += batch->doc_count;/    host->docs[1] = host->docs[2 * batch->doc_count - 1]; p->doc_count += 1;/ | test_model_golden model_golden_llama_equals_peft
s = alpha | trainer/model/lora.c | s/? alpha \/ sqrt(r) : alpha \/ r/? alpha : alpha/ | test_model_golden model_golden_llama_equals_peft
cached window + 1 | trainer/model/transformer.c | s/? end - a->window : 0/? end - a->window - 1 : 0/ | test_generate generate_mistral_window_below_the_text_equals_whole_passes
cached positions from 0 | trainer/run/generate.c | s/(int32_t)(p->cache->length + i) : 0/(int32_t)i : 0/ | test_generate generate_llama_equals_whole_passes
q/k norm after RoPE | trainer/model/transformer.c | /^    if (c->qk_norm) {$/,/^    }$/{H;d};/rotate(k)/G | test_model_golden model_golden_qwen3_equals_peft
bf16 cut, not rounded | kernels/base/widen.h | s/(bits + 0x7fffu + (bits >> 16 & 1u)) >> 16/bits >> 16/ | test_ops_rows swiglu_any_shape_equals_twin
bf16 ties away from even | kernels/base/widen.h | s/0x7fffu + (bits >> 16 & 1u)/0x8000u/ | test_ops_flat copy_to_bf16_rounds_to_nearest_even
products summed in bf16 | kernels/cpu/gemm.c | s/^            gr_kernel_run(&t, gr_pieces.*/&\nfor (int64_t i = 0; i < t.rows; i++) for (int64_t j = 0; j < t.columns; j++) t.c[i * t.stride + j] = gr_float_from_bf16(gr_float_to_bf16(t.c[i * t.stride + j]));/ | test_ops_lora_group lora_group_mixed_segments_equal_twin
attention summed in bf16 | kernels/cpu/attention.c | s/^ *(struct gr_operand){scores, false}, gr_attention_room(memory));/&\nfor (int64_t i = 0; i < o.dim[0] \&\& a->o.dtype == GR_BF16; i++) for (int64_t j = 0; j < o.dim[1]; j++) gr_row_f32(o, i)[j] = gr_float_from_bf16(gr_float_to_bf16(gr_row_f32(o, i)[j]));/ | test_ops_attention attention_packed_documents_equal_twin
wrong tile of rows | kernels/cpu/gemm_kernel.h | s/_tile_dpbf16ps(3, 5, 7)/_tile_dpbf16ps(3, 4, 7)/ | test_gemm_v4amx gemm_bf16_operands_equal_sums
lying rows too near | kernels/cpu/gemm.c | s/s->a->lies ? s->a->stride : GR_TILE_SIDE/s->a->lies ? s->a->depth : GR_TILE_SIDE/ | test_gemm_v4amx gemm_lying_rows_equal_packed
adapter's half left out | kernels/cpu/gemm.c | s/if (more != NULL \&\& end == a->depth) {/if (more != NULL \&\& end < a->depth) {/ | test_ops_lora_group lora_group_one_linear_equals_twin
tiles begin anew | kernels/cpu/gemm_kernel.h | s/\(continues = .*\);/\1 \&\& t->term[0].depth > 16;/ | test_gemm_v4amx gemm_bf16_operands_equal_sums
dx rounded per linear | kernels/cpu/lora_group_backward.c | s/^    struct gr_gemm_room room = room_of(dev);/&\nfor (int64_t i = 0; i < dx.dim[0] \&\& linear > 0 \&\& g->x.dtype == GR_BF16; i++) for (int64_t j = 0; j < dx.dim[1]; j++) gr_row_f32(dx, i)[j] = gr_float_from_bf16(gr_float_to_bf16(gr_row_f32(dx, i)[j]));/ | test_ops_lora_group lora_group_mixed_segments_equal_twin
dA of down left out | trainer/model/transformer.c | s/GR_LORA_DA, p->dffn/GR_LORA_BUT_DA, p->dffn/ | test_model_golden model_golden_llama_equals_peft
rstd of another layer | trainer/model/transformer.c | s/a->x, w->input_norm, a->rstd1);/a->x, w->input_norm, p->rstd_final);/ | test_model_golden model_golden_llama_equals_peft
h again without sigmoid | kernels/cpu/swiglu.c | s/h\[i\] = g \/ divisor \* u/h[i] = g * u/ | test_ops_rows swiglu_any_shape_equals_twin
masters in bf16 | kernels/cpu/adamw.c | s/^            gr_store_run(s->copy, 0, i - s->begin, n, p + i);/{ & gr_load_run(s->copy, 0, i - s->begin, n, p + i); }/ | test_ops_flat adamw_small_update_moves_master_and_rounds_copy
no clip | kernels/cpu/adamw.c | s/grad_scale \* clip/grad_scale * (clip > 2 ? clip : 1)/ | test_ops_adamw adamw_clips_as_the_gradient_clipped_before
any norm updates | kernels/adamw_factors.h | s/return NAN;/return 1;/ | test_ops_adamw adamw_of_a_norm_that_is_not_finite_changes_nothing
copy not rewritten | trainer/run/trial.c | s/i < trial->spans && trial->adapter->copy.ndim/i < 0 \&\& trial->adapter->copy.ndim/ | test_engine engine_bf16_computes_with_what_it_updated
joined B not written | trainer/model/joined_weights.c | s/{to.b, from.b}/{to.a, from.a}/ | test_model_golden model_golden_llama_joined_equals_peft
qwen2 without k's bias | trainer/model/transformer.c | s/{w->k, w->k_bias}/{w->k, (gr_tensor){0}}/ | test_model_golden model_golden_qwen2_equals_peft
linear rope unstretched | trainer/model/rope.c | s/return frequency \/ (float)c->rope.factor;/return frequency;/ | test_model_golden model_golden_llama_rope_linear_equals_peft
llama3 blend turned round | trainer/model/rope.c | s/(1 - blend) \* stretched + blend \* frequency/blend * stretched + (1 - blend) * frequency/ | test_model_golden model_golden_llama_rope_llama3_equals_peft
yarn without attention_factor | trainer/model/rope.c | s/factor = (float)config->rope.attention_factor;/factor = 1;/ | test_model_golden model_golden_llama_rope_yarn_equals_peft
yarn without ceil | trainer/model/rope.c | s/high = ceil(high)/high = high + 0/ | test_model_golden model_golden_llama_rope_yarn_equals_peft
LoRA+ as LoRA | trainer/run/trial.c | s/spans++\] = ratio/spans++] = ratio > 0 ? 1 : ratio/ | test_engine engine_loraplus_moves_b_by_its_ratio_and_a_as_before
LoRA+ of A | trainer/run/trial.c | s/b_begin, c, 1);/b_begin, c, ratio);/ | test_engine engine_loraplus_moves_b_by_its_ratio_and_a_as_before
loss over the padded N | trainer/run/engine.c | s/.supervised = trial->batch.label_count,/.supervised = trial->batch.label_padded,/ | test_engine engine_packed_equals_unpacked
LIST
}

plant_each "$1" 'off by' "${2-}"
