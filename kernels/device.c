#include "kernels/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/plugin.h"
#include "base/thread.h"
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

/* An object that lacks operations is no device for the engine; it is closed. */
static bool operations_complete(Device *d, Error *err)
{
    enum { COUNT = sizeof(struct Ops) / sizeof(void (*)(void)) };
    void (*operations[COUNT])(void);
    memcpy(operations, d->ops, sizeof operations);
    int have = !d->ops->pack_bytes && !d->ops->pack && !d->ops->matmul_packed ? 3 : 0; /* which may be missing together */
    have += !d->ops->rows_begin && !d->ops->rows_end ? 2 : 0; /* and these */
    for (int i = 0; i < COUNT; i++)
        have += operations[i] != NULL;
    if (have == COUNT)
        return true;
    error_set(err, "device %s: this build has kernels for %d of %d operations", d->name, have, COUNT);
    d->close(d);
    return false;
}

/* Beside a GPU the host's threads prepare and finish what it does. */
static Device *cuda_open(int index, int threads, Error *err)
{
    void *symbol = plugin_symbol("device cuda", "LMPIPE_CUDA", "liblmpipe-cuda.so", "cuda_device_open", false, err);
    if (!symbol)
        return NULL;
    Device *(*open)(int, Error *) = (Device * (*)(int, Error *))(uintptr_t)symbol;
    Device *d = open(index, err);
    if (!d || !operations_complete(d, err))
        return NULL;
    d->threads = threads > 0 ? threads : thread_default_count();
    return d;
}

/* Whether a GPU's driver is here at all, or an object is named that may do without. Finding that out by loading the kernels' object
 * would cost every program cuBLASLt's 200 MB. */
static bool driver_is_there(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    if (driver)
        dlclose(driver);
    return driver || getenv("LMPIPE_CUDA");
}

Device *device_open_index(const char *name, int index, int threads, bool told, Error *err)
{
    if (strcmp(name, "cpu") == 0)
        return cpu_device_open(threads, err);
    if (strcmp(name, "cuda") == 0)
        return cuda_open(index, threads, err);
    if (strcmp(name, "auto") != 0) {
        error_set(err, "unknown device '%s'", name);
        return NULL;
    }
    if (!driver_is_there())
        return cpu_device_open(threads, err);
    Error why;
    Device *d = cuda_open(index, threads, &why);
    if (!d && told)
        message("no GPU is used: %s", why.text);
    return d ? d : cpu_device_open(threads, err);
}

Device *device_open(const char *name, int threads, Error *err)
{
    return device_open_index(name, 0, threads, true, err);
}

void device_close(Device *d)
{
    if (d)
        d->close(d);
}
