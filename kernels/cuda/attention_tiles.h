/* What the kernels of attention by matrix instructions share: what they are told, and what tiles of queries bring to tiles of keys. */
#ifndef KERNELS_CUDA_ATTENTION_TILES_H
#define KERNELS_CUDA_ATTENTION_TILES_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.h"

/* What every kernel is told; leading dimensions are of rows of all heads. */
struct Heads {
    const bf16 *q, *k, *v, *dout;
    int64_t ldq, ldk, ldv, lddout;
    const int32_t *begin, *end;
    const float *lse, *delta;
    int group, d; /* query heads a key head, head size */
    int rows, sequence_rows, key_rows;
    float scale;
};

static inline Heads heads_of(const AttentionCall *c)
{
    const Attention *a = c->a;
    return {(const bf16 *)c->q.data, (const bf16 *)c->k.data, (const bf16 *)c->v.data, (const bf16 *)c->dout.data, c->q.ld, c->k.ld, c->v.ld,
            c->dout.ld, a->begin, a->end, c->lse, c->delta, a->heads / a->kv_heads, a->head_dim, (int)c->q.rows, (int)a->sequence_rows,
            (int)attention_key_rows(a), a->scale};
}

static __device__ inline int least(int a, int b)
{
    return a < b ? a : b;
}

/* What a tile of queries brings beside its rows, by cp.async too. */
template <int QUERIES> struct Marks {
    float lse[QUERIES], delta[QUERIES];
    int32_t begin[QUERIES], end[QUERIES];
};

template <int QUERIES, int THREADS> __device__ static inline void marks_load(Marks<QUERIES> *to, const Heads &a, int head, int q0, int n)
{
    for (int i = (int)threadIdx.x; i < QUERIES; i += THREADS) {
        bool wanted = i < n;
        int t = wanted ? q0 + i : q0;
        copy_async_word(&to->lse[i], a.lse + (int64_t)head * a.rows + t, wanted);
        copy_async_word(&to->delta[i], a.delta + (int64_t)head * a.rows + t, wanted);
        copy_async_word(&to->begin[i], a.begin + t, wanted);
        copy_async_word(&to->end[i], a.end + t, wanted); /* 0 behind the last query: it sees no key */
    }
}

/* The tiles of queries that see one of the keys j0 … j0+keys-1 are neighbours, since begin and end grow: from `first` to before `past` of
 * the sequence whose queries begin at `base`. */
template <int QUERIES> __device__ static inline void queries_of_keys(int *from, int *to, const Heads &a, int base, int j0, int keys)
{
    int end = base + a.sequence_rows, first = 0, past = (a.sequence_rows + QUERIES - 1) / QUERIES;
    for (int high = past; first < high;) {
        int middle = (first + high) / 2;
        if (a.end[least(base + (middle + 1) * QUERIES, end) - 1] <= j0)
            first = middle + 1;
        else
            high = middle;
    }
    for (int low = first; low < past;) {
        int middle = (low + past) / 2;
        if (a.begin[base + middle * QUERIES] >= j0 + keys)
            past = middle;
        else
            low = middle + 1;
    }
    *from = first;
    *to = past;
}

#endif
