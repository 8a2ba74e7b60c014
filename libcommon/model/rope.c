#include "model/rope.h"

#include <math.h>

static double llama3_scaled(double inverse, const RopeScaling *r)
{
    double old = (double)r->original_max_position_embeddings, wavelength = 2 * M_PI / inverse;
    if (wavelength < old / r->high_freq_factor)
        return inverse;
    if (wavelength > old / r->low_freq_factor)
        return inverse / r->factor;
    double smooth = (old / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * inverse / r->factor + smooth * inverse;
}

/* inverse[i], i < head_dim/2 (transformers: modeling_rope_utils.py). */
static void frequencies(const ModelConfig *c, double *inverse)
{
    int64_t half = c->head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        inverse[i] = pow(c->rope_theta, -(double)(2 * i) / (double)c->head_dim);
        if (c->rope_scaling.kind == ROPE_LINEAR)
            inverse[i] /= c->rope_scaling.factor;
        if (c->rope_scaling.kind == ROPE_LLAMA3)
            inverse[i] = llama3_scaled(inverse[i], &c->rope_scaling);
    }
}

void rope_table(const ModelConfig *c, int64_t positions, float *cosine, float *sine)
{
    int64_t half = c->head_dim / 2;
    double inverse[128];
    frequencies(c, inverse);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)p * (float)inverse[i];
            cosine[p * half + i] = (float)cos((double)angle);
            sine[p * half + i] = (float)sin((double)angle);
        }
}
