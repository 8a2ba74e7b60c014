/* Attention by tiles with an online softmax (FlashAttention: Dao et al. 2022, 2023): the T×T matrix never stands in memory. Blocks of
 * keys that no query of a tile may see are skipped. Backward: a kernel for delta, one that owns tiles of keys and gives dK and dV,
 * one that owns tiles of queries and gives dQ: seven products for five, but no atomics and the same bits every time. */
#include "kernels/cuda/attention.h"

enum { WARPS = 8 };

/* delta[h, t] = Σ dout·out over the head: a warp a head and row. */
template <typename T, int N>
__global__ void attention_delta(float *delta, const T *dout, int64_t lddout, const T *out, int64_t ldout, int heads, int d, int64_t rows)
{
    int64_t unit = (int64_t)blockIdx.x * WARPS + threadIdx.y, t = unit / heads;
    int h = (int)(unit - t * heads);
    if (t >= rows)
        return;
    float sum = 0;
    for (int i = (int)threadIdx.x * N; i < d; i += 32 * N) {
        float a[N], b[N];
        load(a, dout + t * lddout + (int64_t)h * d + i);
        load(b, out + t * ldout + (int64_t)h * d + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum += a[j] * b[j];
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0)
        delta[h * rows + t] = sum;
}

struct Form {
    void (*forward)(Stream *s, const AttentionCall *c), (*backward)(Stream *s, const AttentionCall *c);
};

/* Matrix instructions take bf16 of heads up to 128 whose rows are whole vectors of 16 bytes; warpgroups' waste most of a narrow head. */
static Form form_of(Stream *s, const AttentionCall *c)
{
    Tensor all[] = {c->out, c->q, c->k, c->v, c->dout, c->dq, c->dk, c->dv};
    if (c->q.dtype != DTYPE_BF16 || c->a->head_dim > 128 || vector_width(DTYPE_BF16, c->a->head_dim, all, 8) == 1)
        return {attention_plain_forward, attention_plain_backward};
    if (cuda_state(s)->capability == 90 && c->a->head_dim > 32)
        return {attention_wgmma_forward, attention_wgmma_backward};
    return {attention_mma_forward, attention_mma_backward};
}

static void check(const AttentionCall *c, const char *operation)
{
    const Attention *a = c->a;
    cuda_check(a->heads % a->kv_heads == 0 && a->head_dim <= 256, operation, "heads");
    cuda_check(c->q.rows == a->sequences * a->sequence_rows && c->q.cols == (int64_t)a->heads * a->head_dim && c->out.cols == c->q.cols,
               operation, "shape of queries");
    cuda_check(c->k.rows == a->sequences * attention_key_rows(a) && c->v.rows == c->k.rows && c->k.cols == (int64_t)a->kv_heads * a->head_dim &&
                   c->v.cols == c->k.cols,
               operation, "shape of keys");
    cuda_check(c->k.dtype == c->q.dtype && c->v.dtype == c->q.dtype && c->out.dtype == c->q.dtype, operation, "types");
    cuda_check(a->sequences <= 65535 && c->q.rows < INT32_MAX && c->k.rows < INT32_MAX, operation, "more than 65535 sequences");
}

void cuda_attention_forward(Stream *s, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a)
{
    AttentionCall c = {out, q, k, v, {}, {}, {}, {}, lse, NULL, a};
    check(&c, "attention_forward");
    if (q.rows == 0)
        return;
    form_of(s, &c).forward(s, &c);
}

void cuda_attention_backward(Stream *s, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta, Tensor q, Tensor k,
                             Tensor v, const Attention *a)
{
    AttentionCall c = {out, q, k, v, dout, dq, dk, dv, (float *)lse, delta, a};
    check(&c, "attention_backward");
    cuda_check(dq.cols == q.cols && dk.cols == k.cols && dv.cols == v.cols && dk.rows == k.rows && dv.rows == v.rows && dout.cols == q.cols, "attention_backward", "shapes");
    cuda_check(dq.dtype == q.dtype && dk.dtype == q.dtype && dv.dtype == q.dtype && dout.dtype == q.dtype, "attention_backward", "types");
    if (q.rows == 0)
        return;
    Tensor both[] = {dout, out};
    int n = vector_width(q.dtype, a->head_dim, both, 2) > 1 ? 4 : 1;
    BY_TYPE(q.dtype, "attention_backward", T, {
        auto kernel = n == 4 ? attention_delta<T, 4> : attention_delta<T, 1>;
        LAUNCH(kernel, blocks_of(q.rows * a->heads, WARPS), dim3(32, WARPS), 0, cuda_stream(s)->stream, delta, (const T *)dout.data, dout.ld,
               (const T *)out.data, out.ld, a->heads, a->head_dim, q.rows);
    });
    cuda_launched(s, "attention_backward");
    form_of(s, &c).backward(s, &c);
}
