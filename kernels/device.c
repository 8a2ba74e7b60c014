#include "kernels/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "kernels/cpu/cpu.h"

Tensor tensor_make(Device *d, Dtype t, void *data, int64_t rows, int64_t cols)
{
    return (Tensor){.data = data, .device = d, .dtype = t, .rows = rows, .cols = cols, .ld = cols};
}

Tensor tensor_columns(Tensor x, int64_t begin, int64_t cols)
{
    x.data = (char *)x.data + (size_t)begin * dtype_size(x.dtype);
    x.cols = cols;
    return x;
}

Tensor tensor_rows(Tensor x, int64_t begin, int64_t rows)
{
    x.data = (char *)x.data + (size_t)(begin * x.ld) * dtype_size(x.dtype);
    x.rows = rows;
    return x;
}

/* The CUDA kernels' object beside this program: ../lib/ in a build folder, ../lib/lmpipe/ when installed. */
static void *cuda_load(char *tried, size_t size)
{
    const char *named = getenv("LMPIPE_CUDA");
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    static const char *const beside[] = {"/../lib/liblmpipe-cuda.so", "/../lib/lmpipe/liblmpipe-cuda.so", "/../../lib/liblmpipe-cuda.so"};
    void *handle = NULL;
    tried[0] = 0;
    for (int i = 0; i < (named ? 1 : 3) && !handle; i++) {
        char *path = named ? memory_string(named) : memory_format("%s%s", self, beside[i]);
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle && (named || access(path, F_OK) == 0))
            strncat(tried, dlerror(), size - strlen(tried) - 1);
        free(path);
    }
    return handle;
}

/* An object that lacks operations is no device for the engine; it is closed. */
static bool operations_complete(Device *d, Error *err)
{
    enum { COUNT = sizeof(struct Ops) / sizeof(void (*)(void)) };
    void (*operations[COUNT])(void);
    memcpy(operations, d->ops, sizeof operations);
    int have = 0;
    for (int i = 0; i < COUNT; i++)
        have += operations[i] != NULL;
    if (have == COUNT)
        return true;
    error_set(err, "device %s: this build has kernels for %d of %d operations", d->name, have, COUNT);
    d->close(d);
    return false;
}

static Device *cuda_open(Error *err)
{
    char tried[512];
    void *handle = cuda_load(tried, sizeof tried);
    if (!handle) {
        error_set(err, "device cuda: %s", tried[0] ? tried : "the CUDA kernels' shared object is not installed");
        return NULL;
    }
    Device *(*open)(Error *) = (Device * (*)(Error *))(uintptr_t)dlsym(handle, "cuda_device_open");
    if (!open) {
        error_set(err, "device cuda: not a shared object of CUDA kernels");
        return NULL;
    }
    Device *d = open(err);
    return d && operations_complete(d, err) ? d : NULL;
}

Device *device_open(const char *name, int threads, Error *err)
{
    if (strcmp(name, "cpu") == 0)
        return cpu_device_open(threads, err);
    if (strcmp(name, "cuda") == 0)
        return cuda_open(err);
    if (strcmp(name, "auto") != 0) {
        error_set(err, "unknown device '%s'", name);
        return NULL;
    }
    Device *d = cuda_open(NULL);
    return d ? d : cpu_device_open(threads, err);
}

void device_close(Device *d)
{
    if (d)
        d->close(d);
}
