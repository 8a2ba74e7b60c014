/* The matrix product's micro-kernel for AVX512: a 12×32 tile. */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#define TILE tile_avx512
#define TARGET "avx512f,avx512vl,avx512bw,avx512dq,fma"
#define LANES 16
#define MR 12
#define NV 2
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_avx512 = {MR, NV * LANES, tile_avx512};
#else
const MatmulKernel matmul_kernel_avx512 = {0, 0, 0};
#endif
