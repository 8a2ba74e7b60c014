/* Log-probabilities of labels, and their gradient, from a chunk of logits: a block a row, one pass with a running maximum. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 512, WARPS = THREADS / 32 };

/* What a stretch of a row comes to: its maximum and where it first stands, Σ exp(z − most), Σ exp(z − most)·(z − most), Σ z. */
struct Stretch {
    float most, exps, weighted, sum;
    int32_t best;
};

/* The two sums of exponentials as seen from a maximum `up` above: nothing of a stretch that is empty or all −inf, as −inf − −inf is no
 * number. */
__device__ static inline void rise(Stretch *s, float most)
{
    float up = most - s->most, scale = s->most > -INFINITY ? expf(-up) : 0.0f;
    s->weighted = scale > 0.0f ? scale * (s->weighted - up * s->exps) : 0.0f;
    s->exps *= scale;
    s->most = most;
}

__device__ static inline Stretch join(Stretch a, Stretch b)
{
    Stretch s;
    bool second = b.most > a.most || (b.most == a.most && b.best < a.best);
    s.most = second ? b.most : a.most;
    s.best = second ? b.best : a.best;
    s.sum = a.sum + b.sum;
    rise(&a, s.most);
    rise(&b, s.most);
    s.exps = a.exps + b.exps;
    s.weighted = a.weighted + b.weighted;
    return s;
}

__device__ static inline Stretch warp_join(Stretch s)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) {
        Stretch other;
        other.most = __shfl_xor_sync(0xffffffffu, s.most, bits);
        other.weighted = __shfl_xor_sync(0xffffffffu, s.weighted, bits);
        other.exps = __shfl_xor_sync(0xffffffffu, s.exps, bits);
        other.sum = __shfl_xor_sync(0xffffffffu, s.sum, bits);
        other.best = __shfl_xor_sync(0xffffffffu, s.best, bits);
        /* The lower lane's comes first in both, so that all lanes get the same bits. */
        s = threadIdx.x & bits ? join(other, s) : join(s, other);
    }
    return s;
}

template <int N>
__global__ void __launch_bounds__(THREADS) logits_rows(const float *logits, int64_t ld, const int32_t *labels, float *logprob, float *lse, int32_t *best,
                                                       float *mean, float *entropy, int32_t cols)
{
    SHARED(Stretch, parts, [WARPS]);
    const float *z = logits + blockIdx.x * ld;
    Stretch s = {-INFINITY, 0, 0, 0, 0x7fffffff};
#pragma unroll 2
    for (int32_t i = (int32_t)threadIdx.x * N; i < cols; i += THREADS * N) {
        float v[N];
        load(v, z + i);
        float most = v[0];
        int32_t at = i;
#pragma unroll
        for (int j = 1; j < N; j++)
            if (v[j] > most) {
                most = v[j];
                at = i + j;
            }
        if (most > s.most) {
            rise(&s, most);
            s.best = at;
        }
#pragma unroll
        for (int j = 0; j < N; j++) {
            float below = v[j] - s.most, e = s.most > -INFINITY ? expf(below) : 0.0f;
            s.exps += e;
            s.weighted += e > 0.0f ? e * below : 0.0f;
            s.sum += v[j];
        }
    }
    s = warp_join(s);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int w = 1; w < WARPS; w++)
        s = join(s, parts[w]);
    int32_t t = (int32_t)blockIdx.x, label = labels[t];
    if (label >= cols)
        __trap();
    float all = s.most + logf(s.exps);
    lse[t] = all;
    logprob[t] = label < 0 ? 0.0f : z[label] - all;
    if (best)
        best[t] = s.best < cols ? s.best : 0;
    if (mean)
        mean[t] = s.sum / (float)cols;
    if (entropy)
        entropy[t] = logf(s.exps) - s.weighted / s.exps;
}

template <typename T, int N>
__global__ void logits_packs_backward(T *dz, int64_t lddz, const float *logits, int64_t ld, const int32_t *labels, const float *lse, const float *dlogprob,
                                      const float *dlse, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        int32_t label = labels[row];
        float d = label < 0 ? 0.0f : dlogprob[row], factor = (dlse ? dlse[row] : 0.0f) - d, all = lse[row], v[N];
        load(v, logits + row * ld + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = factor * expf(v[j] - all) + (i + j == label ? d : 0.0f);
        store(dz + row * lddz + i, v);
    }
}

void cuda_logits_forward(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best, float *mean, float *entropy)
{
    cuda_check(logits.dtype == DTYPE_F32, "logits_forward", "types");
    if (logits.rows == 0)
        return;
    BY_VECTOR(vector_width(DTYPE_F32, logits.cols, &logits, 1), float, N, {
        auto kernel = logits_rows<N>;
        LAUNCH(kernel, dim3((unsigned)logits.rows), dim3(THREADS), 0, cuda_stream(s)->stream, f32(logits), logits.ld, labels, logprob, lse, best, mean, entropy,
               (int32_t)logits.cols);
    });
    cuda_launched(s, "logits_forward");
}

static void backward(Stream *s, const char *operation, Tensor dz, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob,
                     const float *dlse)
{
    cuda_check(logits.dtype == DTYPE_F32 && dz.rows == logits.rows && dz.cols == logits.cols, operation, "types or shapes");
    if (logits.rows == 0)
        return;
    Tensor both[] = {dz, logits};
    BY_TYPE(dz.dtype, operation, T, BY_VECTOR(vector_width(DTYPE_F32, logits.cols, both, 2), float, N, {
                auto kernel = logits_packs_backward<T, N>;
                Cover c = cover(logits.rows, logits.cols / N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)dz.data, dz.ld, f32(logits), logits.ld, labels, lse, dlogprob, dlse,
                       logits.rows, logits.cols);
            }));
    cuda_launched(s, operation);
}

void cuda_logits_backward(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse)
{
    backward(s, "logits_backward", logits, logits, labels, lse, dlogprob, dlse);
}

void cuda_logits_gradient(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse)
{
    cuda_logits_forward(s, logits, labels, logprob, lse, NULL, NULL, NULL);
    backward(s, "logits_gradient", dz, logits, labels, lse, dlogprob, NULL);
}
