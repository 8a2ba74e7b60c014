/* smoke: operations that go by rows together have the bits that they have one after another. */
#include "tests/unit/pair.h"

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
    pair_open();
    test_together();
    return pair_end();
}
