/* The part of cuda_fp16.h that kernels/cuda uses. */
#ifndef EMULATION_CUDA_FP16_H
#define EMULATION_CUDA_FP16_H

extern "C" {
#include "base/dtype.h"
}

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half x)
{
    return f16_to_f32(x.bits);
}

static inline __half __float2half_rn(float f)
{
    return {f32_to_f16(f)};
}

#endif
