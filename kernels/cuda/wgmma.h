/* A warpgroup's matrix instructions (sm_90a alone): 128 threads multiply 64 rows at once, B and if wanted A straight from shared memory,
 * while they do something else. On a host tests/emulation gives the same names.
 *
 * A tile of ROWS rows in shared memory stands in blocks of 64 columns of bf16, a row of a block in 128 bytes, whose eight pieces of 16
 * bytes are exchanged by the row's number (tile_at), so that neither rows nor columns meet one bank. Tiles begin at multiples of 1024
 * bytes. Warp w of the group has rows 16w … 16w+15 of the product, laid out as mma.h's C.
 *
 *   tile written by its threads → wgmma_visible → barrier → wgmma_begin → products → wgmma_commit → … → wgmma_wait<N> → wgmma_settle
 *
 * Until then neither the product's registers nor those of A may be touched. */
#ifndef KERNELS_CUDA_WGMMA_H
#define KERNELS_CUDA_WGMMA_H

#include "kernels/cuda/mma.h"

/* Where a number stands in a tile. */
template <int ROWS> __device__ static inline int tile_at(int row, int column)
{
    return (column / 64 * ROWS + row) * 64 + ((column / 8 ^ row) & 7) * 8 + column % 8;
}

#ifdef __CUDACC__
typedef uint64_t Operand;

/* Matrix descriptor (PTX ISA, "Asynchronous warpgroup level matrix shared memory layout"): address and strides in 16 bytes, 128-byte
 * swizzle; blocks of 64 columns are `block` bytes apart (of no account where rows are multiplied), groups of eight rows 1024. */
__device__ static inline Operand operand_at(const bf16 *p, int block)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(block >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

__device__ static inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

/* Ends a group of products. */
__device__ static inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* Waits until at most PENDING of the newest groups are under way. */
template <int PENDING> __device__ static inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
}

/* What this thread has written to shared memory is there for products after the next barrier. */
__device__ static inline void wgmma_visible()
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* Keeps the compiler from using a product's registers before the wait above it. */
template <int N> __device__ static inline void wgmma_settle(float (&d)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            asm volatile("" : "+f"(d[i][j])::"memory");
}

#define WGMMA_4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_8(d, i) WGMMA_4(d, i), WGMMA_4(d, i + 1)
#define WGMMA_16(d, i) WGMMA_8(d, i), WGMMA_8(d, i + 2)
#define WGMMA_32(d, i) WGMMA_16(d, i), WGMMA_16(d, i + 4)
#define WGMMA_64(d, i) WGMMA_32(d, i), WGMMA_32(d, i + 8)
#define NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NAMES_16 NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_32 NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_40 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define NAMES_48 NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define NAMES_64 \
    NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* d (+)= A·Bᵀ for k of 16: A 64 rows, B N rows of tiles; N 64 or 128. */
template <int N> __device__ static inline void wgmma_rows(float (*d)[4], Operand a, Operand b, bool add);
template <> __device__ inline void wgmma_rows<64>(float (*d)[4], Operand a, Operand b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, %32, %33, p, 1, 1, 0, 0;\n}\n"
                 : WGMMA_32(d, 0)
                 : "l"(a), "l"(b), "r"((int)add));
}
template <> __device__ inline void wgmma_rows<128>(float (*d)[4], Operand a, Operand b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
                 : WGMMA_64(d, 0)
                 : "l"(a), "l"(b), "r"((int)add));
}

/* d += A·B for k of 16: A from registers as mma.h's, B 16 rows and N columns of a tile; N 64, 80, 96 or 128. */
template <int N> __device__ static inline void wgmma_columns(float (*d)[4], const uint32_t (&a)[4], Operand b);
template <> __device__ inline void wgmma_columns<64>(float (*d)[4], const uint32_t (&a)[4], Operand b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
                 : WGMMA_32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <> __device__ inline void wgmma_columns<80>(float (*d)[4], const uint32_t (&a)[4], Operand b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {" NAMES_40 "}, {%40,%41,%42,%43}, %44, 1, 1, 1, 1;\n"
                 : WGMMA_32(d, 0), WGMMA_8(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <> __device__ inline void wgmma_columns<96>(float (*d)[4], const uint32_t (&a)[4], Operand b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" NAMES_48 "}, {%48,%49,%50,%51}, %52, 1, 1, 1, 1;\n"
                 : WGMMA_32(d, 0), WGMMA_16(d, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <> __device__ inline void wgmma_columns<128>(float (*d)[4], const uint32_t (&a)[4], Operand b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"
                 : WGMMA_64(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#else
struct Operand {
    const bf16 *at;
    int block;
};
static inline Operand operand_at(const bf16 *p, int block)
{
    return {p, block};
}
static inline void wgmma_begin()
{
    emulation_wgmma_begin(EMULATION_PLACE);
}
static inline void wgmma_commit()
{
    emulation_wgmma_commit();
}
template <int PENDING> static inline void wgmma_wait()
{
    emulation_wgmma_wait(EMULATION_PLACE, PENDING);
}
static inline void wgmma_visible()
{
    emulation_wgmma_visible();
}
template <int N> static inline void wgmma_settle(float (&)[N][4])
{
}
template <int N> static inline void wgmma_rows(float (*d)[4], Operand a, Operand b, bool add)
{
    emulation_wgmma(EMULATION_PLACE, d, N, NULL, (const uint16_t *)a.at, (const uint16_t *)b.at, 0, add);
}
template <int N> static inline void wgmma_columns(float (*d)[4], const uint32_t (&a)[4], Operand b)
{
    emulation_wgmma(EMULATION_PLACE, d, N, a, NULL, (const uint16_t *)b.at, b.block, true);
}
#endif

/* Rows from `row` (a multiple of 8) of a tile, columns 16·k …, for wgmma_rows. */
template <int ROWS> __device__ static inline Operand operand_rows(const bf16 *tile, int row, int k)
{
    return operand_at(tile + (k / 4 * ROWS + row) * 64 + k % 4 * 16, 16);
}

/* Rows 16·k … of a tile, from column 0 on, for wgmma_columns. */
template <int ROWS> __device__ static inline Operand operand_columns(const bf16 *tile, int k)
{
    return operand_at(tile + k * 16 * 64, ROWS * 128);
}

#endif
