/* Dropout and noise. Element j of a row whose key is k has word j mod 4 of the block random_block(seed, k, j / 4), so neither packing
 * nor threads nor devices change it. */
#include "kernels/cpu/cpu.h"

#include <omp.h>

enum { LANES = 16 };

/* The words of elements first … first + 4·LANES - 1: the rounds of Philox (base/random.c), LANES blocks at a time. */
CLONES static void words(uint32_t out[4 * LANES], uint64_t seed, uint64_t key, int64_t first)
{
    uint32_t a[LANES], b[LANES], c[LANES], d[LANES], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int l = 0; l < LANES; l++) {
        a[l] = (uint32_t)(first / 4) + (uint32_t)l;
        b[l] = 0; /* rows are shorter than 2^34 */
        c[l] = (uint32_t)key;
        d[l] = (uint32_t)(key >> 32);
    }
    for (int r = 0; r < 10; r++, k0 += 0x9E3779B9, k1 += 0xBB67AE85)
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            uint64_t p = (uint64_t)0xD2511F53 * a[l], q = (uint64_t)0xCD9E8D57 * c[l];
            a[l] = (uint32_t)(q >> 32) ^ b[l] ^ k0;
            b[l] = (uint32_t)q;
            c[l] = (uint32_t)(p >> 32) ^ d[l] ^ k1;
            d[l] = (uint32_t)p;
        }
    for (int l = 0; l < LANES; l++) {
        out[4 * l] = a[l];
        out[4 * l + 1] = b[l];
        out[4 * l + 2] = c[l];
        out[4 * l + 3] = d[l];
    }
}

CLONES static void row_mask(float *y, const float *x, const uint32_t *w, int64_t n, uint32_t least, float scale, bool add)
{
    for (int64_t i = 0; i < n; i++) {
        float kept = w[i] >= least ? x[i] * scale : 0;
        y[i] = add ? y[i] + kept : kept;
    }
}

void cpu_dropout(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add)
{
    cpu_settle(s);
    cpu_check(y.rows == x.rows && y.cols == x.cols, "dropout", "shapes");
    uint32_t least = (uint32_t)((double)p * 4294967296.0);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (x.rows > 16)
    for (int64_t t = 0; t < x.rows; t++) {
        float *room = cpu_state(s)->scratch[omp_get_thread_num()];
        const float *from = cpu_row(x, t, 0, x.cols, room);
        float *to = cpu_target(y, t, 0, room + x.cols);
        if (add)
            cpu_load(to, y, t, 0, y.cols);
        for (int64_t at = -(first % 4), end; at < x.cols; at = end) { /* blocks begin at multiples of 4 */
            uint32_t w[4 * LANES];
            int64_t begin = at < 0 ? 0 : at;
            end = at + 4 * LANES;
            words(w, seed, keys[t], first + at);
            row_mask(to + begin, from + begin, w + (begin - at), (end < x.cols ? end : x.cols) - begin, least, 1 / (1 - p), add);
        }
        cpu_store(y, t, 0, y.cols, to);
    }
}

void cpu_noise(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed)
{
    cpu_settle(s);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (x.rows > 16)
    for (int64_t t = 0; t < x.rows; t++) {
        float *room = cpu_state(s)->scratch[omp_get_thread_num()], *row = cpu_target(x, t, 0, room);
        cpu_load(row, x, t, 0, x.cols);
        for (int64_t first = 0; first < x.cols; first += 4 * LANES) {
            uint32_t w[4 * LANES];
            words(w, seed, keys[t], first);
            for (int64_t i = first; i < x.cols && i < first + 4 * LANES; i++)
                row[i] += scale[t] * ((float)(w[i - first] >> 8) * 0x1p-23f - 1.0f);
        }
        cpu_store(x, t, 0, x.cols, row);
    }
}
