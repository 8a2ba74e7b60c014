/* What the CUDA operations share: the stream, checks, number types and vectors of them, and the few words that let the same
 * source run on a host (tests/emulation): LAUNCH for <<<>>>, SHARED and SHARED_DYNAMIC for __shared__.
 *
 * Activations are f32 or bf16, sums f32. Kernels take the type as a template's parameter, and N, how many numbers a thread takes
 * at once: 16 bytes of them where addresses and widths allow it (vector_width), else one. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <string.h>

extern "C" {
#include "base/memory.h"
#include "kernels/ops.h"
}
#include "kernels/cuda/product.h"

#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define SHARED(type, name, shape) __shared__ type name shape
#define SHARED_DYNAMIC(type, name)                          \
    extern __shared__ __align__(1024) unsigned char name##_[]; \
    type *name = (type *)name##_
#define ALIGNED(p, bytes) (p)
#else
#define ALIGNED(p, bytes) emulation_aligned(EMULATION_PLACE, p, bytes)
#endif

struct CudaState {
    Product *product;
    int capability;   /* 80, 90, …: kernels of no later one are used */
    int shared_bytes; /* that a block may have */
};

/* A stream owns its workspace, so that a product has the same bits whatever other streams do, and room for the kernels' partial
 * sums: operations of one stream follow one another. */
struct CudaStream {
    Stream base;
    cudaStream_t stream;
    void *workspace, *parts;
    const char *reason, *what; /* the first failure since the last wait and its operation; NULL: none */
};

enum { PARTS_BYTES = 32 << 20 };

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
/* What fails is remembered for the next stream_wait: a launch just made, a call, a library's refusal. */
void cuda_launched(Stream *s, const char *operation);
void cuda_failed(Stream *s, cudaError_t status, const char *operation);
void cuda_refused(Stream *s, const char *reason, const char *operation);

/* Blocks of `size` threads that cover n. */
static inline dim3 blocks_of(int64_t n, int64_t size)
{
    return dim3((unsigned)((n + size - 1) / size));
}

/* Threads for a matrix: threadIdx.x goes along the row, threadIdx.y down the rows, which each thread walks by gridDim.y · blockDim.y. */
struct Cover {
    dim3 grid, block;
};

static inline Cover cover(int64_t rows, int64_t packs)
{
    int64_t x = packs >= 128 ? 256 : 32, y = 256 / x, down = (rows + y - 1) / y;
    return {dim3((unsigned)((packs + x - 1) / x), (unsigned)(down < 65535 ? down : 65535)), dim3((unsigned)x, (unsigned)y)};
}

/* The rows, and the first of the n columns, that this thread takes of a matrix that cover() covers. */
#define FOR_ROWS(row, rows) \
    for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < (rows); row += (int64_t)gridDim.y * blockDim.y)
__device__ static inline int64_t column_of(int n)
{
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * n;
}

typedef __nv_bfloat16 bf16;

__device__ static inline float number(float x)
{
    return x;
}

__device__ static inline float number(bf16 x)
{
    return __bfloat162float(x);
}

template <typename T> __device__ T rounded(float x);
template <> __device__ inline float rounded<float>(float x)
{
    return x;
}
template <> __device__ inline bf16 rounded<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* What moves so many bytes at once. */
template <int BYTES> struct Word;
template <> struct Word<16> {
    typedef uint4 type;
};
template <> struct Word<8> {
    typedef uint2 type;
};
template <> struct Word<4> {
    typedef uint32_t type;
};
template <> struct Word<2> {
    typedef uint16_t type;
};

/* To global memory in one instruction: the compiler sometimes takes such a store apart. */
template <typename W> __device__ static inline void store_word(W *p, W w)
{
    *p = w;
}
#ifdef __CUDACC__
template <> __device__ inline void store_word<uint4>(uint4 *p, uint4 w)
{
    asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
}
template <> __device__ inline void store_word<uint2>(uint2 *p, uint2 w)
{
    asm volatile("st.global.v2.b32 [%0], {%1,%2};" ::"l"(p), "r"(w.x), "r"(w.y) : "memory");
}
#endif

/* N numbers of memory that is aligned to all of them or to 16 bytes; load from any, store to global memory. */
template <int N, typename T> __device__ static inline void load(float (&x)[N], const T *p)
{
    enum { BYTES = N * (int)sizeof(T), PIECE = BYTES < 16 ? BYTES : 16 };
    typedef typename Word<PIECE>::type W;
    T v[N];
#pragma unroll
    for (int i = 0; i < BYTES / PIECE; i++) {
        W w = ((const W *)ALIGNED(p, PIECE))[i];
        memcpy((char *)v + i * PIECE, &w, PIECE);
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = number(v[i]);
}

template <int N, typename T> __device__ static inline void store(T *p, const float (&x)[N])
{
    enum { BYTES = N * (int)sizeof(T), PIECE = BYTES < 16 ? BYTES : 16 };
    typedef typename Word<PIECE>::type W;
    T v[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = rounded<T>(x[i]);
#pragma unroll
    for (int i = 0; i < BYTES / PIECE; i++) {
        W w;
        memcpy(&w, (const char *)v + i * PIECE, PIECE);
        store_word((W *)ALIGNED(p, PIECE) + i, w);
    }
}

/* How many numbers a thread may take at once of tensors whose widest rows have `width` columns: 16 bytes of `type`, or 1 where
 * one of them does not allow it. Absent tensors (data NULL) always do. */
static inline int vector_width(Dtype type, int64_t width, const Tensor *tensors, int count)
{
    int n = 16 / (int)dtype_size(type);
    if (width % n != 0)
        return 1;
    for (int i = 0; i < count; i++) {
        int64_t bytes = n * (int64_t)dtype_size(tensors[i].dtype) < 16 ? n * (int64_t)dtype_size(tensors[i].dtype) : 16;
        if (tensors[i].data && ((uintptr_t)tensors[i].data % (uintptr_t)bytes != 0 || tensors[i].ld * (int64_t)dtype_size(tensors[i].dtype) % bytes != 0))
            return 1;
    }
    return n;
}

/* Runs the statement with T the type of a tensor's numbers: BY_TYPE(x.dtype, "name", T, statement). */
#define BY_TYPE(type, operation, T, ...)                        \
    do {                                                        \
        if ((type) == DTYPE_F32) {                              \
            typedef float T;                                    \
            __VA_ARGS__;                                        \
        } else {                                                \
            cuda_check((type) == DTYPE_BF16, operation, "types"); \
            typedef bf16 T;                                     \
            __VA_ARGS__;                                        \
        }                                                       \
    } while (0)

/* The same with N beside it: 16 bytes of T, or 1. */
#define BY_VECTOR(width, T, N, ...)              \
    do {                                         \
        if ((width) > 1) {                       \
            enum { N = 16 / (int)sizeof(T) };    \
            __VA_ARGS__;                         \
        } else {                                 \
            enum { N = 1 };                      \
            __VA_ARGS__;                         \
        }                                        \
    } while (0)

/* The sum over a warp, the same in every lane, in one fixed order. */
template <typename T> __device__ static inline T warp_sum(T x)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

__device__ static inline float warp_max(float x)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
    return x;
}

void cuda_fill(Stream *s, Tensor x, float value);
void cuda_copy(Stream *s, Tensor to, Tensor from);
void cuda_scatter(Stream *s, Tensor to, Tensor from, const int32_t *rows);
void cuda_add(Stream *s, Tensor y, Tensor x, float alpha);
void cuda_scale(Stream *s, Tensor x, float alpha);
void cuda_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta);
void cuda_bias_forward(Stream *s, Tensor y, Tensor bias);
void cuda_bias_backward(Stream *s, Tensor dbias, Tensor dy);
void cuda_embedding_forward(Stream *s, Tensor out, Tensor table, const int32_t *tokens);
void cuda_embedding_backward(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens);
void cuda_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps);
void cuda_rmsnorm_backward(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual);
void cuda_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine,
               bool backward);
void cuda_attention_forward(Stream *s, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a);
void cuda_attention_backward(Stream *s, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta,
                             Tensor q, Tensor k, Tensor v, const Attention *a);
void cuda_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim, float scale,
                           int64_t window);
void cuda_swiglu_forward(Stream *s, Tensor y, Tensor gu);
void cuda_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu);
void cuda_logits_forward(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best, float *mean,
                         float *entropy);
void cuda_logits_backward(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse);
void cuda_logits_gradient(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse);
void cuda_dropout(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add);
void cuda_noise(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed);
void cuda_sum_squares(Stream *s, double *sum, Tensor x);
void cuda_adamw(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2, float eps,
                float decay, float gscale, int64_t step);

#endif
