/* CUDA on the host, for tests: the sources of kernels/cuda are compiled by the C++ compiler with this folder before the
 * toolkit's headers. A block of threads is as many fibers on one OS thread, run in random order and switched at barriers
 * and warp operations only, so that every wrong assumption about order has a chance to show:
 *
 *   - a barrier that some threads reach and others do not, or at another line, ends the test with both places;
 *   - so does a warp operation whose lanes came from different lines;
 *   - shared memory is fresh heap memory for each block, filled with 0xff (NaN), so that stale values and, under the
 *     address sanitizer, accesses past its end are seen;
 *   - device memory is filled the same way, and the host may not touch it outside a copy: it has no access to those pages
 *     unless a kernel or a copy runs;
 *   - an asynchronous copy fills its target with 0xff when it is issued, and copies when its group is waited for;
 *   - a block that takes more than 48 KB of shared memory without having asked for it is refused, as on a GPU;
 *   - vector loads and stores must be aligned, and a matrix loaded by ldmatrix must lie in different banks;
 *   - memory is freed, and the kernel of a product's shape is loaded, when the device is idle;
 *   - a warpgroup's product is carried out when it is waited for; until then its registers are NaN, and what it reads must have been
 *     made visible to it.
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
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

struct uint3 {
    unsigned x, y, z;
};
struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
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

void emulation_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body);
void emulation_barrier(const char *place);
void emulation_syncwarp(const char *place);
/* Memory of the block for the variable declared at `place`, the same for all its threads. NULL place: the dynamic one. */
void *emulation_shared(const char *place, size_t bytes);
/* Every lane gives `bytes` of a value and gets those of lane `from`. */
void emulation_exchange(const char *place, unsigned mask, const void *give, void *take, size_t bytes, unsigned from);
unsigned emulation_lane();
void emulation_check_aligned(const char *place, const void *p, size_t bytes);
/* p, which must be a multiple of `bytes`. */
template <typename T> T *emulation_aligned(const char *place, T *p, size_t bytes)
{
    emulation_check_aligned(place, p, bytes);
    return p;
}
[[noreturn]] void emulation_trap(const char *place);

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    (emulation_reach(stream), emulation_launch(#kernel, (const void *)(uintptr_t)kernel, grid, block, shared_bytes, [=] { kernel(__VA_ARGS__); }))
#define SHARED(type, name, shape) \
    typedef type name##_t shape;  \
    name##_t &name = *(name##_t *)emulation_shared(EMULATION_PLACE, sizeof(name##_t))
#define SHARED_DYNAMIC(type, name) type *name = (type *)emulation_shared(NULL, 0)

#define __syncthreads() emulation_barrier(EMULATION_PLACE)
#define __syncwarp() emulation_syncwarp(EMULATION_PLACE)
#define __trap() emulation_trap(EMULATION_PLACE)
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

unsigned emulation_ballot(const char *place, unsigned mask, bool vote);
#define __ballot_sync(mask, vote) emulation_ballot(EMULATION_PLACE, mask, vote)
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

/* What kernels/cuda/mma.h writes in PTX (its comments say what each does), the same for the fibers. */
void emulation_mma(const char *place, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void emulation_ldmatrix(const char *place, uint32_t (&to)[4], const void *row, bool transposed);
void emulation_copy_async(const char *place, void *to, const void *from, unsigned bytes, bool wanted);
void emulation_copy_commit();
void emulation_copy_wait(unsigned pending);
#define mma_bf16(c, a, b0, b1) emulation_mma(EMULATION_PLACE, c, a, b0, b1)
#define ldmatrix(to, row) emulation_ldmatrix(EMULATION_PLACE, to, row, false)
#define ldmatrix_transposed(to, row) emulation_ldmatrix(EMULATION_PLACE, to, row, true)
#define copy_async(to, from, wanted) emulation_copy_async(EMULATION_PLACE, to, from, 16, wanted)
#define copy_async_word(to, from, wanted) emulation_copy_async(EMULATION_PLACE, to, from, 4, wanted)
#define copy_commit() emulation_copy_commit()
#define copy_wait(pending) emulation_copy_wait(pending)

/* The same of kernels/cuda/wgmma.h. */
void emulation_wgmma(const char *place, float (*d)[4], int n, const uint32_t *a, const uint16_t *a_rows, const uint16_t *b, int block, bool add);
void emulation_wgmma_begin(const char *place);
void emulation_wgmma_commit();
void emulation_wgmma_wait(const char *place, unsigned pending);
void emulation_wgmma_visible();

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

/* The runtime's host side: eight devices of 64 GB, whose memory is a stretch of its own and whose streams run at once. */
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNotReady = 600, cudaErrorLaunchFailure = 719 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct EmulatedStream *cudaStream_t;
typedef struct EmulatedEvent *cudaEvent_t;

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMemset(void *p, int value, size_t bytes);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t emulation_need_shared(const void *kernel, size_t bytes);
cudaError_t cudaGetLastError();
/* Lets kernels and library calls touch device memory while it lives. */
struct EmulationAccess {
    EmulationAccess();
    ~EmulationAccess();
};
/* The next launch is refused: for tests of what a stream reports. */
extern "C" void emulation_fail_launch();

template <typename F> cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute, int bytes)
{
    return emulation_need_shared((const void *)(uintptr_t)kernel, (size_t)bytes);
}
/* A Hopper of 227 KB of shared memory. */
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
static inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr what, int)
{
    *value = what == cudaDevAttrComputeCapabilityMajor ? 9 : what == cudaDevAttrComputeCapabilityMinor ? 0 : 227 << 10;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 8;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
/* A stream runs what it is given at once, after what it waits for: operations between ranks that other threads must join
 * (nccl.cc), behind which an event puts whoever waits for it. */
struct EmulatedStream {
    std::vector<std::function<void()>> waits;
};
struct EmulatedEvent {
    std::vector<std::function<void()>> waits;
};
/* Of this thread: a rank is one, and makes its streams itself. */
std::vector<cudaStream_t> &emulation_streams();
static inline void emulation_reach(cudaStream_t s)
{
    if (!s)
        return;
    std::vector<std::function<void()>> waits;
    waits.swap(s->waits);
    for (const auto &wait : waits)
        wait();
}
/* What the GPU does when it is idle only: whoever asks for it waits until all streams are. */
static inline void emulation_idle()
{
    for (cudaStream_t s : emulation_streams())
        emulation_reach(s);
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new EmulatedStream;
    emulation_streams().push_back(*s);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    std::vector<cudaStream_t> &all = emulation_streams();
    for (size_t i = 0; i < all.size(); i++)
        if (all[i] == s) {
            all.erase(all.begin() + (long)i);
            break;
        }
    delete s;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    emulation_reach(s);
    return cudaSuccess;
}
static inline cudaError_t cudaLaunchHostFunc(cudaStream_t s, void (*work)(void *), void *context)
{
    emulation_reach(s);
    work(context);
    return cudaSuccess;
}
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new EmulatedEvent;
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
static inline cudaError_t cudaEventQuery(cudaEvent_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    e->waits = s->waits;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    s->waits.insert(s->waits.end(), e->waits.begin(), e->waits.end());
    return cudaSuccess;
}
static inline const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory" : "unspecified launch failure";
}

#endif
