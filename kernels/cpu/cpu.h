/* What the CPU operations share: the stream, checks, and run-time choice of instructions. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "base/exp.h"
#include "kernels/ops.h"

/* A function compiled for several instruction sets, the best of which is chosen when the program starts: before a sanitizer has. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

struct CpuState;

/* How rows may be cut among threads, whose stretches are multiples of `grain`, and into what goes through all operations together, which
 * are multiples of `whole` (0: any rows). halves: two threads at most, and of two each has its half of the rows. */
typedef struct RowCut {
    int64_t grain, whole;
    bool halves;
} RowCut;

/* An operation whose row t reads and writes row t of its tensors alone (and what none of those collected with it writes): `run` does
 * rows [begin, end). Every thread calls `prepare` before any of them runs, and `finish` behind all. */
typedef struct RowItem {
    void (*run)(const void *args, struct CpuState *state, int thread, int64_t begin, int64_t end);
    void (*prepare)(const void *args, int thread, int threads);
    void (*finish)(const void *args, int thread, int threads);
    RowCut cut;
    _Alignas(16) char args[528];
} RowItem;

enum { ROW_ITEMS = 32 };

/* What is collected between rows_begin and rows_end (kernels/cpu/rows.c). */
typedef struct RowQueue {
    bool open, prepared, finished; /* some item has `prepare`, `finish` */
    int count;
    RowCut cut;
    int64_t rows, room; /* room: words of panel_b that are taken */
    RowItem items[ROW_ITEMS];
} RowQueue;

/* Scratch, one for each device: operations of one device never run at the same time. Only the pages that are used count. */
typedef struct CpuState {
    uint32_t *panel_b;  /* CPU_PANEL_B_WORDS */
    uint32_t **panel_a; /* [threads] CPU_PANEL_A_WORDS */
    float **scratch;    /* [threads] CPU_SCRATCH_FLOATS */
    RowQueue queue;
} CpuState;

enum { CPU_PANEL_B_WORDS = 8 << 20, CPU_PANEL_A_WORDS = 2 << 20, CPU_SCRATCH_FLOATS = 4 << 20 };

static inline CpuState *cpu_state(Stream *s)
{
    return s->device->state;
}

static inline int cpu_threads(Stream *s)
{
    return s->device->threads;
}

/* A broken call is a programming error: the operation's name and the process ends. */
void cpu_check(int condition, const char *operation, const char *what);

static inline float *f32(Tensor x)
{
    return x.data;
}

/* The share of n items in blocks of `grain` that falls to one of `threads`. */
static inline void cpu_share(int64_t n, int64_t grain, int thread, int threads, int64_t *begin, int64_t *end)
{
    int64_t blocks = (n + grain - 1) / grain, per = blocks / threads, extra = blocks % threads;
    int64_t first = thread * per + (thread < extra ? thread : extra);
    *begin = first * grain;
    *end = (first + per + (thread < extra)) * grain;
    if (*end > n)
        *end = n;
    if (*begin > n)
        *begin = n;
}

static inline RowItem cpu_row_item(void (*run)(const void *, CpuState *, int, int64_t, int64_t), int64_t grain, const void *args, size_t bytes)
{
    RowItem item = {.run = run, .cut.grain = grain};
    cpu_check(bytes <= sizeof item.args, "rows", "arguments");
    __builtin_memcpy(item.args, args, bytes);
    return item;
}

/* Runs it, or collects it. */
void cpu_rows(Stream *s, int64_t rows, RowItem item);
/* Runs what is collected: what every operation that is not one of rows begins with. */
void cpu_settle(Stream *s);
/* Words (at most CPU_PANEL_B_WORDS) that are the item's until what is collected has run; asked for right before it, with its cut, goes to cpu_rows. */
uint32_t *cpu_rows_room(Stream *s, int64_t rows, RowCut cut, int64_t words);
void cpu_rows_begin(Stream *s);
void cpu_rows_end(Stream *s);

static inline float cpu_exp(float x)
{
    return exp_single(x);
}

/* f32 to bf16 and back, as base/dtype.h converts; these vectorise. */
static inline uint16_t cpu_half(float number)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = number};
    uint32_t rounded = (x.u + 0x7fff + (x.u >> 16 & 1)) >> 16, nan = x.u >> 16 | 0x40;
    return (uint16_t)((x.u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline float cpu_whole(uint16_t half)
{
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)half << 16};
    return x.f;
}

/* Number i of a row of bf16 (half) or f32, in loops in which `half` is a constant: they vectorise without a row between. */
static inline float cpu_at(const void *x, bool half, int64_t i)
{
    return half ? cpu_whole(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

static inline void cpu_put(void *x, bool half, int64_t i, float number)
{
    if (half)
        ((uint16_t *)x)[i] = cpu_half(number);
    else
        ((float *)x)[i] = number;
}

static inline void *cpu_place(Tensor x, int64_t t, int64_t column)
{
    return (char *)x.data + (size_t)(t * x.ld + column) * dtype_size(x.dtype);
}

/* Asks for a row that is read soon and that no cache has: what a forward pass left is long gone when the backward pass comes. */
static inline void cpu_fetch_row(Tensor x, int64_t t)
{
    enum { LINE = 64 };
    const char *row = cpu_place(x, t, 0);
    for (size_t i = 0; i < (size_t)x.cols * dtype_size(x.dtype); i += LINE)
        __builtin_prefetch(row + i, 0, 2);
}

static inline void cpu_narrow(uint16_t *to, const float *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = cpu_half(from[i]);
}

static inline void cpu_widen(float *to, const uint16_t *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = cpu_whole(from[i]);
}

/* The same for each instruction set (kernels/cpu/elementwise.c). */
void cpu_narrow_row(uint16_t *to, const float *from, int64_t n);
void cpu_widen_row(float *to, const uint16_t *from, int64_t n);

/* n numbers from row t and a column of x, which is F32 or BF16: a pointer to them, in `room` where they had to be widened … */
static inline const float *cpu_row(Tensor x, int64_t t, int64_t column, int64_t n, float *room)
{
    if (x.dtype == DTYPE_F32)
        return f32(x) + t * x.ld + column;
    cpu_widen_row(room, (const uint16_t *)x.data + t * x.ld + column, n);
    return room;
}

/* … or a copy. */
static inline void cpu_load(float *out, Tensor x, int64_t t, int64_t column, int64_t n)
{
    if (x.dtype == DTYPE_F32)
        __builtin_memcpy(out, f32(x) + t * x.ld + column, (size_t)n * sizeof *out);
    else
        cpu_widen_row(out, (const uint16_t *)x.data + t * x.ld + column, n);
}

/* Where such a row is written: in x itself, or in `room` until cpu_store (which does nothing for a row that is there already). */
static inline float *cpu_target(Tensor x, int64_t t, int64_t column, float *room)
{
    return x.dtype == DTYPE_F32 ? f32(x) + t * x.ld + column : room;
}

static inline void cpu_store(Tensor x, int64_t t, int64_t column, int64_t n, const float *from)
{
    if (x.dtype == DTYPE_BF16)
        cpu_narrow_row((uint16_t *)x.data + t * x.ld + column, from, n);
    else if (from != f32(x) + t * x.ld + column)
        __builtin_memcpy(f32(x) + t * x.ld + column, from, (size_t)n * sizeof *from);
}

/* The largest of `most` and x[0 … n-1], by 16 lanes: comparisons that every compiler turns into vector ones. */
static inline float cpu_max(const float *x, int64_t n, float most)
{
    float lanes[16];
    for (int l = 0; l < 16; l++)
        lanes[l] = most;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
#pragma omp simd
        for (int l = 0; l < 16; l++)
            lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    for (; i < n; i++)
        lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
    for (int l = 0; l < 16; l++)
        most = lanes[l] > most ? lanes[l] : most;
    return most;
}

void cpu_fill(Stream *s, Tensor x, float value);
void cpu_copy(Stream *s, Tensor to, Tensor from);
void cpu_scatter(Stream *s, Tensor to, Tensor from, const int32_t *rows);
void cpu_add(Stream *s, Tensor y, Tensor x, float alpha);
void cpu_scale(Stream *s, Tensor x, float alpha);
void cpu_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta);
size_t cpu_pack_bytes(Tensor w, Dtype type);
void cpu_pack(Stream *s, void *packed, Tensor w, Dtype type);
void cpu_matmul_packed(Stream *s, Tensor c, Tensor a, const void *packed, Tensor w);
void cpu_bias_forward(Stream *s, Tensor y, Tensor bias);
void cpu_bias_backward(Stream *s, Tensor dbias, Tensor dy);
void cpu_embedding_forward(Stream *s, Tensor out, Tensor table, const int32_t *tokens);
void cpu_embedding_backward(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens);
void cpu_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps);
void cpu_rmsnorm_backward(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual);
void cpu_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine,
              bool backward);
void cpu_attention_forward(Stream *s, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a);
void cpu_attention_backward(Stream *s, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta,
                            Tensor q, Tensor k, Tensor v, const Attention *a);
void cpu_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim,
                          float scale, int64_t window);
void cpu_swiglu_forward(Stream *s, Tensor y, Tensor gu);
void cpu_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu);
void cpu_logits_forward(Stream *s, Tensor logits, const int32_t *labels, float *logprob, float *lse, int32_t *best, float *mean, float *entropy);
void cpu_logits_backward(Stream *s, Tensor logits, const int32_t *labels, const float *lse, const float *dlogprob,
                         const float *dlse);
void cpu_logits_gradient(Stream *s, Tensor dz, Tensor logits, const int32_t *labels, const float *dlogprob, float *logprob, float *lse);
void cpu_dropout(Stream *s, Tensor y, Tensor x, int64_t first, const uint64_t *keys, uint64_t seed, float p, bool add);
void cpu_noise(Stream *s, Tensor x, const uint64_t *keys, const float *scale, uint64_t seed);
void cpu_sum_squares(Stream *s, double *sum, Tensor x);
void cpu_adamw(Stream *s, float *p, const float *g, float *m, float *v, int64_t n, float lr, float beta1, float beta2, float eps,
               float decay, float gscale, int64_t step);

/* What a micro-kernel of the matrix product is given: words a[i·row + l·step] of A (row or step is 1), rows b + l·ldb of a panel of
 * B, and C, of which it writes alpha·Σ_l a·b + beta·C (bf16 where narrow). */
typedef struct MatmulTile {
    const uint32_t *a, *b;
    int64_t row, step, ldb, k;
    void *c;
    int64_t ldc;
    float alpha, beta;
    bool narrow;
    bool near; /* C is in the first cache already */
} MatmulTile;

/* run: m rows and 1 to 3 vectors of `lanes` columns. transpose: out[j·ldo + i] = in[i·ldi + j]. */
typedef struct MatmulKernel {
    int mr, lanes;
    void (*run)(const MatmulTile *t, int64_t m, int vectors);
    void (*transpose)(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t rows, int64_t cols);
} MatmulKernel;
extern const MatmulKernel matmul_kernel_scalar, matmul_kernel_avx2, matmul_kernel_avx512, matmul_kernel_avx512bf16;
const MatmulKernel *cpu_matmul_kernel(void); /* of f32, for this CPU */
void cpu_transpose(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t rows, int64_t cols);

/* Rows of operations, each with the arguments of its plain twin in the operation's file. */
typedef struct RowKernel {
    void (*swiglu_forward)(void *y, const void *g, const void *u, bool half, int64_t n);
    void (*swiglu_backward)(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t n);
    void (*rotate)(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign);
    float (*greatest)(const float *z, int64_t n);
    float (*exponentials)(float *z, int64_t n, float most); /* z becomes e^(z − most); their sum */
    void (*scaled)(void *to, bool half, const float *z, int64_t n, float factor);
    void (*pairs)(uint32_t *out, int64_t ld, const uint16_t *x, int64_t ldx, int64_t m, int64_t words);
    void (*rounded_pairs)(uint32_t *out, int64_t ld, const float *x, int64_t ldx, int64_t m, int64_t words);
    void (*rounded_words)(uint32_t *out, const float *x, int64_t words);
    /* sub NULL: none; returns r. dw, residual NULL: not wanted, none. */
    float (*norm_forward)(void *y, bool y_half, float *h, const float *x, const void *sub, bool sub_half, const float *w, int64_t n, float eps);
    void (*norm_backward)(float *dh, float *dw, const void *dy, bool half, const float *h, float r, const float *w, const float *residual, int64_t n);
} RowKernel;
const RowKernel *row_kernel_avx512bf16(void);
/* What this CPU does rows by; `plain` has the twins that its caller asks for. */
const RowKernel *cpu_row_kernel(const RowKernel *plain);

/* The device table's entry for the CPU (kernels/cpu/device.c). */
Device *cpu_device_open(int threads, Error *err);

#endif
