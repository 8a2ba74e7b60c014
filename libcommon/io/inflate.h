/* Decompression of a byte source by its first bytes: gzip (several members), zstd (several frames), or none. */
#ifndef IO_INFLATE_H
#define IO_INFLATE_H

#include <stddef.h>
#include <sys/types.h>
#include "base/error.h"

typedef struct Inflate Inflate;

/* Takes the file descriptor (closed by inflate_close); name is for messages and must live as long. NULL on errors. */
Inflate *inflate_open(int descriptor, const char *name, Error *err);
/* Up to n bytes of the plain content; 0 at the end, -1 on errors. */
ssize_t inflate_read(Inflate *f, void *buffer, size_t n, Error *err);
int inflate_is_compressed(const Inflate *f);
void inflate_close(Inflate *f);

#endif
