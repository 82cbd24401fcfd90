/* The ops: everything graft computes on a device.
 *
 * Rules for all of them: outputs come before inputs; tensors are rows of activations (N rows)
 * unless said otherwise; an output is overwritten unless it says "accumulates"; inputs must stay
 * valid and unchanged until the stream has passed them; errors stick in the device (ERR_BUG for a
 * shape or dtype that does not fit, naming op and shapes).  Bits of every result are independent
 * of the number of threads, and of everything outside the rows of a segment.  An id, a position or
 * a span out of range is ERR_BUG on the CPU; on a GPU, whose host cannot see it, what it gives is
 * NaN.
 *
 * Activations, their gradients, frozen weights and A and B are all f32 or all bf16, but that frozen
 * matrices may be bf16 beside f32 on the CPU: they are widened where they are used.  An op computes
 * in f32 either way; in bf16 each result is rounded once, to the nearest with ties to even.  What
 * says f32 or f64 below stays so.
 *
 * Letters: N rows, C hidden, F ffn, V vocab, NH/NKV heads, HD head dim, R LoRA r, D documents,
 * S supervised rows.  N and S are multiples of 64 (GR_ROW_MULTIPLE); N may also be 1. */
#ifndef GR_OPS_H
#define GR_OPS_H

#include "kernels/base/row_multiple.h"
#include "kernels/device.h"

enum gr_write { GR_OVERWRITE, GR_ACCUMULATE };

/* y <- table[id];  id -1 gives a row of zeros (padding).
 *   y (N, C)   table (V, C)   ids (N) i32, -1 <= id < V */
void gr_embedding_forward(struct gr_device *dev, gr_tensor y, gr_tensor table, gr_tensor ids);

/* y <- x * rstd * w,  rstd = 1 / sqrt(mean(x^2) + eps) over the last dimension.
 *   y (N, C) may be x;  rstd (N) f32 out, kept for the backward;  x as y;  w (C);  eps > 0
 * Also per head, as the q/k norm of Qwen3: y, x (N, H, HD), rstd (N, H), w (HD).
 * Mean in f64.  Source: Zhang & Sennrich 2019, arXiv:1910.07467. */
void gr_rmsnorm_forward(struct gr_device *dev, gr_tensor y, gr_tensor rstd, gr_tensor x,
                        gr_tensor w, double eps);
/* dx <- or += rstd * (w*dy - xhat * mean(w*dy*xhat)),  xhat = x*rstd.  w is frozen: no dw.
 * y: none, or the forward's again, to the bit, from the same pass over x.
 * dx may be dy when it overwrites, y may be neither.  Shapes as in the forward. */
void gr_rmsnorm_backward(struct gr_device *dev, gr_tensor dx, enum gr_write write, gr_tensor y,
                         gr_tensor dy, gr_tensor x, gr_tensor w, gr_tensor rstd);

/* Rotates the two halves of each head in place:
 *   (a, b) <- (a*cos - b*sin, b*cos + a*sin),  a = x[.., i], b = x[.., HD/2 + i]
 *   x (N, H, HD)   cos, sin (P, HD/2) f32   positions (N) i32 in [0, P)
 *   direction +1 forward; -1 uses -sin: the transpose, which is the backward.
 * Source: Su et al. 2021, arXiv:2104.09864, in the half-split layout of Hugging Face. */
void gr_rope(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin, gr_tensor positions,
             int direction);

/* Causal attention inside documents:
 *   o_i <- sum_j softmax_j(scale * q_i.k_j) v_j  over the rows j of i's document with
 *   j <= i and, if window > 0, i - j < window (Hugging Face's sliding_window).
 * Head h of q reads head h / (NH/NKV) of k and v.  Rows outside every document: o = 0, lse = 0. */
struct gr_attention {
    gr_tensor q;    /* (N, NH, HD) */
    gr_tensor k, v; /* (N, NKV, HD) */
    gr_tensor docs; /* (D, 2) i32 {begin, end}: ascending, disjoint; begin == end is an empty one */
    float scale;    /* 1 / sqrt(HD) */
    int64_t window; /* rows; 0: none */
    gr_tensor o;    /* (N, NH, HD): out in the forward, in for the backward */
    gr_tensor lse;  /* (N, NH) f32 log-sum-exp of the scaled scores: out, then in */
    gr_tensor d_o;  /* backward only, (N, NH, HD) in */
    gr_tensor dq;   /* backward only, as q, overwritten; zero outside documents */
    gr_tensor dk, dv; /* backward only, as k, overwritten */
};
/* O(N) memory: blocks of keys with an online softmax.  Source: Dao 2023, arXiv:2307.08691. */
void gr_attention_forward(struct gr_device *dev, const struct gr_attention *a);
void gr_attention_backward(struct gr_device *dev, const struct gr_attention *a);
/* For such tensors, by their shapes and strides; their data may not be there yet.  Without d_o: of
 * the forward alone.  On a GPU that uses cuDNN's attention, its plans for them are made here. */
int64_t gr_attention_workspace_bytes(struct gr_device *dev, const struct gr_attention *a);
/* The same for one query that sees every row of k and v, the last of which is its own:
 *   o <- sum_j softmax_j(scale * q.k_j) v_j
 *   o, q (1, NH, HD)   k, v (M, NKV, HD), M >= 1 of any size: a window is a view of the last rows
 */
void gr_attention_last(struct gr_device *dev, gr_tensor o, gr_tensor q, gr_tensor k, gr_tensor v,
                       float scale);

/* h <- silu(gate) * up,  silu(g) = g / (1 + exp(-g)).   all (N, F) */
void gr_swiglu_forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up);
/* dgate <- dh*up*silu'(gate),  dup <- dh*silu(gate);  dgate may be gate, dup may be up.
 * h: none, or the forward's again, to the bit, from the same pass over gate and up. */
void gr_swiglu_backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                        gr_tensor dh, gr_tensor gate, gr_tensor up);

/* The randomness of a micro-batch: with the module it fixes every bit (base/philox.h). */
struct gr_rng {
    uint64_t seed;        /* the trial's */
    uint32_t step;        /* optimizer step */
    uint32_t micro_batch; /* number over all ranks */
};

/* Rows of x that belong to one micro-batch of one trial.  Segments are ascending and disjoint,
 * begin at multiples of 64, and no adapter has two in one call. */
struct gr_segment {
    int64_t row_begin, row_end;
    int adapter; /* index into the group's adapters; -1: base weights only */
    struct gr_rng rng;
};

struct gr_linear {
    gr_tensor weight; /* (out, in) frozen */
    gr_tensor bias;   /* (out) frozen, or none */
};

struct gr_lora {
    gr_tensor a;   /* (R, in);  none: this linear has no adapter */
    gr_tensor b;   /* (out, R) */
    float scale;   /* s: alpha / r, or alpha / sqrt(r) */
    float dropout; /* p in [0, 1): x's elements are zeroed with p, others scaled by 1/(1-p) */
    gr_tensor da;  /* as a, f32: overwritten by the backward, the sum over one segment */
    gr_tensor db;  /* as b, f32: likewise */
};

/* What of a group's backward a call computes.  x may be made again between the two parts, from what
 * the first one leaves: dx, and ds, which must stay as it is. */
enum gr_lora_part { GR_LORA_WHOLE, GR_LORA_BUT_DA /* x is not read */, GR_LORA_DA };

enum { GR_LINEARS_MOST = 3 };
/* One linear group (qkv, o, gate+up or down): linears that share their input, with adapters.
 *   y_i <- [residual +] x W_iT + bias_i + (s * drop_i(x) A_iT) B_iT        per segment's adapter
 * Every linear has a dropout mask of its own, as in PEFT: element e of the micro-batch's rows
 * (row - row_begin)*in + column uses word e%4 of block e/4 of stream (GR_RNG_DROPOUT, layer,
 * module + i) and is kept iff gr_uniform(word) >= p. */
struct gr_lora_group {
    int layer, module;              /* for the randomness */
    int linears;                    /* 1 to GR_LINEARS_MOST */
    const struct gr_linear *linear; /* [linears] */
    int adapters;
    const struct gr_lora *lora; /* [adapters][linears] */
    int segments;
    const struct gr_segment *segment; /* [segments]; rows in no segment get the base only */
    bool train;                       /* false: no dropout */
    gr_tensor x;                      /* (N, in) */
    gr_tensor y;        /* (N, sum of out): out in the forward; not read by the backward */
    gr_tensor residual; /* (N, sum of out) or none; may be y */
    gr_tensor s;        /* (N, sum over linears of the largest R): s*drop(x)AT, kept for backward */
    gr_tensor dy;       /* backward only, in: as y */
    gr_tensor dx;       /* backward only: as x, overwritten; none: not wanted (first layer) */
    gr_tensor ds;       /* backward only: scratch as s */
    enum gr_lora_part part; /* backward only */
    /* (sum of out + R, in + R) or none, R the columns of s.  The weights, A and B of the only
     * adapter are then parts of it, [[W, B], [A, 0]]: each W and B in the rows of its linear's y, A
     * and B in the rows and columns of its s, zeros in B's other columns.  Behind each row of x and
     * dy lie R elements more that the op may write, and ds is those behind dy: with [x|S] and
     * [dy|dS] the adapter is no product of its own.  A backend may do without. */
    gr_tensor joined;
};
/* Backward:  dS_i = s dy_i B_i;  dB_i = dy_iT S_i;  dA_i = dS_iT drop_i(x);
 *            dx = sum_i dy_i W_i + drop_i*(dS_i A_i).  Source: Hu et al. 2021, arXiv:2106.09685. */
void gr_lora_group_forward(struct gr_device *dev, const struct gr_lora_group *g);
void gr_lora_group_backward(struct gr_device *dev, const struct gr_lora_group *g);
/* in: width of x; out: sum of the widths of y; r: columns of s. */
int64_t gr_lora_group_workspace_bytes(struct gr_device *dev, int64_t n, int64_t in, int64_t out,
                                      int64_t r);

/* Language-model head and cross-entropy over supervised rows, in chunks: the logits of all rows
 * never exist at once.
 *   logits = h[row] WT;  row_loss = logsumexp(logits) - logits[target];  dlogits = p - onehot
 * Gradients are those of the SUM of the losses. */
struct gr_head_loss {
    gr_tensor row_loss; /* (S) f64 out; 0 for padding */
    gr_tensor dh;       /* (N, C) out: zero in rows that are not listed; none: no gradient */
    gr_tensor h;        /* (N, C): output of the final norm */
    gr_tensor weight;   /* (V, C) frozen: lm_head, or the embedding when tied */
    gr_tensor rows;     /* (S) i32: rows of h, each at most once; -1: padding */
    gr_tensor targets;  /* (S) i32 in [0, V) */
};
void gr_head_loss(struct gr_device *dev, const struct gr_head_loss *a);
int64_t gr_head_loss_workspace_bytes(struct gr_device *dev, int64_t hidden, int64_t vocab);
/* logits <- h[row] WT for few rows (evaluation dumps, generation).  logits (S, V) f32; rows (S) */
void gr_head_logits(struct gr_device *dev, gr_tensor logits, gr_tensor h, gr_tensor weight,
                    gr_tensor rows);

/* sum[i] <- sum of x[begin..end) in f64, in fixed chunks.  spans (K, 2) i32;  sum (K) f64 */
void gr_sum_spans(struct gr_device *dev, gr_tensor sum, gr_tensor x, gr_tensor spans);

/* ---- f32 state: flat, or all of one shape ---- */

/* out (1) f64 <- sum (scale * x)^2 over flat x (n) f32, the product rounded to f32, in fixed chunks
 * of 4,096; NaN or inf if any product is. */
void gr_sum_squares(struct gr_device *dev, gr_tensor out, gr_tensor x, float scale);
/* y <- a + b;  y may be a */
void gr_add(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b);
/* x <- +0 */
void gr_zero(struct gr_device *dev, gr_tensor x);
/* y <- x, rounding if y is narrower */
void gr_copy(struct gr_device *dev, gr_tensor y, gr_tensor x);

/* The same for every pair, in few launches: y and x are matrices, all y of one dtype and all x of
 * one.  What one pair writes no other may touch. */
struct gr_copy_pair {
    gr_tensor y, x;
};
void gr_copy_pairs(struct gr_device *dev, const struct gr_copy_pair *pair, int64_t pairs);

/* A run of the flat buffers with its own rate, and the compute copy of that run. */
struct gr_adamw_span {
    int64_t begin, end;
    double learning_rate; /* of this step */
    double weight_decay;
    gr_tensor copy; /* (end-begin) rewritten in the compute dtype; none: computes on param itself */
};
/* AdamW in torch's order, f32; scalar factors in f64, then rounded to f32:
 *   g = clip * (grad_scale * grad),  clip = min(1, max_norm / (sqrt(square_sum) + 1e-6));
 *   p *= 1 - lr*wd;  m += (g-m)(1-b1);  v = b2 v + (1-b2) g^2;
 *   p -= lr/(1-b1^k) * m / (sqrt(v)/sqrt(1-b2^k) + eps)
 * A square_sum that is not finite changes nothing: neither state nor copies.
 * Source: Loshchilov & Hutter 2017, arXiv:1711.05101; torch/optim/adamw.py, single tensor;
 * torch.nn.utils.clip_grad_norm_. */
struct gr_adamw {
    gr_tensor param, moment1, moment2; /* (n) f32, updated in place */
    gr_tensor grad;                    /* (n) f32 */
    float grad_scale;
    gr_tensor square_sum; /* (1) f64 of grad_scale * grad: gr_sum_squares; none: clip = 1 */
    double max_norm;      /* 0: clip = 1 */
    int spans;
    const struct gr_adamw_span *span; /* ascending, disjoint */
    double beta1, beta2, eps;
    int64_t step; /* k >= 1 */
};
void gr_adamw(struct gr_device *dev, const struct gr_adamw *a);

#endif
