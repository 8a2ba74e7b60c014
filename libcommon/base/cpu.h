/* Which instruction sets this CPU has, looked up once. LMPIPE_CPU=scalar|avx2|avx512|avx512bf16 in the environment lowers the
 * answer, so that tests can run every form. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

typedef enum CpuLevel { CPU_SCALAR, CPU_AVX2 /* with FMA and F16C */, CPU_AVX512 /* F, BW, DQ, VL */, CPU_AVX512_BF16 } CpuLevel;

CpuLevel cpu_level(void);

#endif
