/* What the forms of attention share. attention.cu chooses: products of bf16 where the heads allow it, by Hopper's warpgroups
 * (attention_wgmma.cu) or by mma.sync (attention_mma.cu); else f32 arithmetic (attention_plain.cu), which takes f32 and bf16 alike. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

/* One call's tensors. */
struct AttentionCall {
    Tensor out, q, k, v, dout, dq, dk, dv;
    float *lse, *delta;
    const Attention *a;
};

#define ATTENTION_LOG2E 1.4426950408889634f
#define ATTENTION_LN2 0.6931471805599453f

void attention_wgmma_forward(Stream *s, const AttentionCall *c);
void attention_wgmma_backward(Stream *s, const AttentionCall *c);
void attention_mma_forward(Stream *s, const AttentionCall *c);
void attention_mma_backward(Stream *s, const AttentionCall *c);
void attention_plain_forward(Stream *s, const AttentionCall *c);
void attention_plain_backward(Stream *s, const AttentionCall *c);

/* Lets a kernel take more than 48 KB of shared memory of a block, the variables that it declares (less than 4 KB) included. */
template <typename F> static void need_shared(Stream *s, F *kernel, size_t bytes)
{
    if (bytes > (size_t)cuda_state(s)->shared_bytes)
        cuda_refused(s, "heads of this size want more shared memory than a block of this GPU has", "attention");
    else if (bytes > 44 << 10)
        cuda_failed(s, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "attention");
}

#endif
