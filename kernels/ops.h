/* The table of operations. kernels/cpu/NAME.c and kernels/cuda/NAME.cu implement the same names; each CPU file holds a
 * plain reference form and, beside it, the fast one. Forward and backward stand together.
 *
 * Conventions: T tokens are rows. Every operation takes a stream first, works on one device, allocates nothing and returns
 * nothing: shapes are checked by checks that abort with the operation's name (a programming error, never input).
 * Sums over tokens run in a fixed order that does not depend on the number of threads. Weight gradients are accumulated
 * (+=) in f32; activations' gradients are written (=) unless said otherwise.
 *
 * Types. What is called "either" below is F32 or BF16; everything that is not named is F32, float or int32. Every operation
 * computes in f32 and rounds a BF16 result once, to nearest even.
 *   fill, copy, add, scale      either, each tensor its own; scatter: both the same
 *   matmul                      a and b the same of either; c either; products are summed in f32. Where the device rounds (device.h) also a
 *                               BF16 and b F32: what it rounds to is what counts
 *   bias                        y, dy either
 *   embedding                   F32 alone
 *   rmsnorm                     y, sub, dy, narrow either; dh and dresidual the same of either; x, h, w, dw, rstd F32
 *   rope                        x either
 *   attention                   q, k, v, out and their gradients all the same of either; decode: q and out too, the cache its own
 *   swiglu                      all the same of either
 *   logits, sum_squares, adamw  F32 alone, but logits_gradient's dz of either
 *   dropout, noise              either, each tensor its own
 * So in bf16 training the residual stream, its gradient, the weights' master copies and gradients and all norms are F32; the
 * inputs of products (activations, and matrices by working copies or as they are read) are BF16. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/device.h"

/* Which keys each query sees: query row t attends to key rows begin[t] <= j < end[t]. Causal attention inside packed
 * documents is begin[t] = first row of t's document (or t-W+1 under a sliding window), end[t] = t+1. Both are
 * non-decreasing in t within a sequence. `sequences` counts independent stretches: rows are sequence_rows each, and keys of
 * one stretch are seen by its own queries alone (units of parallel work). Under context parallelism a rank has the queries of a
 * part of each sequence and the keys of all of it: keys are key_rows a sequence. int32 device arrays. */
typedef struct Attention {
    int heads, kv_heads, head_dim;
    float scale; /* head_dim^-1/2 */
    const int32_t *begin, *end;
    int64_t sequences, sequence_rows;
    int64_t key_rows; /* 0: sequence_rows */
} Attention;

static inline int64_t attention_key_rows(const Attention *a)
{
    return a->key_rows ? a->key_rows : a->sequence_rows;
}

/* The paged cache of one layer: page p holds page_tokens rows of kv_heads*head_dim at data + p*page_tokens*row. Sequence b
 * of a batch owns pages table[b*table_stride + i] and has length[b] tokens, the newest of them already stored. */
typedef struct PagedKeys {
    const void *keys, *values;
    Dtype dtype;
    int page_tokens;
    const int32_t *table, *length;
    int64_t table_stride;
} PagedKeys;

typedef struct Ops {
    /* Between these two the device may run what follows by rows instead of operation by operation: row t of copy, matmul (with ta: what it
     * adds to C; else B is none of what is written), bias_forward, rmsnorm, rope, swiglu and logits_gradient then depends on row t of what the others of them
     * wrote, on no other row, and attention on those of t's sequence. Results are there behind rows_end, or behind any operation that is not one of these. NULL: nothing gained. */
    void (*rows_begin)(Stream *s);
    void (*rows_end)(Stream *s);

    /* x = value */
    void (*fill)(Stream *s, Tensor x, float value);
    /* to = from, converting F32/BF16/F16 */
    void (*copy)(Stream *s, Tensor to, Tensor from);
    /* Row rows[i] of `to` = row i of `from`, of the same type and width. rows: device, each once; −1: nowhere. */
    void (*scatter)(Stream *s, Tensor to, Tensor from, const int32_t *rows);
    /* y += alpha·x */
    void (*add)(Stream *s, Tensor y, Tensor x, float alpha);
    /* x *= alpha */
    void (*scale)(Stream *s, Tensor x, float alpha);

    /* C = alpha·op(A)·op(B) + beta·C; op transposes where ta, tb. C is [m,n]. beta 0 never reads C. */
    void (*matmul)(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta);
    /* For weights W [n,k] that stay as they are: bytes of a copy that products of inputs of `type` read as it lies, the copy (64-byte
     * aligned), and C = A·Wᵀ from it (w gives W's shape and type), whose rows have the same bits however many there are. Types as matmul's.
     * All NULL: the device gains nothing by it. */
    size_t (*pack_bytes)(Tensor w, Dtype type);
    void (*pack)(Stream *s, void *packed, Tensor w, Dtype type);
    void (*matmul_packed)(Stream *s, Tensor c, Tensor a, const void *packed, Tensor w);
    /* y[t] += bias (a row vector);  dbias += column sums of dy */
    void (*bias_forward)(Stream *s, Tensor y, Tensor bias);
    void (*bias_backward)(Stream *s, Tensor dbias, Tensor dy);

    /* out[t] = table[tokens[t]], 0 where tokens[t] < 0;  dtable[tokens[t]] += dout[t], rows added by position */
    void (*embedding_forward)(Stream *s, Tensor out, Tensor table, const int32_t *tokens);
    void (*embedding_backward)(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens);

    /* h = x + sub (sub.data NULL: h = x, and h may be x itself); r = (mean h² + eps)^-1/2; y = h·r·w. rstd: float [T].
     * Works per head too: x viewed as [T·heads, head_dim] where ld == cols. */
    void (*rmsnorm_forward)(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps);
    /* dh = r(w∘dy) − h·(r³/n)Σ(w∘dy∘h) + dresidual (data NULL: none; may be dh itself), and narrow the same (data NULL: not wanted);
     * dw += Σ_t dy∘h·r (dw.data NULL: weights are frozen). */
    void (*rmsnorm_backward)(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual);

    /* Rotates pairs (i, i+d/2) of each head in place, Hugging Face's half layout: (a,b) -> (a·c−b·s, b·c+a·s), with c, s of
     * angle position·inv_freq[i]. cosine, sine: f32 [positions, d/2] tables. backward: the angle negated. */
    void (*rope)(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine,
                 const float *sine, bool backward);

    /* out[T, heads·d] = softmax(scale·q·kᵀ under the mask)·v; lse float [heads, T] natural log. Never holds T×T. */
    void (*attention_forward)(Stream *s, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a);
    /* delta: float scratch [heads, T]. */
    void (*attention_backward)(Stream *s, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse,
                               float *delta, Tensor q, Tensor k, Tensor v, const Attention *a);
    /* out[B, heads·d] for one new token of each of B sequences; window 0: none. */
    void (*attention_decode)(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim,
                             float scale, int64_t window);

    /* gu = [g | u], y = g·σ(g)·u;  dgu from dy. y, dy [T,f]; gu, dgu [T,2f]. */
    void (*swiglu_forward)(Stream *s, Tensor y, Tensor gu);
    void (*swiglu_backward)(Stream *s, Tensor dgu, Tensor dy, Tensor gu);

    /* Per row of logits [C,V]: logprob = z[label] − lse (0 where label < 0), lse = log Σ exp z, best = lowest arg max
     * (NULL: not wanted), mean = Σz/V and entropy = lse − Σ p·z, p = exp(z − lse) (NULL: not wanted). */
    void (*logits_forward)(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best,
                           float *mean, float *entropy);
    /* In place: z becomes dz = dlogprob·(1_label − p) + dlse·p, p = exp(z − lse). Rows whose label < 0 take dlse alone. */
    void (*logits_backward)(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob,
                            const float *dlse);

    /* Both in one where dlogprob is known before and lse has no gradient: dz [C,V], of either type, may be the logits themselves,
     * which are lost. */
    void (*logits_gradient)(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse);

    /* y = x∘kept/(1 − p), or y += that: each element is kept with probability 1 − p (Srivastava et al. 2014). keys [T] and the seed
     * draw: the same key, seed and column give the same element, wherever the row stands. x's first column is column `first` of
     * what is drawn. */
    void (*dropout)(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add);
    /* x[t] += scale[t]·U(−1, 1), drawn in the same way. */
    void (*noise)(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed);

    /* *sum += Σ x² in double, fixed order. sum is device memory. */
    void (*sum_squares)(Stream *s, double *sum, Tensor x);
    /* Decoupled weight decay (Loshchilov & Hutter; torch.optim.AdamW): p *= 1 − lr·decay; m += (g·gscale − m)(1−β1);
     * v = β2·v + (1−β2)(g·gscale)²; p −= lr/(1−β1^t) · m/(√v/√(1−β2^t) + eps). All f32 vectors of n elements. */
    void (*adamw)(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2,
                  float eps, float decay, float gscale, int64_t step);
} Ops;

#endif
