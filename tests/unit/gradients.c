/* smoke: every backward operation against central differences in double precision: L = Σ c∘f(x) with f written plainly from the
 * formula in kernels/ops.h, its forward alone. The operation gets c as the output's gradient. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "tests/unit/tap.h"

enum { T = 12, N = 20, HEADS = 4, KV = 2, D = 6, OUT = 9 };

static Device *device;
static Stream *stream;
static const Ops *ops;
static uint64_t counter;
/* The inputs in double; a loss reads all of them, and the differences move one element of one. */
static double in[5][T * N * 4], weight[T * N * 4];
static int32_t index_of[T], label_of[T], first_of[T], end_of[T];

static Tensor tensor(int64_t rows, int64_t cols)
{
    return tensor_make(device, DTYPE_F32, memory_aligned((size_t)(rows * cols), sizeof(float)), rows, cols);
}

/* A random tensor whose exact values stand in `place` too. */
static Tensor input(double *place, int64_t rows, int64_t cols)
{
    Tensor x = tensor(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        place[i] = ((float *)x.data)[i] = (float)random_normal(3, 5, counter++);
    return x;
}

/* Compares a gradient with the differences of the loss over the input `x`, then frees it. */
static void check(const char *name, Tensor got, double *x, double (*loss)(void))
{
    double error = 0, norm = 1e-30;
    for (int64_t i = 0; i < got.rows * got.cols; i++) {
        const double step = 1e-5, old = x[i];
        x[i] = old + step;
        double up = loss();
        x[i] = old - step;
        double want = (up - loss()) / (2 * step), e = ((float *)got.data)[i] - want;
        x[i] = old;
        error += e * e;
        norm += want * want;
    }
    ok(sqrt(error / norm) < 2e-6, "%s: relative error %.2g", name, sqrt(error / norm));
    free(got.data);
}

static double matmul_loss(void) /* Y = X·Wᵀ: x [T,N], w [OUT,N] */
{
    double sum = 0;
    for (int t = 0; t < T; t++)
        for (int o = 0; o < OUT; o++)
            for (int i = 0; i < N; i++)
                sum += weight[t * OUT + o] * in[0][t * N + i] * in[1][o * N + i];
    return sum;
}

static void test_matmul(void)
{
    Tensor x = input(in[0], T, N), w = input(in[1], OUT, N), dy = input(weight, T, OUT), dx = tensor(T, N), dw = tensor(OUT, N);
    ops->matmul(stream, dx, dy, false, w, false, 1, 0);
    ops->matmul(stream, dw, dy, true, x, false, 1, 1);
    check("product, inputs", dx, in[0], matmul_loss);
    check("product, weights", dw, in[1], matmul_loss);
    free(x.data), free(w.data), free(dy.data);
}

static double bias_loss(void)
{
    double sum = 0;
    for (int i = 0; i < T * N; i++)
        sum += weight[i] * in[0][i % N];
    return sum;
}

static double embedding_loss(void) /* table [OUT,N] */
{
    double sum = 0;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < N; i++)
            sum += weight[t * N + i] * in[0][index_of[t] * N + i];
    return sum;
}

static void test_tables(void)
{
    Tensor table = input(in[0], OUT, N), dy = input(weight, T, N), db = tensor(1, N), dt = tensor(OUT, N);
    for (int t = 0; t < T; t++)
        index_of[t] = t * t % OUT; /* some rows often, some never */
    ops->bias_backward(stream, db, dy);
    ops->embedding_backward(stream, dt, dy, index_of);
    check("bias", db, in[0], bias_loss);
    check("embedding", dt, in[0], embedding_loss);
    free(table.data), free(dy.data);
}

static double rmsnorm_loss(void) /* of y and, through the residual, of h itself: weight has both */
{
    double sum = 0;
    for (int t = 0; t < T; t++) {
        double squares = 0;
        for (int i = 0; i < N; i++) {
            double h = in[0][t * N + i] + in[1][t * N + i];
            squares += h * h;
            sum += weight[(T + t) * N + i] * h;
        }
        for (int i = 0; i < N; i++)
            sum += weight[t * N + i] * (in[0][t * N + i] + in[1][t * N + i]) / sqrt(squares / N + 1e-5) * in[2][i];
    }
    return sum;
}

static void test_rmsnorm(void)
{
    Tensor x = input(in[0], T, N), sub = input(in[1], T, N), w = input(in[2], 1, N), dy = input(weight, T, N), residual = input(weight + T * N, T, N);
    Tensor y = tensor(T, N), h = tensor(T, N), dh = tensor(T, N), dw = tensor(1, N);
    float rstd[T];
    ops->rmsnorm_forward(stream, y, h, rstd, x, sub, w, 1e-5f);
    ops->rmsnorm_backward(stream, dh, (Tensor){0}, dw, dy, h, rstd, w, residual);
    check("RMSNorm, inputs", dh, in[0], rmsnorm_loss);
    check("RMSNorm, weights", dw, in[2], rmsnorm_loss);
    free(x.data), free(sub.data), free(w.data), free(dy.data), free(residual.data), free(y.data), free(h.data);
}

static double rope_loss(void)
{
    double sum = 0;
    for (int t = 0; t < T; t++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < D / 2; i++) {
                double angle = index_of[t] * pow(100, -2.0 * i / D), c = cos(angle), s = sin(angle);
                const double *x = in[0] + (t * HEADS + h) * D, *g = weight + (t * HEADS + h) * D;
                sum += g[i] * (x[i] * c - x[i + D / 2] * s) + g[i + D / 2] * (x[i + D / 2] * c + x[i] * s);
            }
    return sum;
}

static void test_rope(void)
{
    float cosine[T * D / 2], sine[T * D / 2];
    for (int p = 0; p < T; p++) {
        index_of[p] = (p * 5 + 3) % T;
        for (int i = 0; i < D / 2; i++) {
            cosine[p * D / 2 + i] = (float)cos(p * pow(100, -2.0 * i / D));
            sine[p * D / 2 + i] = (float)sin(p * pow(100, -2.0 * i / D));
        }
    }
    Tensor x = input(in[0], T, HEADS * D), dx = input(weight, T, HEADS * D);
    ops->rope(stream, dx, HEADS, D, index_of, cosine, sine, true);
    check("RoPE", dx, in[0], rope_loss);
    free(x.data);
}

static double attention_loss(void)
{
    double sum = 0;
    for (int h = 0; h < HEADS; h++)
        for (int t = 0; t < T; t++) {
            const double *q = in[0] + (t * HEADS + h) * D;
            double total = 0, p[T];
            for (int j = first_of[t]; j < end_of[t]; j++) {
                const double *k = in[1] + (j * KV + h / (HEADS / KV)) * D;
                double s = 0;
                for (int i = 0; i < D; i++)
                    s += q[i] * k[i];
                total += p[j] = exp(s / sqrt(D));
            }
            for (int j = first_of[t]; j < end_of[t]; j++)
                for (int i = 0; i < D; i++)
                    sum += weight[(t * HEADS + h) * D + i] * p[j] / total * in[2][(j * KV + h / (HEADS / KV)) * D + i];
        }
    return sum;
}

static void test_attention(void)
{
    for (int t = 0; t < T; t++) {
        first_of[t] = t < 5 ? 0 : t < 6 ? 5 : t - 6 > 6 ? t - 6 : 6; /* documents of 5, 1 and 6 rows */
        end_of[t] = t + 1;
    }
    Attention a = {HEADS, KV, D, (float)(1 / sqrt(D)), first_of, end_of, 1, T, 0};
    Tensor q = input(in[0], T, HEADS * D), k = input(in[1], T, KV * D), v = input(in[2], T, KV * D), dout = input(weight, T, HEADS * D);
    Tensor out = tensor(T, HEADS * D), dq = tensor(T, HEADS * D), dk = tensor(T, KV * D), dv = tensor(T, KV * D);
    float lse[HEADS * T], delta[HEADS * T];
    ops->attention_forward(stream, out, lse, q, k, v, &a);
    ops->attention_backward(stream, dq, dk, dv, dout, out, lse, delta, q, k, v, &a);
    check("attention, queries", dq, in[0], attention_loss);
    check("attention, keys", dk, in[1], attention_loss);
    check("attention, values", dv, in[2], attention_loss);
    free(q.data), free(k.data), free(v.data), free(dout.data), free(out.data);
}

static double swiglu_loss(void)
{
    double sum = 0;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < N; i++) {
            double g = in[0][t * 2 * N + i], u = in[0][t * 2 * N + N + i];
            sum += weight[t * N + i] * g / (1 + exp(-g)) * u;
        }
    return sum;
}

static double logits_loss(void) /* Σ weight[0][t]·log p(label) + weight[1][t]·lse */
{
    double sum = 0;
    for (int t = 0; t < T; t++) {
        double total = 0;
        for (int i = 0; i < N; i++)
            total += exp(in[0][t * N + i]);
        if (label_of[t] >= 0)
            sum += weight[t] * (in[0][t * N + label_of[t]] - log(total));
        sum += weight[T + t] * log(total);
    }
    return sum;
}

static void test_ends(void)
{
    Tensor gu = input(in[0], T, 2 * N), dy = input(weight, T, N), dgu = tensor(T, 2 * N);
    ops->swiglu_backward(stream, dgu, dy, gu);
    check("SwiGLU", dgu, in[0], swiglu_loss);
    Tensor logits = input(in[0], T, N), dl = input(weight, 1, T), ds = input(weight + T, 1, T);
    float logprob[T], lse[T];
    for (int t = 0; t < T; t++)
        label_of[t] = t % 4 == 1 ? -1 : t * 3 % N;
    ops->logits_forward(stream, logits, label_of, logprob, lse, NULL, NULL, NULL);
    ops->logits_backward(stream, logits, label_of, lse, dl.data, ds.data);
    check("log-probabilities and log-sum-exp", logits, in[0], logits_loss);
    free(gu.data), free(dy.data), free(dl.data), free(ds.data);
}

int main(void)
{
    device = device_open("cpu", 1, NULL);
    stream = device->stream_new(device);
    ops = device->ops;
    test_matmul();
    test_tables();
    test_rmsnorm();
    test_rope();
    test_attention();
    test_ends();
    device->stream_free(stream);
    device_close(device);
    return tap_end();
}
