/* smoke: the CUDA kernels against the CPU ones. The same sources are run twice: on this host under tests/emulation, and on a GPU
 * where there is one. With the argument `gpu` (make check-gpu) a missing GPU is a failure. */
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

/* A tensor in both memories. */
typedef struct Twin {
    Tensor here, there;
} Twin;

static Twin twin(int64_t rows, int64_t cols, int64_t ld)
{
    size_t bytes = (size_t)(rows * ld) * 4;
    Twin t = {tensor_make(cpu, DTYPE_F32, cpu->alloc(cpu, bytes), rows, cols), tensor_make(gpu, DTYPE_F32, gpu->alloc(gpu, bytes), rows, cols)};
    t.here.ld = t.there.ld = ld;
    for (int64_t i = 0; i < rows * ld; i++)
        ((float *)t.here.data)[i] = (float)random_normal(1, 7, counter++);
    gpu->copy(stream, t.there.data, t.here.data, bytes, COPY_TO_DEVICE);
    return t;
}

static void twin_free(Twin t)
{
    cpu->release(cpu, t.here.data);
    gpu->release(gpu, t.there.data);
}

/* ‖there − here‖/‖here‖ over the columns of the tensor; what lies between the rows must be untouched. */
static double difference(Twin t)
{
    size_t count = (size_t)(t.here.rows * t.here.ld);
    float *got = memory_alloc(count, sizeof *got), *want = t.here.data;
    gpu->copy(stream, got, t.there.data, count * sizeof *got, COPY_TO_HOST);
    Error err = {{0}};
    double d = 0, n = 1e-30;
    if (gpu->stream_wait(stream, &err) < 0) {
        printf("# %s\n", err.text);
        d = INFINITY;
    }
    for (size_t i = 0; i < count; i++) {
        double e = (double)got[i] - (double)want[i];
        d += isnan(e) ? INFINITY : e * e;
        n += (double)want[i] * (double)want[i];
    }
    free(got);
    return sqrt(d / n);
}

static void test_matmul(const char *on)
{
    static const int shapes[][3] = {{1, 64, 64}, {5, 33, 17}, {64, 64, 64}, {70, 100, 130}, {33, 16, 300}, {9, 50, 1}};
    double worst = 0;
    int cases = 0;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 16; form++, cases++) {
            int m = shapes[c][0], n = shapes[c][1], k = shapes[c][2], pad = form & 8 ? 3 : 0;
            bool ta = form & 1, tb = form & 2;
            float beta = form & 4 ? 1 : 0;
            Twin a = ta ? twin(k, m, m + pad) : twin(m, k, k + pad), b = tb ? twin(n, k, k + 2 * pad) : twin(k, n, n + 2 * pad);
            Twin x = twin(m, n, n + pad);
            cpu->ops->matmul(host, x.here, a.here, ta, b.here, tb, 0.5f, beta);
            gpu->ops->matmul(stream, x.there, a.there, ta, b.there, tb, 0.5f, beta);
            worst = fmax(worst, difference(x));
            twin_free(a), twin_free(b), twin_free(x);
        }
    ok(worst < 1e-6, "%s: matmul in %d forms and shapes: worst relative difference %.2g", on, cases, worst);
}

static void test_rmsnorm(const char *on)
{
    static const int shapes[][2] = {{1, 16}, {7, 33}, {70, 128}, {13, 1000}, {300, 48}};
    double forward = 0, backward = 0;
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++)
        for (int form = 0; form < 4; form++) {
            int64_t rows = shapes[c][0], n = shapes[c][1], ld = n + (form & 2 ? 5 : 0);
            Twin x = twin(rows, n, ld), sub = twin(rows, n, ld), w = twin(1, n, n), y = twin(rows, n, ld), h = twin(rows, n, ld);
            Twin rstd = twin(1, rows, rows), dy = twin(rows, n, ld), dh = twin(rows, n, ld), dw = twin(1, n, n), extra = twin(rows, n, ld);
            Tensor none = {0};
            bool with = form & 1;
            cpu->ops->rmsnorm_forward(host, y.here, h.here, rstd.here.data, x.here, with ? sub.here : none, w.here, 1e-5f);
            gpu->ops->rmsnorm_forward(stream, y.there, h.there, rstd.there.data, x.there, with ? sub.there : none, w.there, 1e-5f);
            forward = fmax(forward, fmax(difference(y), fmax(difference(h), difference(rstd))));
            /* dh in dy's memory, and weights that are frozen, are forms that the engine uses. */
            Tensor dw_here = form == 3 ? none : dw.here, dw_there = form == 3 ? none : dw.there;
            Twin to = form == 2 ? dy : dh;
            cpu->ops->rmsnorm_backward(host, to.here, dw_here, dy.here, h.here, rstd.here.data, w.here, with ? extra.here : none);
            gpu->ops->rmsnorm_backward(stream, to.there, dw_there, dy.there, h.there, rstd.there.data, w.there, with ? extra.there : none);
            backward = fmax(backward, fmax(difference(to), difference(dw)));
            twin_free(x), twin_free(sub), twin_free(w), twin_free(y), twin_free(h), twin_free(rstd), twin_free(dy), twin_free(dh);
            twin_free(dw), twin_free(extra);
        }
    ok(forward < 1e-6, "%s: rmsnorm_forward in 20 forms and shapes: worst relative difference %.2g", on, forward);
    ok(backward < 1e-6, "%s: rmsnorm_backward likewise: %.2g", on, backward);
}

static void test_device(const char *on)
{
    Error err = {{0}};
    ok(gpu->alloc(gpu, (size_t)1 << 50) == NULL, "%s: too much memory is refused", on);
    Stream *other = gpu->stream_new(gpu);
    float *p = gpu->alloc(gpu, 4096), here[1024], back[1024];
    for (int i = 0; i < 1024; i++)
        here[i] = (float)i;
    gpu->copy(stream, p, here, sizeof here, COPY_TO_DEVICE);
    gpu->stream_order(stream, other);
    gpu->copy(other, back, p, sizeof back, COPY_TO_HOST);
    ok(gpu->stream_wait(other, &err) == 0 && memcmp(here, back, sizeof here) == 0, "%s: a stream that waits for another sees its copy", on);
    gpu->release(gpu, p);
    gpu->stream_free(other);
}

/* `file` of the folder lib beside this program's folder. */
static void run(const char *on, const char *file, bool needed)
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
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ok(handle != NULL, "%s: the shared object loads%s%s", on, handle ? "" : ": ", handle ? "" : dlerror());
    free(path);
    if (!handle)
        return;
    Device *(*open)(Error *) = (Device * (*)(Error *))(uintptr_t)dlsym(handle, "cuda_device_open");
    Error err = {{0}};
    gpu = open ? open(&err) : NULL;
    if (!gpu) {
        ok(strncmp(err.text, "device cuda: ", 13) == 0 && !needed, "%s: opening says why it can't: %s", on, err.text);
        if (!needed)
            skip(on, err.text);
        dlclose(handle);
        return;
    }
    stream = gpu->stream_new(gpu);
    test_device(on);
    test_matmul(on);
    test_rmsnorm(on);
    gpu->stream_free(stream);
    device_close(gpu);
    dlclose(handle);
}

int main(int argc, char **argv)
{
    bool needed = argc > 1 && strcmp(argv[1], "gpu") == 0;
    cpu = device_open("cpu", 1, NULL);
    host = cpu->stream_new(cpu);
    if (!needed)
        run("emulation", "liblmpipe-emulated.so", false);
    run("gpu", "liblmpipe-cuda.so", needed);
    cpu->stream_free(host);
    device_close(cpu);
    return tap_end();
}
