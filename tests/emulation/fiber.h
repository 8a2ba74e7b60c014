/* What the emulation's files share: a block's fibers and warps. */
#ifndef EMULATION_FIBER_H
#define EMULATION_FIBER_H

#include "cuda_runtime.h"

#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#endif
#ifdef ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif
/* The thread sanitizer's build (tests/emulation/races.cc): kernels are compiled with it, the emulation's own files are not, and tell it
 * here what they do in the kernels' name. Each fiber is a thread to it, which barriers order and warp operations don't. */
#ifdef RACES
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *p, unsigned long bytes);
extern "C" void __tsan_write_range(void *p, unsigned long bytes);
#define RACES_READ(p, bytes) __tsan_read_range((void *)(uintptr_t)(p), bytes)
#define RACES_WRITE(p, bytes) __tsan_write_range(p, bytes)
#define RACES_RELEASE(token) __tsan_release(token)
#define RACES_ACQUIRE(token) __tsan_acquire(token)
#else
#define RACES_READ(p, bytes) ((void)0)
#define RACES_WRITE(p, bytes) ((void)0)
#define RACES_RELEASE(token) ((void)0)
#define RACES_ACQUIRE(token) ((void)0)
#endif

namespace emulation {

/* memcpy that no sanitizer looks into: what the emulation moves is its own affair. */
inline void move_bytes(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile unsigned char *)to)[i] = ((const unsigned char *)from)[i];
}

enum State { READY, AT_BARRIER, IN_WARP_OPERATION, DONE };

/* A warp operation: lanes give values, the last to come may turn them into results, all take what is theirs. Two sets, so
 * that a fast lane's next operation leaves the last one's values to the slow ones. */
struct Warp {
    unsigned generation = 0, arrived = 0, lanes = 0;
    const char *place = NULL;
    struct Fiber *fibers = NULL; /* its lanes */
    alignas(16) unsigned char given[2][32][48];
    alignas(16) unsigned char results[2][32][16];
};

struct AsyncCopy {
    unsigned char *to;
    const unsigned char *from; /* NULL: zeros */
    unsigned bytes, group;
};

/* A warpgroup's product that has been asked for (wgmma.cc), and the registers that such products add to. */
struct Product {
    float (*d)[4];
    int n;
    float a[2][16];
    uintptr_t a_rows, b;
    int block; /* bytes from 64 of B's columns to the next; 0: B is multiplied by rows */
    bool add;
    unsigned group;
};
struct Sums {
    float (*d)[4];
    int n;
    unsigned pending;
    float value[64];
};

struct Fiber {
    EmulatedThread self;
    State state = READY;
    const char *place = NULL;
    unsigned lane, group = 0; /* group: of asynchronous copies, the one that is open */
    Warp *warp;
    std::vector<AsyncCopy> copies;
    bool unseen = false, begun = false; /* copies that products do not see yet; a group of products */
    unsigned product_group = 0;
    std::vector<Product> products;
    std::vector<Sums> sums;
#ifdef __x86_64__
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    void *fake_stack = NULL;
    void *race_fiber = NULL;
    char *stack;
};

Fiber *current();
[[noreturn]] void fail(const char *what, const char *place, const char *other);
/* Gives a value to this operation and waits for the other lanes. `last`, run by the lane that comes last, may fill results. Returns
 * which of the two sets holds this operation's values until the lane's next operation but one. */
unsigned warp_gather(const char *place, const void *give, size_t bytes, void (*last)(Warp *w, unsigned set));

} // namespace emulation

#endif
