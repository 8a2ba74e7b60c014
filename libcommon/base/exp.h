/* e^x in single precision for loops that vectorise: 2^k·2^f, f in [-1/2, 1/2], degree 5 (relative error 2.3e-7); 0 below -87. */
#ifndef BASE_EXP_H
#define BASE_EXP_H

#include <stdint.h>

static inline float exp_single(float x)
{
    float low = x < -87.0f ? -87.0f : x;
    low = low > 88.0f ? 88.0f : low;
    float t = low * 1.44269504f;
    union {
        float f;
        uint32_t i;
    } whole = {.f = t + 12582912.0f}, scale; /* 1.5·2^23: the last bits are k's */
    float k = whole.f - 12582912.0f;
    float f = (low - k * 0.693359375f) + k * 2.12194440e-4f; /* low − k·ln 2, ln 2 in two parts */
    float p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (0.00833333333f + f * 0.00138888889f)))));
    scale.i = (whole.i + 127) << 23; /* a NaN has no k, and p is one */
    return x < -87.0f ? 0.0f : p * scale.f;
}

#endif
