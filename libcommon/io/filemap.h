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
/* These bytes will hardly be read again: the process's memory does not have them until they are. */
void filemap_forget(const FileMap *m, size_t begin, size_t end);

#endif
