/* What a matrix product is, and which way it goes. */
#include "kernels/cpu/matmul.h"

enum { SMALL_ROWS = 8 };

CLONES static void dot_rows(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t m, int64_t k,
                            float alpha, float beta)
{
    for (int64_t i = 0; i < m; i++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t l = 0; l < k; l++)
            sum += a[i * lda + l] * b[l];
        c[i * ldc] = beta == 0 ? alpha * sum : alpha * sum + beta * c[i * ldc];
    }
}

/* Few rows times a transposed weight: every row of B is read once, nothing is packed. */
static void small_rows(Stream *s, Tensor c, Tensor a, Tensor b, float alpha, float beta)
{
    int threads = cpu_threads(s);
    if (c.cols * a.cols < 1 << 14)
        threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < c.cols; j++)
        dot_rows(f32(c) + j, c.ld, f32(a), a.ld, f32(b) + j * b.ld, c.rows, a.cols, alpha, beta);
}

void cpu_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    Product p = {.c = c, .m = c.rows, .n = c.cols, .k = ta ? a.rows : a.cols, .alpha = alpha, .beta = beta};
    cpu_check((ta ? a.cols : a.rows) == p.m && (tb ? b.rows : b.cols) == p.n && (tb ? b.cols : b.rows) == p.k, "matmul", "shapes");
    cpu_check((a.dtype == b.dtype || b.dtype == DTYPE_F32) && (a.dtype == DTYPE_F32 || a.dtype == DTYPE_BF16) && (c.dtype == DTYPE_F32 || (c.dtype == DTYPE_BF16 && beta == 0)),
              "matmul", "types");
    if (p.m == 0 || p.n == 0)
        return;
    if (p.k == 0) {
        if (beta == 0)
            cpu_fill(s, c, 0);
        else if (beta != 1)
            cpu_scale(s, c, beta);
        return;
    }
    if (p.m <= SMALL_ROWS && !ta && tb && a.dtype == DTYPE_F32 && c.dtype == DTYPE_F32) {
        cpu_settle(s);
        small_rows(s, c, a, b, alpha, beta);
        return;
    }
    p.a = (View){a.data, a.dtype, ta ? 1 : a.ld, ta ? a.ld : 1, false};
    p.b = (View){b.data, b.dtype, tb ? b.ld : 1, tb ? 1 : b.ld, a.dtype != b.dtype};
    matmul_plan(&p, a.dtype);
    if (p.halves ? matmul_halves_collect(s, &p) : !ta && matmul_packed_collect(s, &p))
        return;
    cpu_settle(s);
    if (p.halves)
        matmul_halves(s, &p);
    else
        matmul_blocks(s, &p);
}
