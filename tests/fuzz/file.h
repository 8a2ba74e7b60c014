/* For targets whose function wants a path: the input as a file of this process, written anew for each input. */
#ifndef FUZZ_FILE_H
#define FUZZ_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static inline const char *fuzz_file(const unsigned char *data, size_t size, const char *suffix)
{
    static char path[96];
    snprintf(path, sizeof path, "/tmp/lmpipe-fuzz-%ld%s", (long)getpid(), suffix);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    return path;
}

#endif
