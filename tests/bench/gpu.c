/* Each CUDA kernel beside the limits of the same GPU, measured in the same run: bytes a second of a copy and FLOP a second of
 * cuBLASLt's product. Then attention over lengths and head sizes, and whole training steps: tokens a second and the share of the
 * product's speed (model FLOPs as config_flops_per_token counts them).
 *
 * Tensors are larger than a GPU's cache and hold random numbers. The argument `layer`, `attention`, `decode` or `training` takes that part
 * alone. With `small` sizes are tiny: it proves that the program runs (under tests/emulation too, LMPIPE_CUDA naming the object), its
 * figures mean nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/random.h"
#include "model/head.h"
#include "model/model.h"
#include "train/optimizer.h"

static Device *device;
static Stream *stream;
static bool small;
static const char *part; /* NULL: all */
static double copy_rate, product_rate[2]; /* bytes/s; FLOP/s of f32, bf16 */

static void finish(void)
{
    Error err;
    if (device->stream_wait(stream, &err) < 0) {
        fprintf(stderr, "gpu: %s\n", err.text);
        exit(1);
    }
}

/* seconds = what the statement takes: as many in a row as fill 0.05 s, the best of three rows. */
#define TIME(seconds, ...)                                                     \
    do {                                                                       \
        __VA_ARGS__;                                                           \
        finish();                                                              \
        double begin_ = clock_seconds();                                       \
        __VA_ARGS__;                                                           \
        finish();                                                              \
        double once_ = clock_seconds() - begin_;                               \
        int count_ = small || once_ > 0.05 ? 1 : once_ < 1e-4 ? 500 : (int)(0.05 / once_) + 1; \
        (seconds) = INFINITY;                                                  \
        for (int round_ = 0; round_ < (small ? 1 : 3); round_++) {             \
            begin_ = clock_seconds();                                          \
            for (int i_ = 0; i_ < count_; i_++) {                              \
                __VA_ARGS__;                                                   \
            }                                                                  \
            finish();                                                          \
            (seconds) = fmin(seconds, (clock_seconds() - begin_) / count_);    \
        }                                                                      \
    } while (0)

static void *device_memory(size_t bytes)
{
    void *p = device->alloc(device, bytes);
    if (!p) {
        fprintf(stderr, "gpu: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return p;
}

/* Normal random numbers: a piece of them made on the host, and copies of it. */
static Tensor tensor_new(Dtype type, int64_t rows, int64_t cols)
{
    enum { PIECE = 1 << 20 };
    static Tensor piece;
    Tensor x = tensor_make(device, type, device_memory((size_t)(rows * cols) * dtype_size(type)), rows, cols);
    if (!piece.data) {
        int64_t n = small ? 4096 : PIECE;
        float *values = memory_alloc((size_t)n, sizeof *values);
        for (int64_t i = 0; i < n; i++)
            values[i] = (float)random_normal(1, 7, (uint64_t)i);
        piece = tensor_make(device, DTYPE_F32, device_memory((size_t)n * sizeof *values), 1, n);
        device->copy(stream, piece.data, values, (size_t)n * sizeof *values, COPY_TO_DEVICE);
        finish();
        free(values);
    }
    for (int64_t first = 0, total = rows * cols; first < total; first += piece.cols) {
        int64_t n = total - first < piece.cols ? total - first : piece.cols;
        device->ops->copy(stream, tensor_make(device, type, (char *)x.data + (size_t)first * dtype_size(type), 1, n), tensor_columns(piece, 0, n));
    }
    finish();
    return x;
}

static void tensors_free(const Tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        device->release(device, x[i].data);
}

static int32_t *integers_new(int64_t n, int64_t below, bool ascending)
{
    int32_t *values = memory_alloc((size_t)n, sizeof *values), *x = device_memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        values[i] = (int32_t)(ascending ? i % below : (int64_t)random_below(1, 3, (uint64_t)i, (uint64_t)below));
    device->copy(stream, x, values, (size_t)n * sizeof *x, COPY_TO_DEVICE);
    finish();
    free(values);
    return x;
}

static const char *type_of(Dtype t)
{
    return t == DTYPE_F32 ? "f32" : "bf16";
}

static void bytes_row(const char *name, Dtype type, double bytes, double seconds)
{
    printf("%-26s %-5s %10.3f ms %8.0f GB/s  %5.1f %% of a copy\n", name, type_of(type), seconds * 1e3, bytes / seconds * 1e-9, 100 * bytes / seconds / copy_rate);
    fflush(stdout);
}

static void flops_row(const char *name, Dtype type, double flops, double seconds)
{
    printf("%-26s %-5s %10.3f ms %8.1f TFLOP/s %4.1f %% of the product\n", name, type_of(type), seconds * 1e3, flops / seconds * 1e-12,
           100 * flops / seconds / product_rate[type == DTYPE_BF16]);
    fflush(stdout);
}

static void limits(void)
{
    int64_t n = small ? 4096 : (int64_t)256 << 20, side = small ? 64 : 8192;
    Tensor x[2] = {tensor_new(DTYPE_F32, 1, n), tensor_new(DTYPE_F32, 1, n)};
    double seconds;
    TIME(seconds, device->copy(stream, x[0].data, x[1].data, (size_t)n * sizeof(float), COPY_ON_DEVICE));
    copy_rate = 8.0 * (double)n / seconds;
    bytes_row("copy by the driver", DTYPE_F32, 8.0 * (double)n, seconds);
    double driver = copy_rate;
    TIME(seconds, device->ops->copy(stream, x[0], x[1]));
    copy_rate = fmax(driver, 8.0 * (double)n / seconds);
    bytes_row("copy", DTYPE_F32, 8.0 * (double)n, seconds);
    tensors_free(x, 2);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = bf16 ? DTYPE_BF16 : DTYPE_F32;
        Tensor p[3] = {tensor_new(t, side, side), tensor_new(t, side, side), tensor_new(t, side, side)};
        TIME(seconds, device->ops->matmul(stream, p[0], p[1], false, p[2], true, 1, 0));
        double flops = 2 * pow((double)side, 3);
        product_rate[bf16] = flops / seconds;
        flops_row("product 8192³", t, flops, seconds);
        tensors_free(p, 3);
    }
}

/* What a layer of Llama 3 8B does with 16384 tokens, and the products of its forward and backward passes. */
static void layer(Dtype t)
{
    int64_t T = small ? 32 : 16384, h = small ? 64 : 4096, f = small ? 96 : 14336, heads = small ? 4 : 32, kv = small ? 2 : 8, d = small ? 16 : 128;
    const Ops *o = device->ops;
    double e = (double)dtype_size(t), n = (double)(T * h), seconds;
    {
        Tensor x[] = {tensor_new(t, T, h), tensor_new(DTYPE_F32, T, h), tensor_new(DTYPE_F32, T, h), tensor_new(t, T, h), tensor_new(DTYPE_F32, 1, h),
                      tensor_new(DTYPE_F32, 1, T), tensor_new(DTYPE_F32, T, h), tensor_new(DTYPE_F32, 1, h)};
        TIME(seconds, o->rmsnorm_forward(stream, x[0], x[1], x[5].data, x[2], x[3], x[4], 1e-5f));
        bytes_row("rmsnorm_forward", t, n * (2 * e + 8), seconds);
        bool half = t == DTYPE_BF16;
        Tensor narrow = half ? x[3] : (Tensor){0};
        TIME(seconds, o->rmsnorm_backward(stream, x[6], narrow, (Tensor){0}, x[0], x[1], x[5].data, x[4], x[6]));
        bytes_row("rmsnorm_backward, frozen", t, n * (e + 12 + 2 * half), seconds);
        TIME(seconds, o->rmsnorm_backward(stream, x[6], narrow, x[7], x[0], x[1], x[5].data, x[4], x[6]));
        bytes_row("rmsnorm_backward", t, n * (e + 12 + 2 * half), seconds);
        TIME(seconds, o->bias_forward(stream, x[0], x[4]));
        bytes_row("bias_forward", t, n * 2 * e, seconds);
        TIME(seconds, o->bias_backward(stream, x[7], x[0]));
        bytes_row("bias_backward", t, n * e, seconds);
        TIME(seconds, o->add(stream, x[1], x[2], 0.5f));
        bytes_row("add", DTYPE_F32, n * 12, seconds);
        TIME(seconds, o->copy(stream, x[0], x[1]));
        bytes_row("copy from f32", t, n * (4 + e), seconds);
        tensors_free(x, 8);
    }
    {
        int64_t width = (heads + 2 * kv) * d;
        Tensor x[] = {tensor_new(t, T, width), tensor_new(DTYPE_F32, T, d / 2), tensor_new(DTYPE_F32, T, d / 2)};
        int32_t *positions = integers_new(T, T, true);
        TIME(seconds, o->rope(stream, tensor_columns(x[0], 0, (heads + kv) * d), (int)(heads + kv), (int)d, positions, x[1].data, x[2].data, false));
        bytes_row("rope", t, (double)(T * (heads + kv) * d) * 2 * e, seconds);
        tensors_free(x, 3);
        device->release(device, positions);
    }
    {
        Tensor x[] = {tensor_new(t, T, f), tensor_new(t, T, 2 * f), tensor_new(t, T, 2 * f)};
        TIME(seconds, o->swiglu_forward(stream, x[0], x[1]));
        bytes_row("swiglu_forward", t, (double)(T * f) * 3 * e, seconds);
        TIME(seconds, o->swiglu_backward(stream, x[2], x[0], x[1]));
        bytes_row("swiglu_backward", t, (double)(T * f) * 5 * e, seconds);
        tensors_free(x, 3);
    }
    const struct {
        const char *name;
        int64_t in, out;
    } products[] = {{"qkv", h, (heads + 2 * kv) * d}, {"o", heads * d, h}, {"gate and up", h, 2 * f}, {"down", f, h}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        int64_t in = products[i].in, out = products[i].out;
        Tensor x[] = {tensor_new(t, T, in), tensor_new(t, out, in), tensor_new(t, T, out), tensor_new(DTYPE_F32, out, in)};
        char name[40];
        snprintf(name, sizeof name, "product %s", products[i].name);
        TIME(seconds, o->matmul(stream, x[2], x[0], false, x[1], true, 1, 0));
        flops_row(name, t, 2.0 * (double)(T * in * out), seconds);
        TIME(seconds, o->matmul(stream, x[0], x[2], false, x[1], false, 1, 0));
        flops_row("  of the input's gradient", t, 2.0 * (double)(T * in * out), seconds);
        TIME(seconds, o->matmul(stream, x[3], x[2], true, x[0], false, 1, 1));
        flops_row("  of the weight's gradient", t, 2.0 * (double)(T * in * out), seconds);
        tensors_free(x, 4);
    }
}

static void rest(void)
{
    int64_t T = small ? 32 : 16384, h = small ? 64 : 4096, v = small ? 320 : 128256, rows = small ? 8 : 1024, n = small ? 4096 : (int64_t)256 << 20;
    const Ops *o = device->ops;
    double seconds;
    {
        Tensor x[] = {tensor_new(DTYPE_F32, v, h), tensor_new(DTYPE_F32, T, h)};
        int32_t *tokens = integers_new(T, v, false);
        TIME(seconds, o->embedding_forward(stream, x[1], x[0], tokens));
        bytes_row("embedding_forward", DTYPE_F32, (double)(T * h) * 8, seconds);
        TIME(seconds, o->embedding_backward(stream, x[0], x[1], tokens));
        bytes_row("embedding_backward", DTYPE_F32, (double)(T * h) * 12, seconds);
        tensors_free(x, 2);
        device->release(device, tokens);
    }
    {
        Tensor x[] = {tensor_new(DTYPE_F32, rows, v), tensor_new(DTYPE_F32, 3, rows)};
        int32_t *labels = integers_new(rows, v, false);
        float *a = x[1].data;
        TIME(seconds, o->logits_forward(stream, x[0], labels, a, a + rows, NULL, NULL, NULL));
        bytes_row("logits_forward", DTYPE_F32, (double)(rows * v) * 4, seconds);
        TIME(seconds, o->logits_backward(stream, x[0], labels, a + rows, a + 2 * rows, NULL));
        bytes_row("logits_backward", DTYPE_F32, (double)(rows * v) * 8, seconds);
        TIME(seconds, o->logits_gradient(stream, x[0], x[0], labels, a + 2 * rows, a, a + rows));
        bytes_row("logits_gradient", DTYPE_F32, (double)(rows * v) * 12, seconds);
        tensors_free(x, 2);
        device->release(device, labels);
    }
    {
        Tensor x[] = {tensor_new(DTYPE_F32, 1, n), tensor_new(DTYPE_F32, 1, n), tensor_new(DTYPE_F32, 1, n), tensor_new(DTYPE_F32, 1, n)};
        double *sum = device_memory(sizeof *sum);
        TIME(seconds, o->sum_squares(stream, sum, x[1]));
        bytes_row("sum_squares", DTYPE_F32, (double)n * 4, seconds);
        o->scale(stream, x[3], 0); /* second moments are no negative numbers */
        TIME(seconds, o->adamw(stream, x[0].data, x[1].data, x[2].data, x[3].data, n, 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 100));
        bytes_row("adamw", DTYPE_F32, (double)n * 28, seconds);
        tensors_free(x, 4);
        device->release(device, sum);
    }
}

static void attention(Dtype t, int64_t length, int d)
{
    int64_t T = small ? 64 : 16384;
    if (small)
        length = 32;
    int kv = small ? 1 : 1024 / d, heads = 2 * kv;
    int64_t sequences = T / length, q = heads * d, w = kv * d;
    Tensor x[] = {tensor_new(t, T, q + 2 * w), tensor_new(t, T, q), tensor_new(t, T, q), tensor_new(t, T, q + 2 * w), tensor_new(DTYPE_F32, 2 * heads, T)};
    int32_t *begin = device_memory((size_t)T * 4), *end = device_memory((size_t)T * 4), *values = memory_alloc((size_t)(2 * T), sizeof *values);
    for (int64_t i = 0; i < T; i++) {
        values[i] = (int32_t)(i / length * length);
        values[T + i] = (int32_t)i + 1;
    }
    device->copy(stream, begin, values, (size_t)T * 4, COPY_TO_DEVICE);
    device->copy(stream, end, values + T, (size_t)T * 4, COPY_TO_DEVICE);
    finish();
    Attention a = {heads, kv, d, 1 / sqrtf((float)d), begin, end, sequences, length, 0};
    float *lse = x[4].data, *delta = lse + heads * T;
    Tensor qx = tensor_columns(x[0], 0, q), kx = tensor_columns(x[0], q, w), vx = tensor_columns(x[0], q + w, w);
    double seconds, flops = 2.0 * (double)(T * length) * (double)q; /* causal: half of 4·T·length·width */
    char name[40];
    TIME(seconds, device->ops->attention_forward(stream, x[1], lse, qx, kx, vx, &a));
    snprintf(name, sizeof name, "attention %ld, head %d", (long)length, d);
    flops_row(name, t, flops, seconds);
    TIME(seconds, device->ops->attention_backward(stream, tensor_columns(x[3], 0, q), tensor_columns(x[3], q, w), tensor_columns(x[3], q + w, w), x[2], x[1],
                                                  lse, delta, qx, kx, vx, &a));
    snprintf(name, sizeof name, "  backward %ld, head %d", (long)length, d);
    flops_row(name, t, 2.5 * flops, seconds);
    tensors_free(x, 5);
    device->release(device, begin);
    device->release(device, end);
    free(values);
}

static void decode(Dtype t, int64_t batch, int64_t length)
{
    enum { PAGE = 64 };
    int heads = small ? 4 : 32, kv = small ? 2 : 8, d = small ? 16 : 128;
    if (small)
        batch = 2, length = 100;
    int64_t pages = (length + PAGE - 1) / PAGE, w = kv * d;
    Tensor x[] = {tensor_new(t, batch, heads * d), tensor_new(t, batch, heads * d), tensor_new(t, batch * pages * PAGE, w), tensor_new(t, batch * pages * PAGE, w)};
    int32_t *table = integers_new(batch * pages, batch * pages, true), *lengths = device_memory((size_t)batch * 4), *values = memory_alloc((size_t)batch, sizeof *values);
    for (int64_t i = 0; i < batch; i++)
        values[i] = (int32_t)length;
    device->copy(stream, lengths, values, (size_t)batch * 4, COPY_TO_DEVICE);
    finish();
    PagedKeys cache = {x[2].data, x[3].data, t, PAGE, table, lengths, pages};
    double seconds;
    char name[40];
    TIME(seconds, device->ops->attention_decode(stream, x[1], x[0], &cache, heads, kv, d, 1 / sqrtf((float)d), 0));
    snprintf(name, sizeof name, "decode %ld × %ld", (long)batch, (long)length);
    bytes_row(name, t, (double)(batch * length * w) * 2 * (double)dtype_size(t), seconds);
    tensors_free(x, 4);
    device->release(device, table);
    device->release(device, lengths);
    free(values);
}

/* Steps of training on random tokens. */
static void training(const char *name, ModelConfig c, Dtype t, int64_t sequences, int64_t length)
{
    Error err;
    Model m = {0};
    Slot s = {0};
    Optimizer o = {0};
    Batch b;
    Grid alone;
    grid_one(&alone);
    if (small)
        c.vocab_size = 64, c.hidden_size = 32, c.intermediate_size = 48, c.num_hidden_layers = 2, c.num_attention_heads = 2, c.num_key_value_heads = 1, c.head_dim = 16, sequences = 2, length = 32;
    if (model_open(&m, &c, NULL, device, &err) < 0 || model_compute_in(&m, t, &err) < 0 || slot_new(&s, &m, sequences * length, MODE_TRAIN, &err) < 0 || optimizer_open(&o, &m, &alone, 0, &(AdamW){0.9, 0.95, 1e-8, 0.1, 1}, &err) < 0) {
        printf("%-26s %-5s %s\n", name, type_of(t), err.text);
        optimizer_close(&o);
        slot_free(&s);
        model_close(&m);
        return;
    }
    param_initialise(&m.params.table, 1);
    batch_new(&b, sequences, length);
    int32_t *tokens = memory_alloc((size_t)length + 1, sizeof *tokens);
    for (int64_t i = 0; i < sequences; i++) {
        for (int64_t j = 0; j <= length; j++)
            tokens[j] = (int32_t)random_below(2, 5, (uint64_t)(i * (length + 1) + j), (uint64_t)c.vocab_size);
        batch_place(&b, i * length, tokens, tokens + 1, NULL, length, -1, 0, i);
    }
    double best = INFINITY, loss = 0, first = clock_seconds();
    for (int step = 0; step < (small ? 2 : 4) || (!small && step < 12 && clock_seconds() - first < 3); step++) {
        double begin = clock_seconds();
        HeadSums sums = {0};
        optimizer_clear(&o);
        if (slot_load(&s, &b, &err) < 0) {
            fprintf(stderr, "gpu: %s\n", err.text);
            exit(1);
        }
        model_forward(&m, &s);
        head_cross_entropy(&m, &s, b.labels, b.weights, 1 / b.weight, 0, &sums);
        model_backward(&m, &s);
        double norm;
        if (optimizer_norm(&o, &norm, &err) < 0) {
            fprintf(stderr, "gpu: %s\n", err.text);
            exit(1);
        }
        optimizer_step(&o, 1e-4, norm, NULL);
        finish();
        loss = sums.nll / b.weight;
        if (step > 1 || small)
            best = fmin(best, clock_seconds() - begin);
    }
    double speed = (double)(sequences * length) / best, flops = config_flops_per_token(&c, length) * speed;
    printf("%-26s %-5s %10.1f ms %8.0f tokens/s %5.1f TFLOP/s %5.1f %% of the product, loss %.3f\n", name, type_of(t), best * 1e3, speed, flops * 1e-12,
           100 * flops / product_rate[t == DTYPE_BF16], loss);
    fflush(stdout);
    free(tokens);
    batch_free(&b);
    optimizer_close(&o);
    slot_free(&s);
    model_close(&m);
}

static ModelConfig config_of(int64_t h, int64_t f, int64_t layers, int64_t heads, int64_t kv, int64_t d)
{
    ModelConfig c = {.model_type = "llama", .vocab_size = 32000, .hidden_size = h, .intermediate_size = f, .num_hidden_layers = layers, .num_attention_heads = heads,
                     .num_key_value_heads = kv, .head_dim = d, .max_position_embeddings = 2048, .rms_norm_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02,
                     .tie_word_embeddings = true, .bos_token_id = -1, .pad_token_id = -1};
    return c;
}

static bool wanted(const char *name)
{
    return !part || strcmp(part, name) == 0;
}

static void attentions(void)
{
    static const int lengths[] = {512, 2048, 16384}, sizes[] = {64, 80, 96, 128};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
            if (!small || j == 0)
                attention(DTYPE_BF16, lengths[j], small ? 16 : sizes[i]);
    attention(DTYPE_F32, 2048, small ? 16 : 64);
    attention(DTYPE_F32, 2048, small ? 16 : 128);
}

static void trainings(void)
{
    for (int bf16 = 1; bf16 >= 0; bf16--) {
        Dtype t = bf16 ? DTYPE_BF16 : DTYPE_F32;
        training("training 120M, 16 × 1024", config_of(768, 2048, 12, 12, 4, 64), t, 16, 1024);
        if (!bf16 && !small) /* the f32 of larger models takes minutes and says nothing new */
            break;
        training("training 1.1B, 8 × 2048", config_of(2048, 5632, 22, 32, 4, 64), t, 8, 2048);
        training("training 3.1B, 2 × 2048", config_of(3072, 8192, 28, 24, 8, 128), t, 2, 2048);
    }
}

int main(int argc, char **argv)
{
    Error err;
    small = argc > 1 && strcmp(argv[1], "small") == 0;
    part = argc > 1 && !small ? argv[1] : NULL;
    device = device_open("cuda", 0, &err);
    if (!device) {
        printf("skipped: %s\n", err.text);
        return 0;
    }
    stream = device->stream_new(device);
    if (!stream) {
        fprintf(stderr, "gpu: no memory for a stream\n");
        return 1;
    }
    limits();
    if (wanted("layer")) {
        rest();
        layer(DTYPE_F32);
        layer(DTYPE_BF16);
    }
    if (wanted("attention"))
        attentions();
    if (wanted("decode")) {
        decode(DTYPE_BF16, 1, 32768);
        decode(DTYPE_BF16, 64, 4096);
        decode(DTYPE_F32, 64, 4096);
    }
    if (wanted("training"))
        trainings();
    device->stream_free(stream);
    device_close(device);
    return 0;
}
