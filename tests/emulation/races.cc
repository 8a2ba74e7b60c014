/* Runs each CUDA kernel once on a small shape under the thread sanitizer, which names every two accesses of threads of a launch that no
 * barrier orders and one of which is a write. What the kernels give is compared elsewhere (tests/unit/cuda.c). */
#include "cuda_runtime.h"

#include <math.h>
#include <stdio.h>
#include <string>
#include <vector>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {
#include "kernels/ops.h"
#include "tests/unit/tap.h"
}

extern "C" Device *cuda_device_open(int index, Error *err);

static Device *device;
static Stream *stream;

static Tensor tensor(Dtype type, int64_t rows, int64_t cols)
{
    size_t count = (size_t)(rows * cols);
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((i * 37 + 11) % 64) / 32.0f - 1;
    std::vector<char> bytes(count * dtype_size(type));
    dtype_convert(bytes.data(), type, values.data(), DTYPE_F32, count);
    Tensor x = {device->alloc(device, bytes.size()), device, type, rows, cols, cols};
    device->copy(stream, x.data, bytes.data(), bytes.size(), COPY_TO_DEVICE);
    return x;
}

static int32_t *integers(const std::vector<int32_t> &values)
{
    int32_t *x = (int32_t *)device->alloc(device, values.size() * sizeof *x);
    device->copy(stream, x, values.data(), values.size() * sizeof *x, COPY_TO_DEVICE);
    return x;
}

static float *f32(Tensor x)
{
    return (float *)x.data;
}

/* A fiber costs the sanitizer 2 ms, and it has 8,000 of them in a process: shapes are no larger than what shows every loop. */
static void rows_and_columns()
{
    enum { ROWS = 9, COLS = 40 };
    const Ops *o = device->ops;
    Tensor x = tensor(DTYPE_F32, ROWS, COLS), h = tensor(DTYPE_F32, ROWS, COLS), w = tensor(DTYPE_F32, 1, COLS), r = tensor(DTYPE_F32, 1, ROWS);
    int32_t *tokens = integers({1, 0, 1, 2, 3, 1, 0, 5, 1});
    o->bias_backward(stream, w, x);
    o->embedding_backward(stream, h, x, tokens);
    o->rmsnorm_forward(stream, x, h, f32(r), x, x, w, 1e-5f);
    o->rmsnorm_backward(stream, x, {}, w, x, h, f32(r), w, x);
    Tensor wide = tensor(DTYPE_F32, 2, 1200), norm = tensor(DTYPE_F32, 1, 1200), out = tensor(DTYPE_BF16, 2, 1200);
    o->rmsnorm_forward(stream, out, wide, f32(r), wide, {}, norm, 1e-5f);
    o->rmsnorm_backward(stream, wide, {}, {}, out, wide, f32(r), norm, wide);
    o->rope(stream, x, 5, 8, tokens, f32(h), f32(wide), false);
}

static void losses()
{
    const Ops *o = device->ops;
    Tensor z = tensor(DTYPE_F32, 3, 1000), r = tensor(DTYPE_F32, 4, 3), gu = tensor(DTYPE_F32, 3, 1000), y = tensor(DTYPE_F32, 3, 500);
    int32_t *labels = integers({7, -1, 3}), *best = integers({0, 0, 0});
    o->logits_forward(stream, z, labels, f32(r), f32(r) + 3, best, f32(r) + 6, f32(r) + 9);
    Tensor dz = tensor(DTYPE_BF16, 3, 1000);
    o->logits_gradient(stream, dz, z, labels, f32(r) + 6, f32(r), f32(r) + 3);
    o->logits_backward(stream, z, labels, f32(r) + 3, f32(r), NULL);
    o->swiglu_backward(stream, gu, y, gu);
    double *sum = (double *)device->alloc(device, sizeof *sum);
    o->sum_squares(stream, sum, z);
    o->adamw(stream, f32(z), f32(gu), f32(y), f32(y) + 700, 700, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 1);
}

static void attention(Dtype t, int rows, int heads, int kv_heads, int d)
{
    Tensor q = tensor(t, rows, heads * d), k = tensor(t, rows, kv_heads * d), v = tensor(t, rows, kv_heads * d), out = tensor(t, rows, heads * d);
    Tensor dq = tensor(t, rows, heads * d), dk = tensor(t, rows, kv_heads * d), dv = tensor(t, rows, kv_heads * d), dout = tensor(t, rows, heads * d);
    Tensor lse = tensor(DTYPE_F32, 2 * heads, rows);
    std::vector<int32_t> begin((size_t)rows), end((size_t)rows);
    for (int i = 0; i < rows; i++) {
        begin[(size_t)i] = i / 50 * 50;
        end[(size_t)i] = i + 1;
    }
    Attention a = {heads, kv_heads, d, 1 / sqrtf((float)d), integers(begin), integers(end), 1, rows, 0};
    device->ops->attention_forward(stream, out, f32(lse), q, k, v, &a);
    device->ops->attention_backward(stream, dq, dk, dv, dout, out, f32(lse), f32(lse) + heads * rows, q, k, v, &a);
}

static void decode(Dtype t, int d)
{
    enum { PAGE = 64, PAGES = 3, LENGTH = 150 };
    Tensor q = tensor(t, 1, 2 * d), out = tensor(t, 1, 2 * d), keys = tensor(t, PAGE * PAGES, d), values = tensor(t, PAGE * PAGES, d);
    PagedKeys cache = {keys.data, values.data, t, PAGE, integers({2, 0, 1}), integers({LENGTH}), PAGES};
    device->ops->attention_decode(stream, out, q, &cache, 2, 1, d, 0.2f, 0);
}

/* The sum of two warps' numbers without the barrier between them. */
__global__ void racing(float *sum)
{
    SHARED(float, part, [64]);
    part[threadIdx.x] = 1;
    if (threadIdx.x == 0)
        *sum = part[0] + part[63];
}

/* What a child that runs this says, with its exit status. */
template <typename F> static std::string in_child(F run, bool *clean)
{
    int ends[2];
    *clean = false;
    if (pipe(ends) < 0)
        return "pipe";
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        run();
        exit(0);
    }
    close(ends[1]);
    std::string said;
    char bytes[4096];
    for (ssize_t n; (n = read(ends[0], bytes, sizeof bytes)) > 0;)
        said.append(bytes, (size_t)n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    *clean = WIFEXITED(status) && WEXITSTATUS(status) == 0 && said.empty();
    if (said.size() > 3000)
        said.resize(3000);
    return said;
}

template <typename F> static void races(const char *what, F run)
{
    bool clean = false;
    std::string said = in_child(run, &clean);
    if (!ok(clean, "no races: %s", what))
        fprintf(stderr, "%s\n", said.c_str());
}

int main()
{
    Error err;
    device = cuda_device_open(0, &err);
    stream = device->stream_new(device);
    bool clean = true;
    float *sum = (float *)device->alloc(device, sizeof *sum);
    std::string said = in_child([=] { LAUNCH(racing, dim3(1), dim3(64), 0, NULL, sum); }, &clean);
    ok(!clean && said.find("data race") != std::string::npos, "a missing barrier is seen");
    races("sums over rows and columns", rows_and_columns);
    races("logits and the optimizer", losses);
    races("attention in f32 arithmetic", [] { attention(DTYPE_F32, 70, 1, 1, 16); });
    races("attention by mma.sync, head 16", [] { attention(DTYPE_BF16, 70, 1, 1, 16); });
    races("attention by warpgroups, head 64", [] { attention(DTYPE_BF16, 150, 1, 1, 64); });
    races("attention by warpgroups, head 96", [] { attention(DTYPE_BF16, 70, 1, 1, 96); });
    races("decoding", [] { decode(DTYPE_F32, 16); });
    races("decoding by mma.sync", [] { decode(DTYPE_BF16, 16); });
    setenv("LMPIPE_CUDA_SM", "80", 1);
    device = cuda_device_open(0, &err);
    stream = device->stream_new(device);
    races("attention by mma.sync, head 96", [] { attention(DTYPE_BF16, 70, 1, 1, 96); });
    return tap_end();
}
