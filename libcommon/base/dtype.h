/* Number types of tensors and files, and the conversions between them (round to nearest, ties to even; a NaN stays a
 * NaN). */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum Dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_I64, DTYPE_U8 } Dtype;

size_t dtype_size(Dtype t);
Dtype dtype_of_option(const char *name); /* --dtype=f32|bf16 */
const char *dtype_name(Dtype t); /* "F32", as safetensors spells it */

float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x);
float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);
/* Converts between F32, BF16 and F16. */
void dtype_convert(void *to, Dtype to_type, const void *from, Dtype from_type, size_t count);

#endif
