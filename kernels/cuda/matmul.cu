/* C = alpha·op(A)·op(B) + beta·C, by the library (product.h). */
#include "kernels/cuda/cuda.h"

void cuda_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    int64_t m = ta ? a.cols : a.rows, k = ta ? a.rows : a.cols, kb = tb ? b.cols : b.rows, n = tb ? b.rows : b.cols;
    cuda_check(k == kb && c.rows == m && c.cols == n && a.dtype == b.dtype && (c.dtype == DTYPE_F32 || c.dtype == a.dtype), "matmul", "shapes or types");
    if (m == 0 || n == 0)
        return;
    if (k == 0) {
        if (beta == 0)
            cuda_fill(s, c, 0);
        else if (beta != 1)
            cuda_scale(s, c, beta);
        return;
    }
    const char *failed = product_run(cuda_state(s)->product, cuda_stream(s)->stream, cuda_stream(s)->workspace, c, a, ta, b, tb, alpha, beta);
    if (failed)
        cuda_refused(s, failed, "matmul");
}
