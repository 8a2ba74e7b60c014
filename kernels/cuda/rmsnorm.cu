/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). Memory-bound: a warp a row, its lanes side by
 * side, the second pass over the row from the cache. */
#include "kernels/cuda/cuda.h"

enum { WARPS = 4, WEIGHT_COLUMNS = 32, WEIGHT_LANES = 8 };

__global__ void rmsnorm_rows(float *y, int64_t ldy, float *h, int64_t ldh, float *rstd, const float *x, int64_t ldx, const float *sub,
                             int64_t ldsub, const float *w, int64_t rows, int64_t n, float eps)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (t >= rows)
        return;
    x += t * ldx, h += t * ldh, y += t * ldy;
    float squares = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32) {
        float sum = sub ? x[i] + sub[t * ldsub + i] : x[i];
        h[i] = sum;
        squares += sum * sum;
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)n + eps);
    for (int64_t i = threadIdx.x; i < n; i += 32)
        y[i] = h[i] * r * w[i];
    if (threadIdx.x == 0)
        rstd[t] = r;
}

__global__ void rmsnorm_rows_backward(float *dh, int64_t lddh, const float *dy, int64_t lddy, const float *h, int64_t ldh, const float *rstd,
                                      const float *w, const float *residual, int64_t ldr, int64_t rows, int64_t n)
{
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (t >= rows)
        return;
    dh += t * lddh, dy += t * lddy, h += t * ldh;
    float dot = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32)
        dot += dy[i] * w[i] * h[i];
    float r = rstd[t], c = warp_sum(dot) * r * r * r / (float)n;
    for (int64_t i = threadIdx.x; i < n; i += 32)
        dh[i] = dy[i] * w[i] * r - h[i] * c + (residual ? residual[t * ldr + i] : 0.0f);
}

/* dw += Σ_t dy∘h·r. A block owns 32 columns; its 8 rows of threads take every eighth token, and their sums are added in order: no
 * atomics, the same bits every time. */
__global__ void rmsnorm_weight(float *dw, const float *dy, int64_t lddy, const float *h, int64_t ldh, const float *rstd, int64_t rows, int64_t n)
{
    SHARED(float, part, [WEIGHT_LANES][WEIGHT_COLUMNS]);
    int64_t i = (int64_t)blockIdx.x * WEIGHT_COLUMNS + threadIdx.x;
    float sum = 0;
    if (i < n)
        for (int64_t t = threadIdx.y; t < rows; t += WEIGHT_LANES)
            sum += dy[t * lddy + i] * h[t * ldh + i] * rstd[t];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= n)
        return;
    for (int lane = 1; lane < WEIGHT_LANES; lane++)
        sum += part[lane][threadIdx.x];
    dw[i] += sum;
}

static dim3 row_grid(int64_t rows)
{
    return dim3((unsigned)((rows + WARPS - 1) / WARPS));
}

void cuda_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cuda_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
    if (x.rows == 0)
        return;
    LAUNCH(rmsnorm_rows, row_grid(x.rows), dim3(32, WARPS), 0, cuda_stream(s)->stream, f32(y), y.ld, f32(h), h.ld, rstd, f32(x), x.ld,
           f32(sub), sub.ld, f32(w), x.rows, x.cols, eps);
    cuda_launched(s, "rmsnorm_forward");
}

/* The weight's gradient comes first, since dh may be dy's memory. */
void cuda_rmsnorm_backward(Stream *s, Tensor dh, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cuda_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    if (h.rows == 0)
        return;
    if (dw.data) {
        LAUNCH(rmsnorm_weight, dim3((unsigned)((h.cols + WEIGHT_COLUMNS - 1) / WEIGHT_COLUMNS)), dim3(WEIGHT_COLUMNS, WEIGHT_LANES), 0,
               cuda_stream(s)->stream, f32(dw), f32(dy), dy.ld, f32(h), h.ld, rstd, h.rows, h.cols);
        cuda_launched(s, "rmsnorm_backward");
    }
    LAUNCH(rmsnorm_rows_backward, row_grid(h.rows), dim3(32, WARPS), 0, cuda_stream(s)->stream, f32(dh), dh.ld, f32(dy), dy.ld, f32(h), h.ld,
           rstd, f32(w), f32(dresidual), dresidual.ld, h.rows, h.cols);
    cuda_launched(s, "rmsnorm_backward");
}
