/* cuBLASLt on the host, for tests: the part of its interface that kernels/cuda/product.cu uses, by plain loops. Matrices are
 * column-major as in the real one; sums are in double, so that the result is right to the last bit of f32. */
#ifndef EMULATION_CUBLASLT_H
#define EMULATION_CUBLASLT_H

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"
#include <vector>

typedef int cublasStatus_t;
enum { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_NOT_SUPPORTED = 15 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 };
enum cublasLtMatmulDescAttributes_t { CUBLASLT_MATMUL_DESC_TRANSA = 3, CUBLASLT_MATMUL_DESC_TRANSB = 4 };
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};
enum { CUBLASLT_REDUCTION_SCHEME_NONE = 0, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2 };

struct EmulatedLt {
    int unused;
};
struct EmulatedDesc {
    cublasOperation_t ta, tb;
};
struct EmulatedLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
typedef EmulatedLt *cublasLtHandle_t;
typedef EmulatedDesc *cublasLtMatmulDesc_t;
typedef EmulatedLayout *cublasLtMatrixLayout_t;
typedef EmulatedLt *cublasLtMatmulPreference_t;
struct cublasLtMatmulAlgo_t {
    int id;
};
struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
};

static inline const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS ? "success" : "failure";
}
static inline cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = new EmulatedLt();
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t)
{
    *d = new EmulatedDesc{CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *value, size_t)
{
    (a == CUBLASLT_MATMUL_DESC_TRANSA ? d->ta : d->tb) = (cublasOperation_t) * (const int32_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld)
{
    if (rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *l = new EmulatedLayout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    *p = new EmulatedLt();
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t)
{
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                            cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t,
                                                            int, cublasLtMatmulHeuristicResult_t *results, int *count)
{
    emulation_idle(); /* the real one loads the kernel at its first launch */
    results[0] = {{1}, 0, CUBLAS_STATUS_SUCCESS, 1};
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* op(x) as rows of doubles: [count][k]. */
static inline std::vector<double> emulated_rows(const void *p, const EmulatedLayout *l, bool along_columns)
{
    uint64_t count = along_columns ? l->cols : l->rows, k = along_columns ? l->rows : l->cols;
    std::vector<double> out(count * k);
    for (uint64_t i = 0; i < count; i++)
        for (uint64_t j = 0; j < k; j++) {
            int64_t at = along_columns ? (int64_t)i * l->ld + (int64_t)j : (int64_t)j * l->ld + (int64_t)i;
            float x;
            if (l->type == CUDA_R_32F)
                x = ((const float *)p)[at];
            else if (l->type == CUDA_R_16BF)
                x = __bfloat162float(((const __nv_bfloat16 *)p)[at]);
            else
                x = __half2float(((const __half *)p)[at]);
            out[i * k + j] = (double)x;
        }
    return out;
}

static inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a, cublasLtMatrixLayout_t la,
                                            const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c, cublasLtMatrixLayout_t lc,
                                            void *out, cublasLtMatrixLayout_t lout, const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t s)
{
    uint64_t m = d->ta == CUBLAS_OP_N ? la->rows : la->cols, k = d->ta == CUBLAS_OP_N ? la->cols : la->rows;
    uint64_t n = d->tb == CUBLAS_OP_N ? lb->cols : lb->rows, kb = d->tb == CUBLAS_OP_N ? lb->rows : lb->cols;
    bool types = la->type == lb->type && lc->type == lout->type && (lc->type == CUDA_R_32F || (lc->type == CUDA_R_16BF && la->type == CUDA_R_16BF));
    if (k != kb || lc->rows != m || lc->cols != n || lout->rows != m || lout->cols != n || !types || !algo)
        return CUBLAS_STATUS_INVALID_VALUE;
    emulation_reach(s);
    EmulationAccess access;
    std::vector<double> left = emulated_rows(a, la, d->ta != CUBLAS_OP_N), right = emulated_rows(b, lb, d->tb == CUBLAS_OP_N);
    double times = *(const float *)alpha, keep = *(const float *)beta;
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t i = 0; i < m; i++) {
            double sum = 0;
            for (uint64_t l = 0; l < k; l++)
                sum += left[i * k + l] * right[j * k + l];
            sum *= times;
            int64_t from = (int64_t)j * lc->ld + (int64_t)i, to = (int64_t)j * lout->ld + (int64_t)i;
            if (lc->type == CUDA_R_32F)
                ((float *)out)[to] = (float)(sum + (keep == 0 ? 0 : keep * (double)((const float *)c)[from]));
            else
                ((__nv_bfloat16 *)out)[to] =
                    __float2bfloat16_rn((float)(sum + (keep == 0 ? 0 : keep * (double)__bfloat162float(((const __nv_bfloat16 *)c)[from]))));
        }
    return CUBLAS_STATUS_SUCCESS;
}

#endif
