/* CUDA on the host, for tests: the sources of kernels/cuda are compiled by the C++ compiler with this folder before the
 * toolkit's headers. A block of threads is as many fibers on one OS thread, run in random order and switched at barriers
 * and warp operations only, so that every wrong assumption about order has a chance to show:
 *
 *   - a barrier that some threads reach and others do not, or at another line, ends the test with both places;
 *   - so does a warp operation whose lanes came from different lines;
 *   - shared memory is fresh heap memory for each block, filled with 0xff (NaN), so that stale values and, under the
 *     address sanitizer, accesses past its end are seen;
 *   - device memory is filled the same way.
 *
 * EMULATION_SEED changes the order. Not seen here: speed, limits of registers, memory ordering. */
#ifndef EMULATION_CUDA_RUNTIME_H
#define EMULATION_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <functional>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* What a thread knows of itself. */
struct EmulatedThread {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
const EmulatedThread *emulation_thread();
#define threadIdx (emulation_thread()->thread)
#define blockIdx (emulation_thread()->block)
#define blockDim (emulation_thread()->block_size)
#define gridDim (emulation_thread()->grid_size)

#define EMULATION_TEXT_(x) #x
#define EMULATION_TEXT(x) EMULATION_TEXT_(x)
#define EMULATION_PLACE __FILE__ ":" EMULATION_TEXT(__LINE__)

void emulation_launch(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body);
void emulation_barrier(const char *place);
/* Memory of the block for the variable declared at `place`, the same for all its threads. NULL place: the dynamic one. */
void *emulation_shared(const char *place, size_t bytes);
/* Every lane gives `bytes` of a value and gets those of lane `from`. */
void emulation_exchange(const char *place, unsigned mask, const void *give, void *take, size_t bytes, unsigned from);
unsigned emulation_lane();

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ((void)(stream), emulation_launch(#kernel, grid, block, shared_bytes, [=] { kernel(__VA_ARGS__); }))
#define SHARED(type, name, shape) \
    typedef type name##_t shape;  \
    name##_t &name = *(name##_t *)emulation_shared(EMULATION_PLACE, sizeof(name##_t))
#define SHARED_DYNAMIC(type, name) type *name = (type *)emulation_shared(NULL, 0)

#define __syncthreads() emulation_barrier(EMULATION_PLACE)
#define __syncwarp() ((void)emulation_shuffle(EMULATION_PLACE, 0xffffffffu, 0, emulation_lane()))
template <typename T> T emulation_shuffle(const char *place, unsigned mask, T value, unsigned from)
{
    T taken;
    emulation_exchange(place, mask, &value, &taken, sizeof value, from);
    return taken;
}
#define __shfl_sync(mask, value, lane) emulation_shuffle(EMULATION_PLACE, mask, value, lane)
#define __shfl_xor_sync(mask, value, bits) emulation_shuffle(EMULATION_PLACE, mask, value, emulation_lane() ^ (bits))
#define __shfl_down_sync(mask, value, by) \
    emulation_shuffle(EMULATION_PLACE, mask, value, emulation_lane() + (by) < 32 ? emulation_lane() + (by) : emulation_lane())

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}

/* The runtime's host side: one device of 64 GB, whose memory is the heap and whose streams run at once. */
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
typedef struct EmulatedStream *cudaStream_t;
typedef struct EmulatedEvent *cudaEvent_t;

static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
static inline cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = bytes > (size_t)64 << 30 ? NULL : malloc(bytes ? bytes : 1);
    if (*p)
        memset(*p, 0xff, bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
static inline cudaError_t cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}
static inline cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    memset(p, value, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    memmove(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = (cudaStream_t)malloc(1);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    free(s);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = (cudaEvent_t)malloc(1);
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}
static inline cudaError_t cudaGetLastError()
{
    return cudaSuccess;
}
static inline const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : "out of memory";
}

#endif
