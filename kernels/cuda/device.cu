/* The CUDA device. This file's cuda_device_open is the one name that the shared object is asked for, after lmpipe_interface. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include "interface.h"

void cuda_check(bool condition, const char *operation, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "cuda %s: %s do not fit\n", operation, what);
    abort();
}

/* The first failure counts: what follows it on the stream fails for the same reason. */
static void remember(CudaStream *s, const char *reason, const char *what)
{
    if (s->reason)
        return;
    s->reason = reason;
    s->what = what;
}

void cuda_failed(Stream *s, cudaError_t status, const char *operation)
{
    if (status != cudaSuccess)
        remember(cuda_stream(s), cudaGetErrorString(status), operation);
}

void cuda_launched(Stream *s, const char *operation)
{
    cuda_failed(s, cudaGetLastError(), operation);
}

void cuda_refused(Stream *s, const char *reason, const char *operation)
{
    remember(cuda_stream(s), reason, operation);
}

static void *device_alloc(Device *d, size_t bytes)
{
    (void)d;
    void *p = NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    /* The memset runs on the default stream, for which ours don't wait. */
    if (cudaMemset(p, 0, bytes) != cudaSuccess || cudaStreamSynchronize(NULL) != cudaSuccess) {
        cudaGetLastError();
        cudaFree(p);
        return NULL;
    }
    return p;
}

static void device_release(Device *d, void *p)
{
    (void)d;
    cudaFree(p);
}

static void stream_free(Stream *s)
{
    CudaStream *c = cuda_stream(s);
    if (!c)
        return;
    if (c->stream)
        cudaStreamDestroy(c->stream);
    cudaFree(c->workspace);
    cudaFree(c->parts);
    free(c);
}

static Stream *stream_new(Device *d)
{
    CudaStream *s = (CudaStream *)memory_zalloc(1, sizeof *s);
    s->base.device = d;
    if (cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaMalloc(&s->workspace, PRODUCT_WORKSPACE_BYTES) != cudaSuccess || cudaMalloc(&s->parts, PARTS_BYTES) != cudaSuccess) {
        cudaGetLastError();
        stream_free(&s->base);
        return NULL;
    }
    return &s->base;
}

static int stream_wait(Stream *s, Error *err)
{
    CudaStream *c = cuda_stream(s);
    cuda_failed(s, cudaStreamSynchronize(c->stream), "stream");
    if (!c->reason)
        return 0;
    /* Kept until somebody hears it. */
    if (err) {
        error_set(err, "device cuda: %s: %s", c->what, c->reason);
        c->reason = NULL;
    }
    return -1;
}

static void stream_copy(Stream *s, void *to, const void *from, size_t bytes, CopyKind kind)
{
    static const cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    cuda_failed(s, cudaMemcpyAsync(to, from, bytes, kinds[kind], cuda_stream(s)->stream), "copy");
}

static void stream_order(Stream *from, Stream *to)
{
    cudaEvent_t event;
    cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (status == cudaSuccess) {
        status = cudaEventRecord(event, cuda_stream(from)->stream);
        if (status == cudaSuccess)
            status = cudaStreamWaitEvent(cuda_stream(to)->stream, event, 0);
        cudaEventDestroy(event);
    }
    cuda_failed(to, status, "stream_order");
}

static void stream_call(Stream *s, void (*work)(void *), void *context)
{
    cuda_failed(s, cudaLaunchHostFunc(cuda_stream(s)->stream, work, context), "stream_call");
}

static void device_close_cuda(Device *d)
{
    CudaState *state = (CudaState *)d->state;
    product_close(state->product);
    free(state);
    free(d);
}

static Ops operations_of()
{
    Ops o = {};
    o.fill = cuda_fill;
    o.copy = cuda_copy;
    o.scatter = cuda_scatter;
    o.add = cuda_add;
    o.scale = cuda_scale;
    o.matmul = cuda_matmul;
    o.bias_forward = cuda_bias_forward;
    o.bias_backward = cuda_bias_backward;
    o.embedding_forward = cuda_embedding_forward;
    o.embedding_backward = cuda_embedding_backward;
    o.rmsnorm_forward = cuda_rmsnorm_forward;
    o.rmsnorm_backward = cuda_rmsnorm_backward;
    o.rope = cuda_rope;
    o.attention_forward = cuda_attention_forward;
    o.attention_backward = cuda_attention_backward;
    o.attention_decode = cuda_attention_decode;
    o.swiglu_forward = cuda_swiglu_forward;
    o.swiglu_backward = cuda_swiglu_backward;
    o.logits_forward = cuda_logits_forward;
    o.logits_backward = cuda_logits_backward;
    o.logits_gradient = cuda_logits_gradient;
    o.dropout = cuda_dropout;
    o.noise = cuda_noise;
    o.sum_squares = cuda_sum_squares;
    o.adamw = cuda_adamw;
    return o;
}

static const Ops operations = operations_of();

extern "C" const char lmpipe_interface[];
const char lmpipe_interface[] = LMPIPE_INTERFACE;

/* LMPIPE_CUDA_SM=80 keeps a later GPU to the kernels of an older one, whose bits it then has: sm_80 has 163 KB of shared memory for a block,
 * sm_86 and sm_89 have 99. */
static int limits_read(CudaState *state, int index, Error *err)
{
    int major = 0, minor = 0;
    cudaError_t status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&state->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
    if (status != cudaSuccess)
        return error_set(err, "device cuda: %s", cudaGetErrorString(status));
    const char *most = getenv("LMPIPE_CUDA_SM");
    state->capability = 10 * major + minor;
    if (most && atoi(most) > 0 && atoi(most) < state->capability) {
        state->capability = atoi(most);
        int bytes = state->capability == 80 ? 163 << 10 : 99 << 10;
        state->shared_bytes = bytes < state->shared_bytes && state->capability < 90 ? bytes : state->shared_bytes;
    }
    return 0;
}

extern "C" Device *cuda_device_open(int index, Error *err)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        error_set(err, "device cuda: %s", status != cudaSuccess ? cudaGetErrorString(status) : "no GPU");
        return NULL;
    }
    if (index >= count) {
        error_set(err, "device cuda: this machine has %d GPUs, rank %d on it needs one of its own", count, index);
        return NULL;
    }
    status = cudaSetDevice(index);
    if (status != cudaSuccess) {
        error_set(err, "device cuda: %s", cudaGetErrorString(status));
        return NULL;
    }
    Product *product = product_open(err);
    if (!product)
        return NULL;
    CudaState *state = (CudaState *)memory_zalloc(1, sizeof *state);
    state->product = product;
    if (limits_read(state, index, err) < 0) {
        product_close(product);
        free(state);
        return NULL;
    }
    Device *d = (Device *)memory_zalloc(1, sizeof *d);
    d->name = "cuda";
    d->threads = 1;
    d->ops = &operations;
    d->state = state;
    d->alloc = device_alloc;
    d->release = device_release;
    d->stream_new = stream_new;
    d->stream_free = stream_free;
    d->stream_wait = stream_wait;
    d->copy = stream_copy;
    d->stream_order = stream_order;
    d->stream_call = stream_call;
    d->close = device_close_cuda;
    return d;
}
