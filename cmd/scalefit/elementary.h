/* exp and log as plain arithmetic without branches, so that a loop over them becomes vectors (the C library's are calls). Within
 * 4 units in the last place; exp of what lies beyond ±700 is that of ±700, and log wants a positive number that is not subnormal. */
#ifndef SCALEFIT_ELEMENTARY_H
#define SCALEFIT_ELEMENTARY_H

#include <stdint.h>
#include <string.h>

static inline uint64_t bits_of(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double double_of(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* x = k log 2 + r, |r| <= log(2)/2: 2^k by the exponent's bits, exp(r) by its series, in parts that do not wait
 * for one another. Adding 1.5·2^52 rounds to a whole number, which then stands in the last bits. */
static inline double plain_exp(double x)
{
    const double magic = 6755399441055744.0;
    x = x > 700 ? 700 : x < -700 ? -700 : x;
    double t = x * 1.4426950408889634 + magic, k = t - magic, r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    double r2 = r * r, r4 = r2 * r2;
    double low = (1 + r) + (0.5 + r * (1.0 / 6)) * r2, middle = (1.0 / 24 + r * (1.0 / 120)) + (1.0 / 720 + r * (1.0 / 5040)) * r2;
    double high = (1.0 / 40320 + r * (1.0 / 362880)) + (1.0 / 3628800 + r * (1.0 / 39916800)) * r2 + r4 * (1.0 / 479001600);
    double p = low + r4 * (middle + r4 * high);
    return p * double_of((bits_of(t) << 52) + bits_of(1.0));
}

/* x = 2^k m, √½ <= m < √2: log m = 2 artanh(s), s = (m − 1)/(m + 1), by its series. */
static inline double plain_log(double x)
{
    uint64_t u = bits_of(x) - 0x3fe6a09e667f3bcdu + ((uint64_t)1024 << 52), biased = u >> 52;
    double m = double_of(bits_of(x) - ((biased - 1024) << 52)), k = double_of(biased | 0x4330000000000000u) - (4503599627370496.0 + 1024);
    double f = m - 1, s = f / (2 + f), z = s * s, z2 = z * z, z4 = z2 * z2;
    double low = (1.0 / 3 + z * (1.0 / 5)) + (1.0 / 7 + z * (1.0 / 9)) * z2, high = (1.0 / 11 + z * (1.0 / 13)) + (1.0 / 15 + z * (1.0 / 17)) * z2;
    double p = low + z4 * (high + z4 * (1.0 / 19 + z * (1.0 / 21)));
    return k * 6.93147180369123816490e-01 + (2 * s + (2 * s * z * p + k * 1.90821492927058770002e-10));
}

#endif
