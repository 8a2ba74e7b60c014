/* What both forms of attention of one new token a sequence share: attention_decode.cu, which takes every type and joins the chunks, and
 * attention_decode_mma.cu. */
#ifndef KERNELS_CUDA_ATTENTION_DECODE_H
#define KERNELS_CUDA_ATTENTION_DECODE_H

#include "kernels/cuda/attention.h"

template <typename C> struct Decode {
    const C *keys, *values;
    const int32_t *table, *length;
    int64_t table_stride;
    int page_bits, kv_heads, group, d, chunk, chunks; /* a page holds 2^page_bits tokens */
    float scale;
    int64_t window;
};

/* Where one (sequence, head, chunk) keeps its part: d sums, the maximum, the sum of weights. */
template <typename C> __device__ static inline float *part_of(float *parts, const Decode<C> &a, int64_t b, int head, int chunk)
{
    return parts + ((b * a.kv_heads * a.group + head) * a.chunks + chunk) * (a.d + 2);
}

template <typename C> __device__ static inline void span_of(const Decode<C> &a, int64_t b, int chunk, int *first, int *last)
{
    int length = a.length[b], begin = a.window > 0 && length > a.window ? length - (int)a.window : 0;
    *first = chunk * a.chunk > begin ? chunk * a.chunk : begin;
    *last = (chunk + 1) * a.chunk < length ? (chunk + 1) * a.chunk : length;
}

/* The parts of all chunks of n sequences, by mma.sync. Heads of at most 128, of whole vectors of 16 bytes. */
void attention_decode_mma(Stream *s, float *parts, Tensor q, const Decode<bf16> *a, int64_t n);

#endif
