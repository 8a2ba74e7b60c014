/* Rotary position embedding (Su et al. 2021), Hugging Face's half layout. */
#include "kernels/cpu/cpu.h"

#include <omp.h>

CLONES static void heads_rotate(float *x, const float *c, const float *s, int heads, int half, float sign)
{
    for (int h = 0; h < heads; h++, x += 2 * half)
        for (int i = 0; i < half; i++) {
            float a = x[i], b = x[i + half], sine = sign * s[i];
            x[i] = a * c[i] - b * sine;
            x[i + half] = b * c[i] + a * sine;
        }
}

void cpu_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine,
              bool backward)
{
    cpu_check(x.cols == (int64_t)heads * head_dim && head_dim % 2 == 0, "rope", "shapes");
    int half = head_dim / 2;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (x.rows > 16)
    for (int64_t t = 0; t < x.rows; t++) {
        const float *c = cosine + (int64_t)positions[t] * half, *sn = sine + (int64_t)positions[t] * half;
        float *row = (float *)(uintptr_t)cpu_row(x, t, 0, x.cols, cpu_state(s)->scratch[omp_get_thread_num()]);
        heads_rotate(row, c, sn, heads, half, backward ? -1.0f : 1.0f);
        cpu_store(x, t, 0, x.cols, row);
    }
}
