#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

static CpuLevel cpu_found(void)
{
    CpuLevel level = CPU_SCALAR;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        level = CPU_AVX2;
    if (level == CPU_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        level = __builtin_cpu_supports("avx512bf16") ? CPU_AVX512_BF16 : CPU_AVX512;
#endif
    const char *wish = getenv("LMPIPE_CPU");
    if (wish && strcmp(wish, "scalar") == 0)
        level = CPU_SCALAR;
    if (wish && strcmp(wish, "avx2") == 0 && level > CPU_AVX2)
        level = CPU_AVX2;
    if (wish && strcmp(wish, "avx512") == 0 && level > CPU_AVX512)
        level = CPU_AVX512;
    return level;
}

CpuLevel cpu_level(void)
{
    static int known = -1; /* every thread that races here stores the same value */
    int level = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (level < 0) {
        level = (int)cpu_found();
        __atomic_store_n(&known, level, __ATOMIC_RELAXED);
    }
    return (CpuLevel)level;
}
