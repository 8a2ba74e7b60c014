/* Rotary frequencies: theta^(−2i/d), plain, linearly scaled, or Llama 3.1's scaling. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/config.h"

/* cos and sin of position·frequency, [positions, head_dim/2]; the angle is rounded to f32 first, as transformers does. */
void rope_table(const ModelConfig *c, int64_t positions, float *cosine, float *sine);

#endif
