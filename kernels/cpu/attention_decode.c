/* Attention of one new token a sequence over a paged cache, with an online softmax by pages. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>

enum { PAGE_MOST = 64, LANES = 16 }; /* tokens looked at together, and numbers */

/* What a head has seen so far: the greatest score, and Σ e^(score − most). */
typedef struct Seen {
    float most, sum;
} Seen;

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));

static inline float number(const void *x, bool half, int64_t i)
{
    return half ? cpu_whole(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

static inline __attribute__((always_inline)) void load(Lanes *to, const void *x, bool half, int64_t i)
{
    Halves h;
    if (half) {
        memcpy(&h, (const uint16_t *)x + i, sizeof h);
        *to = (Lanes)(__builtin_convertvector(h, Bits) << 16);
    } else {
        memcpy(to, (const float *)x + i, sizeof *to);
    }
}

/* q·k, summed in LANES parts, which are added in pairs. */
static inline __attribute__((always_inline)) float product(const float *q, const void *k, bool half, int64_t at, int d)
{
    Lanes sum = {0}, a, b;
    float part[LANES], rest = 0;
    int i = 0;
    for (; i + LANES <= d; i += LANES) {
        load(&a, q, false, i);
        load(&b, k, half, at + i);
        sum += a * b;
    }
    for (; i < d; i++)
        rest += q[i] * number(k, half, at + i);
    memcpy(part, &sum, sizeof part);
    for (int l = 0; l < 8; l++)
        part[l] += part[l + 8];
    for (int l = 0; l < 4; l++)
        part[l] += part[l + 4];
    return (part[0] + part[2]) + (part[1] + part[3]) + rest;
}

static inline __attribute__((always_inline)) void page_run(float *out, Seen *seen, const float *q, const void *keys, const void *values, bool half, int64_t row,
                                                           int64_t n, int d, float scale)
{
    float p[PAGE_MOST], most = seen->most;
    for (int64_t t = 0; t < n; t++) {
        p[t] = scale * product(q, keys, half, t * row, d);
        most = p[t] > most ? p[t] : most;
    }
    if (most > seen->most) {
        float by = cpu_exp(seen->most - most);
        seen->sum *= by;
        for (int i = 0; i < d; i++)
            out[i] *= by;
        seen->most = most;
    }
    for (int64_t t = 0; t < n; t++)
        p[t] = cpu_exp(p[t] - most);
    for (int64_t t = 0; t < n; t++)
        seen->sum += p[t];
    int i = 0;
    for (; i + LANES <= d; i += LANES) {
        Lanes sum, v;
        load(&sum, out, false, i);
        for (int64_t t = 0; t < n; t++) {
            load(&v, values, half, t * row + i);
            sum += p[t] * v;
        }
        memcpy(out + i, &sum, sizeof sum);
    }
    for (int64_t t = 0; t < n && i < d; t++)
        for (int k = i; k < d; k++)
            out[k] += p[t] * number(values, half, t * row + k);
}

/* n tokens of one page: keys and values are `row` apart, of one head each; bf16 where `half`. */
CLONES static void page_attend(float *out, Seen *seen, const float *q, const void *keys, const void *values, bool half, int64_t row, int64_t n, int d,
                               float scale)
{
    if (half)
        page_run(out, seen, q, keys, values, true, row, n, d, scale);
    else
        page_run(out, seen, q, keys, values, false, row, n, d, scale);
}

static void head_decode(float *out, const float *q, const PagedKeys *cache, int64_t sequence, int kv_heads, int kv_head, int d,
                        float scale, int64_t window)
{
    int64_t length = cache->length[sequence], row = (int64_t)kv_heads * d, n;
    size_t size = dtype_size(cache->dtype);
    Seen seen = {-1e30f, 0}; /* below every score */
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t t = window > 0 && length > window ? length - window : 0; t < length; t += n) {
        int64_t inside = t % cache->page_tokens, page = cache->table[sequence * cache->table_stride + t / cache->page_tokens];
        n = cache->page_tokens - inside < length - t ? cache->page_tokens - inside : length - t;
        n = n < PAGE_MOST ? n : PAGE_MOST;
        size_t at = (size_t)((page * cache->page_tokens + inside) * row + kv_head * d) * size;
        page_attend(out, &seen, q, (const char *)cache->keys + at, (const char *)cache->values + at, cache->dtype == DTYPE_BF16, row, n, d, scale);
    }
    for (int i = 0; i < d; i++)
        out[i] *= 1.0f / seen.sum;
}

void cpu_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim,
                          float scale, int64_t window)
{
    cpu_settle(s);
    cpu_check((cache->dtype == DTYPE_F32 || cache->dtype == DTYPE_BF16) && q.dtype == out.dtype &&
                  q.cols == (int64_t)heads * head_dim,
              "attention_decode", "shapes or types");
    int64_t units = q.rows * heads;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (units > 2)
    for (int64_t u = 0; u < units; u++) {
        int64_t b = u / heads;
        int h = (int)(u % heads);
        float *room = cpu_state(s)->scratch[omp_get_thread_num()], *to = cpu_target(out, b, h * head_dim, room);
        head_decode(to, cpu_row(q, b, h * head_dim, head_dim, room + head_dim), cache, b, kv_heads, h / (heads / kv_heads),
                    head_dim, scale, window);
        cpu_store(out, b, h * head_dim, head_dim, to);
    }
}
