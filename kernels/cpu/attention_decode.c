/* Attention of one new token a sequence over a paged cache, with an online softmax by pages. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

CLONES static float dot(const float *a, const float *b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

CLONES static void add_scaled(float *y, const float *x, int n, float by)
{
    for (int i = 0; i < n; i++)
        y[i] += by * x[i];
}

CLONES static void shrink_row(float *y, int n, float by)
{
    for (int i = 0; i < n; i++)
        y[i] *= by;
}

/* d numbers at `at` of keys or values, in `room` where they are bf16. */
static const float *cached(const PagedKeys *cache, const void *data, int64_t at, int d, float *room)
{
    if (cache->dtype == DTYPE_F32)
        return (const float *)data + at;
    cpu_widen_row(room, (const uint16_t *)data + at, d);
    return room;
}

static void head_decode(float *out, float *room, const float *q, const PagedKeys *cache, int64_t sequence, int kv_heads, int kv_head, int d,
                        float scale, int64_t window)
{
    int64_t length = cache->length[sequence], row = (int64_t)kv_heads * d;
    int64_t first = window > 0 && length > window ? length - window : 0;
    float most = -INFINITY, sum = 0;
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t t = first; t < length; t++) {
        int64_t page = cache->table[sequence * cache->table_stride + t / cache->page_tokens];
        int64_t at = (page * cache->page_tokens + t % cache->page_tokens) * row + kv_head * d;
        float score = scale * dot(q, cached(cache, cache->keys, at, d, room), d);
        if (score > most) {
            float by = cpu_exp(most - score);
            sum *= by;
            shrink_row(out, d, by);
            most = score;
        }
        float p = cpu_exp(score - most);
        sum += p;
        add_scaled(out, cached(cache, cache->values, at, d, room), d, p);
    }
    shrink_row(out, d, 1.0f / sum);
}

void cpu_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim,
                          float scale, int64_t window)
{
    cpu_check((cache->dtype == DTYPE_F32 || cache->dtype == DTYPE_BF16) && q.dtype == out.dtype &&
                  q.cols == (int64_t)heads * head_dim,
              "attention_decode", "shapes or types");
    int64_t units = q.rows * heads;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (units > 2)
    for (int64_t u = 0; u < units; u++) {
        int64_t b = u / heads;
        int h = (int)(u % heads);
        float *room = cpu_state(s)->scratch[omp_get_thread_num()], *to = cpu_target(out, b, h * head_dim, room);
        head_decode(to, room + 2 * head_dim, cpu_row(q, b, h * head_dim, head_dim, room + head_dim), cache, b, kv_heads, h / (heads / kv_heads),
                    head_dim, scale, window);
        cpu_store(out, b, h * head_dim, head_dim, to);
    }
}
