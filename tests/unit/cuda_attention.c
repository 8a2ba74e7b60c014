/* smoke: the CUDA kernels of attention against the CPU ones: f32 arithmetic, mma.sync of bf16, decoding from pages. */
#include "tests/unit/twin.h"

/* A shape: sequences of `rows` tokens, query heads, key heads, head size; of `ranks` > 1 the queries are the second's under context
 * parallelism: chunks 1 and 2·ranks−2 of 2·ranks of each sequence. */
typedef struct Shape {
    int64_t sequences, rows;
    int heads, kv_heads, d, ranks;
} Shape;

static int64_t queries_of(Shape s)
{
    return s.ranks > 1 ? s.rows / s.ranks : s.rows;
}

/* Where query i of a sequence stands in it. */
static int64_t place_of(Shape s, int64_t i)
{
    int64_t chunk = s.rows / (2 * s.ranks);
    return s.ranks <= 1 ? i : i < chunk ? chunk + i : (2 * s.ranks - 3) * chunk + i;
}

/* What queries see: everything before them in their sequence, in documents of 1 to 90 tokens, or a window of 37. */
typedef enum Mask { CAUSAL, DOCUMENTS, WINDOW } Mask;

static void mask_fill(Integers begin, Integers end, Shape s, Mask mask)
{
    uint64_t draws = 0;
    for (int64_t sequence = 0, t = 0; sequence < s.sequences; sequence++)
        for (int64_t i = 0, document = 0, left = 0, query = 0; i < s.rows; i++, left--) {
            if (mask == DOCUMENTS && left <= 0) {
                document = i;
                left = 1 + (int64_t)random_below(5, 1, draws++, 90);
            }
            if (query == queries_of(s) || place_of(s, query) != i)
                continue;
            int64_t first = mask == WINDOW && i >= 37 ? i - 36 : document;
            begin.here[t] = (int32_t)(sequence * s.rows + first);
            end.here[t++] = (int32_t)(sequence * s.rows + i) + 1;
            query++;
        }
    integers_send(begin, s.sequences * queries_of(s));
    integers_send(end, s.sequences * queries_of(s));
}

/* Worst relative differences of out and lse, and of dq, dk, dv; `same` is whether a second run gave the same bits. */
typedef struct Worst {
    double forward, backward;
    bool same;
} Worst;

static void compare(Dtype t, Shape s, Mask mask, int64_t pad, Worst *worst)
{
    int64_t keys = s.sequences * s.rows, rows = s.sequences * queries_of(s), q = s.heads * s.d, kv = s.kv_heads * s.d;
    Twin qkv = twin_typed(t, keys, q + 2 * kv, q + 2 * kv + pad), dqkv = twin_typed(t, keys, q + 2 * kv, q + 2 * kv + pad);
    Twin out = twin_typed(t, rows, q, q), dout = twin_typed(t, rows, q, q), lse = twin(s.heads, rows, rows), delta = twin(s.heads, rows, rows);
    Twin again = twin_typed(t, keys, q + 2 * kv, q + 2 * kv + pad), out2 = twin_typed(t, rows, q, q);
    Integers begin = integers(rows), end = integers(rows);
    mask_fill(begin, end, s, mask);
    memcpy(again.here.data, dqkv.here.data, twin_bytes(again.here)), twin_send(again); /* with what lies between the rows */
    Attention here = {s.heads, s.kv_heads, s.d, 1 / sqrtf((float)s.d), begin.here, end.here, s.sequences, queries_of(s), s.rows}, there = here;
    there.begin = begin.there, there.end = end.there;
    Twin x[] = {twin_rows(twin_columns(qkv, 0, q), rows), twin_columns(qkv, q, kv), twin_columns(qkv, q + kv, kv)};
    Twin d[] = {twin_rows(twin_columns(dqkv, 0, q), rows), twin_columns(dqkv, q, kv), twin_columns(dqkv, q + kv, kv)};
    Twin e[] = {twin_rows(twin_columns(again, 0, q), rows), twin_columns(again, q, kv), twin_columns(again, q + kv, kv)};
    cpu->ops->attention_forward(host, out.here, lse.here.data, x[0].here, x[1].here, x[2].here, &here);
    gpu->ops->attention_forward(stream, out.there, lse.there.data, x[0].there, x[1].there, x[2].there, &there);
    worst->forward = worse(worse(difference(out), difference(lse)), worst->forward);
    gpu->ops->attention_forward(stream, out2.there, delta.there.data, x[0].there, x[1].there, x[2].there, &there);
    worst->same = worst->same && same_bits(out.there, out2.there);
    twin_send(out); /* both go on from the same bits */
    twin_send(lse);
    cpu->ops->attention_backward(host, d[0].here, d[1].here, d[2].here, dout.here, out.here, lse.here.data, delta.here.data, x[0].here, x[1].here, x[2].here, &here);
    gpu->ops->attention_backward(stream, d[0].there, d[1].there, d[2].there, dout.there, out.there, lse.there.data, delta.there.data, x[0].there, x[1].there,
                                 x[2].there, &there);
    gpu->ops->attention_backward(stream, e[0].there, e[1].there, e[2].there, dout.there, out.there, lse.there.data, delta.there.data, x[0].there, x[1].there,
                                 x[2].there, &there);
    worst->backward = worse(difference(dqkv), worst->backward);
    worst->same = worst->same && same_bits(dqkv.there, again.there);
    Twin all[] = {qkv, dqkv, out, dout, lse, delta, again, out2};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        twin_free(all[i]);
    integers_free(begin), integers_free(end);
}

static void test_attention(const char *on)
{
    static const Shape small[] = {{2, 40, 4, 2, 8, 1},   {1, 70, 2, 1, 16, 1},  {1, 150, 3, 3, 32, 1}, {2, 65, 4, 1, 48, 1}, {1, 130, 2, 2, 64, 1},
                                  {1, 100, 2, 1, 80, 1}, {1, 90, 1, 1, 96, 1},  {2, 70, 2, 1, 128, 1}, {1, 45, 1, 1, 160, 1}, {1, 33, 2, 2, 20, 1}, {1, 20, 2, 1, 7, 1},
                                  {2, 160, 4, 2, 32, 2}, {1, 240, 2, 1, 20, 2}, {2, 96, 2, 1, 64, 4}, {1, 320, 3, 1, 80, 2}};
    static const Shape big[] = {{2, 1000, 8, 2, 64, 1}, {1, 2048, 4, 4, 128, 1}, {3, 700, 6, 2, 96, 1}, {1, 1500, 4, 1, 80, 1}, {1, 4096, 4, 2, 128, 4}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = bf16 ? DTYPE_BF16 : DTYPE_F32;
        Worst worst = {0, 0, true};
        int cases = 0;
        for (size_t i = 0; i < sizeof small / sizeof *small; i++)
            for (int mask = CAUSAL; mask <= WINDOW; mask++)
                if (large || (int)(i % 3) == mask || i % 4 == 0) {
                    compare(t, small[i], (Mask)mask, i % 2 ? 8 : 0, &worst);
                    cases++;
                }
        for (size_t i = 0; large && i < sizeof big / sizeof *big; i++, cases++)
            compare(t, big[i], (Mask)(i % 3), 0, &worst);
        ok(worst.forward < tolerance(t), "%s: attention_forward of %s in %d shapes and masks: worst relative difference %.2g", on, type_name(t), cases, worst.forward);
        /* dS is a difference of neighbours, rounded to bf16 once more on the way to dQ and dK. */
        ok(worst.backward < 2.5 * tolerance(t), "%s: attention_backward likewise: %.2g", on, worst.backward);
        ok(worst.same, "%s: both give the same bits a second time", on);
    }
}

/* Sequences of very different lengths over pages in disorder. */
static void test_decode(const char *on)
{
    enum { PAGE = 64, BATCH = 5 };
    /* The first two take a little less than 48 KB beside what the kernel declares, before another has asked for more. */
    static const Shape shapes[] = {{BATCH, 40, 2, 1, 84, 1},  {BATCH, 40, 2, 1, 160, 1},  {BATCH, 300, 4, 2, 16, 1}, {BATCH, 600, 8, 1, 64, 1},
                                   {BATCH, 90, 3, 3, 80, 1}, {BATCH, 130, 12, 1, 128, 1}, {BATCH, 70, 2, 1, 7, 1}};
    for (int bf16 = 0; bf16 < 4; bf16++) {
        Dtype t = bf16 & 1 ? DTYPE_BF16 : DTYPE_F32, c = bf16 & 2 ? DTYPE_BF16 : DTYPE_F32;
        double worst = 0;
        int cases = 0;
        bool same = true;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int window = 0; window < 2; window++) {
                Shape s = shapes[i];
                if (!large && (bf16 == 1 || bf16 == 2) && i > 3)
                    continue;
                int64_t stride = (s.rows + PAGE - 1) / PAGE + 1, pages = BATCH * stride, kv = s.kv_heads * s.d;
                Twin q = twin_typed(t, BATCH, s.heads * s.d, s.heads * s.d), out = twin_typed(t, BATCH, s.heads * s.d, s.heads * s.d);
                Twin keys = twin_typed(c, pages * PAGE, kv, kv), values = twin_typed(c, pages * PAGE, kv, kv), alone = twin_typed(t, 1, s.heads * s.d, s.heads * s.d);
                Integers table = integers(pages), length = integers(BATCH);
                for (int64_t p = 0; p < pages; p++)
                    table.here[p] = (int32_t)((p * 7 + 3) % pages);
                for (int64_t b = 0; b < BATCH; b++)
                    length.here[b] = (int32_t)(b == 0 ? s.rows : b == 1 ? 1 : b * s.rows / BATCH + 1);
                integers_send(table, pages), integers_send(length, BATCH);
                PagedKeys here = {keys.here.data, values.here.data, DTYPE_F32, PAGE, table.here, length.here, stride};
                PagedKeys there = {keys.there.data, values.there.data, c, PAGE, table.there, length.there, stride};
                float scale = 1 / sqrtf((float)s.d);
                cpu->ops->attention_decode(host, out.here, q.here, &here, s.heads, s.kv_heads, s.d, scale, window * 50);
                gpu->ops->attention_decode(stream, out.there, q.there, &there, s.heads, s.kv_heads, s.d, scale, window * 50);
                worst = worse(difference(out), worst);
                gpu->ops->attention_decode(stream, alone.there, tensor_rows(q.there, 0, 1), &there, s.heads, s.kv_heads, s.d, scale, window * 50);
                same = same && same_bits(alone.there, tensor_rows(out.there, 0, 1));
                twin_free(q), twin_free(out), twin_free(keys), twin_free(values), twin_free(alone);
                integers_free(table), integers_free(length);
                cases++;
            }
        ok(worst < tolerance(t), "%s: attention_decode of %s from pages of %s in %d shapes: worst relative difference %.2g", on, type_name(t), type_name(c), cases, worst);
        ok(same, "%s: a sequence has the same bits alone", on);
    }
}

/* Attention again by the kernels of a GPU of that capability and that shared memory. */
static void test_older(const char *on, const char *capability)
{
    Device *newest = gpu;
    Stream *its = stream;
    setenv("LMPIPE_CUDA_SM", capability, 1);
    Error err;
    gpu = ((Device * (*)(int, Error *))(uintptr_t)dlsym(object, "cuda_device_open"))(0, &err);
    unsetenv("LMPIPE_CUDA_SM");
    stream = gpu->stream_new(gpu);
    char *name = memory_format("%s, kernels of sm_%s", on, capability);
    test_attention(name);
    free(name);
    gpu->stream_free(stream);
    device_close(gpu);
    gpu = newest;
    stream = its;
}

static void tests(const char *on)
{
    test_attention(on);
    test_older(on, "80");
    test_older(on, "86");
    test_decode(on);
}

int main(int argc, char **argv)
{
    return twin_main(argc, argv, tests);
}
