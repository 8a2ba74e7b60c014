#include "base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {{"F32", 4}, {"BF16", 2}, {"F16", 2}, {"I32", 4}, {"I64", 8}, {"U8", 1}};

size_t dtype_size(Dtype t)
{
    return types[t].size;
}

Dtype dtype_of_option(const char *name)
{
    return strcmp(name, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
}

const char *dtype_name(Dtype t)
{
    return types[t].name;
}

static uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

float bf16_to_f32(uint16_t x)
{
    return bits_float((uint32_t)x << 16);
}

uint16_t f32_to_bf16(float x)
{
    uint32_t u = float_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 0) {
        float x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    if (exponent == 31)
        return bits_float(sign | 0x7f800000 | fraction << 13);
    return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t f32_to_f16(float x)
{
    uint32_t u = float_bits(x), a = u & 0x7fffffff;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 and more */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal: adding 0.5 leaves units of 2^-24, rounded to even, in the low bits */
        float y = bits_float(a) + 0.5f;
        return (uint16_t)(sign | (float_bits(y) - 0x3f000000));
    }
    a += 0xc8000000 + 0xfff + (a >> 13 & 1); /* exponent 127 becomes 15 */
    return (uint16_t)(sign | a >> 13);
}

/* In a file's bytes a number may begin anywhere. */
static float read_one(const void *p, Dtype t, size_t i)
{
    float f;
    uint16_t x;
    if (t == DTYPE_F32) {
        memcpy(&f, (const char *)p + i * sizeof f, sizeof f);
        return f;
    }
    memcpy(&x, (const char *)p + i * sizeof x, sizeof x);
    return t == DTYPE_BF16 ? bf16_to_f32(x) : f16_to_f32(x);
}

void dtype_convert(void *to, Dtype to_type, const void *from, Dtype from_type, size_t count)
{
    if (to_type == from_type) {
        memcpy(to, from, count * dtype_size(to_type));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        float x = read_one(from, from_type, i);
        if (to_type == DTYPE_F32)
            ((float *)to)[i] = x;
        else
            ((uint16_t *)to)[i] = to_type == DTYPE_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
    }
}
