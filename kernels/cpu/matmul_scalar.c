/* The matrix product's micro-kernel in plain C, and which one this CPU has for f32. */
#include "kernels/cpu/cpu.h"

#include "base/cpu.h"

#define TARGET
#define LANES 4
#define MR 4
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_scalar = {4, 4, matmul_run, cpu_transpose};

void cpu_transpose(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t rows, int64_t cols)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            out[j * ldo + i] = in[i * ldi + j];
}

const MatmulKernel *cpu_matmul_kernel(void)
{
    switch (cpu_level()) {
    case CPU_AVX512_BF16:
    case CPU_AVX512:
        return &matmul_kernel_avx512;
    case CPU_AVX2:
        return &matmul_kernel_avx2;
    default:
        return &matmul_kernel_scalar;
    }
}
