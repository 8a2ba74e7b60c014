/* What the CUDA operations share: the stream, checks, and the few words that let the same source run on a host
 * (tests/emulation): LAUNCH for <<<>>>, SHARED and SHARED_DYNAMIC for __shared__. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cuda_runtime.h>

extern "C" {
#include "base/memory.h"
#include "kernels/ops.h"
}
#include "kernels/cuda/product.h"

#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define SHARED(type, name, shape) __shared__ type name shape
#define SHARED_DYNAMIC(type, name)                          \
    extern __shared__ __align__(16) unsigned char name##_[]; \
    type *name = (type *)name##_
#endif

struct CudaState {
    Product *product;
};

/* A stream owns its workspace, so that a product has the same bits whatever other streams do. */
struct CudaStream {
    Stream base;
    cudaStream_t stream;
    void *workspace;
    cudaError_t failed; /* the first failure since the last wait */
    const char *what;
};

static inline CudaStream *cuda_stream(Stream *s)
{
    return (CudaStream *)s;
}

static inline CudaState *cuda_state(Stream *s)
{
    return (CudaState *)s->device->state;
}

static inline float *f32(Tensor x)
{
    return (float *)x.data;
}

/* A broken call is a programming error: the operation's name and the process ends. */
void cuda_check(bool condition, const char *operation, const char *what);
/* After a launch: remembers a refused one for the next stream_wait. */
void cuda_launched(Stream *s, const char *operation);

/* The sum over a warp, the same in every lane, in one fixed order. */
__device__ static inline float warp_sum(float x)
{
    for (int bits = 16; bits > 0; bits >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

void cuda_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta);
void cuda_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps);
void cuda_rmsnorm_backward(Stream *s, Tensor dh, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual);

#endif
