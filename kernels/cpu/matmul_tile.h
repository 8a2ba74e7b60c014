/* Included by matmul_scalar.c, matmul_avx2.c and matmul_avx512.c with TARGET (attributes), LANES and MR defined: the micro-kernel of the
 * f32 product. MR rows by up to three vectors of accumulators stay in registers; a step of k loads the vectors of B and
 * broadcasts MR numbers of A. matmul_avx512bf16.c brings its own `tile`. Gives `matmul_run`. */
#ifndef OWN_TILE
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4)));

/* Which of both is a constant, so that sums go from registers. */
INLINE void store(const MatmulTile *t, int64_t first, Vector sum[MR][3], const int mr, const int nv, const bool added)
{
    const float alpha = t->alpha, beta = t->beta;
    const int64_t ldc = t->ldc;
    float *c = (float *)t->c + first * ldc;
    for (int i = 0; i < mr; i++, c += ldc)
        for (int j = 0; j < nv; j++) {
            Vector *to = (Vector *)(c + j * LANES);
            *to = added ? alpha * sum[i][j] + beta * *to : alpha * sum[i][j];
        }
}

/* `mr` and `nv` are constants where it is inlined; so is one of row and step, 1. */
INLINE void tile(const MatmulTile *t, int64_t first, int64_t row, int64_t step, const int mr, const int nv)
{
    Vector sum[MR][3];
    const float *a = (const float *)t->a + first * row, *b = (const float *)t->b;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            sum[i][j] = (Vector){0};
    for (int64_t l = 0; l < t->k; l++, a += step, b += t->ldb) {
        Vector x[3];
        for (int j = 0; j < nv; j++)
            x[j] = *(const Vector *)(b + j * LANES);
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < nv; j++)
                sum[i][j] += a[i * row] * x[j];
    }
    if (t->beta == 0)
        store(t, first, sum, mr, nv, false);
    else
        store(t, first, sum, mr, nv, true);
}
#endif

/* Asks for a tile of C, so that it has come when its sums are made: stores that wait for their lines hold up the next tile. */
INLINE void fetch(const MatmulTile *t, int64_t first, const int nv)
{
    const int64_t size = t->narrow ? sizeof(uint16_t) : sizeof(float), line = t->ldc * size;
    const char *c = (const char *)t->c + first * line;
    for (int i = 0; i < MR; i++, c += line)
        for (int j = 0; j < nv; j++)
            __builtin_prefetch(c + j * LANES * size, 1);
}

INLINE void rows(const MatmulTile *t, int64_t m, int64_t row, int64_t step, const int nv)
{
    int64_t i = 0;
    for (; i + MR <= m; i += MR) {
        if (!t->near)
            fetch(t, i, nv);
        tile(t, i, row, step, MR, nv);
    }
    for (; i + 2 <= m; i += 2)
        tile(t, i, row, step, 2, nv);
    if (i < m)
        tile(t, i, row, step, 1, nv);
}

TARGET static void matmul_run(const MatmulTile *t, int64_t m, int vectors)
{
    if (t->row == 1) {
        if (vectors == 3)
            rows(t, m, 1, t->step, 3);
        else if (vectors == 2)
            rows(t, m, 1, t->step, 2);
        else
            rows(t, m, 1, t->step, 1);
    } else {
        if (vectors == 3)
            rows(t, m, t->row, 1, 3);
        else if (vectors == 2)
            rows(t, m, t->row, 1, 2);
        else
            rows(t, m, t->row, 1, 1);
    }
}
