/* Preloaded (LD_PRELOAD): counts the calls that allocate, and writes their number to the file $ALLOCATIONS at exit. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static long count;

static void counted(void)
{
    __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t n)
{
    counted();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    counted();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    counted();
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    counted();
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
    counted();
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("ALLOCATIONS");
    char line[32];
    int n = snprintf(line, sizeof line, "%ld\n", count), to = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (to >= 0 && write(to, line, (size_t)n) != n)
        _exit(1);
}
