/* A config.json of any bytes: refused, or every size in it is one that a model can have. */
#include "model/config.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    ModelConfig c;
    const char *path = fuzz_file(data, size, ".json");
    if (config_read(&c, path, &err) < 0 && !err.text[0])
        abort();
    unlink(path);
    return 0;
}
