/* form3_sum for AVX2: four runs at once. */
#if defined(__x86_64__)
#define NAME form3_sum_avx2
#define TARGET __attribute__((target("avx2,fma")))
#include "form3_sum.h"
#endif
