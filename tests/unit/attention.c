/* smoke: the CPU's attention, forward and backward, against a plain double-precision form, and the same bits at one thread and at two. */
#include "tests/unit/pair.h"

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

int main(void)
{
    pair_open();
    test_attention(4, 2, 32, 0);
    test_attention(6, 1, 16, 40);
    test_attention(2, 2, 80, 0);
    test_attention_stacked();
    return pair_end();
}
