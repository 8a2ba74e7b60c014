/* For tests of the CUDA kernels: tensors in the CPU's and the GPU's memory at once. The tests run twice: on this host under
 * tests/emulation, and on a GPU where there is one (with larger shapes). With the argument `gpu` (make check-gpu) a missing GPU is a
 * failure and the emulation is left out. */
#ifndef TESTS_TWIN_H
#define TESTS_TWIN_H

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "tests/unit/tap.h"

static Device *cpu, *gpu;
static Stream *host, *stream;
static uint64_t counter;
static void *object; /* the shared object that is being tested */
static bool large;   /* on a real GPU, unless the second argument is `brief` (for compute-sanitizer, which takes its time) */

/* The CPU's is f32; the GPU's has the type asked for, and the same values. */
typedef struct Twin {
    Tensor here, there;
} Twin;

static size_t twin_bytes(Tensor x)
{
    return (size_t)(x.rows * x.ld) * dtype_size(x.dtype);
}

/* What the CPU's tensor holds goes to the GPU's, rounded to its type in both. */
static void twin_send(Twin t)
{
    size_t count = (size_t)(t.here.rows * t.here.ld);
    void *values = memory_alloc(count, dtype_size(t.there.dtype));
    dtype_convert(values, t.there.dtype, t.here.data, DTYPE_F32, count);
    dtype_convert(t.here.data, DTYPE_F32, values, t.there.dtype, count);
    gpu->copy(stream, t.there.data, values, twin_bytes(t.there), COPY_TO_DEVICE);
    gpu->stream_wait(stream, NULL);
    free(values);
}

/* Normal random numbers, between the rows too. */
static Twin twin_typed(Dtype type, int64_t rows, int64_t cols, int64_t ld)
{
    Twin t = {tensor_make(cpu, DTYPE_F32, NULL, rows, cols), tensor_make(gpu, type, NULL, rows, cols)};
    t.here.ld = t.there.ld = ld;
    t.here.data = cpu->alloc(cpu, twin_bytes(t.here));
    t.there.data = gpu->alloc(gpu, twin_bytes(t.there));
    for (int64_t i = 0; i < rows * ld; i++)
        ((float *)t.here.data)[i] = (float)random_normal(1, 7, counter++);
    twin_send(t);
    return t;
}

static inline Twin twin(int64_t rows, int64_t cols, int64_t ld)
{
    return twin_typed(DTYPE_F32, rows, cols, ld);
}

static void twin_free(Twin t)
{
    cpu->release(cpu, t.here.data);
    gpu->release(gpu, t.there.data);
}

static inline Twin twin_columns(Twin t, int64_t begin, int64_t cols)
{
    return (Twin){tensor_columns(t.here, begin, cols), tensor_columns(t.there, begin, cols)};
}

static inline Twin twin_rows(Twin t, int64_t rows)
{
    return (Twin){tensor_rows(t.here, 0, rows), tensor_rows(t.there, 0, rows)};
}

/* ‖there − here‖/‖here‖ over the tensor and what lies between its rows, which must be untouched. */
static double difference(Twin t)
{
    size_t count = (size_t)(t.here.rows * t.here.ld);
    void *got = memory_alloc(count, dtype_size(t.there.dtype));
    float *values = memory_alloc(count, sizeof *values), *want = t.here.data;
    gpu->copy(stream, got, t.there.data, twin_bytes(t.there), COPY_TO_HOST);
    Error err = {{0}};
    double d = 0, n = 1e-30;
    if (gpu->stream_wait(stream, &err) < 0) {
        printf("# %s\n", err.text);
        d = INFINITY;
    }
    dtype_convert(values, DTYPE_F32, got, t.there.dtype, count);
    for (size_t i = 0; i < count; i++) {
        double e = (double)values[i] - (double)want[i];
        d += isnan(e) ? INFINITY : e * e;
        n += (double)want[i] * (double)want[i];
    }
    free(got);
    free(values);
    return sqrt(d / n);
}

/* Whether two tensors on the GPU have the same bits. */
static inline bool same_bits(Tensor a, Tensor b)
{
    size_t bytes = twin_bytes(a);
    char *x = memory_alloc(bytes, 1), *y = memory_alloc(bytes, 1);
    gpu->copy(stream, x, a.data, bytes, COPY_TO_HOST);
    gpu->copy(stream, y, b.data, bytes, COPY_TO_HOST);
    bool same = gpu->stream_wait(stream, NULL) == 0 && memcmp(x, y, bytes) == 0;
    free(x);
    free(y);
    return same;
}

/* int32 in both memories. */
typedef struct Integers {
    int32_t *here, *there;
} Integers;

static inline Integers integers(int64_t n)
{
    return (Integers){memory_zalloc((size_t)n, sizeof(int32_t)), gpu->alloc(gpu, (size_t)n * sizeof(int32_t))};
}

static inline void integers_send(Integers x, int64_t n)
{
    gpu->copy(stream, x.there, x.here, (size_t)n * sizeof(int32_t), COPY_TO_DEVICE);
    gpu->stream_wait(stream, NULL);
}

static inline void integers_free(Integers x)
{
    free(x.here);
    gpu->release(gpu, x.there);
}

static inline double worse(double a, double b)
{
    return a > b || isnan(a) ? a : b;
}

static const char *type_name(Dtype t)
{
    return t == DTYPE_F32 ? "f32" : "bf16";
}

/* What a result of this type may differ by: sums of f32 in another order (longer ones on a real GPU), or one rounding to bf16. */
static double tolerance(Dtype t)
{
    return t == DTYPE_F32 ? (large ? 1e-5 : 2e-6) : 4e-3;
}

/* `file` of the folder lib beside this program's folder. */
static void twin_run(const char *on, const char *file, bool needed, bool brief, void (*tests)(const char *on))
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 3; i++)
        *strrchr(self, '/') = 0;
    char *path = memory_format("%s/lib/%s", self, file);
    if (access(path, F_OK) != 0) {
        if (needed)
            ok(0, "%s: %s is not built", on, path);
        else
            skip(on, strcmp(on, "gpu") == 0 ? "the CUDA kernels are not built: no nvcc or no cuBLASLt" : "the emulation is not built (make check builds it)");
        free(path);
        return;
    }
    object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ok(object != NULL || (!needed && strcmp(on, "gpu") == 0), "%s: the shared object loads%s%s", on, object ? "" : ": ", object ? "" : dlerror());
    free(path);
    if (!object)
        return;
    Device *(*open)(int, Error *) = (Device * (*)(int, Error *))(uintptr_t)dlsym(object, "cuda_device_open");
    Error err = {{0}};
    gpu = open ? open(0, &err) : NULL;
    if (!gpu) {
        ok(strncmp(err.text, "device cuda: ", 13) == 0 && !needed, "%s: opening says why it can't: %s", on, err.text);
        if (!needed)
            skip(on, err.text);
        dlclose(object);
        return;
    }
    large = strcmp(on, "gpu") == 0 && !brief;
    stream = gpu->stream_new(gpu);
    tests(on);
    gpu->stream_free(stream);
    device_close(gpu);
    dlclose(object);
}

static int twin_main(int argc, char **argv, void (*tests)(const char *on))
{
    bool needed = argc > 1 && strcmp(argv[1], "gpu") == 0, brief = argc > 2 && strcmp(argv[2], "brief") == 0;
    cpu = device_open("cpu", needed ? 0 : 1, NULL);
    host = cpu->stream_new(cpu);
    if (!needed)
        twin_run("emulation", "liblmpipe-emulated.so", false, false, tests);
    twin_run("gpu", "liblmpipe-cuda.so", needed, brief, tests);
    cpu->stream_free(host);
    device_close(cpu);
    return tap_end();
}

#endif
