/* *sum += Σ x²: f32 inside fixed pieces of 4,096, pieces added in double and in order. */
#include "kernels/cpu/cpu.h"

enum { PIECE = 4096, GROUP = 4096 };

CLONES static float piece_sum(const float *x, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

void cpu_sum_squares(Stream *s, double *sum, Tensor x)
{
    cpu_settle(s);
    cpu_check(x.ld == x.cols || x.rows == 1, "sum_squares", "strides");
    int64_t n = x.rows * x.cols, pieces = (n + PIECE - 1) / PIECE;
    float parts[GROUP];
    for (int64_t first = 0; first < pieces; first += GROUP) {
        int64_t count = pieces - first < GROUP ? pieces - first : GROUP;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (count > 8)
        for (int64_t i = 0; i < count; i++) {
            int64_t at = (first + i) * PIECE;
            parts[i] = piece_sum(f32(x) + at, n - at < PIECE ? n - at : PIECE);
        }
        for (int64_t i = 0; i < count; i++)
            *sum += (double)parts[i];
    }
}
