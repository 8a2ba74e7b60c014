/* The emulation's scheduler: fibers, barriers, warp exchanges, shared memory. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <string>
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

#ifdef __x86_64__
/* Keeps the registers that a function must keep on this stack, and goes on with another. */
extern "C" void emulation_switch(void **from, void *to);
asm(".text\n.type emulation_switch,@function\nemulation_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
#else
#include <ucontext.h>
#endif

namespace {

enum State { READY, AT_BARRIER, IN_EXCHANGE, DONE };
const size_t STACK_BYTES = 128 << 10;

struct Exchange { /* of one warp */
    unsigned generation = 0, arrived = 0, lanes = 0;
    const char *place = NULL;
    size_t bytes = 0;
    char values[2][32][16];
};

struct Fiber {
    EmulatedThread self;
    State state = READY;
    const char *place = NULL;
    unsigned lane, exchange_generation;
    Exchange *warp;
#ifdef __x86_64__
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    void *fake_stack = NULL;
    char *stack;
};

struct Shared {
    const char *place;
    void *memory;
};

struct Block {
    const char *kernel;
    const std::function<void()> *body;
    std::vector<Fiber> fibers;
    std::vector<Exchange> warps;
    std::vector<Shared> shared;
    Fiber *current = NULL;
    size_t dynamic_bytes;
#ifdef __x86_64__
    void *scheduler;
#else
    ucontext_t scheduler;
#endif
    void *fake_stack = NULL;
    const void *scheduler_stack = NULL;
    size_t scheduler_bytes = 0;
};

thread_local Block *block;
thread_local uint64_t order = 0;
/* Stacks outlive their block: making them is what costs. */
struct Stacks : std::vector<char *> {
    ~Stacks()
    {
        for (char *s : *this)
            free(s);
    }
};
thread_local Stacks stacks;

[[noreturn]] void fail(const char *what, const char *place, const char *other)
{
    fprintf(stderr, "emulation: kernel %s: %s", block ? block->kernel : "?", what);
    if (place)
        fprintf(stderr, " %s", place);
    if (other)
        fprintf(stderr, " and %s", other);
    fprintf(stderr, "\n");
    abort();
}

uint64_t next_random()
{
    if (order == 0) {
        const char *seed = getenv("EMULATION_SEED");
        order = 0x9e3779b97f4a7c15u ^ (seed ? strtoull(seed, NULL, 10) * 0xbf58476d1ce4e5b9u : 0);
    }
    order ^= order << 13;
    order ^= order >> 7;
    return order ^= order << 17;
}

void to_scheduler(bool last)
{
    Fiber *f = block->current;
    (void)last;
#ifdef ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &f->fake_stack, block->scheduler_stack, block->scheduler_bytes);
#endif
#ifdef __x86_64__
    emulation_switch(&f->stack_pointer, block->scheduler);
#else
    swapcontext(&f->context, &block->scheduler);
#endif
#ifdef ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, NULL, NULL);
#endif
}

void fiber_main()
{
#ifdef ASAN
    __sanitizer_finish_switch_fiber(NULL, &block->scheduler_stack, &block->scheduler_bytes);
#endif
    (*block->body)();
    block->current->state = DONE;
    to_scheduler(true);
    abort();
}

void to_fiber(Fiber *f)
{
    block->current = f;
#ifdef ASAN
    __sanitizer_start_switch_fiber(&block->fake_stack, f->stack, STACK_BYTES);
#endif
#ifdef __x86_64__
    emulation_switch(&block->scheduler, f->stack_pointer);
#else
    swapcontext(&block->scheduler, &f->context);
#endif
#ifdef ASAN
    __sanitizer_finish_switch_fiber(block->fake_stack, NULL, NULL);
#endif
    block->current = NULL;
}

void prepare(Fiber *f)
{
#ifdef ASAN
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
#ifdef __x86_64__
    /* As if emulation_switch had been called from fiber_main's caller: six registers, the return address, alignment. */
    void **top = (void **)(((uintptr_t)f->stack + STACK_BYTES) & ~(uintptr_t)15);
    *--top = NULL;
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    f->stack_pointer = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
#endif
}

/* Nobody can run: a barrier that all have reached opens, everything else is an error of the kernel. */
void open_barrier()
{
    const char *place = NULL;
    for (Fiber &f : block->fibers) {
        if (f.state == IN_EXCHANGE)
            fail("a warp operation that not every lane reached, at", f.place, NULL);
        if (f.state == AT_BARRIER && !place)
            place = f.place;
        else if (f.state == AT_BARRIER && f.place != place && strcmp(f.place, place) != 0)
            fail("threads of a block wait at different barriers,", place, f.place);
    }
    for (Fiber &f : block->fibers)
        if (f.state == DONE)
            fail("some threads have ended while others wait at the barrier", place, NULL);
    for (Fiber &f : block->fibers)
        f.state = READY;
}

void run_block()
{
    std::vector<Fiber *> ready;
    for (;;) {
        ready.clear();
        size_t done = 0;
        for (Fiber &f : block->fibers) {
            if (f.state == READY)
                ready.push_back(&f);
            done += f.state == DONE;
        }
        if (done == block->fibers.size())
            return;
        if (ready.empty()) {
            open_barrier();
            continue;
        }
        for (size_t left = ready.size(); left > 0; left--) {
            size_t i = next_random() % left;
            Fiber *f = ready[i];
            ready[i] = ready[left - 1];
            to_fiber(f);
        }
    }
}

} // namespace

const EmulatedThread *emulation_thread()
{
    return &block->current->self;
}

unsigned emulation_lane()
{
    return block->current->lane;
}

void emulation_barrier(const char *place)
{
    block->current->state = AT_BARRIER;
    block->current->place = place;
    to_scheduler(false);
}

void *emulation_shared(const char *place, size_t bytes)
{
    if (!place)
        bytes = block->dynamic_bytes;
    for (Shared &s : block->shared)
        if (place == s.place || (place && s.place && strcmp(place, s.place) == 0))
            return s.memory;
    void *memory = malloc(bytes ? bytes : 1);
    memset(memory, 0xff, bytes);
    block->shared.push_back({place, memory});
    return memory;
}

void emulation_exchange(const char *place, unsigned mask, const void *give, void *take, size_t bytes, unsigned from)
{
    Fiber *f = block->current;
    Exchange *w = f->warp;
    unsigned all = w->lanes == 32 ? 0xffffffffu : (1u << w->lanes) - 1;
    if ((mask & all) != all)
        fail("a warp operation of some lanes only is not emulated, at", place, NULL);
    if (from >= w->lanes)
        fail("a warp operation reads a lane that is not there, at", place, NULL);
    if (bytes > sizeof w->values[0][0])
        fail("a warp operation on a value of more than 16 bytes, at", place, NULL);
    if (w->arrived == 0) {
        w->place = place;
        w->bytes = bytes;
    } else if (strcmp(w->place, place) != 0) {
        fail("lanes of a warp are at different operations,", w->place, place);
    }
    unsigned generation = w->generation;
    memcpy(w->values[generation & 1][f->lane], give, bytes);
    if (++w->arrived == w->lanes) {
        w->arrived = 0;
        w->generation++;
        for (Fiber &other : block->fibers)
            if (other.warp == w && other.state == IN_EXCHANGE)
                other.state = READY;
    } else {
        f->state = IN_EXCHANGE;
        f->place = place;
        to_scheduler(false);
    }
    memcpy(take, w->values[generation & 1][from], bytes);
}

void emulation_launch(const char *kernel, dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()> &body)
{
    size_t threads = (size_t)size.x * size.y * size.z, blocks = (size_t)grid.x * grid.y * grid.z;
    Block here;
    here.kernel = kernel;
    block = &here;
    if (threads == 0 || threads > 1024 || size.z > 64)
        fail("a block of 0 or more than 1,024 threads", NULL, NULL);
    if (blocks == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffff)
        fail("a grid that is empty or too large", NULL, NULL);
    if (shared_bytes > 227 << 10)
        fail("more than 227 KB of shared memory", NULL, NULL);
    while (stacks.size() < threads)
        stacks.push_back((char *)malloc(STACK_BYTES));
    here.body = &body;
    here.dynamic_bytes = shared_bytes;
    for (size_t b = 0; b < blocks; b++) {
        here.fibers.assign(threads, Fiber());
        here.warps.assign((threads + 31) / 32, Exchange());
        for (size_t t = 0; t < threads; t++) {
            Fiber *f = &here.fibers[t];
            f->self.thread = {(unsigned)(t % size.x), (unsigned)(t / size.x % size.y), (unsigned)(t / size.x / size.y)};
            f->self.block = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
            f->self.block_size = size;
            f->self.grid_size = grid;
            f->lane = (unsigned)(t % 32);
            f->warp = &here.warps[t / 32];
            f->warp->lanes++;
            f->stack = stacks[t];
            prepare(f);
        }
        run_block();
        for (Shared &s : here.shared)
            free(s.memory);
        here.shared.clear();
    }
    block = NULL;
}
