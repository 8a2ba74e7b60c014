/* smoke: the CPU operations against plain double-precision forms, and the same bits at one thread and at two. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "tests/unit/tap.h"

static Device *devices[2];
static Stream *streams[2];
static uint64_t counter;

static Tensor random_tensor(int64_t rows, int64_t cols)
{
    Tensor x = tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(rows * cols), 4), rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)x.data)[i] = (float)random_normal(1, 99, counter++);
    return x;
}

static Tensor like(Tensor x)
{
    return tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(x.rows * x.cols), 4), x.rows, x.cols);
}

static float at(Tensor x, int64_t i, int64_t j)
{
    return ((float *)x.data)[i * x.ld + j];
}

static double distance(Tensor x, const double *y)
{
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            double e = at(x, i, j) - y[i * x.cols + j];
            d += e * e;
            n += y[i * x.cols + j] * y[i * x.cols + j];
        }
    return sqrt(d / n);
}

static int same_bits(Tensor a, Tensor b)
{
    return memcmp(a.data, b.data, (size_t)(a.rows * a.cols) * dtype_size(a.dtype)) == 0;
}

static void test_matmul(void)
{
    static const int shapes[][3] = {{1, 64, 64}, {5, 33, 17}, {64, 64, 64}, {130, 100, 70}, {33, 1600, 20}, {257, 65, 800}, {8, 300, 129}, {9, 50, 1}, {37, 90, 1101}};
    double worst = 0;
    int equal = 1;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 8; form++) {
            int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2];
            bool ta = form & 1, tb = form & 2;
            float beta = form & 4 ? 0.5f : 0;
            Tensor a = ta ? random_tensor(k, m) : random_tensor(m, k), b = tb ? random_tensor(n, k) : random_tensor(k, n);
            Tensor x = random_tensor(m, n), y = like(x);
            memcpy(y.data, x.data, (size_t)(m * n) * 4);
            double *want = memory_alloc((size_t)(m * n), sizeof *want);
            for (int i = 0; i < m; i++)
                for (int j = 0; j < n; j++) {
                    double sum = 0;
                    for (int l = 0; l < k; l++)
                        sum += (double)(ta ? at(a, l, i) : at(a, i, l)) * (tb ? at(b, j, l) : at(b, l, j));
                    want[i * n + j] = 2 * sum + beta * (double)at(x, i, j);
                }
            devices[0]->ops->matmul(streams[0], x, a, ta, b, tb, 2, beta);
            devices[1]->ops->matmul(streams[1], y, a, ta, b, tb, 2, beta);
            worst = fmax(worst, distance(x, want));
            equal &= same_bits(x, y);
            free(a.data), free(b.data), free(x.data), free(y.data), free(want);
        }
    ok(worst < 2e-6, "matmul in 72 forms and shapes: worst relative error %.2g", worst);
    ok(equal, "matmul has the same bits at 1 and 2 threads");
}

/* Packed weights: f32 has the bits of the plain product of many rows; of either type a row has the bits that it has alone. */
static void test_matmul_packed(void)
{
    static const int shapes[][3] = {{1, 64, 64}, {9, 33, 17}, {40, 100, 500}, {300, 2100, 20}, {17, 65, 801}, {12, 5, 1}};
    int plain = 1, alone = 1, threads = 1;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int half = 0; half < 2; half++) {
            int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2];
            Dtype type = half ? DTYPE_BF16 : DTYPE_F32;
            Tensor a32 = random_tensor(m, k), w32 = random_tensor(n, k), x = random_tensor(m, n), y = random_tensor(m, n), z = random_tensor(m, n);
            Tensor a = tensor_make(devices[0], type, memory_alloc((size_t)(m * k), 4), m, k), w = tensor_make(devices[0], type, memory_alloc((size_t)(n * k), 4), n, k);
            dtype_convert(a.data, type, a32.data, DTYPE_F32, (size_t)(m * k));
            dtype_convert(w.data, type, w32.data, DTYPE_F32, (size_t)(n * k));
            void *packed = devices[0]->alloc(devices[0], devices[0]->ops->pack_bytes(w, type));
            devices[0]->ops->pack(streams[0], packed, w, type);
            devices[0]->ops->matmul_packed(streams[0], x, a, packed, w);
            devices[1]->ops->matmul_packed(streams[1], z, a, packed, w);
            threads &= same_bits(x, z);
            devices[0]->ops->matmul(streams[0], y, a, false, w, true, 1, 0);
            plain &= m <= 8 || half || same_bits(x, y);
            for (int i = 0; i < m; i++)
                devices[0]->ops->matmul_packed(streams[0], tensor_rows(y, i, 1), tensor_rows(a, i, 1), packed, w);
            alone &= same_bits(x, y);
            devices[0]->release(devices[0], packed);
            free(a.data), free(w.data), free(a32.data), free(w32.data), free(x.data), free(y.data), free(z.data);
        }
    ok(plain, "a product with packed weights has the plain one's bits");
    ok(alone, "each of its rows has the bits that it has alone, in f32 and bf16");
    ok(threads, "at 1 and 2 threads");
}

/* The same numbers in bf16. Where `exact`, x is rounded too, so that products of both can be compared. */
static Tensor halved(Tensor x, bool exact)
{
    Tensor y = tensor_make(devices[0], DTYPE_BF16, memory_aligned((size_t)(x.rows * x.cols), 2), x.rows, x.cols);
    devices[0]->ops->copy(streams[0], y, x);
    if (exact)
        devices[0]->ops->copy(streams[0], x, y);
    return y;
}

static Tensor widened(Tensor x)
{
    Tensor y = tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(x.rows * x.cols), 4), x.rows, x.cols);
    devices[0]->ops->copy(streams[0], y, x);
    return y;
}

/* How far a bf16 result is from the f32 one. */
static double apart(Tensor half, Tensor want)
{
    Tensor x = widened(half);
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            double e = (double)at(x, i, j) - at(want, i, j);
            d += e * e;
            n += (double)at(want, i, j) * at(want, i, j);
        }
    free(x.data);
    return sqrt(d / n);
}

/* bf16 products against the f32 ones of the same rounded numbers: the sums differ by their order, a bf16 C by its rounding. Inside
 * wider matrices, so that rows begin at odd places. */
static void test_matmul_bf16(void)
{
    static const int shapes[][3] = {{1, 64, 64}, {5, 33, 17}, {64, 64, 64}, {130, 100, 70}, {33, 800, 20}, {257, 65, 800}, {9, 50, 1}};
    double worst = 0, narrow = 0;
    int equal = 1;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 12; form++) {
            int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2], skip = form / 4;
            bool ta = form & 1, tb = form & 2;
            Tensor a = ta ? random_tensor(k, m + skip) : random_tensor(m, k + skip), b = tb ? random_tensor(n, k + skip) : random_tensor(k, n + skip);
            Tensor a16 = halved(a, true), b16 = halved(b, true), want = random_tensor(m, n), got = like(want);
            Tensor half = halved(want, false), half2 = halved(want, false);
            memcpy(got.data, want.data, (size_t)(m * n) * 4);
            Tensor va = tensor_columns(a, skip, ta ? m : k), vb = tensor_columns(b, skip, tb ? k : n);
            Tensor va16 = tensor_columns(a16, skip, va.cols), vb16 = tensor_columns(b16, skip, vb.cols);
            devices[0]->ops->matmul(streams[0], want, va, ta, vb, tb, 2, 0.5f);
            devices[0]->ops->matmul(streams[0], got, va16, ta, vb16, tb, 2, 0.5f);
            double *exact = memory_alloc((size_t)(m * n), sizeof *exact);
            for (int i = 0; i < m * n; i++)
                exact[i] = ((float *)want.data)[i];
            worst = fmax(worst, distance(got, exact));
            devices[0]->ops->matmul(streams[0], want, va, ta, vb, tb, 1, 0);
            devices[0]->ops->matmul(streams[0], half, va16, ta, vb16, tb, 1, 0);
            devices[1]->ops->matmul(streams[1], half2, va16, ta, vb16, tb, 1, 0);
            equal &= memcmp(half.data, half2.data, (size_t)(m * n) * 2) == 0;
            for (int i = 0; i < m * n; i++)
                exact[i] = ((float *)want.data)[i];
            Tensor wide = widened(half);
            narrow = fmax(narrow, distance(wide, exact));
            free(a.data), free(b.data), free(a16.data), free(b16.data), free(want.data), free(got.data), free(half.data), free(half2.data);
            free(wide.data), free(exact);
        }
    ok(worst < 1e-6, "bf16 matmul in 84 forms and shapes: worst relative error %.2g", worst);
    ok(narrow < 4e-3, "with a bf16 result: %.2g", narrow);
    ok(equal, "the same bits at 1 and 2 threads");
}

/* f32 weights that a product of bf16 rounds as it reads them have the bits of a rounded copy, packed too. */
static void test_matmul_rounds(void)
{
    static const int shapes[][3] = {{1, 64, 64}, {5, 33, 17}, {64, 64, 64}, {130, 100, 70}, {33, 800, 20}, {257, 65, 801}, {9, 50, 1}, {300, 70, 1300}};
    int equal = 1, narrow = 1, packed = 1;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 8; form++) {
            int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2], skip = form / 4;
            bool ta = form & 1, tb = form & 2;
            Tensor a = ta ? random_tensor(k, m) : random_tensor(m, k), b = tb ? random_tensor(n, k + skip) : random_tensor(k, n + skip);
            Tensor a16 = halved(a, false), b16 = halved(b, false), want = random_tensor(m, n), got = like(want), want16 = halved(want, false), got16 = halved(want, false);
            memcpy(got.data, want.data, (size_t)(m * n) * 4);
            Tensor v = tensor_columns(b, skip, tb ? k : n), v16 = tensor_columns(b16, skip, v.cols);
            for (int d = 0; d < 2; d++) {
                devices[d]->ops->matmul(streams[d], want, a16, ta, v16, tb, 2, 0.5f);
                devices[d]->ops->matmul(streams[d], got, a16, ta, v, tb, 2, 0.5f);
                equal &= same_bits(want, got);
                devices[d]->ops->matmul(streams[d], want16, a16, ta, v16, tb, 1, 0);
                devices[d]->ops->matmul(streams[d], got16, a16, ta, v, tb, 1, 0);
                narrow &= memcmp(want16.data, got16.data, (size_t)(m * n) * 2) == 0;
            }
            size_t bytes = devices[0]->ops->pack_bytes(v, DTYPE_BF16);
            if (!ta && tb) {
                void *one = devices[0]->alloc(devices[0], bytes), *other = devices[0]->alloc(devices[0], bytes);
                devices[0]->ops->pack(streams[0], one, v, DTYPE_BF16);
                devices[1]->ops->pack(streams[1], other, v16, DTYPE_BF16);
                devices[0]->ops->matmul_packed(streams[0], got, a16, one, v);
                devices[1]->ops->matmul_packed(streams[1], want, a16, other, v16);
                packed &= bytes == devices[0]->ops->pack_bytes(v16, DTYPE_BF16) && memcmp(one, other, bytes) == 0 && same_bits(want, got);
                devices[0]->release(devices[0], one);
                devices[0]->release(devices[0], other);
            }
            free(a.data), free(b.data), free(a16.data), free(b16.data), free(want.data), free(got.data), free(want16.data), free(got16.data);
        }
    ok(equal, "f32 weights beside bf16 give the bits of their rounded copy in 64 forms and shapes");
    ok(narrow, "with a bf16 result too");
    ok(packed, "and packed");
}

/* Two sequences of 70 rows; documents of several lengths; grouped heads. */
static void test_attention(int heads, int kv_heads, int d, int window)
{
    enum { SEQUENCES = 2, LENGTH = 150, ROWS = SEQUENCES * LENGTH };
    int32_t begin[ROWS], end[ROWS];
    for (int t = 0, document = 0; t < ROWS; t++) {
        if (t % LENGTH == 0 || t % LENGTH == 13 || t % LENGTH == 90)
            document = t;
        begin[t] = window && t - window + 1 > document ? t - window + 1 : document;
        end[t] = t + 1;
    }
    Attention a = {heads, kv_heads, d, 1.0f / sqrtf((float)d), begin, end, SEQUENCES, LENGTH, 0};
    Tensor q = random_tensor(ROWS, heads * d), k = random_tensor(ROWS, kv_heads * d), v = random_tensor(ROWS, kv_heads * d);
    Tensor dout = random_tensor(ROWS, heads * d), out = like(q), dq = like(q), dk = like(k), dv = like(v);
    float *lse = memory_alloc(ROWS * heads, sizeof *lse), *delta = memory_alloc(ROWS * heads, sizeof *delta);
    double *o = memory_zalloc(ROWS * heads * d, sizeof *o), *gq = memory_zalloc(ROWS * heads * d, sizeof *gq);
    double *gk = memory_zalloc(ROWS * kv_heads * d, sizeof *gk), *gv = memory_zalloc(ROWS * kv_heads * d, sizeof *gv), p[ROWS], dp[ROWS];
    for (int h = 0; h < heads; h++)
        for (int t = 0; t < ROWS; t++) {
            int kh = h / (heads / kv_heads);
            double sum = 0, dot = 0;
            for (int j = begin[t]; j < end[t]; j++) {
                double s = 0;
                for (int i = 0; i < d; i++)
                    s += (double)at(q, t, h * d + i) * at(k, j, kh * d + i);
                sum += p[j] = exp(s * a.scale);
            }
            for (int j = begin[t]; j < end[t]; j++) {
                p[j] /= sum;
                dp[j] = 0;
                for (int i = 0; i < d; i++) {
                    o[t * heads * d + h * d + i] += p[j] * at(v, j, kh * d + i);
                    gv[j * kv_heads * d + kh * d + i] += p[j] * at(dout, t, h * d + i);
                    dp[j] += (double)at(dout, t, h * d + i) * at(v, j, kh * d + i);
                }
                dot += p[j] * dp[j];
            }
            for (int j = begin[t]; j < end[t]; j++)
                for (int i = 0; i < d; i++) {
                    double ds = p[j] * (dp[j] - dot) * a.scale;
                    gq[t * heads * d + h * d + i] += ds * at(k, j, kh * d + i);
                    gk[j * kv_heads * d + kh * d + i] += ds * at(q, t, h * d + i);
                }
        }
    devices[0]->ops->attention_forward(streams[0], out, lse, q, k, v, &a);
    devices[0]->ops->attention_backward(streams[0], dq, dk, dv, dout, out, lse, delta, q, k, v, &a);
    double e = fmax(fmax(distance(out, o), distance(dq, gq)), fmax(distance(dk, gk), distance(dv, gv)));
    ok(e < 5e-6, "attention %d/%d heads of %d, window %d: worst relative error %.2g", heads, kv_heads, d, window, e);
    Tensor out2 = like(q), dq2 = like(q), dk2 = like(k), dv2 = like(v);
    devices[1]->ops->attention_forward(streams[1], out2, lse, q, k, v, &a);
    devices[1]->ops->attention_backward(streams[1], dq2, dk2, dv2, dout, out2, lse, delta, q, k, v, &a);
    ok(same_bits(out, out2) && same_bits(dq, dq2) && same_bits(dk, dk2) && same_bits(dv, dv2), "the same bits at 1 and 2 threads");
    free(q.data), free(k.data), free(v.data), free(dout.data), free(out.data), free(dq.data), free(dk.data), free(dv.data);
    free(out2.data), free(dq2.data), free(dk2.data), free(dv2.data), free(lse), free(delta), free(o), free(gq), free(gk), free(gv);
}

/* So many stacked heads that dQ has no room in scratch and grows in its own memory: against single heads, for which it lies ready. */
static void test_attention_stacked(void)
{
    enum { T = 256, HEADS = 64, D = 250 };
    int32_t begin[T], end[T];
    for (int t = 0; t < T; t++) {
        begin[t] = 0;
        end[t] = t + 1;
    }
    const Ops *ops = devices[1]->ops;
    Tensor q = random_tensor(T, HEADS * D), k = random_tensor(T, D), v = random_tensor(T, D), dout = random_tensor(T, HEADS * D), out = like(q), dq = like(q);
    Tensor dk = like(k), dv = like(v), one = like(k), done = like(k);
    Attention all = {HEADS, 1, D, 0.06f, begin, end, 1, T, 0}, single = {1, 1, D, 0.06f, begin, end, 1, T, 0};
    float *lse = memory_alloc(T * HEADS, sizeof *lse), *delta = memory_alloc(T * HEADS, sizeof *delta);
    double worst = 0;
    ops->attention_forward(streams[1], out, lse, q, k, v, &all);
    ops->attention_backward(streams[1], dq, dk, dv, dout, out, lse, delta, q, k, v, &all);
    for (int h = 0; h < HEADS; h += HEADS - 1) {
        double *want = memory_alloc(T * D, sizeof *want);
        Tensor part = tensor_columns(q, h * D, D), dpart = tensor_columns(dout, h * D, D);
        ops->attention_forward(streams[1], one, lse, part, k, v, &single);
        ops->attention_backward(streams[1], done, dk, dv, dpart, one, lse, delta, part, k, v, &single);
        for (int i = 0; i < T * D; i++)
            want[i] = ((float *)done.data)[i];
        worst = fmax(worst, distance(tensor_columns(dq, h * D, D), want));
        free(want);
    }
    ok(worst < 2e-6, "attention, 64 heads of 250 on one key head: %.2g", worst);
    free(q.data), free(k.data), free(v.data), free(dout.data), free(out.data), free(dq.data), free(dk.data), free(dv.data), free(one.data), free(done.data);
    free(lse), free(delta);
}

static void test_rows(void)
{
    enum { T = 37, N = 83 };
    Tensor x = random_tensor(T, N), sub = random_tensor(T, N), w = random_tensor(1, N), y = like(x), h = like(x), dy = random_tensor(T, N);
    Tensor dh = like(x), dw = like(w), none = {0};
    float rstd[T];
    double want[T * N], grad[T * N], dwant[N] = {0};
    const Ops *ops = devices[0]->ops;
    for (int t = 0; t < T; t++) {
        double squares = 0, dot = 0, v[N];
        for (int i = 0; i < N; i++) {
            v[i] = (double)at(x, t, i) + at(sub, t, i);
            squares += v[i] * v[i];
        }
        double r = 1 / sqrt(squares / N + 1e-5);
        for (int i = 0; i < N; i++) {
            want[t * N + i] = v[i] * r * at(w, 0, i);
            dot += (double)at(dy, t, i) * at(w, 0, i) * v[i];
            dwant[i] += at(dy, t, i) * v[i] * r;
        }
        for (int i = 0; i < N; i++)
            grad[t * N + i] = (double)at(dy, t, i) * at(w, 0, i) * r - v[i] * r * r * r / N * dot;
    }
    ops->rmsnorm_forward(streams[0], y, h, rstd, x, sub, w, 1e-5f);
    ops->rmsnorm_backward(streams[0], dh, none, dw, dy, h, rstd, w, none);
    ok(distance(y, want) < 1e-6 && distance(dh, grad) < 2e-6 && distance(dw, dwant) < 2e-6, "rmsnorm forward and backward");

    Tensor gu = random_tensor(T, 2 * N), dgu = like(gu);
    double gwant[T * 2 * N];
    for (int t = 0; t < T; t++)
        for (int i = 0; i < N; i++) {
            double g = at(gu, t, i), u = at(gu, t, N + i), s = 1 / (1 + exp(-g));
            want[t * N + i] = g * s * u;
            gwant[t * 2 * N + i] = at(dy, t, i) * u * s * (1 + g * (1 - s));
            gwant[t * 2 * N + N + i] = at(dy, t, i) * g * s;
        }
    ops->swiglu_forward(streams[0], y, gu);
    ops->swiglu_backward(streams[0], dgu, dy, gu);
    ok(distance(y, want) < 1e-6 && distance(dgu, gwant) < 1e-6, "swiglu forward and backward");

    int32_t labels[T], best[T];
    float logprob[T], lse[T], mean[T], entropy[T], dl[T], ds[T];
    int good = 1;
    for (int t = 0; t < T; t++) {
        labels[t] = t % 5 == 0 ? -1 : t * 7 % N;
        dl[t] = 0.3f * (float)t;
        ds[t] = 0.01f * (float)t;
        double sum = 0;
        for (int i = 0; i < N; i++)
            sum += exp(at(x, t, i));
        for (int i = 0; i < N; i++)
            want[t * N + i] = (labels[t] < 0 ? 0 : dl[t]) * ((i == labels[t]) - exp(at(x, t, i)) / sum) + ds[t] * exp(at(x, t, i)) / sum;
        dwant[t] = log(sum);
    }
    ops->logits_forward(streams[0], x, labels, logprob, lse, best, mean, entropy);
    for (int t = 0; t < T; t++) {
        double average = 0, surprise = 0;
        for (int i = 0; i < N; i++) {
            average += at(x, t, i) / N;
            surprise -= exp(at(x, t, i) - dwant[t]) * (at(x, t, i) - dwant[t]);
        }
        good &= fabs(mean[t] - average) < 1e-5 && fabs(entropy[t] - surprise) < 1e-5;
        good &= fabs(lse[t] - dwant[t]) < 1e-5 && fabs(logprob[t] - (labels[t] < 0 ? 0 : at(x, t, labels[t]) - dwant[t])) < 1e-5;
        for (int i = 0; i < N; i++)
            good &= at(x, t, best[t]) >= at(x, t, i);
    }
    Tensor copy = random_tensor(T, N);
    ops->copy(streams[0], copy, x);
    ops->logits_backward(streams[0], x, labels, lse, dl, ds);
    ok(good && distance(x, want) < 2e-6, "log-probabilities and their gradient");
    float logprob2[T], lse2[T];
    ops->copy(streams[0], x, copy);
    ops->logits_backward(streams[0], x, labels, lse, dl, NULL);
    ops->copy(streams[0], sub, copy);
    Tensor half = halved(copy, false);
    ops->logits_gradient(streams[0], half, sub, labels, dl, logprob2, lse2);
    for (int i = 0; i < T * N; i++)
        want[i] = ((float *)x.data)[i];
    good &= apart(half, x) < 3e-3;
    /* Rows of bf16 that begin where those of the f32 do from which they are made. */
    int in_place = 1;
    for (int d = 0; d < 2; d++) {
        Tensor over = random_tensor(T, N), narrow = tensor_columns(tensor_make(devices[d], DTYPE_BF16, over.data, T, 2 * N), 0, N);
        ops->copy(streams[d], over, copy);
        ops->logits_gradient(streams[d], narrow, over, labels, dl, logprob2, lse2);
        for (int t = 0; t < T; t++)
            in_place &= memcmp((uint16_t *)half.data + t * N, (uint16_t *)over.data + t * 2 * N, N * 2) == 0;
        ops->copy(streams[d], over, x);
        ops->copy(streams[d], narrow, over);
        Tensor apart16 = halved(x, false);
        for (int t = 0; t < T; t++)
            in_place &= memcmp((uint16_t *)apart16.data + t * N, (uint16_t *)over.data + t * 2 * N, N * 2) == 0;
        free(over.data), free(apart16.data);
    }
    ok(in_place, "a row's gradient in bf16 may lie where its logits do, and so may a copy");
    ops->logits_gradient(streams[0], copy, copy, labels, dl, logprob2, lse2);
    for (int t = 0; t < T; t++)
        good &= fabsf(logprob2[t] - logprob[t]) < 1e-5f && fabsf(lse2[t] - lse[t]) < 1e-5f;
    ok(good && distance(copy, want) < 2e-6, "both at once, into either type");
    free(copy.data), free(half.data);
    free(x.data), free(sub.data), free(w.data), free(y.data), free(h.data), free(dy.data), free(dh.data), free(dw.data), free(gu.data), free(dgu.data);
}

/* Rounding as base/dtype.h says, to the bit: halves between two numbers, infinities, subnormals, NaN. */
static void test_rounding(void)
{
    enum { N = 4099 };
    static const uint32_t special[] = {0x3f808000, 0x3f818000, 0x3f80ffff, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0x7fffffff,
                                       0x00000001, 0x00008000, 0x00018000, 0x80000000, 0x807fffff, 0xbf808001};
    Tensor x = random_tensor(1, N), y = halved(x, false);
    memcpy(x.data, special, sizeof special);
    devices[1]->ops->copy(streams[1], y, x);
    int equal = 1;
    for (int i = 0; i < N; i++)
        equal &= ((uint16_t *)y.data)[i] == f32_to_bf16(at(x, 0, i));
    ok(equal, "bf16 is rounded to nearest even, to the bit");
    Tensor z = widened(y);
    for (int i = 0; i < N; i++) {
        float want = bf16_to_f32(((uint16_t *)y.data)[i]);
        equal &= memcmp(&want, (float *)z.data + i, sizeof want) == 0;
    }
    ok(equal, "and widened again");
    free(x.data), free(y.data), free(z.data);
}

/* Every operation that takes bf16 against itself in f32, from the same numbers: what is left is one rounding of the result. */
static void test_bf16_rows(void)
{
    enum { T = 37, N = 84, HEADS = 6, D = 14 };
    const Ops *ops = devices[0]->ops;
    Tensor x = random_tensor(T, N), w = random_tensor(1, N), sub = random_tensor(T, N), dy = random_tensor(T, N), h = like(x), y = like(x);
    Tensor dw = like(w), dw16 = like(w);
    Tensor sub16 = halved(sub, true), dy16 = halved(dy, true), y16 = halved(y, false), dh = like(x), dh16 = like(x), none = {0};
    float rstd[T];
    double worst = 0;
    ops->rmsnorm_forward(streams[0], y, h, rstd, x, sub, w, 1e-5f);
    ops->rmsnorm_forward(streams[0], y16, h, rstd, x, sub16, w, 1e-5f);
    worst = fmax(worst, apart(y16, y));
    Tensor narrow = halved(x, false), narrowed = halved(x, false);
    ops->rmsnorm_backward(streams[0], dh, narrow, dw, dy, h, rstd, w, none);
    ops->copy(streams[0], narrowed, dh);
    ops->rmsnorm_backward(streams[0], dh16, none, dw16, dy16, h, rstd, w, none);
    ok(worst < 3e-3 && same_bits(dh, dh16) && same_bits(dw, dw16), "rmsnorm with bf16 around it: %.2g", worst);
    ok(same_bits(narrow, narrowed), "and its gradient in bf16 beside the same in f32");
    free(narrow.data), free(narrowed.data);

    Tensor bias = random_tensor(1, N), db = like(bias), db16 = like(bias);
    ops->bias_backward(streams[0], db, dy);
    ops->bias_backward(streams[0], db16, dy16);
    ops->bias_forward(streams[0], dy, bias);
    ops->bias_forward(streams[0], dy16, bias);
    worst = apart(dy16, dy);
    ops->copy(streams[0], dy, dy16);
    ops->add(streams[0], dy, sub, 0.7f);
    ops->add(streams[0], dy16, sub16, 0.7f);
    worst = fmax(worst, apart(dy16, dy));
    ops->copy(streams[0], dy, dy16);
    ops->scale(streams[0], dy, 1.3f);
    ops->scale(streams[0], dy16, 1.3f);
    worst = fmax(worst, apart(dy16, dy));
    ops->copy(streams[0], dy, dy16);
    int32_t positions[T];
    for (int t = 0; t < T; t++)
        positions[t] = (t * 5 + 3) % T;
    Tensor cosine = random_tensor(T, D / 2), sine = random_tensor(T, D / 2);
    ops->rope(streams[0], tensor_columns(dy, D, 4 * D), 4, D, positions, cosine.data, sine.data, true);
    ops->rope(streams[0], tensor_columns(dy16, D, 4 * D), 4, D, positions, cosine.data, sine.data, true);
    worst = fmax(worst, apart(dy16, dy));
    ok(worst < 3e-3 && same_bits(db, db16), "bias, add, scale, rope: %.2g", worst);
    ops->fill(streams[0], dy, 0.1f);
    ops->fill(streams[0], dy16, 0.1f);
    ok(apart(dy16, dy) < 3e-3, "fill");

    Tensor gu = random_tensor(T, 2 * N), gu16 = halved(gu, true), dgu = like(gu), dgu16 = halved(dgu, false);
    ops->swiglu_forward(streams[0], y, gu);
    ops->swiglu_forward(streams[0], y16, gu16);
    worst = apart(y16, y);
    ops->swiglu_backward(streams[0], dgu, sub, gu);
    ops->swiglu_backward(streams[0], dgu16, sub16, gu16);
    worst = fmax(worst, apart(dgu16, dgu));
    ok(worst < 3e-3, "swiglu: %.2g", worst);

    /* Both kinds of attention: heads of their own that lie ready in f32, and stacked ones. */
    for (int kv = HEADS; kv >= 2; kv -= 4) {
        int32_t begin[T], end[T];
        for (int t = 0; t < T; t++) {
            begin[t] = t < 10 ? 0 : 10;
            end[t] = t + 1;
        }
        Attention a = {HEADS, kv, D, 0.3f, begin, end, 1, T, 0};
        Tensor q = random_tensor(T, N), k = random_tensor(T, kv * D), v = random_tensor(T, kv * D), dout = random_tensor(T, N), out = like(q);
        Tensor q16 = halved(q, true), k16 = halved(k, true), v16 = halved(v, true), dout16 = halved(dout, true), out16 = halved(out, false);
        Tensor dq = like(q), dk = like(k), dv = like(v), dq16 = halved(dq, false), dk16 = halved(dk, false), dv16 = halved(dv, false);
        float lse[HEADS * T], delta[HEADS * T];
        ops->attention_forward(streams[0], out, lse, q, k, v, &a);
        ops->attention_forward(streams[0], out16, lse, q16, k16, v16, &a);
        worst = apart(out16, out);
        ops->attention_backward(streams[0], dq, dk, dv, dout, out, lse, delta, q, k, v, &a);
        ops->attention_backward(streams[0], dq16, dk16, dv16, dout16, out16, lse, delta, q16, k16, v16, &a);
        worst = fmax(fmax(worst, apart(dq16, dq)), fmax(apart(dk16, dk), apart(dv16, dv)));
        ok(worst < 6e-3, "attention, %d key heads: %.2g", kv, worst);
        free(q.data), free(k.data), free(v.data), free(dout.data), free(out.data), free(q16.data), free(k16.data), free(v16.data), free(dout16.data);
        free(out16.data), free(dq.data), free(dk.data), free(dv.data), free(dq16.data), free(dk16.data), free(dv16.data);
    }
    free(x.data), free(w.data), free(sub.data), free(dy.data), free(h.data), free(y.data), free(dw.data), free(dw16.data), free(sub16.data), free(dy16.data);
    free(y16.data), free(dh.data), free(dh16.data), free(bias.data), free(db.data), free(db16.data), free(cosine.data), free(sine.data);
    free(gu.data), free(gu16.data), free(dgu.data), free(dgu16.data);
}

/* Against random_block one element at a time; a column range of a wider matrix, both types, added and written. */
static void test_dropout(void)
{
    enum { ROWS = 40, COLS = 150, LD = 160 };
    static float x[ROWS * LD], y[ROWS * LD], z[ROWS * LD];
    static uint64_t keys[ROWS];
    static float scale[ROWS];
    int64_t kept = 0, wrong = 0;
    double sum = 0, squares = 0;
    for (int i = 0; i < ROWS * LD; i++)
        x[i] = 1 + (float)random_uniform(1, 2, (uint64_t)i), y[i] = z[i] = 3;
    for (int t = 0; t < ROWS; t++)
        keys[t] = (uint64_t)t << 32 | 7, scale[t] = (float)(t % 5);
    Device *device = devices[1];
    Stream *stream = streams[1];
    const Ops *ops = device->ops;
    Tensor tx = tensor_make(device, DTYPE_F32, x, ROWS, LD), ty = tensor_make(device, DTYPE_F32, y, ROWS, LD), tz = tensor_make(device, DTYPE_F32, z, ROWS, LD);
    ops->dropout(stream, tensor_columns(ty, 0, COLS), tensor_columns(tx, 0, COLS), 0, keys, 99, 0.25f, false);
    /* In parts that end within a block of random numbers. */
    static const int64_t parts[] = {0, 6, 7, 80, COLS};
    for (int i = 0; i < 4; i++)
        ops->dropout(stream, tensor_columns(tz, parts[i], parts[i + 1] - parts[i]), tensor_columns(tx, parts[i], parts[i + 1] - parts[i]), parts[i], keys, 99, 0.25f, true);
    for (int t = 0; t < ROWS; t++)
        for (int j = 0; j < LD; j++) {
            uint32_t w[4];
            random_block(99, keys[t], (uint64_t)j / 4, w);
            bool keep = j < COLS && w[j % 4] >= 1u << 30;
            float want = keep ? x[t * LD + j] / 0.75f : 0;
            wrong += fabsf(y[t * LD + j] - (j < COLS ? want : 3)) > 1e-6f || fabsf(z[t * LD + j] - 3 - want) > 1e-6f;
            kept += keep;
        }
    ok(wrong == 0, "dropout keeps what random_block says, scaled, and adds");
    ok(fabs((double)kept / (ROWS * COLS) - 0.75) < 0.02, "three quarters of the elements: %.3f", (double)kept / (ROWS * COLS));
    memset(z, 0, sizeof z);
    ops->noise(stream, tensor_columns(tz, 0, COLS), keys, scale, 5);
    for (int t = 0, n = 1; t < ROWS; t++)
        for (int j = 0; j < LD; j++) {
            double v = z[t * LD + j];
            wrong += fabs(v) > (j < COLS ? (double)scale[t] : 0);
            if (scale[t] == 4 && j < COLS) {
                sum += (v - sum) / n;
                squares += (v * v - squares) / n++;
            }
        }
    ok(wrong == 0 && fabs(sum) < 0.2 && fabs(squares / (16.0 / 3) - 1) < 0.1, "noise is uniform in the rows' scale: mean %.2f, variance %.2f", sum, squares);
}

static void test_adamw(void)
{
    float p = 1, m = 0, v = 0, g[] = {0.5f, -0.25f, 0.125f};
    double want[] = {.890000002, .8542630578558273, .8110522654784148}, worst = 0;
    for (int t = 0; t < 3; t++) {
        devices[0]->ops->adamw(streams[0], &p, &g[t], &m, &v, 1, 0.1f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, t + 1);
        worst = fmax(worst, fabs(p - want[t]));
    }
    ok(worst < 3e-7, "AdamW as PyTorch's, three steps: off by %.2g", worst);
    Tensor x = random_tensor(1, 1000003);
    double sum[2] = {0, 0}, exact = 0;
    for (int64_t i = 0; i < x.cols; i++)
        exact += (double)at(x, 0, i) * at(x, 0, i);
    for (int d = 0; d < 2; d++)
        devices[d]->ops->sum_squares(streams[d], &sum[d], x);
    ok(sum[0] == sum[1] && fabs(sum[0] / exact - 1) < 1e-6, "sum of squares: exact enough, and the same at 1 and 2 threads");
    free(x.data);
}

static void *keepers[512];
static int kept_count;

/* Freed behind the test. */
static Tensor kept(Tensor x)
{
    keepers[kept_count++] = x.data;
    return x;
}

static Tensor typed(Dtype type, int64_t rows, int64_t cols)
{
    return tensor_make(devices[0], type, memory_aligned((size_t)(rows * cols), 4), rows, cols);
}

typedef struct Together {
    Tensor h, dh, dnarrow, dw, rotated, attended, dk, gu, out, logits, dz, dx, dw1, dhead;
    float logprob[1024], lse[1024];
} Together;

/* A layer's and a head's operations by rows, one after another or (`together`) collected. */
static void run_together(int device, Dtype type, bool together, Together *o)
{
    enum { T = 1024, N = 48, F = 80, V = 200, D = 16 };
    const Ops *ops = devices[device]->ops;
    Stream *s = streams[device];
    counter = 1000;
    Tensor x = kept(random_tensor(T, N)), norm = kept(random_tensor(1, N)), bias = kept(random_tensor(1, 2 * F));
    Tensor cosine = kept(random_tensor(T, D / 2)), sine = kept(random_tensor(T, D / 2));
    Tensor w1 = kept(halved(kept(random_tensor(2 * F, N)), true)), w2 = kept(halved(kept(random_tensor(N, F)), true));
    Tensor head = kept(halved(kept(random_tensor(V, N)), true));
    Tensor like_x = kept(halved(x, true));
    if (type == DTYPE_F32)
        w1 = kept(widened(w1)), w2 = kept(widened(w2)), head = kept(widened(head)), like_x = kept(widened(like_x));
    Tensor y = kept(typed(type, T, N)), act = kept(typed(type, T, F));
    Tensor dact = kept(typed(type, T, F)), dgu = kept(typed(type, T, 2 * F));
    Tensor dq = kept(typed(type, T, N)), dv = kept(typed(type, T, N));
    int32_t positions[T], labels[T], begin[T], end[T];
    float rstd[T], dlogprob[T], lse[3 * T], delta[3 * T];
    const Attention a = {.heads = 3, .kv_heads = 3, .head_dim = D, .scale = 0.25f, .begin = begin, .end = end, .sequences = 4, .sequence_rows = T / 4};
    for (int t = 0; t < T; t++) {
        positions[t] = t * 7 % T;
        begin[t] = t / (T / 4) * (T / 4);
        end[t] = t + 1;
        labels[t] = t % 5 ? t * 13 % V : -1;
        dlogprob[t] = -0.01f * (float)(t % 3);
    }
    *o = (Together){.h = kept(like(x)), .dh = kept(like(x)), .dnarrow = kept(typed(DTYPE_BF16, T, N)), .dw = kept(like(norm)), .rotated = like_x,
                    .attended = kept(typed(type, T, N)), .dk = kept(typed(type, T, N)), .out = kept(like(x)), .logits = kept(random_tensor(T, V)), .dx = kept(like(x)),
                    .dw1 = kept(random_tensor(2 * F, N)), .dhead = kept(random_tensor(V, N))};
    o->gu = kept(typed(type, T, 2 * F));
    o->dz = kept(typed(type, T, V));
    ops->fill(s, o->dw, 0);
    if (together)
        ops->rows_begin(s);
    ops->rmsnorm_forward(s, y, o->h, rstd, x, (Tensor){0}, norm, 1e-5f);
    ops->rope(s, o->rotated, N / D, D, positions, cosine.data, sine.data, false);
    ops->attention_forward(s, o->attended, lse, o->rotated, o->rotated, y, &a);
    ops->copy(s, y, o->attended);
    ops->matmul(s, o->gu, y, false, w1, true, 1, 0);
    ops->bias_forward(s, o->gu, bias);
    ops->swiglu_forward(s, act, o->gu);
    ops->matmul(s, o->out, act, false, w2, true, 1, 0);
    ops->matmul(s, o->logits, y, false, head, true, 1, 0);
    ops->logits_gradient(s, o->dz, o->logits, labels, dlogprob, o->logprob, o->lse);
    ops->matmul(s, o->dx, o->dz, false, head, false, 1, 0);
    ops->matmul(s, o->dhead, o->dz, true, y, false, 1, 1);
    ops->copy(s, y, o->out);
    ops->matmul(s, dact, y, false, w2, false, 1, 0);
    ops->swiglu_backward(s, dgu, dact, o->gu);
    ops->matmul(s, o->dw1, dgu, true, y, false, 1, 1);
    ops->matmul(s, y, dgu, false, w1, false, 1, 0);
    ops->attention_backward(s, dq, o->dk, dv, y, o->attended, lse, delta, o->rotated, o->rotated, o->rotated, &a);
    ops->rmsnorm_backward(s, o->dh, o->dnarrow, o->dw, dq, o->h, rstd, norm, o->dx);
    if (together)
        ops->rows_end(s);
}

static void test_together(void)
{
    for (int form = 0; form < 4; form++) {
        Dtype type = form & 1 ? DTYPE_BF16 : DTYPE_F32;
        static Together a, b;
        run_together(form / 2, type, false, &a);
        run_together(form / 2, type, true, &b);
        Tensor x[] = {a.h, a.dh, a.dnarrow, a.dw, a.rotated, a.attended, a.dk, a.gu, a.out, a.dz, a.dx, a.dw1, a.dhead};
        Tensor y[] = {b.h, b.dh, b.dnarrow, b.dw, b.rotated, b.attended, b.dk, b.gu, b.out, b.dz, b.dx, b.dw1, b.dhead};
        int equal = memcmp(a.logprob, b.logprob, sizeof a.logprob) == 0 && memcmp(a.lse, b.lse, sizeof a.lse) == 0;
        for (size_t i = 0; i < sizeof x / sizeof *x; i++)
            equal &= memcmp(x[i].data, y[i].data, (size_t)(x[i].rows * x[i].cols) * dtype_size(x[i].dtype)) == 0;
        ok(equal && isfinite(b.lse[0]) && b.lse[0] != 0, "operations collected by rows, %s, %d threads: the same bits", form & 1 ? "bf16" : "f32", form / 2 + 1);
    }
    static Together one, two;
    run_together(0, DTYPE_BF16, true, &one);
    run_together(1, DTYPE_BF16, true, &two);
    ok(same_bits(one.dh, two.dh) && same_bits(one.dw, two.dw) && same_bits(one.dw1, two.dw1), "and the same at one thread and at two");
    while (kept_count > 0)
        free(keepers[--kept_count]);
}

int main(void)
{
    for (int i = 0; i < 2; i++) {
        devices[i] = device_open("cpu", i + 1, NULL);
        streams[i] = devices[i]->stream_new(devices[i]);
    }
    test_matmul();
    test_matmul_packed();
    test_matmul_bf16();
    test_matmul_rounds();
    test_attention(4, 2, 32, 0);
    test_attention(6, 1, 16, 40);
    test_attention(2, 2, 80, 0);
    test_attention_stacked();
    test_rows();
    test_rounding();
    test_bf16_rows();
    test_together();
    test_dropout();
    test_adamw();
    for (int i = 0; i < 2; i++) {
        streams[i]->device->stream_free(streams[i]);
        device_close(devices[i]);
    }
    return tap_end();
}
