/* The matrix product's micro-kernel for AVX2. */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define MR 4
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_avx2 = {MR, LANES, matmul_run, cpu_transpose};
#else
const MatmulKernel matmul_kernel_avx2 = {0, 0, 0, 0};
#endif
