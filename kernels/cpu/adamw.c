/* AdamW as torch.optim.AdamW computes it, in one pass over parameters and states. */
#include "kernels/cpu/cpu.h"

#include <math.h>

CLONES static void piece_step(float *p, const float *g, float *m, float *v, int64_t n, float keep, float step, float beta1,
                              float beta2, float eps, float correction, float gscale)
{
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * gscale;
        float first = m[i] + (gradient - m[i]) * (1.0f - beta1);
        float second = beta2 * v[i] + (1.0f - beta2) * gradient * gradient;
        m[i] = first;
        v[i] = second;
        p[i] = p[i] * keep - step * first / (sqrtf(second) * correction + eps);
    }
}

void cpu_adamw(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2, float eps,
               float decay, float gscale, int64_t step)
{
    cpu_settle(s);
    enum { PIECE = 1 << 14 };
    float size = (float)(lr / (1 - pow(beta1, (double)step)));
    float correction = (float)(1 / sqrt(1 - pow(beta2, (double)step)));
    int64_t pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (pieces > 1)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t first = i * PIECE, count = n - first < PIECE ? n - first : PIECE;
        piece_step(p + first, g + first, m + first, v + first, count, 1.0f - lr * decay, size, beta1, beta2, eps, correction, gscale);
    }
}
