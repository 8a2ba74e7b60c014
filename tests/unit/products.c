/* smoke: the CPU's matrix product against a double-precision form, in f32 and bf16, and the same bits at one thread and at two. */
#include "tests/unit/pair.h"

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

int main(void)
{
    pair_open();
    test_matmul();
    test_matmul_packed();
    test_matmul_bf16();
    test_matmul_rounds();
    return pair_end();
}
