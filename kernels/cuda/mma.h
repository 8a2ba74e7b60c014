/* A warp's matrix instructions (sm_80 and later) and the asynchronous copies that feed them. On a host tests/emulation gives the same
 * names. With g = lane/4 and t = lane%4, and pairs of bf16 in a register, the lower index in the low half:
 *
 *   A 16×16: a0 (g, 2t)  a1 (g+8, 2t)  a2 (g, 2t+8)  a3 (g+8, 2t+8)
 *   B 16×8:  b0 k = 2t, 2t+1  b1 k = 2t+8, 2t+9, column g
 *   C 16×8:  c0 c1 (g, 2t..2t+1)  c2 c3 (g+8, 2t..2t+1), f32
 *
 * Two neighbouring C tiles, packed to bf16, are the next product's A: pack_a. */
#ifndef KERNELS_CUDA_MMA_H
#define KERNELS_CUDA_MMA_H

#include "kernels/cuda/cuda.h"

#ifdef __CUDACC__
/* C += A·B */
__device__ static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8×8 matrices from shared memory: lanes 8i … 8i+7 give the addresses of matrix i's rows, 16 bytes each; lane l gets row l/4,
 * elements 2t and 2t+1 of each. */
__device__ static inline void ldmatrix(uint32_t (&to)[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

/* The same, each matrix transposed. */
__device__ static inline void ldmatrix_transposed(uint32_t (&to)[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

/* 16 bytes to shared memory without going through registers; not wanted: zeros, and `from` is not read. It has arrived when
 * copy_wait says so, and others see it after a barrier. */
__device__ static inline void copy_async(void *to, const void *from, bool wanted)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to), bytes = wanted ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

/* The same for 4 bytes. */
__device__ static inline void copy_async_word(void *to, const void *from, bool wanted)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to), bytes = wanted ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

/* Ends a group of copies. */
__device__ static inline void copy_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until at most `pending` of this thread's newest groups are under way. */
#define copy_wait(pending) asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory")
#endif

/* 2^x, relative error 2^-22; 0 for -inf. */
__device__ static inline float exp2_near(float x)
{
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

__device__ static inline uint32_t pack_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

__device__ static inline void pack_a(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4])
{
    a[0] = pack_pair(left[0], left[1]);
    a[1] = pack_pair(left[2], left[3]);
    a[2] = pack_pair(right[0], right[1]);
    a[3] = pack_pair(right[2], right[3]);
}

#endif
