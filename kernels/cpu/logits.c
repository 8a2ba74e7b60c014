/* Log-probabilities of labels, and their gradient, from a chunk of logits. */
#include "kernels/cpu/cpu.h"

#include <math.h>

CLONES static float row_max(const float *z, int64_t n)
{
    return cpu_max(z, n, z[0]);
}

CLONES static float row_exp_sum(const float *z, int64_t n, float most)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += cpu_exp(z[i] - most);
    return sum;
}

/* Σ exp(z − most)·(z − most), a term that underflows counting nothing. */
CLONES static float row_exp_weighted(const float *z, int64_t n, float most)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float below = z[i] - most < -200.0f ? -200.0f : z[i] - most;
        sum += cpu_exp(below) * below;
    }
    return sum;
}

CLONES static float row_sum(const float *z, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += z[i];
    return sum;
}

void cpu_logits_forward(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best, float *mean, float *entropy)
{
    cpu_settle(s);
    int64_t n = logits.cols;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < logits.rows; t++) {
        const float *z = f32(logits) + t * logits.ld;
        float most = row_max(z, n), sum = row_exp_sum(z, n, most);
        lse[t] = most + logf(sum);
        cpu_check(labels[t] < n, "logits_forward", "labels");
        logprob[t] = labels[t] < 0 ? 0 : z[labels[t]] - lse[t];
        if (mean)
            mean[t] = row_sum(z, n) / (float)n;
        if (entropy)
            entropy[t] = logf(sum) - row_exp_weighted(z, n, most) / sum;
        if (best) {
            int32_t b = 0;
            while (b < n - 1 && !(z[b] >= most))
                b++;
            best[t] = b;
        }
    }
}

CLONES static void row_backward(float *z, int64_t n, float lse, float factor)
{
    for (int64_t i = 0; i < n; i++)
        z[i] = factor * cpu_exp(z[i] - lse);
}

void cpu_logits_backward(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse)
{
    cpu_settle(s);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < logits.rows; t++) {
        float *z = f32(logits) + t * logits.ld;
        bool labelled = labels[t] >= 0;
        float d = labelled ? dlogprob[t] : 0;
        row_backward(z, logits.cols, lse[t], (dlse ? dlse[t] : 0) - d);
        if (labelled)
            z[labels[t]] += d;
    }
}

/* z becomes e^(z − most); returns their sum. */
CLONES static float row_exp(float *z, int64_t n, float most)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float e = cpu_exp(z[i] - most);
        z[i] = e;
        sum += e;
    }
    return sum;
}

CLONES static void row_scaled(void *dz, bool half, const float *z, int64_t n, float factor)
{
    if (!half)
        for (int64_t i = 0; i < n; i++)
            ((float *)dz)[i] = factor * z[i];
    else
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dz)[i] = cpu_half(factor * z[i]);
}

typedef struct Gradient {
    Tensor dz, logits;
    const int32_t *labels;
    const float *dlogprob;
    float *logprob, *lse;
} Gradient;

/* One exponential a logit, and a row stays near while it is passed three times. */
static const RowKernel plain = {.greatest = row_max, .exponentials = row_exp, .scaled = row_scaled};

static void gradient_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Gradient *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain);
    int64_t n = a->logits.cols;
    (void)state, (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *z = f32(a->logits) + t * a->logits.ld, most = kernel->greatest(z, n);
        int32_t label = a->labels[t];
        cpu_check(label < n, "logits_gradient", "labels");
        bool labelled = label >= 0;
        float own = labelled ? z[label] : 0, d = labelled ? a->dlogprob[t] : 0, sum = kernel->exponentials(z, n, most), factor = -d / sum;
        a->lse[t] = most + logf(sum);
        a->logprob[t] = labelled ? own - a->lse[t] : 0;
        if (labelled)
            z[label] -= sum; /* factor · −sum is d */
        kernel->scaled(cpu_place(a->dz, t, 0), a->dz.dtype == DTYPE_BF16, z, n, factor);
    }
}

/* A row of bf16 may begin where its logits do. */
void cpu_logits_gradient(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse)
{
    cpu_check(dz.rows == logits.rows && dz.cols == logits.cols, "logits_gradient", "shapes");
    cpu_rows(s, logits.rows, cpu_row_item(gradient_rows, 4, &(Gradient){dz, logits, labels, dlogprob, logprob, lse}, sizeof(Gradient)));
}
