/* The matrix product's micro-kernel for AVX2: a 6×16 tile. */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#define TILE tile_avx2
#define TARGET "avx2,fma"
#define LANES 8
#define MR 6
#define NV 2
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_avx2 = {MR, NV * LANES, tile_avx2};
#else
const MatmulKernel matmul_kernel_avx2 = {0, 0, 0};
#endif
