/* Included by matmul_avx2.c and matmul_avx512.c with TILE (the function's name), TARGET, LANES, MR and NV (vectors a row)
 * defined: MR×NV accumulators stay in registers, each step of k loads NV vectors of B and broadcasts MR numbers of A. */
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4)));

__attribute__((target(TARGET))) static void TILE(const float *a, const float *b, float *tile, int64_t k)
{
    Vector sum[MR][NV];
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            sum[i][j] = (Vector){0};
    for (int64_t l = 0; l < k; l++, a += MR, b += NV * LANES) {
        Vector row[NV];
        for (int j = 0; j < NV; j++)
            row[j] = *(const Vector *)(b + j * LANES);
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NV; j++)
                sum[i][j] += a[i] * row[j];
    }
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NV; j++)
            *(Vector *)(tile + (i * NV + j) * LANES) = sum[i][j];
}
