/* AdamW as torch.optim.AdamW computes it, in one pass over parameters and states: 28 bytes a parameter. */
#include <math.h>
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

template <int N>
__global__ void adamw_packs(float *p, const float *g, float *m, float *v, int64_t n, float keep, float step, float beta1, float beta2, float eps,
                            float correction, float gscale)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (i >= n)
        return;
    float weight[N], gradient[N], first[N], second[N];
    load(weight, p + i);
    load(gradient, g + i);
    load(first, m + i);
    load(second, v + i);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float d = gradient[j] * gscale;
        first[j] += (d - first[j]) * (1.0f - beta1);
        second[j] = beta2 * second[j] + (1.0f - beta2) * d * d;
        weight[j] = weight[j] * keep - step * first[j] / (sqrtf(second[j]) * correction + eps);
    }
    store(p + i, weight);
    store(m + i, first);
    store(v + i, second);
}

void cuda_adamw(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2, float eps, float decay,
                float gscale, int64_t step)
{
    if (n == 0)
        return;
    float size = (float)(lr / (1 - pow(beta1, (double)step))), correction = (float)(1 / sqrt(1 - pow(beta2, (double)step)));
    uintptr_t bits = (uintptr_t)p | (uintptr_t)g | (uintptr_t)m | (uintptr_t)v | (uintptr_t)(n * 4);
    BY_VECTOR(bits % 16 == 0 ? 4 : 1, float, N, {
        auto kernel = adamw_packs<N>;
        LAUNCH(kernel, blocks_of(n / N, THREADS), dim3(THREADS), 0, cuda_stream(s)->stream, p, g, m, v, n, 1.0f - lr * decay, size, beta1, beta2, eps,
               correction, gscale);
    });
    cuda_launched(s, "adamw");
}
