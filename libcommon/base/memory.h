/* Memory that never comes back NULL: a request that overflows or fails ends the process with a message and status 1.
 * Sizes that come from a file are checked against the file before they get here. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *memory_alloc(size_t count, size_t size);            /* not cleared */
void *memory_zalloc(size_t count, size_t size);           /* cleared */
void *memory_aligned(size_t count, size_t size);          /* 64-byte aligned, cleared; freed with free() */
void *memory_large(size_t count, size_t size);            /* not cleared, in large pages where it fills some, at the begin of a page; freed with free() */
void *memory_realloc(void *p, size_t count, size_t size);
/* Makes room for `needed` elements, doubling *capacity; returns the moved array. */
void *memory_grow(void *p, size_t *capacity, size_t needed, size_t size);
char *memory_copy(const char *data, size_t length);       /* a NUL is put behind */
char *memory_string(const char *string);
/* The machine's memory, or that of the process's control group where that is less: bytes. */
size_t memory_available(void);
/* What the process has of it now, 0 where that cannot be told. */
size_t memory_resident(void);
/* Gives back to the system what has been freed: the C library keeps freed pieces as large as those that it has seen before. */
void memory_trim(void);
/* Large pieces that threads free go back to the system at once: of what the C library keeps for a thread that is not the first, memory_trim
 * gives back nothing. */
void memory_threads(void);
/* What is done before the process ends for lack of memory (io/temporary.h removes unfinished files). */
void memory_exhausted_call(void (*function)(void));
char *memory_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A byte range that somebody else owns; not NUL-terminated. */
typedef struct Span {
    const char *data;
    size_t length;
} Span;

/* Bytes that grow. {0} is an empty buffer; `data` is NULL until something is appended. */
typedef struct Buffer {
    char *data;
    size_t length, capacity;
} Buffer;

void buffer_reserve(Buffer *b, size_t more);
void buffer_append(Buffer *b, const void *data, size_t length);
void buffer_byte(Buffer *b, char c);
void buffer_string(Buffer *b, const char *string);
void buffer_format(Buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_free(Buffer *b);

/* Blocks for things that live and die together. {0} is an empty arena. */
typedef struct Arena {
    struct ArenaBlock *block;
} Arena;

void *arena_alloc(Arena *a, size_t count, size_t size);   /* 16-byte aligned, not cleared */
char *arena_copy(Arena *a, const char *data, size_t length); /* a NUL is put behind */
void arena_reset(Arena *a);                               /* keeps one block for reuse */
void arena_free(Arena *a);

#endif
