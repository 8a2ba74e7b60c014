/* Dropout and noise: a thread draws the block of four elements that random_block(seed, the row's key, j / 4) is for. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, BLOCK = 4 /* elements a block of random words */ };

/* Philox 4x32-10, as base/random.c. */
__device__ static void random_words(uint32_t c[4], uint64_t seed, uint64_t stream, uint32_t index)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    c[0] = index;
    c[1] = 0;
    c[2] = (uint32_t)stream;
    c[3] = (uint32_t)(stream >> 32);
    for (int r = 0; r < 10; r++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t a = (uint32_t)(q >> 32) ^ c[1] ^ k0, b = (uint32_t)(p >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)q;
        c[3] = (uint32_t)p;
        c[0] = a;
        c[2] = b;
    }
}

template <typename Y, typename X>
__global__ void dropout_blocks(Y *y, int64_t ldy, const X *x, int64_t ldx, int64_t cols, int64_t drawn, int64_t per_row, int64_t count, const uint64_t *keys,
                               uint64_t seed, uint32_t least, float scale, bool add)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    /* Column 0 is column `drawn` of what is drawn, maybe within a block. */
    int64_t t = i / per_row, block = i - t * per_row, first = block * BLOCK - drawn % BLOCK;
    uint32_t w[BLOCK];
    random_words(w, seed, keys[t], (uint32_t)(drawn / BLOCK + block));
    for (int j = first < 0 ? (int)-first : 0; j < BLOCK && first + j < cols; j++) {
        float kept = w[j] >= least ? number(x[t * ldx + first + j]) * scale : 0.0f;
        Y *to = y + t * ldy + first + j;
        *to = rounded<Y>(add ? number(*to) + kept : kept);
    }
}

template <typename T>
__global__ void noise_blocks(T *x, int64_t ld, int64_t cols, int64_t per_row, int64_t count, const uint64_t *keys, const float *scale, uint64_t seed)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t t = i / per_row, first = (i - t * per_row) * BLOCK;
    uint32_t w[BLOCK];
    random_words(w, seed, keys[t], (uint32_t)(first / BLOCK));
    for (int j = 0; j < BLOCK && first + j < cols; j++) {
        T *to = x + t * ld + first + j;
        *to = rounded<T>(number(*to) + scale[t] * ((float)(w[j] >> 8) * 0x1p-23f - 1.0f));
    }
}

void cuda_dropout(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add)
{
    cuda_check(y.rows == x.rows && y.cols == x.cols, "dropout", "shapes");
    if (x.rows == 0 || x.cols == 0)
        return;
    int64_t per_row = (first % BLOCK + x.cols + BLOCK - 1) / BLOCK, count = per_row * x.rows;
    uint32_t least = (uint32_t)((double)p * 4294967296.0);
    BY_TYPE(y.dtype, "dropout", Y, BY_TYPE(x.dtype, "dropout", X, {
                auto kernel = dropout_blocks<Y, X>;
                LAUNCH(kernel, blocks_of(count, THREADS), dim3(THREADS), 0, cuda_stream(s)->stream, (Y *)y.data, y.ld, (const X *)x.data, x.ld,
                       x.cols, first, per_row, count, keys, seed, least, 1 / (1 - p), add);
            }));
    cuda_launched(s, "dropout");
}

void cuda_noise(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed)
{
    if (x.rows == 0 || x.cols == 0)
        return;
    int64_t per_row = (x.cols + BLOCK - 1) / BLOCK, count = per_row * x.rows;
    BY_TYPE(x.dtype, "noise", T, {
        auto kernel = noise_blocks<T>;
        LAUNCH(kernel, blocks_of(count, THREADS), dim3(THREADS), 0, cuda_stream(s)->stream, (T *)x.data, x.ld, x.cols, per_row, count, keys, scale,
               seed);
    });
    cuda_launched(s, "noise");
}
