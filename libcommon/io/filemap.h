/* A regular file as memory, read-only, for formats whose data is used where it lies. */
#ifndef IO_FILEMAP_H
#define IO_FILEMAP_H

#include <stddef.h>
#include "base/error.h"

typedef struct FileMap {
    const unsigned char *data; /* never NULL once open; {0} is closed */
    size_t size;
} FileMap;

int filemap_open(FileMap *m, const char *path, Error *err);
void filemap_close(FileMap *m);

#endif
