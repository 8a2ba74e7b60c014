/* Threads for the text tools. The engine's threads are OpenMP's; a tool uses one kind or the other. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

int thread_default_count(void); /* CPUs that this process may run on */

/* The first line of a main() that computes with OpenMP: its threads then wait for one another by spinning for some 50 µs, not
 * for milliseconds, which stalls programs that share the CPUs (a pipe of two of them ran twenty times slower). libgomp reads
 * that from the environment before main(), so the program sets it and starts itself again; a user's own GOMP_SPINCOUNT or
 * OMP_WAIT_POLICY stays. */
void thread_spin_briefly(char **argv);

/* Runs work(context, index, thread) for index 0 … count-1 on `threads` threads; thread is 0 … threads-1. The first error
 * (lowest index) is returned after all have stopped. */
int thread_parallel(int threads, size_t count, int (*work)(void *context, size_t index, int thread, Error *err),
                    void *context, Error *err);

/* An ordered pipeline: `read` fills items on one thread, `work` runs on many, `write` sees them in the order read, on the
 * calling thread. At most `depth` items are in flight (0: 4 a thread). Items are the caller's: `count` = depth items of
 * item_size bytes are zero-allocated once and reused. read returns 1 (an item), 0 (end) or -1. */
typedef struct Pipeline {
    int threads;
    size_t depth, item_size;
    int (*read)(void *context, void *item, Error *err);
    int (*work)(void *context, void *item, int thread, Error *err);
    int (*write)(void *context, void *item, Error *err);
    void (*release)(void *context, void *item); /* at the end, for each item ever used; may be NULL */
    /* Bytes that an item which was read holds, and how many all in flight may hold: an item past it waits until it is alone. So
     * a file of huge records needs memory for a few of them, not for depth. May be NULL. */
    size_t (*weight)(void *context, void *item);
    size_t budget;
    void *context;
} Pipeline;
int pipeline_run(const Pipeline *p, Error *err);

#endif
