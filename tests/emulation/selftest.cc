/* smoke: the emulation finds what it is there to find: each broken kernel is run in a child that must end with the right words
 * or give the wrong sum that a GPU would give. */
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
#ifdef __SANITIZE_ADDRESS__
    ok(says(in_child([=] { LAUNCH(past_the_end, dim3(1), dim3(THREADS), 0, 0, out); }), "heap-buffer-overflow"),
       "the address sanitizer sees a store past the end of shared memory");
#else
    (void)past_the_end;
    skip("a store past the end of shared memory", "seen by the address sanitizer's build only");
#endif
    return tap_end();
}
