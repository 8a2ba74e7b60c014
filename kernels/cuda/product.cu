#include "kernels/cuda/product.h"

#include <cublasLt.h>
#include <stdio.h>
#include <string.h>
#include <map>
#include <mutex>

/* Everything that decides an algorithm. Shapes are compared as bytes: nothing lies between their numbers. */
struct Shape {
    int64_t m, n, k, lda, ldb, ldc;
    int ta, tb, type, type_c, align_a, align_b, align_c, reads_c;
};
static_assert(sizeof(Shape) == 6 * sizeof(int64_t) + 8 * sizeof(int), "a gap in Shape");

struct ByBytes {
    bool operator()(const Shape &a, const Shape &b) const
    {
        return memcmp(&a, &b, sizeof a) < 0;
    }
};

struct Plan {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

struct Product {
    cublasLtHandle_t handle;
    std::mutex lock; /* of plans: streams of several threads may share a product */
    std::map<Shape, Plan, ByBytes> plans; /* as many as there are numbers of rows: thousands where prompts differ */
};

Product *product_open(Error *err)
{
    Product *p = new Product();
    cublasStatus_t status = cublasLtCreate(&p->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        error_set(err, "device cuda: cuBLASLt: %s", cublasLtGetStatusString(status));
        delete p;
        return NULL;
    }
    return p;
}

static void plan_free(Plan *plan)
{
    if (plan->operation)
        cublasLtMatmulDescDestroy(plan->operation);
    if (plan->a)
        cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b)
        cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c)
        cublasLtMatrixLayoutDestroy(plan->c);
}

void product_close(Product *p)
{
    for (auto &known : p->plans)
        plan_free(&known.second);
    cublasLtDestroy(p->handle);
    delete p;
}

static cudaDataType_t type_of(Dtype t)
{
    return t == DTYPE_BF16 ? CUDA_R_16BF : t == DTYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* The largest power of two up to 256 that divides the address: the library's fast loads ask for 16. */
static int alignment(const void *p, int64_t ld, Dtype t)
{
    uintptr_t bits = (uintptr_t)p | (uintptr_t)(ld * (int64_t)dtype_size(t)) | 256;
    return (int)(bits & (~bits + 1));
}

static cublasStatus_t plan_make(Product *p, const Shape *s, Plan *plan)
{
    cudaDataType_t type = (cudaDataType_t)s->type;
    int32_t ta = s->ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = s->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    size_t workspace = PRODUCT_WORKSPACE_BYTES;
    /* Partial sums may be joined in f32 by a second step, never rounded to the output's type or added in any order. */
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, align[] = {(uint32_t)s->align_a, (uint32_t)s->align_b, (uint32_t)s->align_c};
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t status;
#define STEP(call) \
    if ((status = (call)) != CUBLAS_STATUS_SUCCESS) \
    goto end
    STEP(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    STEP(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    STEP(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    STEP(cublasLtMatrixLayoutCreate(&plan->a, type, (uint64_t)(s->ta ? s->k : s->m), (uint64_t)(s->ta ? s->m : s->k), s->lda));
    STEP(cublasLtMatrixLayoutCreate(&plan->b, type, (uint64_t)(s->tb ? s->n : s->k), (uint64_t)(s->tb ? s->k : s->n), s->ldb));
    STEP(cublasLtMatrixLayoutCreate(&plan->c, (cudaDataType_t)s->type_c, (uint64_t)s->m, (uint64_t)s->n, s->ldc));
    STEP(cublasLtMatmulPreferenceCreate(&want));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0], sizeof align[0]));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1], sizeof align[1]));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]));
    STEP(cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]));
    STEP(cublasLtMatmulAlgoGetHeuristic(p->handle, plan->operation, plan->a, plan->b, plan->c, plan->c, want, 1, &found, &count));
#undef STEP
    if (count == 0)
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    else
        plan->algorithm = found.algo;
end:
    if (want)
        cublasLtMatmulPreferenceDestroy(want);
    return status;
}

const char *product_run(Product *p, cudaStream_t stream, void *workspace, Tensor c, Tensor a, bool ta, Tensor b, bool tb,
                        float alpha, float beta)
{
    Shape shape;
    shape.m = c.cols;
    shape.n = c.rows;
    shape.k = ta ? a.rows : a.cols;
    shape.lda = b.ld;
    shape.ldb = a.ld;
    shape.ldc = c.ld;
    shape.ta = tb;
    shape.tb = ta;
    shape.type = type_of(a.dtype);
    shape.type_c = type_of(c.dtype);
    shape.align_a = alignment(b.data, b.ld, b.dtype);
    shape.align_b = alignment(a.data, a.ld, a.dtype);
    shape.align_c = alignment(c.data, c.ld, c.dtype);
    shape.reads_c = beta != 0;

    std::lock_guard<std::mutex> guard(p->lock);
    auto known = p->plans.find(shape);
    if (known == p->plans.end()) {
        Plan made = {};
        cublasStatus_t status = plan_make(p, &shape, &made);
        if (status != CUBLAS_STATUS_SUCCESS) {
            plan_free(&made);
            return cublasLtGetStatusString(status);
        }
        known = p->plans.emplace(shape, made).first;
    }
    Plan *plan = &known->second;
    cublasStatus_t status = cublasLtMatmul(p->handle, plan->operation, &alpha, b.data, plan->a, a.data, plan->b, &beta, c.data, plan->c,
                                           c.data, plan->c, &plan->algorithm, workspace, PRODUCT_WORKSPACE_BYTES, stream);
    return status == CUBLAS_STATUS_SUCCESS ? NULL : cublasLtGetStatusString(status);
}
