/* C = alpha·op(A)·op(B) + beta·C, by the library (product.h). */
#include "kernels/cuda/cuda.h"

static void product(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    const char *failed = product_run(cuda_state(s)->product, cuda_stream(s)->stream, cuda_stream(s)->workspace, c, a, ta, b, tb, alpha, beta);
    if (failed)
        cuda_refused(s, failed, "matmul");
}

/* The library gives f32 inputs no bf16 result: it goes through f32 in the room for parts, as many rows at a time as fit. */
static void product_rounded(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    int64_t step = PARTS_BYTES / (c.cols * (int64_t)sizeof(float));
    cuda_check(step > 0, "matmul", "columns");
    for (int64_t first = 0; first < c.rows; first += step) {
        int64_t n = c.rows - first < step ? c.rows - first : step;
        Tensor part = tensor_make(c.device, DTYPE_F32, cuda_stream(s)->parts, n, c.cols), rows = tensor_rows(c, first, n);
        product(s, part, ta ? tensor_columns(a, first, n) : tensor_rows(a, first, n), ta, b, tb, alpha, 0);
        if (beta != 0)
            cuda_add(s, part, rows, beta);
        cuda_copy(s, rows, part);
    }
}

void cuda_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    int64_t m = ta ? a.cols : a.rows, k = ta ? a.rows : a.cols, kb = tb ? b.cols : b.rows, n = tb ? b.rows : b.cols;
    cuda_check(k == kb && c.rows == m && c.cols == n, "matmul", "shapes");
    cuda_check(a.dtype == b.dtype && (c.dtype == DTYPE_F32 || c.dtype == DTYPE_BF16), "matmul", "types");
    if (m == 0 || n == 0)
        return;
    if (k == 0) {
        if (beta == 0)
            cuda_fill(s, c, 0);
        else if (beta != 1)
            cuda_scale(s, c, beta);
    } else if (c.dtype == DTYPE_F32 || c.dtype == a.dtype) {
        product(s, c, a, ta, b, tb, alpha, beta);
    } else {
        product_rounded(s, c, a, ta, b, tb, alpha, beta);
    }
}
