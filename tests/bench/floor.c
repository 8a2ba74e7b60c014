/* floor VOCABULARY HIDDEN FFN LAYERS HEADS KV_HEADS HEAD_DIM SEQ SEQUENCES f32|bf16: the least that a training step of SEQUENCES sequences takes on
 * all CPUs, in ms: products at the rate of their micro-kernel on a tile in the first cache, attention, and all other operations. Every core measures at
 * once, each operation on one sequence's rows, again and again, so that they lie in its caches, and the best call counts. What comes from elsewhere,
 * the packing of products' operands and waiting for one another are not in it. Prints: products, attention, all else, their sum, GFLOP/s of all cores. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cpu.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/random.h"
#include "kernels/cpu/cpu.h"

static const double SECONDS = 0.2; /* an operation */
enum { LOGITS_ROWS = 128 /* that go through the head together */ };

/* best = seconds of the fastest call of the statement. */
#define BEST(best, ...)                                                                                       \
    do {                                                                                                      \
        (best) = INFINITY;                                                                                    \
        for (double begin_ = clock_seconds(), now_ = begin_, then_; now_ - begin_ < SECONDS; now_ = then_) {  \
            __VA_ARGS__;                                                                                      \
            then_ = clock_seconds();                                                                          \
            (best) = fmin((best), then_ - now_);                                                              \
        }                                                                                                     \
    } while (0)

typedef struct Sizes {
    int64_t vocabulary, hidden, ffn, layers, heads, kv_heads, head_dim, rows, sequences;
    Dtype dtype;
} Sizes;

/* Of a thread's share of the sequences. */
typedef struct Seconds {
    double rate, attention, rest; /* FLOP/s; seconds */
} Seconds;

static Tensor filled(Device *d, Dtype type, int64_t rows, int64_t cols, float scale)
{
    Tensor x = tensor_make(d, type, d->alloc(d, (size_t)(rows * cols) * dtype_size(type)), rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        float number = scale * ((float)random_uniform(1, 2, (uint64_t)i) - 0.5f);
        if (type == DTYPE_BF16)
            ((uint16_t *)x.data)[i] = cpu_half(number);
        else
            ((float *)x.data)[i] = number;
    }
    return x;
}

/* FLOP/s of the micro-kernel: a panel of B, a block of A's rows and C's are 32 KB. */
static double product_rate(Device *d, Dtype type)
{
    enum { CALLS = 16, ROWS = 24, COLUMNS = 48, DEPTH = 96 };
    bool pairs = type == DTYPE_BF16 && cpu_level() >= CPU_AVX512_BF16;
    const MatmulKernel *kernel = pairs ? &matmul_kernel_avx512bf16 : cpu_matmul_kernel();
    int vectors = COLUMNS / kernel->lanes < 3 ? COLUMNS / kernel->lanes : 3, width = vectors * kernel->lanes;
    Tensor a = filled(d, DTYPE_F32, ROWS, DEPTH, 1), b = filled(d, DTYPE_F32, DEPTH, width, 1), c = filled(d, DTYPE_F32, ROWS, width, 1);
    const MatmulTile tile = {.a = a.data, .row = DEPTH, .step = 1, .b = b.data, .ldb = width, .k = DEPTH, .c = c.data, .ldc = width, .alpha = 1};
    double best;
    BEST(best, for (int i = 0; i < CALLS; i++) kernel->run(&tile, ROWS, vectors));
    return 2.0 * CALLS * ROWS * width * DEPTH * (pairs ? 2 : 1) / best;
}

static double attention_seconds(Device *d, Stream *s, const Sizes *n)
{
    int64_t q = n->heads * n->head_dim, kv = n->kv_heads * n->head_dim, width = q + 2 * kv;
    Tensor x = filled(d, n->dtype, n->rows, width, 1), dx = filled(d, n->dtype, n->rows, width, 0), out = filled(d, n->dtype, n->rows, q, 0);
    Tensor dout = filled(d, n->dtype, n->rows, q, 1);
    int32_t *begin = memory_zalloc((size_t)n->rows, sizeof *begin), *end = memory_alloc((size_t)n->rows, sizeof *end);
    float *lse = memory_alloc((size_t)(n->rows * n->heads), sizeof *lse), *delta = memory_alloc((size_t)(n->rows * n->heads), sizeof *delta);
    for (int64_t t = 0; t < n->rows; t++)
        end[t] = (int32_t)t + 1;
    const Attention a = {.heads = (int)n->heads, .kv_heads = (int)n->kv_heads, .head_dim = (int)n->head_dim, .scale = 1 / sqrtf((float)n->head_dim),
                         .begin = begin, .end = end, .sequences = 1, .sequence_rows = n->rows};
    Tensor queries = tensor_columns(x, 0, q), keys = tensor_columns(x, q, kv), values = tensor_columns(x, q + kv, kv);
    double forward, backward;
    BEST(forward, d->ops->attention_forward(s, out, lse, queries, keys, values, &a));
    BEST(backward, d->ops->attention_backward(s, tensor_columns(dx, 0, q), tensor_columns(dx, q, kv), tensor_columns(dx, q + kv, kv), dout, out, lse, delta, queries,
                                              keys, values, &a));
    return forward + backward;
}

/* Norms, rotations and SwiGLU of a layer, both ways, and one norm alone. */
static double layer_seconds(Device *d, Stream *s, const Sizes *n, double *norm)
{
    int64_t turned = (n->heads + n->kv_heads) * n->head_dim;
    Tensor x = filled(d, DTYPE_F32, n->rows, n->hidden, 1), h = filled(d, DTYPE_F32, n->rows, n->hidden, 1), dh = filled(d, DTYPE_F32, n->rows, n->hidden, 1);
    Tensor y = filled(d, n->dtype, n->rows, n->hidden, 1), sub = filled(d, n->dtype, n->rows, n->hidden, 1), w = filled(d, DTYPE_F32, 1, n->hidden, 1);
    Tensor dw = filled(d, DTYPE_F32, 1, n->hidden, 0), narrow = n->dtype == DTYPE_BF16 ? filled(d, n->dtype, n->rows, n->hidden, 1) : (Tensor){0};
    Tensor qk = filled(d, n->dtype, n->rows, turned, 1), table = filled(d, DTYPE_F32, n->rows, n->head_dim, 1);
    Tensor gates = filled(d, n->dtype, n->rows, 2 * n->ffn, 1), dgates = filled(d, n->dtype, n->rows, 2 * n->ffn, 1), active = filled(d, n->dtype, n->rows, n->ffn, 1);
    float *r = memory_alloc((size_t)n->rows, sizeof *r);
    int32_t *positions = memory_alloc((size_t)n->rows, sizeof *positions);
    for (int64_t t = 0; t < n->rows; t++)
        positions[t] = (int32_t)t;
    double norm_forward, norm_backward, turn, forward, backward;
    BEST(norm_forward, d->ops->rmsnorm_forward(s, y, h, r, x, sub, w, 1e-5f));
    BEST(norm_backward, d->ops->rmsnorm_backward(s, dh, narrow, dw, y, h, r, w, x));
    BEST(turn, d->ops->rope(s, qk, (int)(n->heads + n->kv_heads), (int)n->head_dim, positions, table.data, (float *)table.data + n->rows * n->head_dim / 2, false));
    BEST(forward, d->ops->swiglu_forward(s, active, gates));
    BEST(backward, d->ops->swiglu_backward(s, dgates, active, gates));
    *norm = norm_forward + norm_backward;
    return 2 * *norm + 2 * turn + forward + backward;
}

static double head_seconds(Device *d, Stream *s, const Sizes *n)
{
    Tensor z = filled(d, DTYPE_F32, LOGITS_ROWS, n->vocabulary, 1), dz = n->dtype == DTYPE_F32 ? z : filled(d, n->dtype, LOGITS_ROWS, n->vocabulary, 1);
    int32_t labels[LOGITS_ROWS];
    float dlogprob[LOGITS_ROWS], logprob[LOGITS_ROWS], lse[LOGITS_ROWS];
    double best;
    for (int i = 0; i < LOGITS_ROWS; i++) {
        labels[i] = i % (int)n->vocabulary;
        dlogprob[i] = -1e-3f;
    }
    BEST(best, d->ops->logits_gradient(s, dz, z, labels, dlogprob, logprob, lse));
    return best * (double)n->rows / LOGITS_ROWS;
}

/* The norm of the gradients and AdamW on n numbers, which no core's own caches hold. */
static double update_seconds(Device *d, Stream *s, int64_t n)
{
    Tensor p = filled(d, DTYPE_F32, 1, n, 1), g = filled(d, DTYPE_F32, 1, n, 1), m = filled(d, DTYPE_F32, 1, n, 0), v = filled(d, DTYPE_F32, 1, n, 0);
    double sum = 0, squares, step;
    BEST(squares, d->ops->sum_squares(s, &sum, g));
    BEST(step, d->ops->adamw(s, p.data, g.data, m.data, v.data, n, 1e-6f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 100));
    return squares + step;
}

/* Numbers in weights that tokens are multiplied by; the embedding is tied to the output. */
static int64_t weights(const Sizes *n)
{
    int64_t heads = (2 * n->heads + 2 * n->kv_heads) * n->head_dim;
    return n->layers * n->hidden * (heads + 3 * n->ffn) + n->vocabulary * n->hidden;
}

/* A thread's share of the step. What it allocates lasts until the process ends. */
static Seconds measure(const Sizes *n, int threads)
{
    Error err;
    Device *d = device_open("cpu", 1, &err);
    Stream *s = d->stream_new(d);
    double sequences = (double)n->sequences / threads, norm, layer = layer_seconds(d, s, n, &norm);
    Seconds x = {.rate = product_rate(d, n->dtype), .attention = attention_seconds(d, s, n) * (double)n->layers * sequences};
    x.rest = (layer * (double)n->layers + norm + head_seconds(d, s, n)) * sequences + update_seconds(d, s, weights(n) / threads);
    return x;
}

int main(int argc, char **argv)
{
    if (argc != 11 || (strcmp(argv[10], "f32") != 0 && strcmp(argv[10], "bf16") != 0)) {
        fputs("usage: floor VOCABULARY HIDDEN FFN LAYERS HEADS KV_HEADS HEAD_DIM SEQ SEQUENCES f32|bf16\n", stderr);
        return 2;
    }
    int64_t given[9];
    for (int i = 0; i < 9; i++)
        given[i] = atoll(argv[i + 1]);
    const Sizes n = {given[0], given[1], given[2], given[3], given[4], given[5], given[6], given[7], given[8], strcmp(argv[10], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16};
    int threads = omp_get_max_threads();
    double rate = 0, attention = 0, rest = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rate, attention, rest)
    {
        const Seconds x = measure(&n, threads);
        rate = x.rate;
        attention = x.attention / threads;
        rest = x.rest / threads;
    }
    double products = 6 * (double)weights(&n) * (double)(n.rows * n.sequences) / rate;
    printf("%.1f %.1f %.1f %.1f %.0f\n", 1e3 * products, 1e3 * attention, 1e3 * rest, 1e3 * (products + attention + rest), rate / 1e9);
    return 0;
}
