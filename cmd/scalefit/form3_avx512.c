/* form3_sum for AVX-512: eight runs at once. */
#if defined(__x86_64__)
#define NAME form3_sum_avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#include "form3_sum.h"
#endif
