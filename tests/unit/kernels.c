/* smoke: the CPU's operations on rows and AdamW against plain double-precision forms, and the same bits at one thread and at two. */
#include "tests/unit/pair.h"

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

int main(void)
{
    pair_open();
    test_rows();
    test_rounding();
    test_bf16_rows();
    test_dropout();
    test_adamw();
    return pair_end();
}
