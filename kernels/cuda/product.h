/* Matrix products by cuBLASLt, which sees row-major matrices as column-major transposed ones: C = A·B becomes Cᵀ = Bᵀ·Aᵀ, so
 * nothing is ever moved. The algorithm that the library recommends for a shape is kept for the life of the product. */
#ifndef KERNELS_CUDA_PRODUCT_H
#define KERNELS_CUDA_PRODUCT_H

#include <cuda_runtime.h>

extern "C" {
#include "kernels/device.h"
}

struct Product;

enum { PRODUCT_WORKSPACE_BYTES = 32 << 20 };

Product *product_open(Error *err); /* NULL: the library can't start */
void product_close(Product *p);
/* C = alpha·op(A)·op(B) + beta·C on a stream, as the operation matmul says; A and B are of one type, f32, bf16 or f16, sums are f32,
 * and C is f32 or of the type of A and B. NULL, or what went wrong. */
const char *product_run(Product *p, cudaStream_t stream, void *workspace, Tensor c, Tensor a, bool ta, Tensor b, bool tb,
                        float alpha, float beta);

#endif
