/* smoke: the CUDA kernels against the CPU ones: everything but attention (cuda_attention.c). */
#include "tests/unit/twin.h"

static const Dtype types[] = {DTYPE_F32, DTYPE_BF16};

static void test_device(const char *on)
{
    Error err = {{0}};
    ok(gpu->alloc(gpu, (size_t)1 << 50) == NULL, "%s: too much memory is refused", on);
    Stream *other = gpu->stream_new(gpu);
    float *p = gpu->alloc(gpu, 4096), here[1024], back[1024];
    for (int i = 0; i < 1024; i++)
        here[i] = (float)i;
    gpu->copy(stream, p, here, sizeof here, COPY_TO_DEVICE);
    gpu->stream_order(stream, other);
    gpu->copy(other, back, p, sizeof back, COPY_TO_HOST);
    ok(gpu->stream_wait(other, &err) == 0 && memcmp(here, back, sizeof here) == 0, "%s: a stream that waits for another sees its copy", on);
    void (*fail)(void) = (void (*)(void))(uintptr_t)dlsym(object, "emulation_fail_launch");
    if (fail) {
        fail();
        gpu->ops->fill(other, tensor_make(gpu, DTYPE_F32, p, 1, 1024), 1);
        gpu->ops->scale(other, tensor_make(gpu, DTYPE_F32, p, 1, 1024), 2);
        int status = gpu->stream_wait(other, NULL) < 0 ? gpu->stream_wait(other, &err) : 0;
        ok(status < 0 && strstr(err.text, "device cuda: fill: ") == err.text, "%s: waiting reports the launch that failed: %s", on, err.text);
        ok(gpu->stream_wait(other, &err) == 0, "%s: once", on);
    }
    gpu->release(gpu, p);
    gpu->stream_free(other);
}

static void test_scatter(const char *on)
{
    static const int32_t rows[] = {8, -1, 3, 0, 11, 5, -1, 1};
    int32_t *there = gpu->alloc(gpu, sizeof rows);
    double worst = 0;
    gpu->copy(stream, there, rows, sizeof rows, COPY_TO_DEVICE);
    for (int form = 0; form < 8; form++) {
        Dtype t = types[form & 1];
        int64_t n = form & 2 ? 33 : 64, pad = form & 4 ? 8 : 0;
        Twin from = twin_typed(t, 8, n, n + pad), to = twin_typed(t, 12, n, n);
        cpu->ops->scatter(host, to.here, from.here, rows), gpu->ops->scatter(stream, to.there, from.there, there);
        worst = worse(difference(to), worst);
        twin_free(from), twin_free(to);
    }
    gpu->release(gpu, there);
    ok(worst == 0, "%s: scatter in 8 forms", on);
}

/* Widths with and without whole vectors, rows with and without gaps. */
static void test_elementwise(const char *on)
{
    static const int shapes[][2] = {{1, 1}, {3, 64}, {7, 33}, {40, 200}, {1, 5000}, {9, 1032}};
    double worst = 0;
    int cases = 0;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 8; form++, cases++) {
            int64_t rows = shapes[c][0], n = shapes[c][1], pad = form & 1 ? 8 : form & 4 ? 3 : 0;
            Dtype t = types[form >> 1 & 1], u = types[form >> 2 & 1];
            Twin x = twin_typed(t, rows, n, n + pad), y = twin_typed(u, rows, n, n), z = twin_typed(t, rows, n, n + pad);
            cpu->ops->copy(host, z.here, y.here), gpu->ops->copy(stream, z.there, y.there);
            worst = worse(difference(z) / tolerance(t), worst);
            cpu->ops->add(host, x.here, y.here, 0.75f), gpu->ops->add(stream, x.there, y.there, 0.75f);
            cpu->ops->scale(host, x.here, -1.5f), gpu->ops->scale(stream, x.there, -1.5f);
            worst = worse(difference(x) / tolerance(t), worst);
            cpu->ops->fill(host, x.here, 0.25f), gpu->ops->fill(stream, x.there, 0.25f);
            worst = worse(difference(x) / tolerance(t), worst);
            twin_free(x), twin_free(y), twin_free(z);
        }
    ok(worst < 1, "%s: fill, copy, add, scale in %d forms and shapes: %.2g of what rounding allows", on, cases, worst);
}

static void test_matmul(const char *on)
{
    static const int shapes[][3] = {{1, 64, 64}, {5, 33, 17}, {64, 64, 64}, {70, 100, 130}, {33, 16, 300}, {9, 50, 1}, {513, 1000, 700}};
    for (int pair = 0; pair < 4; pair++) {
        double worst = 0;
        int cases = 0;
        Dtype in = types[pair & 1], out = types[pair >> 1];
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++)
            for (int form = 0; form < 16; form++, cases++) {
                int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2], pad = form & 8 ? 3 : 0;
                bool ta = form & 1, tb = form & 2;
                float beta = form & 4 ? 1 : 0;
                Twin a = ta ? twin_typed(in, k, m, m + pad) : twin_typed(in, m, k, k + pad);
                Twin b = tb ? twin_typed(in, n, k, k + 2 * pad) : twin_typed(in, k, n, n + 2 * pad), x = twin_typed(out, m, n, n + pad);
                cpu->ops->matmul(host, x.here, a.here, ta, b.here, tb, 0.5f, beta);
                gpu->ops->matmul(stream, x.there, a.there, ta, b.there, tb, 0.5f, beta);
                worst = worse(difference(x), worst);
                twin_free(a), twin_free(b), twin_free(x);
            }
        ok(worst < tolerance(out), "%s: matmul of %s to %s in %d forms and shapes: worst relative difference %.2g", on, type_name(in), type_name(out), cases, worst);
    }
}

static void test_bias(const char *on)
{
    static const int shapes[][2] = {{1, 16}, {7, 33}, {300, 64}, {700, 130}, {5000, 768}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = types[bf16];
        double forward = 0, backward = 0;
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++) {
            int64_t rows = shapes[c][0], n = shapes[c][1];
            Twin y = twin_typed(t, rows, n, n + 8), b = twin(1, n, n), db = twin(1, n, n);
            cpu->ops->bias_backward(host, db.here, y.here), gpu->ops->bias_backward(stream, db.there, y.there);
            backward = worse(difference(db), backward);
            cpu->ops->bias_forward(host, y.here, b.here), gpu->ops->bias_forward(stream, y.there, b.there);
            forward = worse(difference(y), forward);
            twin_free(y), twin_free(b), twin_free(db);
        }
        ok(forward < tolerance(t) && backward < tolerance(DTYPE_F32), "%s: bias_forward, bias_backward of %s: worst relative differences %.2g, %.2g", on, type_name(t), forward, backward);
    }
}

static void test_embedding(const char *on)
{
    static const int shapes[][3] = {{5, 40, 16}, {70, 3, 33}, {200, 50, 264}, {9000, 300, 640}};
    double forward = 0, backward = 0;
    bool same = true;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++) {
        int64_t rows = shapes[c][0], vocabulary = shapes[c][1], n = shapes[c][2];
        Integers tokens = integers(rows);
        for (int64_t i = 0; i < rows; i++)
            tokens.here[i] = (int32_t)random_below(3, 1, (uint64_t)i, (uint64_t)vocabulary + 2) - 2; /* some are another table's */
        integers_send(tokens, rows);
        Twin table = twin(vocabulary, n, n), out = twin(rows, n, n), dtable = twin(vocabulary, n, n), again = twin(vocabulary, n, n);
        cpu->ops->copy(host, again.here, dtable.here), twin_send(again);
        cpu->ops->embedding_forward(host, out.here, table.here, tokens.here), gpu->ops->embedding_forward(stream, out.there, table.there, tokens.there);
        forward = worse(difference(out), forward);
        cpu->ops->embedding_backward(host, dtable.here, out.here, tokens.here);
        gpu->ops->embedding_backward(stream, dtable.there, out.there, tokens.there);
        gpu->ops->embedding_backward(stream, again.there, out.there, tokens.there);
        backward = worse(difference(dtable), backward);
        same = same && same_bits(dtable.there, again.there);
        twin_free(table), twin_free(out), twin_free(dtable), twin_free(again);
        integers_free(tokens);
    }
    ok(forward == 0 && backward < tolerance(DTYPE_F32), "%s: embedding: exact; its gradient: worst relative difference %.2g", on, backward);
    ok(same, "%s: and the gradient has the same bits a second time", on);
}

static void test_rmsnorm(const char *on)
{
    static const int shapes[][2] = {{1, 16}, {7, 33}, {70, 128}, {13, 1000}, {300, 48}, {3, 4096}, {3, 8000}, {2, 9000}, {530, 516}, {1000, 2048}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = types[bf16];
        double forward = 0, backward = 0, rounded = 0, weight = 0;
        int cases = 0;
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++)
            for (int form = 0; form < 4; form++, cases++) {
                int64_t rows = shapes[c][0], n = shapes[c][1], ld = n + (form & 2 ? 5 : 0);
                Twin x = twin(rows, n, ld), sub = twin_typed(t, rows, n, ld), w = twin(1, n, n);
                Twin y = twin_typed(t, rows, n, ld), h = twin(rows, n, ld), rstd = twin(1, rows, rows), dy = twin_typed(t, rows, n, ld);
                /* The residual stream's gradient is f32 or of the branches' type. */
                Dtype u = form & 1 ? DTYPE_F32 : t;
                Twin dh = twin_typed(u, rows, n, ld), narrow = twin_typed(DTYPE_BF16, rows, n, ld), dw = twin(1, n, n), extra = twin_typed(u, rows, n, ld);
                Tensor none = {0};
                bool with = form & 1;
                cpu->ops->rmsnorm_forward(host, y.here, h.here, rstd.here.data, x.here, with ? sub.here : none, w.here, 1e-5f);
                gpu->ops->rmsnorm_forward(stream, y.there, h.there, rstd.there.data, x.there, with ? sub.there : none, w.there, 1e-5f);
                forward = worse(worse(difference(y), difference(h)), worse(difference(rstd), forward));
                twin_send(h); /* both go on from the same bits */
                twin_send(rstd);
                /* dh in dy's memory, and weights that are frozen, are forms that the engine uses. */
                Tensor dw_here = form == 3 ? none : dw.here, dw_there = form == 3 ? none : dw.there;
                Twin to = form == 2 ? dy : dh;
                cpu->ops->rmsnorm_backward(host, to.here, with ? narrow.here : none, dw_here, dy.here, h.here, rstd.here.data, w.here, with ? extra.here : none);
                gpu->ops->rmsnorm_backward(stream, to.there, with ? narrow.there : none, dw_there, dy.there, h.there, rstd.there.data, w.there, with ? extra.there : none);
                backward = worse(difference(to), backward);
                rounded = worse(difference(narrow), rounded);
                weight = worse(difference(dw), weight);
                twin_free(x), twin_free(sub), twin_free(w), twin_free(y), twin_free(h), twin_free(rstd), twin_free(dy), twin_free(dh);
                twin_free(dw), twin_free(narrow), twin_free(extra);
            }
        ok(forward < tolerance(t), "%s: rmsnorm_forward of %s in %d forms and shapes: worst relative difference %.2g", on, type_name(t), cases, forward);
        ok(backward < tolerance(t) && rounded < tolerance(DTYPE_BF16) && weight < tolerance(DTYPE_F32),
           "%s: rmsnorm_backward likewise: %.2g, rounded %.2g, of the weight %.2g", on, backward, rounded, weight);
    }
}

static void test_rope(const char *on)
{
    enum { POSITIONS = 50 };
    static const int shapes[][3] = {{9, 3, 6}, {33, 2, 16}, {20, 5, 64}, {7, 1, 80}, {5, 2, 128}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = types[bf16];
        double worst = 0;
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
            for (int backward = 0; backward < 2; backward++) {
                int64_t rows = shapes[c][0], heads = shapes[c][1], d = shapes[c][2];
                Twin x = twin_typed(t, rows, heads * d, heads * d + 8 * backward), cosine = twin(POSITIONS, d / 2, d / 2), sine = twin(POSITIONS, d / 2, d / 2);
                Integers positions = integers(rows);
                for (int64_t i = 0; i < rows; i++)
                    positions.here[i] = (int32_t)(i * 7 % POSITIONS);
                integers_send(positions, rows);
                cpu->ops->rope(host, x.here, (int)heads, (int)d, positions.here, cosine.here.data, sine.here.data, backward);
                gpu->ops->rope(stream, x.there, (int)heads, (int)d, positions.there, cosine.there.data, sine.there.data, backward);
                worst = worse(difference(x), worst);
                twin_free(x), twin_free(cosine), twin_free(sine);
                integers_free(positions);
            }
        ok(worst < tolerance(t), "%s: rope of %s in 10 forms and shapes: worst relative difference %.2g", on, type_name(t), worst);
    }
}

static void test_swiglu(const char *on)
{
    static const int shapes[][2] = {{1, 1}, {9, 40}, {5, 33}, {3, 1400}, {2000, 1024}};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Dtype t = types[bf16];
        double forward = 0, backward = 0;
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++) {
            int64_t rows = shapes[c][0], n = shapes[c][1];
            Twin y = twin_typed(t, rows, n, n), gu = twin_typed(t, rows, 2 * n, 2 * n), dgu = twin_typed(t, rows, 2 * n, 2 * n), dy = twin_typed(t, rows, n, n);
            for (int64_t i = 0; i < rows * 2 * n; i++)
                ((float *)gu.here.data)[i] *= i % 17 ? 3 : 40; /* far into both tails of the sigmoid */
            twin_send(gu);
            cpu->ops->swiglu_forward(host, y.here, gu.here), gpu->ops->swiglu_forward(stream, y.there, gu.there);
            cpu->ops->swiglu_backward(host, dgu.here, dy.here, gu.here), gpu->ops->swiglu_backward(stream, dgu.there, dy.there, gu.there);
            forward = worse(difference(y), forward);
            backward = worse(difference(dgu), backward);
            twin_free(y), twin_free(gu), twin_free(dgu), twin_free(dy);
        }
        ok(forward < tolerance(t) && backward < tolerance(t), "%s: swiglu of %s, forward and backward: worst relative differences %.2g, %.2g", on, type_name(t), forward, backward);
    }
}

static void test_logits(const char *on)
{
    static const int shapes[][2] = {{1, 5}, {7, 320}, {9, 1003}, {5, 4104}, {200, 32000}};
    double forward = 0, backward = 0, both = 0;
    bool best_right = true;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes - !large; c++)
        for (int form = 0; form < 2; form++) {
            int64_t rows = shapes[c][0], n = shapes[c][1];
            Twin z = twin(rows, n, n + 8 * form), logprob = twin(1, rows, rows), lse = twin(1, rows, rows), mean = twin(1, rows, rows), entropy = twin(1, rows, rows);
            Twin dl = twin(1, rows, rows), ds = twin(1, rows, rows);
            Integers labels = integers(rows), best = integers(rows);
            int32_t *got = memory_alloc((size_t)rows, sizeof *got);
            for (int64_t i = 0; i < rows; i++) {
                labels.here[i] = i % 4 == 3 ? -1 : (int32_t)((i * 131 + 1) % n);
                /* Equal maxima: the lower one counts. */
                ((float *)z.here.data)[i * z.here.ld + n / 3] = ((float *)z.here.data)[i * z.here.ld + n - 1] = 9;
            }
            twin_send(z);
            integers_send(labels, rows);
            cpu->ops->logits_forward(host, z.here, labels.here, logprob.here.data, lse.here.data, best.here, form ? mean.here.data : NULL,
                                     entropy.here.data);
            gpu->ops->logits_forward(stream, z.there, labels.there, logprob.there.data, lse.there.data, best.there, form ? mean.there.data : NULL,
                                     entropy.there.data);
            forward = worse(worse(worse(difference(logprob), difference(lse)), difference(entropy)), forward);
            /* The mean is near 0: its error counts beside the numbers', which are near 1. */
            double norm = 0;
            for (int64_t i = 0; i < rows; i++)
                norm += pow(((float *)mean.here.data)[i], 2);
            forward = worse(difference(mean) * sqrt(norm / (double)rows), forward);
            gpu->copy(stream, got, best.there, (size_t)rows * sizeof *got, COPY_TO_HOST);
            gpu->stream_wait(stream, NULL);
            best_right = best_right && memcmp(got, best.here, (size_t)rows * sizeof *got) == 0;
            twin_send(lse);
            cpu->ops->logits_backward(host, z.here, labels.here, lse.here.data, dl.here.data, form ? ds.here.data : NULL);
            gpu->ops->logits_backward(stream, z.there, labels.there, lse.there.data, dl.there.data, form ? ds.there.data : NULL);
            backward = worse(difference(z), backward);
            Twin dz = twin_typed(types[form], rows, n, n + 8);
            twin_send(z);
            cpu->ops->logits_gradient(host, dz.here, z.here, labels.here, dl.here.data, logprob.here.data, lse.here.data);
            gpu->ops->logits_gradient(stream, dz.there, z.there, labels.there, dl.there.data, logprob.there.data, lse.there.data);
            both = worse(worse(difference(logprob), difference(lse)), worse(difference(dz) / tolerance(types[form]), both));
            twin_free(dz), twin_free(z), twin_free(logprob), twin_free(lse), twin_free(mean), twin_free(entropy), twin_free(dl), twin_free(ds);
            integers_free(labels), integers_free(best);
            free(got);
        }
    ok(forward < tolerance(DTYPE_F32) && backward < tolerance(DTYPE_F32), "%s: logits, forward and backward: worst relative differences %.2g, %.2g", on, forward, backward);
    ok(both < 1, "%s: both at once, into either type: worst difference %.2g of what is allowed", on, both);
    ok(best_right, "%s: the best of each row is the lowest of the largest", on);
}

static void test_dropout(const char *on)
{
    double worst = 0;
    int cases = 0;
    for (int form = 0; form < 8; form++, cases++) {
        enum { ROWS = 19 };
        int64_t n = form & 1 ? 130 : 64;
        Dtype t = types[form >> 1 & 1], u = types[form >> 2 & 1];
        Twin x = twin_typed(u, ROWS, n, n), y = twin_typed(t, ROWS, n, n + 4), z = twin_typed(t, ROWS, n, n);
        uint64_t keys[ROWS], *there = gpu->alloc(gpu, sizeof keys);
        float scale[ROWS], *scale_there = gpu->alloc(gpu, sizeof scale);
        for (int i = 0; i < ROWS; i++)
            keys[i] = (uint64_t)i * 0x9E3779B97F4A7C15u, scale[i] = (float)i / 4;
        gpu->copy(stream, there, keys, sizeof keys, COPY_TO_DEVICE);
        gpu->copy(stream, scale_there, scale, sizeof scale, COPY_TO_DEVICE);
        for (int add = 0; add < 2; add++)
            cpu->ops->dropout(host, y.here, x.here, 5 * form, keys, 3, 0.3f, add), gpu->ops->dropout(stream, y.there, x.there, 5 * form, there, 3, 0.3f, add);
        cpu->ops->noise(host, z.here, keys, scale, 4), gpu->ops->noise(stream, z.there, there, scale_there, 4);
        worst = worse(difference(y) / tolerance(t), worst);
        worst = worse(difference(z) / tolerance(t), worst);
        twin_free(x), twin_free(y), twin_free(z);
        gpu->release(gpu, there);
        gpu->release(gpu, scale_there);
    }
    ok(worst < 1, "%s: dropout and noise in %d forms draw the CPU's numbers: %.2g of what rounding allows", on, cases, worst);
}

static void test_optimizer(const char *on)
{
    static const int sizes[] = {1, 63, 4096, 70001, 3000000};
    double squares = 0, step = 0;
    bool same = true;
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes - !large; c++) {
        int64_t n = sizes[c];
        Twin p = twin(1, n, n), g = twin(1, n, n), m = twin(1, n, n), v = twin(1, n, n);
        for (int64_t i = 0; i < n; i++)
            ((float *)v.here.data)[i] *= ((float *)v.here.data)[i];
        twin_send(v);
        double want = 3, got[2] = {3, 3}, *there = gpu->alloc(gpu, sizeof got);
        gpu->copy(stream, there, got, sizeof got, COPY_TO_DEVICE);
        for (int64_t i = 0; i < n; i++) /* in double: the CPU's f32 pieces are less exact than the GPU's */
            want += (double)((float *)g.here.data)[i] * (double)((float *)g.here.data)[i];
        gpu->ops->sum_squares(stream, there, g.there), gpu->ops->sum_squares(stream, there + 1, g.there);
        gpu->copy(stream, got, there, sizeof got, COPY_TO_HOST);
        gpu->stream_wait(stream, NULL);
        gpu->release(gpu, there);
        squares = worse(fabs(got[0] - want) / want, squares);
        same = same && got[0] == got[1];
        for (int t = 1; t < 4; t++) {
            cpu->ops->adamw(host, p.here.data, g.here.data, m.here.data, v.here.data, n, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, t);
            gpu->ops->adamw(stream, p.there.data, g.there.data, m.there.data, v.there.data, n, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, t);
        }
        step = worse(worse(difference(p), difference(m)), worse(difference(v), step));
        twin_free(p), twin_free(g), twin_free(m), twin_free(v);
    }
    ok(squares < 1e-6 && same, "%s: sum_squares: worst relative difference from a sum in double %.2g, the same bits a second time", on, squares);
    ok(step < tolerance(DTYPE_F32), "%s: three steps of adamw: worst relative difference %.2g", on, step);
}

static void tests(const char *on)
{
    test_device(on);
    test_elementwise(on);
    test_scatter(on);
    test_matmul(on);
    test_bias(on);
    test_embedding(on);
    test_rmsnorm(on);
    test_rope(on);
    test_swiglu(on);
    test_logits(on);
    test_dropout(on);
    test_optimizer(on);
}

int main(int argc, char **argv)
{
    return twin_main(argc, argv, tests);
}
