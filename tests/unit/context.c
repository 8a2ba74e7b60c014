/* smoke: context parallelism: a batch that is dealt out is whole, and attention of each rank's queries over all keys gives what
 * attention of all gives, over documents that cross chunks and under a sliding window. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "data/batch.h"
#include "kernels/ops.h"
#include "tests/unit/tap.h"

enum { SEQUENCES = 2, LENGTH = 240, ROWS = SEQUENCES * LENGTH };

static Device *device;
static Stream *stream;
static uint64_t counter;

/* Two sequences of documents of many lengths, and some padding at the end of the second. */
static void fill(Batch *b)
{
    static const int lengths[SEQUENCES][6] = {{7, 90, 1, 101, 41}, {180, 3, 40}};
    int32_t tokens[LENGTH];
    batch_new(b, SEQUENCES, LENGTH);
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0, at = 0; lengths[s][i] > 0; at += lengths[s][i++]) {
            for (int t = 0; t < lengths[s][i]; t++)
                tokens[t] = (int32_t)(1 + counter++);
            batch_place(b, s * LENGTH + at, tokens, NULL, NULL, lengths[s][i], -1, 0, i);
        }
}

static void test_deal(void)
{
    Batch whole, part;
    fill(&whole);
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        bool right = true, even = true;
        double weight = 0;
        int64_t seen[8];
        int32_t dealt[ROWS], order[ROWS];
        batch_new(&part, SEQUENCES, LENGTH / ranks);
        batch_orders(SEQUENCES, LENGTH, ranks, dealt, order);
        for (int rank = 0; rank < ranks; rank++) {
            batch_deal(&part, &whole, rank, ranks);
            weight += part.weight;
            seen[rank] = 0;
            for (int64_t r = 0; r < part.rows; r++) {
                int32_t i = order[rank * part.rows + r];
                right &= dealt[i] == rank * part.rows + r && part.tokens[r] == whole.tokens[i] && part.labels[r] == whole.labels[i] &&
                         part.positions[r] == whole.positions[i] && part.begin[r] == whole.begin[i] && part.end[r] == whole.end[i] &&
                         part.document[r] == whole.document[i];
                const BatchDocument *d = part.document[r] < 0 ? NULL : &part.documents[part.document[r]];
                right &= !d || (d->first == whole.begin[i] && d->first + part.positions[r] == i);
                seen[rank] += i % LENGTH + 1;
                right &= r % part.sequence_rows == 0 || part.begin[r] >= part.begin[r - 1];
            }
            even &= seen[rank] == seen[0];
        }
        ok(right && weight == whole.weight, "of %d ranks each row is one's, with what it sees", ranks);
        ok(even, "and without documents all have as much to see");
        batch_free(&part);
    }
    batch_free(&whole);
}

static Tensor random_tensor(Dtype t, int64_t rows, int64_t cols)
{
    Tensor x = tensor_make(device, DTYPE_F32, device->alloc(device, (size_t)(rows * cols) * sizeof(float)), rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)x.data)[i] = (float)random_normal(1, 98, counter++);
    if (t == DTYPE_F32)
        return x;
    Tensor y = tensor_make(device, t, device->alloc(device, (size_t)(rows * cols) * dtype_size(t)), rows, cols);
    device->ops->copy(stream, y, x);
    device->release(device, x.data);
    return y;
}

static Tensor zeros(Dtype t, int64_t rows, int64_t cols)
{
    return tensor_make(device, t, device->alloc(device, (size_t)(rows * cols) * dtype_size(t)), rows, cols);
}

/* ‖a − b‖/‖b‖ */
static double apart(Tensor a, Tensor b)
{
    Tensor x = zeros(DTYPE_F32, a.rows, a.cols), y = zeros(DTYPE_F32, a.rows, a.cols);
    device->ops->copy(stream, x, a);
    device->ops->copy(stream, y, b);
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        double p = ((float *)x.data)[i], q = ((float *)y.data)[i];
        d += (p - q) * (p - q);
        n += q * q;
    }
    device->release(device, x.data);
    device->release(device, y.data);
    return sqrt(d / n);
}

/* Rows of x (of all ranks, or of the whole) that rank has, one after the other; back: the other way. */
static void pick(Tensor part, Tensor x, const int32_t *order, int64_t first, bool back)
{
    for (int64_t r = 0; r < part.rows; r++) {
        Tensor a = tensor_rows(part, r, 1), b = tensor_rows(x, order[first + r], 1);
        device->ops->copy(stream, back ? b : a, back ? a : b);
    }
}

static void test_attention(Dtype t, int heads, int kv_heads, int d, int window)
{
    Batch whole, part;
    fill(&whole);
    for (int64_t i = 0; window && i < ROWS; i++)
        if (whole.begin[i] < i - window + 1)
            whole.begin[i] = (int32_t)i - window + 1;
    Attention a = {heads, kv_heads, d, 1 / sqrtf((float)d), whole.begin, whole.end, SEQUENCES, LENGTH, 0};
    Tensor q = random_tensor(t, ROWS, heads * d), k = random_tensor(t, ROWS, kv_heads * d), v = random_tensor(t, ROWS, kv_heads * d);
    Tensor dout = random_tensor(t, ROWS, heads * d), out = zeros(t, ROWS, heads * d), dq = zeros(t, ROWS, heads * d);
    Tensor dk = zeros(t, ROWS, kv_heads * d), dv = zeros(t, ROWS, kv_heads * d), lse = zeros(DTYPE_F32, heads, ROWS), delta = zeros(DTYPE_F32, heads, ROWS);
    device->ops->attention_forward(stream, out, lse.data, q, k, v, &a);
    device->ops->attention_backward(stream, dq, dk, dv, dout, out, lse.data, delta.data, q, k, v, &a);
    double worst = 0;
    for (int ranks = 2; ranks <= 4; ranks++) {
        int32_t dealt[ROWS], order[ROWS];
        int64_t rows = ROWS / ranks;
        Tensor all_out = zeros(t, ROWS, heads * d), all_dq = zeros(t, ROWS, heads * d);
        Tensor sum_k = zeros(DTYPE_F32, ROWS, kv_heads * d), sum_v = zeros(DTYPE_F32, ROWS, kv_heads * d);
        Tensor one_k = zeros(t, ROWS, kv_heads * d), one_v = zeros(t, ROWS, kv_heads * d);
        Tensor qr = zeros(t, rows, heads * d), outr = zeros(t, rows, heads * d), dqr = zeros(t, rows, heads * d), doutr = zeros(t, rows, heads * d);
        batch_orders(SEQUENCES, LENGTH, ranks, dealt, order);
        batch_new(&part, SEQUENCES, LENGTH / ranks);
        for (int rank = 0; rank < ranks; rank++) {
            batch_deal(&part, &whole, rank, ranks);
            Attention mine = {heads, kv_heads, d, a.scale, part.begin, part.end, SEQUENCES, part.sequence_rows, part.key_rows};
            pick(qr, q, order, rank * rows, false);
            pick(doutr, dout, order, rank * rows, false);
            device->ops->attention_forward(stream, outr, lse.data, qr, k, v, &mine);
            device->ops->attention_backward(stream, dqr, one_k, one_v, doutr, outr, lse.data, delta.data, qr, k, v, &mine);
            pick(outr, all_out, order, rank * rows, true);
            pick(dqr, all_dq, order, rank * rows, true);
            device->ops->add(stream, sum_k, one_k, 1);
            device->ops->add(stream, sum_v, one_v, 1);
        }
        worst = fmax(worst, fmax(fmax(apart(all_out, out), apart(all_dq, dq)), fmax(apart(sum_k, dk), apart(sum_v, dv))));
        Tensor used[] = {all_out, all_dq, sum_k, sum_v, one_k, one_v, qr, outr, dqr, doutr};
        for (size_t i = 0; i < sizeof used / sizeof *used; i++)
            device->release(device, used[i].data);
        batch_free(&part);
    }
    ok(worst < (t == DTYPE_F32 ? 2e-6 : 6e-3), "%s, %d/%d heads of %d, window %d: 2, 3 and 4 ranks attend as one does: %.2g", t == DTYPE_F32 ? "f32" : "bf16",
       heads, kv_heads, d, window, worst);
    Tensor used[] = {q, k, v, dout, out, dq, dk, dv, lse, delta};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        device->release(device, used[i].data);
    batch_free(&whole);
}

int main(void)
{
    device = device_open("cpu", 2, NULL);
    stream = device->stream_new(device);
    test_deal();
    test_attention(DTYPE_F32, 4, 2, 32, 0);
    test_attention(DTYPE_F32, 6, 1, 20, 0);
    test_attention(DTYPE_F32, 2, 2, 16, 33);
    test_attention(DTYPE_BF16, 4, 2, 32, 0);
    test_attention(DTYPE_BF16, 4, 1, 80, 50);
    device->stream_free(stream);
    device_close(device);
    return tap_end();
}
