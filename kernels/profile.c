#include "kernels/profile.h"

#include <stdlib.h>
#include "base/memory.h"
#include "base/progress.h"
#include "kernels/ops.h"

/* Products are told apart by form: y = x·wᵀ, dx = dy·w, dw = dyᵀ·x. */
typedef enum Row {
    ROW_PRODUCT, ROW_PRODUCT_INPUT, ROW_PRODUCT_WEIGHT, ROW_ATTENTION, ROW_ATTENTION_BACKWARD, ROW_ATTENTION_DECODE, ROW_RMSNORM,
    ROW_RMSNORM_BACKWARD, ROW_ROPE, ROW_SWIGLU, ROW_SWIGLU_BACKWARD, ROW_BIAS, ROW_BIAS_BACKWARD, ROW_EMBEDDING,
    ROW_EMBEDDING_BACKWARD, ROW_LOGITS, ROW_LOGITS_BACKWARD, ROW_LOGITS_GRADIENT, ROW_COPY, ROW_FILL, ROW_ADD, ROW_SCALE, ROW_DROPOUT, ROW_NOISE, ROW_SUM_SQUARES, ROW_ADAMW,
    ROW_COUNT
} Row;

static const char *const names[ROW_COUNT] = {
    "product, forward", "product, of inputs", "product, of weights", "attention", "attention, backward", "attention, decoding", "rmsnorm",
    "rmsnorm, backward", "rope", "swiglu", "swiglu, backward", "bias", "bias, backward", "embedding", "embedding, backward", "logits",
    "logits, backward", "logits, both", "copy", "fill", "add", "scale", "dropout", "noise", "sum of squares", "adamw"};

typedef struct Line {
    int64_t calls;
    double seconds, flops, bytes, least;
} Line;

struct Profile {
    const Ops *own; /* the device's */
    double begin, peak[2], bandwidth; /* FLOP/s of f32 and bf16 products, bytes/s of a copy */
    Line lines[ROW_COUNT];
};

static double bytes_of(Tensor x)
{
    return x.data ? (double)(x.rows * x.cols) * (double)dtype_size(x.dtype) : 0;
}

static double count_of(Tensor x)
{
    return (double)(x.rows * x.cols);
}

/* Runs one operation and books it: its FLOPs in type t, its bytes. */
#define TIMED(s, row, t, flops, bytes, call)                                  \
    do {                                                                      \
        struct Profile *profile_ = (s)->device->profile;                      \
        double begin_ = clock_seconds();                                        \
        profile_->own->call;                                                  \
        (s)->device->stream_wait(s, NULL);                                    \
        book(profile_, row, t, flops, bytes, clock_seconds() - begin_);         \
    } while (0)

static void book(struct Profile *p, Row row, Dtype t, double flops, double bytes, double seconds)
{
    Line *l = &p->lines[row];
    double compute = flops / p->peak[t == DTYPE_BF16], memory = bytes / p->bandwidth;
    l->calls++;
    l->seconds += seconds;
    l->flops += flops;
    l->bytes += bytes;
    l->least += compute > memory ? compute : memory;
}

static void timed_fill(Stream *s, Tensor x, float value)
{
    TIMED(s, ROW_FILL, DTYPE_F32, 0, bytes_of(x), fill(s, x, value));
}

static void timed_copy(Stream *s, Tensor to, Tensor from)
{
    TIMED(s, ROW_COPY, DTYPE_F32, 0, bytes_of(to) + bytes_of(from), copy(s, to, from));
}

static void timed_scatter(Stream *s, Tensor to, Tensor from, const int32_t *rows)
{
    TIMED(s, ROW_COPY, DTYPE_F32, 0, 2 * bytes_of(from), scatter(s, to, from, rows));
}

static void timed_add(Stream *s, Tensor y, Tensor x, float alpha)
{
    TIMED(s, ROW_ADD, DTYPE_F32, 2 * count_of(y), 2 * bytes_of(y) + bytes_of(x), add(s, y, x, alpha));
}

static void timed_scale(Stream *s, Tensor x, float alpha)
{
    TIMED(s, ROW_SCALE, DTYPE_F32, count_of(x), 2 * bytes_of(x), scale(s, x, alpha));
}

static void timed_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    double k = (double)(ta ? a.rows : a.cols);
    TIMED(s, ta ? ROW_PRODUCT_WEIGHT : tb ? ROW_PRODUCT : ROW_PRODUCT_INPUT, a.dtype, 2 * count_of(c) * k,
          bytes_of(a) + bytes_of(b) + bytes_of(c) * (beta != 0 ? 2 : 1), matmul(s, c, a, ta, b, tb, alpha, beta));
}

static void timed_bias_forward(Stream *s, Tensor y, Tensor bias)
{
    TIMED(s, ROW_BIAS, DTYPE_F32, count_of(y), 2 * bytes_of(y), bias_forward(s, y, bias));
}

static void timed_bias_backward(Stream *s, Tensor dbias, Tensor dy)
{
    TIMED(s, ROW_BIAS_BACKWARD, DTYPE_F32, count_of(dy), bytes_of(dy), bias_backward(s, dbias, dy));
}

static void timed_embedding_forward(Stream *s, Tensor out, Tensor table, const int32_t *tokens)
{
    TIMED(s, ROW_EMBEDDING, DTYPE_F32, 0, 2 * bytes_of(out), embedding_forward(s, out, table, tokens));
}

static void timed_embedding_backward(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens)
{
    TIMED(s, ROW_EMBEDDING_BACKWARD, DTYPE_F32, count_of(dout), 3 * bytes_of(dout), embedding_backward(s, dtable, dout, tokens));
}

static void timed_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    TIMED(s, ROW_RMSNORM, DTYPE_F32, (sub.data ? 5 : 4) * count_of(y), bytes_of(y) + bytes_of(x) + bytes_of(sub) + (h.data == x.data ? 0 : bytes_of(h)),
          rmsnorm_forward(s, y, h, rstd, x, sub, w, eps));
}

static void timed_rmsnorm_backward(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    TIMED(s, ROW_RMSNORM_BACKWARD, DTYPE_F32, 11 * count_of(dy), bytes_of(dh) + bytes_of(narrow) + bytes_of(dy) + bytes_of(h) + bytes_of(dresidual),
          rmsnorm_backward(s, dh, narrow, dw, dy, h, rstd, w, dresidual));
}

static void timed_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine, bool backward)
{
    TIMED(s, ROW_ROPE, DTYPE_F32, 3 * count_of(x), 2 * bytes_of(x), rope(s, x, heads, head_dim, positions, cosine, sine, backward));
}

/* Pairs of a query head and a key that it sees; where the arrays can't be read, those of causal attention without documents. */
static double pairs_of(Stream *s, const Attention *a)
{
    double rows = (double)a->sequence_rows, pairs = (double)a->sequences * rows * (rows + 1) / 2;
    if (s->device->is_host) {
        pairs = 0;
        for (int64_t t = 0; t < a->sequences * a->sequence_rows; t++)
            pairs += a->end[t] - a->begin[t];
    }
    return pairs * a->heads;
}

static void timed_attention_forward(Stream *s, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a)
{
    TIMED(s, ROW_ATTENTION, DTYPE_F32, 4 * pairs_of(s, a) * a->head_dim, bytes_of(out) + bytes_of(q) + bytes_of(k) + bytes_of(v),
          attention_forward(s, out, lse, q, k, v, a));
}

static void timed_attention_backward(Stream *s, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta, Tensor q,
                                     Tensor k, Tensor v, const Attention *a)
{
    TIMED(s, ROW_ATTENTION_BACKWARD, DTYPE_F32, 10 * pairs_of(s, a) * a->head_dim,
          2 * (bytes_of(dq) + bytes_of(dk) + bytes_of(dv)) + bytes_of(dout) + bytes_of(out),
          attention_backward(s, dq, dk, dv, dout, out, lse, delta, q, k, v, a));
}

static void timed_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim, float scale,
                                   int64_t window)
{
    double keys = 0;
    for (int64_t i = 0; i < q.rows && s->device->is_host; i++)
        keys += cache->length[i];
    TIMED(s, ROW_ATTENTION_DECODE, DTYPE_F32, 4 * keys * heads * head_dim, 2 * keys * kv_heads * head_dim * (double)dtype_size(cache->dtype),
          attention_decode(s, out, q, cache, heads, kv_heads, head_dim, scale, window));
}

static void timed_swiglu_forward(Stream *s, Tensor y, Tensor gu)
{
    TIMED(s, ROW_SWIGLU, DTYPE_F32, 5 * count_of(y), bytes_of(y) + bytes_of(gu), swiglu_forward(s, y, gu));
}

static void timed_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu)
{
    TIMED(s, ROW_SWIGLU_BACKWARD, DTYPE_F32, 12 * count_of(dy), bytes_of(dgu) + bytes_of(dy) + bytes_of(gu), swiglu_backward(s, dgu, dy, gu));
}

static void timed_logits_forward(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best, float *mean,
                                 float *entropy)
{
    TIMED(s, ROW_LOGITS, DTYPE_F32, 4 * count_of(logits), bytes_of(logits), logits_forward(s, logits, labels, logprob, lse, best, mean, entropy));
}

static void timed_logits_backward(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse)
{
    TIMED(s, ROW_LOGITS_BACKWARD, DTYPE_F32, 4 * count_of(logits), 2 * bytes_of(logits), logits_backward(s, logits, labels, lse, dlogprob, dlse));
}

static void timed_logits_gradient(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse)
{
    TIMED(s, ROW_LOGITS_GRADIENT, DTYPE_F32, 5 * count_of(logits), bytes_of(logits) + bytes_of(dz),
          logits_gradient(s, dz, logits, labels, dlogprob, logprob, lse));
}

static void timed_dropout(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add)
{
    TIMED(s, ROW_DROPOUT, DTYPE_F32, 2 * count_of(y), bytes_of(x) + (add ? 2 : 1) * bytes_of(y), dropout(s, y, x, first, keys, seed, p, add));
}

static void timed_noise(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed)
{
    TIMED(s, ROW_NOISE, DTYPE_F32, 2 * count_of(x), 2 * bytes_of(x), noise(s, x, keys, scale, seed));
}

static void timed_sum_squares(Stream *s, double *sum, Tensor x)
{
    TIMED(s, ROW_SUM_SQUARES, DTYPE_F32, 2 * count_of(x), bytes_of(x), sum_squares(s, sum, x));
}

static void timed_adamw(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2, float eps,
                        float decay, float gscale, int64_t step)
{
    TIMED(s, ROW_ADAMW, DTYPE_F32, 14 * (double)n, 28 * (double)n, adamw(s, p, g, m, v, n, lr, beta1, beta2, eps, decay, gscale, step));
}

/* A profile is of training, which packs no weights, and of operations one by one, so none may run with another by rows. */
_Static_assert(sizeof(Ops) == 30 * sizeof(void (*)(void)), "a new operation needs its timed form here");
static const Ops timed = {
    .fill = timed_fill, .copy = timed_copy, .scatter = timed_scatter, .add = timed_add, .scale = timed_scale, .matmul = timed_matmul, .bias_forward = timed_bias_forward,
    .bias_backward = timed_bias_backward, .embedding_forward = timed_embedding_forward, .embedding_backward = timed_embedding_backward,
    .rmsnorm_forward = timed_rmsnorm_forward, .rmsnorm_backward = timed_rmsnorm_backward, .rope = timed_rope,
    .attention_forward = timed_attention_forward, .attention_backward = timed_attention_backward, .attention_decode = timed_attention_decode,
    .swiglu_forward = timed_swiglu_forward, .swiglu_backward = timed_swiglu_backward, .logits_forward = timed_logits_forward,
    .logits_backward = timed_logits_backward, .logits_gradient = timed_logits_gradient, .dropout = timed_dropout, .noise = timed_noise, .sum_squares = timed_sum_squares, .adamw = timed_adamw,
};

/* The best of five runs after one to warm up, of what is large enough for the device. */
static int measure_roof(struct Profile *p, Device *d, Error *err)
{
    const size_t N = d->is_host ? 1024 : 8192, BYTES = d->is_host ? 96 << 20 : (size_t)1 << 30;
    char *memory = d->alloc(d, BYTES);
    Stream *s = d->stream_new(d);
    int status = memory && s ? 0 : error_set(err, "no memory to measure the roof in");
    p->peak[0] = p->peak[1] = p->bandwidth = 1;
    for (int i = 0; i < 18 && status == 0; i++) {
        Dtype t = i % 3 == 1 ? DTYPE_BF16 : DTYPE_F32;
        size_t step = N * N * dtype_size(t);
        int64_t side = (int64_t)N;
        double begin = clock_seconds();
        if (i % 3 == 2)
            d->copy(s, memory, memory + BYTES / 2, BYTES / 2, COPY_ON_DEVICE);
        else
            p->own->matmul(s, tensor_make(d, t, memory, side, side), tensor_make(d, t, memory + step, side, side), false, tensor_make(d, t, memory + 2 * step, side, side),
                           true, 1, 0);
        status = d->stream_wait(s, err);
        double rate = (i % 3 == 2 ? (double)BYTES : 2.0 * (double)N * (double)N * (double)N) / (clock_seconds() - begin), *best = i % 3 == 2 ? &p->bandwidth : &p->peak[i % 3];
        *best = i >= 3 && rate > *best ? rate : *best;
    }
    if (s)
        d->stream_free(s);
    d->release(d, memory);
    return status;
}

int profile_begin(Device *d, Error *err)
{
    if (d->profile)
        return 0;
    struct Profile *p = memory_zalloc(1, sizeof *p);
    p->own = d->ops;
    if (measure_roof(p, d, err) < 0) {
        free(p);
        return -1;
    }
    d->profile = p;
    d->ops = &timed;
    p->begin = clock_seconds();
    return 0;
}

static void line_print(FILE *out, const char *name, const Line *l, double all)
{
    fprintf(out, "%-20s %8lld %9.3f %6.1f", name, (long long)l->calls, l->seconds, 100 * l->seconds / all);
    if (l->calls > 0 && l->seconds > 0)
        fprintf(out, " %9.1f %8.1f %8.0f", l->flops / l->seconds / 1e9, l->bytes / l->seconds / 1e9, 100 * l->least / l->seconds);
    fputc('\n', out);
}

void profile_end(Device *d, FILE *out)
{
    struct Profile *p = d->profile;
    if (!p)
        return;
    double all = clock_seconds() - p->begin;
    Line sum = {0};
    fprintf(out, "roof: %.0f GFLOP/s f32, %.0f bf16, %.1f GB/s\n", p->peak[0] / 1e9, p->peak[1] / 1e9, p->bandwidth / 1e9);
    fprintf(out, "%-20s %8s %9s %6s %9s %8s %8s\n", "operation", "calls", "seconds", "%", "GFLOP/s", "GB/s", "% roof");
    for (int i = 0; i < ROW_COUNT; i++) {
        const Line *l = &p->lines[i];
        if (l->calls == 0)
            continue;
        line_print(out, names[i], l, all);
        sum.calls += l->calls;
        sum.seconds += l->seconds;
        sum.flops += l->flops;
        sum.bytes += l->bytes;
        sum.least += l->least;
    }
    line_print(out, "all operations", &sum, all);
    fprintf(out, "%-20s %8s %9.3f %6.1f\n", "the rest", "", all - sum.seconds, 100 * (all - sum.seconds) / all);
    d->ops = p->own;
    d->profile = NULL;
    free(p);
}
