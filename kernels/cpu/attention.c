/* Attention by tiles with an online softmax (FlashAttention: Dao et al. 2022, 2023): the T×T matrix never stands in memory.
 *
 * The query heads that share a key head are stacked as rows of one tile, so a tile of queries is up to ROWS rows and a tile
 * of keys is KEYS. Blocks of keys that no query of a tile may see are skipped, which is what makes documents cheap. Tiles are
 * copied to scratch with the head size padded to LANES, so that the products below have no edges. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { LANES = 16, KEYS = 64, ROWS = 64 };
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4)));

/* C[m×n] (+)= A[m×k]·B[k×n], n a multiple of LANES; four rows at a time share the loads of B. */
CLONES static void product(float *c, int ldc, const float *a, int lda, const float *b, int ldb, int m, int n, int k, bool add)
{
    int i = 0;
    for (; i + 4 <= m; i += 4)
        for (int j = 0; j < n; j += LANES) {
            Vector s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            const float *a0 = a + i * lda, *a1 = a0 + lda, *a2 = a1 + lda, *a3 = a2 + lda;
            for (int l = 0; l < k; l++) {
                Vector row = *(const Vector *)(b + l * ldb + j);
                s0 += a0[l] * row;
                s1 += a1[l] * row;
                s2 += a2[l] * row;
                s3 += a3[l] * row;
            }
            float *o = c + i * ldc + j;
            if (add) {
                s0 += *(Vector *)o;
                s1 += *(Vector *)(o + ldc);
                s2 += *(Vector *)(o + 2 * ldc);
                s3 += *(Vector *)(o + 3 * ldc);
            }
            *(Vector *)o = s0;
            *(Vector *)(o + ldc) = s1;
            *(Vector *)(o + 2 * ldc) = s2;
            *(Vector *)(o + 3 * ldc) = s3;
        }
    for (; i < m; i++)
        for (int j = 0; j < n; j += LANES) {
            Vector s = {0};
            for (int l = 0; l < k; l++)
                s += a[i * lda + l] * *(const Vector *)(b + l * ldb + j);
            if (add)
                s += *(Vector *)(c + i * ldc + j);
            *(Vector *)(c + i * ldc + j) = s;
        }
}

/* What one tile works on. */
typedef struct Shape {
    int d, padded, group; /* head size, padded to LANES; query heads a key head */
    int queries;          /* query positions in a tile: group · queries <= ROWS */
} Shape;

static Shape shape_of(const Attention *a)
{
    Shape s = {.d = a->head_dim, .padded = (a->head_dim + LANES - 1) / LANES * LANES, .group = a->heads / a->kv_heads};
    s.queries = ROWS / s.group > 0 ? ROWS / s.group : 1;
    cpu_check(a->heads % a->kv_heads == 0 && s.group <= ROWS && s.padded <= 256, "attention", "heads");
    return s;
}

/* Rows are (query, head in group); out[(t − q0)·group + h] = scale · x[t, head h]. */
static void load_queries(float *out, Tensor x, Shape s, int64_t q0, int n, int first_head, float scale)
{
    for (int t = 0; t < n; t++)
        for (int h = 0; h < s.group; h++, out += s.padded) {
            const float *from = f32(x) + (q0 + t) * x.ld + (first_head + h) * s.d;
            for (int i = 0; i < s.d; i++)
                out[i] = scale * from[i];
            memset(out + s.d, 0, (size_t)(s.padded - s.d) * sizeof *out);
        }
}

/* Keys as they lie [KEYS, padded], and transposed [padded, KEYS]; zeros behind the last. Either may be NULL. */
static void load_keys(float *plain, float *transposed, Tensor x, Shape s, int64_t j0, int n, int kv_head)
{
    if (transposed)
        memset(transposed, 0, (size_t)(s.padded * KEYS) * sizeof *transposed);
    if (plain)
        memset(plain, 0, (size_t)(s.padded * KEYS) * sizeof *plain);
    for (int j = 0; j < n; j++) {
        const float *from = f32(x) + (j0 + j) * x.ld + kv_head * s.d;
        if (plain)
            memcpy(plain + j * s.padded, from, (size_t)s.d * sizeof *from);
        if (transposed)
            for (int i = 0; i < s.d; i++)
                transposed[i * KEYS + j] = from[i];
    }
}

CLONES static float seen_max(const float *s, int lo, int hi, float most)
{
    return cpu_max(s + lo, hi - lo, most);
}

/* s becomes e^(s − most) inside [lo, hi) and 0 outside; returns the sum. */
CLONES static float seen_exp(float *s, int lo, int hi, float most)
{
    float sum = 0;
    for (int j = 0; j < lo; j++)
        s[j] = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = lo; j < hi; j++) {
        float e = cpu_exp(s[j] - most);
        s[j] = e;
        sum += e;
    }
    for (int j = hi; j < KEYS; j++)
        s[j] = 0;
    return sum;
}

CLONES static void row_scale(float *x, int n, float by)
{
    for (int i = 0; i < n; i++)
        x[i] *= by;
}

static int clamp_key(int64_t j, int64_t j0)
{
    return j <= j0 ? 0 : j - j0 >= KEYS ? KEYS : (int)(j - j0);
}

static void forward_tile(float *scratch, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a, Shape s,
                         int64_t q0, int n, int kv_head)
{
    int rows = n * s.group;
    float *tile_q = scratch, *tile_s = tile_q + ROWS * s.padded, *tile_o = tile_s + ROWS * KEYS;
    float *tile_k = tile_o + ROWS * s.padded, *tile_v = tile_k + KEYS * s.padded;
    float most[ROWS], sum[ROWS];
    load_queries(tile_q, q, s, q0, n, kv_head * s.group, a->scale);
    memset(tile_o, 0, (size_t)(rows * s.padded) * sizeof *tile_o);
    for (int r = 0; r < rows; r++) {
        most[r] = -INFINITY;
        sum[r] = 0;
    }
    int64_t first = a->begin[q0], last = a->end[q0 + n - 1];
    for (int64_t j0 = first; j0 < last; j0 += KEYS) {
        int keys = last - j0 < KEYS ? (int)(last - j0) : KEYS;
        load_keys(NULL, tile_k, k, s, j0, keys, kv_head);
        load_keys(tile_v, NULL, v, s, j0, keys, kv_head);
        product(tile_s, KEYS, tile_q, s.padded, tile_k, KEYS, rows, KEYS, s.padded, false);
        for (int r = 0; r < rows; r++) {
            int64_t t = q0 + r / s.group;
            int lo = clamp_key(a->begin[t], j0), hi = clamp_key(a->end[t], j0);
            float *row = tile_s + r * KEYS;
            if (lo >= hi) {
                memset(row, 0, KEYS * sizeof *row);
                continue;
            }
            float m = seen_max(row, lo, hi, most[r]);
            if (m > most[r]) {
                float shrink = cpu_exp(most[r] - m);
                sum[r] *= shrink;
                row_scale(tile_o + r * s.padded, s.padded, shrink);
                most[r] = m;
            }
            sum[r] += seen_exp(row, lo, hi, m);
        }
        product(tile_o, s.padded, tile_s, KEYS, tile_v, s.padded, rows, s.padded, keys, true);
    }
    for (int r = 0; r < rows; r++) {
        int64_t t = q0 + r / s.group;
        int head = kv_head * s.group + r % s.group;
        float *to = f32(out) + t * out.ld + head * s.d, over = 1.0f / sum[r];
        for (int i = 0; i < s.d; i++)
            to[i] = tile_o[r * s.padded + i] * over;
        lse[head * out.rows + t] = most[r] + logf(sum[r]);
    }
}

void cpu_attention_forward(Stream *st, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a)
{
    Shape s = shape_of(a);
    cpu_check(q.rows == a->sequences * a->sequence_rows && q.cols == (int64_t)a->heads * s.d && k.cols == (int64_t)a->kv_heads * s.d,
              "attention_forward", "shapes");
    CpuState *state = cpu_state(st);
    int64_t tiles = (a->sequence_rows + s.queries - 1) / s.queries, units = a->sequences * a->kv_heads * tiles;
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(st))
    for (int64_t u = 0; u < units; u++) {
        int64_t sequence = u / (a->kv_heads * tiles), tile = u % tiles;
        int kv_head = (int)(u / tiles % a->kv_heads);
        int64_t q0 = sequence * a->sequence_rows + tile * s.queries, left = a->sequence_rows - tile * s.queries;
        forward_tile(state->scratch[omp_get_thread_num()], out, lse, q, k, v, a, s, q0, left < s.queries ? (int)left : s.queries,
                     kv_head);
    }
}

static void transpose(float *out, const float *x, int rows, int cols)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            out[j * ROWS + i] = x[i * KEYS + j];
}

CLONES static void row_ds(float *ds, const float *p, float delta)
{
    for (int j = 0; j < KEYS; j++)
        ds[j] = p[j] * (ds[j] - delta);
}

/* Gradients of one (sequence, key head): a tile of keys keeps dK and dV in scratch while the tiles of queries that see it
 * pass by; dQ grows in its own memory. One thread does all of it, in order. */
static void backward_unit(float *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout, const float *lse, const float *delta,
                          Tensor q, Tensor k, Tensor v, const Attention *a, Shape s, int64_t base, int kv_head)
{
    int w = s.padded;
    float *tile_q = scratch, *tile_do = tile_q + ROWS * w, *tile_dq = tile_do + ROWS * w;
    float *p = tile_dq + ROWS * w, *ds = p + ROWS * KEYS, *turned = ds + ROWS * KEYS;
    float *kt = turned + KEYS * ROWS, *vt = kt + KEYS * w, *kp = vt + KEYS * w, *tile_dk = kp + KEYS * w, *tile_dv = tile_dk + KEYS * w;
    for (int64_t j0 = base; j0 < base + a->sequence_rows; j0 += KEYS) {
        int keys = base + a->sequence_rows - j0 < KEYS ? (int)(base + a->sequence_rows - j0) : KEYS;
        load_keys(kp, kt, k, s, j0, keys, kv_head);
        load_keys(NULL, vt, v, s, j0, keys, kv_head);
        memset(tile_dk, 0, (size_t)(2 * KEYS * w) * sizeof *tile_dk);
        for (int64_t q0 = base; q0 < base + a->sequence_rows; q0 += s.queries) {
            int n = base + a->sequence_rows - q0 < s.queries ? (int)(base + a->sequence_rows - q0) : s.queries;
            if (a->end[q0 + n - 1] <= j0 || a->begin[q0] >= j0 + keys)
                continue;
            int rows = n * s.group, first_head = kv_head * s.group;
            load_queries(tile_q, q, s, q0, n, first_head, a->scale);
            load_queries(tile_do, dout, s, q0, n, first_head, 1);
            product(p, KEYS, tile_q, w, kt, KEYS, rows, KEYS, w, false);
            product(ds, KEYS, tile_do, w, vt, KEYS, rows, KEYS, w, false);
            for (int r = 0; r < rows; r++) {
                int64_t t = q0 + r / s.group, at = (first_head + r % s.group) * q.rows + t;
                int lo = clamp_key(a->begin[t], j0), hi = clamp_key(a->end[t], j0);
                seen_exp(p + r * KEYS, lo < hi ? lo : KEYS, lo < hi ? hi : KEYS, lse[at]);
                row_ds(ds + r * KEYS, p + r * KEYS, delta[at]);
            }
            transpose(turned, p, rows, KEYS);
            product(tile_dv, w, turned, ROWS, tile_do, w, KEYS, w, rows, true);
            transpose(turned, ds, rows, KEYS);
            product(tile_dk, w, turned, ROWS, tile_q, w, KEYS, w, rows, true); /* q carries the scale */
            product(tile_dq, w, ds, KEYS, kp, w, rows, w, keys, false);
            for (int r = 0; r < rows; r++) {
                float *to = f32(dq) + (q0 + r / s.group) * dq.ld + (first_head + r % s.group) * s.d;
                for (int i = 0; i < s.d; i++)
                    to[i] += a->scale * tile_dq[r * w + i];
            }
        }
        for (int j = 0; j < keys; j++) {
            memcpy(f32(dk) + (j0 + j) * dk.ld + kv_head * s.d, tile_dk + j * w, (size_t)s.d * sizeof(float));
            memcpy(f32(dv) + (j0 + j) * dv.ld + kv_head * s.d, tile_dv + j * w, (size_t)s.d * sizeof(float));
        }
    }
}

CLONES static float row_dot(const float *a, const float *b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

void cpu_attention_backward(Stream *st, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta,
                            Tensor q, Tensor k, Tensor v, const Attention *a)
{
    Shape s = shape_of(a);
    cpu_check(q.rows == a->sequences * a->sequence_rows && dq.cols == q.cols && dk.cols == k.cols, "attention_backward", "shapes");
    CpuState *state = cpu_state(st);
    int threads = cpu_threads(st);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < q.rows; t++) {
        for (int h = 0; h < a->heads; h++)
            delta[h * q.rows + t] = row_dot(f32(dout) + t * dout.ld + h * s.d, f32(out) + t * out.ld + h * s.d, s.d);
        memset(f32(dq) + t * dq.ld, 0, (size_t)dq.cols * sizeof(float));
    }
    int64_t units = a->sequences * a->kv_heads;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t u = 0; u < units; u++)
        backward_unit(state->scratch[omp_get_thread_num()], dq, dk, dv, dout, lse, delta, q, k, v, a, s,
                      u / a->kv_heads * a->sequence_rows, (int)(u % a->kv_heads));
}
