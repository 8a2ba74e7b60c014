/* A model folder whose index of weight files is any bytes: refused with a reason, or the model has every tensor. */
#include <string.h>
#include <sys/stat.h>
#include "io/stream.h"
#include "model/folder.h"
#include "tests/fuzz/file.h"

static char folder[64];

static void clean(void)
{
    static const char *const names[] = {"config.json", "a.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = memory_format("%s/%s", folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
}

static void copy(const char *from, const char *name)
{
    Buffer text = {0};
    Error err;
    char *to = memory_format("%s/%s", folder, name);
    if (file_read(from, &text, 0, &err) < 0 || file_write(to, text.data, text.length, &err) < 0)
        abort();
    buffer_free(&text);
    free(to);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static Device *device;
    Error err = {{0}};
    if (!device) {
        snprintf(folder, sizeof folder, "/tmp/lmpipe-fuzz-%ld.folder", (long)getpid());
        if (folder_create(folder, &err) < 0 || !(device = device_open("cpu", 1, &err)))
            abort();
        atexit(clean);
        copy("tests/data/models/llama3/config.json", "config.json");
        copy("tests/data/models/llama3/model.safetensors", "a.safetensors");
    }
    char *index = memory_format("%s/model.safetensors.index.json", folder);
    FILE *f = fopen(index, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    Model m;
    if (folder_load(&m, folder, NULL, device, &err) == 0)
        model_close(&m);
    else if (!err.text[0])
        abort();
    free(index);
    return 0;
}
