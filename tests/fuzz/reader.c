/* Lines of a file that may be gzip or zstd, whole or cut. */
#include "io/stream.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    const char *path = fuzz_file(data, size, ".gz");
    Reader *r = reader_open(path, &err);
    if (!r) { /* xz and its like */
        if (!err.text[0])
            abort();
        unlink(path);
        return 0;
    }
    Span line;
    size_t total = 0;
    int got;
    while ((got = reader_line(r, &line, &err)) > 0 && total < 1 << 24)
        total += line.length + 1;
    if (got < 0 && !err.text[0])
        abort();
    reader_close(r);
    unlink(path);
    return 0;
}
