#include "io/filemap.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int filemap_open(FileMap *m, const char *path, Error *err)
{
    *m = (FileMap){0};
    int d = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), status = 0; /* a pipe that nobody writes to is refused, not waited for */
    struct stat st;
    if (d < 0 || fstat(d, &st) != 0) {
        status = error_set(err, "%s:", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = error_set(err, "%s: not a regular file", path);
    } else {
        /* Nothing cannot be mapped. */
        void *map = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, d, 0) : (void *)"";
        if (map == MAP_FAILED)
            status = error_set(err, "%s:", path);
        else
            *m = (FileMap){map, (size_t)st.st_size};
    }
    if (d >= 0)
        close(d);
    return status;
}

void filemap_close(FileMap *m)
{
    if (m->size > 0)
        munmap((void *)m->data, m->size);
    *m = (FileMap){0};
}

void filemap_forget(const FileMap *m, size_t begin, size_t end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    begin = begin / page * page;
    if (m->size > 0 && begin < end)
        madvise((void *)(uintptr_t)(m->data + begin), end - begin, MADV_DONTNEED); /* it may be refused */
}
