/* C = alpha·op(A)·op(B) + beta·C after Goto and van de Geijn (2008): B is packed in panels of nr columns by KC rows, A in
 * panels of mr rows, and a micro-kernel multiplies a panel by a panel. Threads share B's panels and split the rows of C (or
 * its columns where rows are few); k is never split between threads, so every element is summed in the same order whatever
 * their number. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>
#include "base/cpu.h"

enum { TILE_MAX = 12 * 32, SMALL_ROWS = 8 };

static void tile_scalar(const float *a, const float *b, float *tile, int64_t k)
{
    memset(tile, 0, 4 * 8 * sizeof *tile);
    for (int64_t l = 0; l < k; l++)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 8; j++)
                tile[i * 8 + j] += a[l * 4 + i] * b[l * 8 + j];
}

const MatmulKernel matmul_kernel_scalar = {4, 8, tile_scalar};

static const MatmulKernel *kernel_choose(void)
{
    switch (cpu_level()) {
    case CPU_AVX512:
        return &matmul_kernel_avx512;
    case CPU_AVX2:
        return &matmul_kernel_avx2;
    default:
        return &matmul_kernel_scalar;
    }
}

/* Element (i, l) of a matrix lies at data[i·row + l·column]. */
typedef struct View {
    const float *data;
    int64_t row, column;
} View;

/* Packs `rows` rows from `first` (of n) by k columns into panels of `width` rows: out[panel][l][width], zeros behind the
 * last row. */
static void pack(float *out, View x, int64_t first, int64_t rows, int64_t n, int64_t begin, int64_t k, int width)
{
    for (int64_t p = first; p < first + rows; p += width, out += width * k) {
        int m = p + width <= n ? width : (int)(n - p);
        const float *from = x.data + p * x.row + begin * x.column;
        if (m < width)
            memset(out, 0, (size_t)(width * k) * sizeof *out);
        if (x.row == 1) {
            for (int64_t l = 0; l < k; l++)
                memcpy(out + l * width, from + l * x.column, (size_t)m * sizeof *out);
        } else if (m == width && width % 4 == 0) {
            /* Rows are contiguous in k: four of each at a time keep the stores together. */
            for (int64_t l = 0; l < k; l++)
                for (int i = 0; i < width; i += 4) {
                    const float *r = from + i * x.row + l * x.column;
                    float *o = out + l * width + i;
                    o[0] = r[0];
                    o[1] = r[x.row];
                    o[2] = r[2 * x.row];
                    o[3] = r[3 * x.row];
                }
        } else {
            for (int i = 0; i < m; i++)
                for (int64_t l = 0; l < k; l++)
                    out[l * width + i] = from[i * x.row + l * x.column];
        }
    }
}

CLONES static void tile_store(float *c, int64_t ld, const float *tile, int nr, int m, int n, float alpha, float beta)
{
    for (int i = 0; i < m; i++, c += ld, tile += nr) {
        if (beta == 0)
            for (int j = 0; j < n; j++)
                c[j] = alpha * tile[j];
        else
            for (int j = 0; j < n; j++)
                c[j] = alpha * tile[j] + beta * c[j];
    }
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* One thread's part of C's rows [row, row_end) against the packed columns [column, column_end) of this block. */
static void block_rows(const MatmulKernel *kernel, Tensor c, View a, float *panel_a, const float *panel_b, int64_t row,
                       int64_t row_end, int64_t column, int64_t column_end, int64_t begin, int64_t k, float alpha, float beta)
{
    _Alignas(64) float tile[TILE_MAX];
    int mr = kernel->mr, nr = kernel->nr;
    for (int64_t i = row; i < row_end; i += CPU_MC) {
        int64_t m = row_end - i < CPU_MC ? row_end - i : CPU_MC;
        pack(panel_a, a, i, m, i + m, begin, k, mr);
        for (int64_t j = column; j < column_end; j += nr)
            for (int64_t r = 0; r < m; r += mr) {
                kernel->run(panel_a + r * k, panel_b + (j - column) * k, tile, k);
                tile_store(f32(c) + (i + r) * c.ld + j, c.ld, tile, nr, (int)(m - r < mr ? m - r : mr),
                           (int)(column_end - j < nr ? column_end - j : nr), alpha, beta);
            }
    }
}

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
    int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    cpu_check((ta ? a.cols : a.rows) == m && (tb ? b.rows : b.cols) == n && (tb ? b.cols : b.rows) == k, "matmul", "shapes");
    cpu_check(a.dtype == DTYPE_F32 && b.dtype == DTYPE_F32 && c.dtype == DTYPE_F32, "matmul", "types other than f32");
    if (m == 0 || n == 0)
        return;
    if (m <= SMALL_ROWS && !ta && tb) {
        small_rows(s, c, a, b, alpha, beta);
        return;
    }
    const MatmulKernel *kernel = kernel_choose();
    View va = {f32(a), ta ? 1 : a.ld, ta ? a.ld : 1};
    View vb = {f32(b), tb ? b.ld : 1, tb ? 1 : b.ld}; /* "rows" are C's columns */
    CpuState *state = cpu_state(s);
    int threads = cpu_threads(s), mr = kernel->mr, nr = kernel->nr;
    if (m * n * k < 1 << 16)
        threads = 1;
    if (k == 0) {
        if (beta == 0)
            cpu_fill(s, c, 0);
        else if (beta != 1)
            cpu_scale(s, c, beta);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num(), team = omp_get_num_threads();
        int64_t row, row_end;
        cpu_share(m, mr, thread, team, &row, &row_end);
        for (int64_t column = 0; column < n; column += CPU_NC) {
            int64_t width = n - column < CPU_NC ? n - column : CPU_NC, pack_begin, pack_end;
            cpu_share(round_up(width, nr), nr, thread, team, &pack_begin, &pack_end);
            for (int64_t begin = 0; begin < k; begin += CPU_KC) {
                int64_t depth = k - begin < CPU_KC ? k - begin : CPU_KC;
                pack(state->panel_b + pack_begin * depth, vb, column + pack_begin, pack_end - pack_begin, column + width, begin,
                     depth, nr);
#pragma omp barrier
                block_rows(kernel, c, va, state->panel_a[thread], state->panel_b, row, row_end, column, column + width, begin,
                           depth, alpha, begin == 0 ? beta : 1);
#pragma omp barrier
            }
        }
    }
}
