/* Rotary position embedding (Su et al. 2021), Hugging Face's half layout: (a, b) -> (a·c − b·s, b·c + a·s). A thread rotates N pairs. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

template <typename T, int N>
__global__ void rope_pairs(T *x, int64_t ld, unsigned per_head, unsigned per_row, int64_t count, int half, const int32_t *positions,
                           const float *cosine, const float *sine, float sign)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t t = i / per_row;
    unsigned at = (unsigned)(i - t * per_row), head = at / per_head, pair = (at - head * per_head) * N;
    T *a = x + t * ld + (int64_t)head * 2 * half + pair, *b = a + half;
    float va[N], vb[N], c[N], s[N];
    load(va, a);
    load(vb, b);
    load(c, cosine + (int64_t)positions[t] * half + pair);
    load(s, sine + (int64_t)positions[t] * half + pair);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float first = va[j], second = vb[j], turn = sign * s[j];
        va[j] = first * c[j] - second * turn;
        vb[j] = second * c[j] + first * turn;
    }
    store(a, va);
    store(b, vb);
}

void cuda_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine, bool backward)
{
    cuda_check(x.cols == (int64_t)heads * head_dim && head_dim % 2 == 0, "rope", "shapes");
    if (x.rows == 0)
        return;
    int half = head_dim / 2;
    /* The second halves of heads and the tables' rows must be aligned too: half is a row's width here. */
    BY_TYPE(x.dtype, "rope", T, BY_VECTOR(vector_width(x.dtype, half, &x, 1), T, N, {
                auto kernel = rope_pairs<T, N>;
                unsigned per_head = (unsigned)(half / N), per_row = per_head * (unsigned)heads;
                int64_t count = x.rows * per_row;
                LAUNCH(kernel, blocks_of(count, THREADS), dim3(THREADS), 0, cuda_stream(s)->stream, (T *)x.data, x.ld, per_head, per_row, count,
                       half, positions, cosine, sine, backward ? -1.0f : 1.0f);
            }));
    cuda_launched(s, "rope");
}
