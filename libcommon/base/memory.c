#include "base/memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static void (*before_exit)(void);

void memory_exhausted_call(void (*function)(void))
{
    before_exit = function;
}

static void out_of_memory(size_t count, size_t size)
{
    char text[160];
    if (before_exit)
        before_exit();
    int n = snprintf(text, sizeof text, "%.50s: out of memory: %zu items of %zu bytes\n", program_invocation_short_name, count, size);
    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(1);
    _exit(1);
}

static size_t product(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX)
        out_of_memory(count, size);
    return bytes ? bytes : 1;
}

void *memory_alloc(size_t count, size_t size)
{
    void *p = malloc(product(count, size));
    if (!p)
        out_of_memory(count, size);
    return p;
}

void *memory_zalloc(size_t count, size_t size)
{
    product(count, size);
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        out_of_memory(count, size);
    return p;
}

void *memory_aligned(size_t count, size_t size)
{
    size_t bytes = product(count, size);
    void *p = NULL;
    if (bytes > PTRDIFF_MAX - 64 || posix_memalign(&p, 64, (bytes + 63) / 64 * 64) != 0)
        out_of_memory(count, size);
    return memset(p, 0, bytes);
}

void *memory_large(size_t count, size_t size)
{
    enum { LARGE = 2 << 20, SMALL = 1 << 16 };
    size_t bytes = product(count, size), page = bytes < LARGE ? SMALL : LARGE;
    void *p = NULL;
    if (bytes > PTRDIFF_MAX - LARGE || posix_memalign(&p, page, bytes) != 0)
        out_of_memory(count, size);
    madvise(p, bytes / LARGE * LARGE, MADV_HUGEPAGE); /* it may be refused */
    return p;
}

void *memory_realloc(void *p, size_t count, size_t size)
{
    void *q = realloc(p, product(count, size));
    if (!q)
        out_of_memory(count, size);
    return q;
}

void *memory_grow(void *p, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return p;
    size_t grown = *capacity < 8 ? 8 : *capacity > SIZE_MAX / 2 ? needed : *capacity * 2;
    if (grown < needed)
        grown = needed;
    p = memory_realloc(p, grown, size);
    *capacity = grown;
    return p;
}

char *memory_copy(const char *data, size_t length)
{
    char *p = memory_alloc(length + 1, 1);
    if (length)
        memcpy(p, data, length);
    p[length] = 0;
    return p;
}

char *memory_string(const char *string)
{
    return memory_copy(string, strlen(string));
}

size_t memory_resident(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*u %lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

void memory_trim(void)
{
/* A sanitizer has its own allocator: the library's, which is never used, has not made its arenas, and two threads would make them at once. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    malloc_trim(0);
#endif
}

void memory_threads(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    enum { LARGE = 1 << 20 };
    mallopt(M_MMAP_THRESHOLD, LARGE);
#endif
}

size_t memory_available(void)
{
    unsigned long long size = (unsigned long long)sysconf(_SC_PHYS_PAGES) * (unsigned long long)sysconf(_SC_PAGESIZE), limit;
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "r");
    if (f && fscanf(f, "%llu", &limit) == 1 && limit < size) /* else it says "max" */
        size = limit;
    if (f)
        fclose(f);
    return (size_t)size;
}

char *memory_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text;
    if (vasprintf(&text, format, args) < 0)
        out_of_memory(1, 1);
    va_end(args);
    return text;
}

void buffer_reserve(Buffer *b, size_t more)
{
    if (more > SIZE_MAX - b->length)
        out_of_memory(b->length, more);
    b->data = memory_grow(b->data, &b->capacity, b->length + more, 1);
}

void buffer_append(Buffer *b, const void *data, size_t length)
{
    if (length == 0)
        return;
    buffer_reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

void buffer_byte(Buffer *b, char c)
{
    buffer_reserve(b, 1);
    b->data[b->length++] = c;
}

void buffer_string(Buffer *b, const char *string)
{
    buffer_append(b, string, strlen(string));
}

void buffer_format(Buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    buffer_reserve(b, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(b->data + b->length, (size_t)n + 1, format, args);
    va_end(args);
    b->length += (size_t)n;
}

void buffer_free(Buffer *b)
{
    free(b->data);
    *b = (Buffer){0};
}

struct ArenaBlock {
    struct ArenaBlock *older;
    size_t used, size;
    _Alignas(16) char data[];
};

void *arena_alloc(Arena *a, size_t count, size_t size)
{
    size_t bytes = (product(count, size) + 15) / 16 * 16;
    if (!a->block || a->block->size - a->block->used < bytes) {
        size_t next = a->block ? a->block->size * 2 : 4096;
        if (next > 1 << 24)
            next = 1 << 24;
        if (next < bytes)
            next = bytes;
        struct ArenaBlock *block = memory_alloc(1, sizeof *block + next);
        *block = (struct ArenaBlock){.older = a->block, .size = next};
        a->block = block;
    }
    void *p = a->block->data + a->block->used;
    a->block->used += bytes;
    return p;
}

char *arena_copy(Arena *a, const char *data, size_t length)
{
    char *p = arena_alloc(a, length + 1, 1);
    if (length)
        memcpy(p, data, length);
    p[length] = 0;
    return p;
}

static void blocks_free(struct ArenaBlock *block)
{
    while (block) {
        struct ArenaBlock *older = block->older;
        free(block);
        block = older;
    }
}

void arena_reset(Arena *a)
{
    if (!a->block)
        return;
    blocks_free(a->block->older); /* the newest block is the largest */
    a->block->older = NULL;
    a->block->used = 0;
}

void arena_free(Arena *a)
{
    blocks_free(a->block);
    a->block = NULL;
}
