/* smoke: the emulation finds what it is there to find: each broken kernel is run in a child that must end with the right words
 * or give the wrong sum that a GPU would give. */
#include "cuda_bf16.h"
#include "cuda_runtime.h"

#include <stdio.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {
#include "tests/unit/tap.h"
}

enum { THREADS = 128, WARPS = THREADS / 32 };

/* The sum of x[0 … 127]: by warps, then over the warps. MISSING leaves out the barrier between the two. */
template <bool MISSING> __global__ void block_sum(float *sum, const float *x)
{
    SHARED(float, part, [WARPS]);
    float v = x[threadIdx.x];
    for (int bits = 16; bits > 0; bits >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, bits);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    if (!MISSING)
        __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0;
        for (int w = 0; w < WARPS; w++)
            all += part[w];
        *sum = all;
    }
}

__global__ void divergent_barrier(float *sum)
{
    if (threadIdx.x < 64)
        __syncthreads();
    sum[0] = 1;
}

__global__ void two_barriers(float *sum)
{
    if (threadIdx.x < 64)
        __syncthreads();
    else
        __syncthreads();
    sum[0] = 1;
}

__global__ void divergent_shuffle(float *sum)
{
    float v = 1;
    if (threadIdx.x % 32 < 16)
        v = __shfl_sync(0xffffffffu, v, 0);
    else
        v = __shfl_sync(0xffffffffu, v, 16);
    sum[0] = v;
}

__global__ void past_the_end(float *sum)
{
    SHARED(float, part, [THREADS]);
    float *p = part;
    p[threadIdx.x + 1] = 1;
    __syncthreads();
    sum[0] = part[0];
}

/* A copy that is waited for, or not. */
template <bool WAITING> __global__ void copied(float *sum, const float *x)
{
    SHARED_DYNAMIC(float, part);
    copy_async(part + threadIdx.x * 4, x + threadIdx.x * 4, true);
    copy_commit();
    copy_async(part + 128 + threadIdx.x * 4, x, false);
    copy_commit();
    if (WAITING)
        copy_wait(1);
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0;
        for (int i = 0; i < 128; i++)
            all += part[i];
        sum[0] = all;
        sum[1] = part[130];
    }
}

/* C = A·B for A [16×16] and B [16×8] of small whole numbers, through ldmatrix; rows of 16 numbers are 32 bytes apart, which meets the
 * banks twice, unless padded to 48. */
template <int STRIDE> __global__ void multiplied(float *c)
{
    SHARED_DYNAMIC(__nv_bfloat16, tile);
    __nv_bfloat16 *a = tile, *b = tile + 16 * STRIDE;
    unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < 256; i += 32) {
        a[i / 16 * STRIDE + i % 16] = __float2bfloat16_rn((float)(i / 16 + 2 * (i % 16)));
        b[i / 16 * STRIDE + i % 16] = __float2bfloat16_rn((float)(i / 16) - (float)(i % 16));
    }
    __syncthreads();
    uint32_t left[4], right[4];
    float sum[4] = {0, 0, 0, 0};
    ldmatrix(left, a + lane % 16 * STRIDE + lane / 16 * 8);
    ldmatrix_transposed(right, b + lane % 16 * STRIDE + lane / 16 * 8);
    mma_bf16(sum, left, right[0], right[1]);
    for (unsigned i = 0; i < 4; i++)
        c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

/* Takes 512 bytes beside what its launch gives it. */
__global__ void shares_twice(float *sum)
{
    SHARED(float, part, [THREADS]);
    SHARED_DYNAMIC(float, more);
    part[threadIdx.x] = 1;
    more[threadIdx.x] = 1;
    sum[0] = 1;
}

__global__ void trapped(float *sum)
{
    if (sum)
        __trap();
}

/* Runs a launch in a child; what it printed, and "killed" if a signal ended it. */
template <typename F> static std::string in_child(F launch)
{
    int ends[2];
    if (pipe(ends) < 0)
        return "pipe";
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        launch();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char bytes[512];
    for (ssize_t n; (n = read(ends[0], bytes, sizeof bytes)) > 0;)
        said.append(bytes, (size_t)n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) || WEXITSTATUS(status) != 0)
        said += " killed";
    return said;
}

static bool says(const std::string &said, const char *words)
{
    return said.find(words) != std::string::npos && said.find("killed") != std::string::npos;
}

int main()
{
    float x[THREADS], want = 0, sum = 0;
    for (int i = 0; i < THREADS; i++)
        want += x[i] = (float)(i % 7);
    bool right = true, wrong = false;
    for (int trial = 0; trial < 20; trial++) {
        const float *in = x;
        float *out = &sum;
        LAUNCH(block_sum<false>, dim3(1), dim3(THREADS), 0, 0, out, in);
        right &= sum == want;
        LAUNCH(block_sum<true>, dim3(1), dim3(THREADS), 0, 0, out, in);
        wrong |= !(sum == want);
    }
    ok(right, "a reduction with its barrier is right in 20 orders");
    ok(wrong, "without the barrier it is wrong in one of them");
    float *out = &sum;
    ok(says(in_child([=] { LAUNCH(divergent_barrier, dim3(1), dim3(THREADS), 0, 0, out); }), "have ended while others wait"),
       "a barrier that half of the threads never reach is named");
    ok(says(in_child([=] { LAUNCH(two_barriers, dim3(1), dim3(THREADS), 0, 0, out); }), "different barriers"), "so are two barriers at once");
    ok(says(in_child([=] { LAUNCH(divergent_shuffle, dim3(1), dim3(THREADS), 0, 0, out); }), "different operations"),
       "so are lanes of a warp at different shuffles");
    ok(says(in_child([=] { LAUNCH(divergent_barrier, dim3(1), dim3(2048), 0, 0, out); }), "1,024"), "so is a block of 2,048 threads");
    float sums[2], c[16 * 8];
    const float *in = x;
    float *both = sums;
    LAUNCH(copied<true>, dim3(1), dim3(32), 1024, 0, both, in);
    ok(sums[0] == want && isnan(sums[1]), "an asynchronous copy is there when its group was waited for, and one that was not is not");
    LAUNCH(copied<false>, dim3(1), dim3(32), 1024, 0, both, in);
    ok(isnan(sums[0]), "nothing is there when nobody waits");
    float *product = c;
    LAUNCH(multiplied<24>, dim3(1), dim3(32), 2048, 0, product);
    bool exact = true;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float e = 0;
            for (int k = 0; k < 16; k++)
                e += (float)(i + 2 * k) * (float)(k - j);
            exact &= c[i * 8 + j] == e;
        }
    ok(exact, "ldmatrix and mma give A·B");
    ok(says(in_child([=] { LAUNCH(multiplied<16>, dim3(1), dim3(32), 2048, 0, product); }), "share shared memory's banks"),
       "rows that share banks are named");
    ok(says(in_child([=] { LAUNCH(trapped, dim3(1), dim3(32), 0, 0, out); }), "a trap"), "so is a trap");
    ok(says(in_child([=] { LAUNCH(trapped, dim3(1), dim3(32), 60000, 0, out); }), "more than 48 KB"), "so is shared memory that was not asked for");
    ok(says(in_child([=] { LAUNCH(shares_twice, dim3(1), dim3(THREADS), 48 << 10, 0, out); }), "variables' included"),
       "so is a launch that fills 48 KB beside a kernel's own variables");
    void *device;
    ok(cudaMalloc(&device, 64) == cudaSuccess && cudaMemcpyAsync(device, x, 64, cudaMemcpyHostToDevice, NULL) == cudaSuccess &&
           cudaMemcpyAsync(c, device, 64, cudaMemcpyDeviceToHost, NULL) == cudaSuccess && memcmp(c, x, 64) == 0,
       "bytes go to device memory and back");
    ok(cudaMemcpyAsync(c, device, 64, cudaMemcpyHostToDevice, NULL) != cudaSuccess, "a copy the wrong way is refused");
#ifdef __SANITIZE_ADDRESS__
    const char *stray = "SEGV";
#else
    const char *stray = "the host touches device memory";
#endif
    ok(says(in_child([=] { *(volatile float *)device = 1; }), stray), "the host's own access to device memory ends it");
    cudaFree(device);
#ifdef __SANITIZE_ADDRESS__
    ok(says(in_child([=] { LAUNCH(past_the_end, dim3(1), dim3(THREADS), 0, 0, out); }), "heap-buffer-overflow"),
       "the address sanitizer sees a store past the end of shared memory");
#else
    (void)past_the_end;
    skip("a store past the end of shared memory", "seen by the address sanitizer's build only");
#endif
    return tap_end();
}
