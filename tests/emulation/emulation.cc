/* The emulation's scheduler: fibers, barriers, warp operations, shared memory. */
#include "fiber.h"

#include <stdio.h>
#include <map>
#include <string>

#ifdef __x86_64__
/* Keeps the registers that a function must keep on this stack, and goes on with another. */
extern "C" void emulation_switch(void **from, void *to);
asm(".text\n.type emulation_switch,@function\nemulation_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
#endif

namespace emulation {

namespace {

const size_t STACK_BYTES = 128 << 10, SHARED_PLAIN = 48 << 10, SHARED_MOST = 227 << 10, SHARED_ALIGNED = 1024;

struct Shared {
    const char *place;
    void *memory;
};

struct Block {
    const char *kernel;
    const void *function;
    const std::function<void()> *body;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<Shared> shared;
    std::vector<Fiber *> ready;
    size_t done = 0;
    Fiber *current = NULL;
    size_t dynamic_bytes, static_bytes = 0;
    /* Addresses by which the thread sanitizer is told of an order: of the launch's begin and end, and of barriers in turn, since a thread
     * may come to the next while another has not left the last. */
    char begin_token, end_token, barrier_tokens[2];
    unsigned barriers = 0;
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
thread_local cudaError_t last_error = cudaSuccess;
thread_local bool fail_next = false;
#ifdef RACES
/* Nothing may be allocated in a fiber of the thread sanitizer: shared memory is cut from a piece made for the block. */
thread_local void *scheduler_fiber;
thread_local char *shared_room;
thread_local size_t shared_used;
#endif
/* How much shared memory each kernel has asked for (cudaFuncSetAttribute). */
thread_local std::map<const void *, size_t> asked;
/* Stacks outlive their block: making them is what costs. */
struct Stacks : std::vector<char *> {
    ~Stacks()
    {
        for (char *s : *this)
            free(s);
    }
};
thread_local Stacks stacks;

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
#ifdef RACES
    __tsan_switch_to_fiber(scheduler_fiber, __tsan_switch_to_fiber_no_sync);
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
    RACES_ACQUIRE(&block->begin_token);
    (*block->body)();
    RACES_RELEASE(&block->end_token);
    block->current->state = DONE;
    block->done++;
    to_scheduler(true);
    abort();
}

void to_fiber(Fiber *f)
{
    block->current = f;
#ifdef ASAN
    __sanitizer_start_switch_fiber(&block->fake_stack, f->stack, STACK_BYTES);
#endif
#ifdef RACES
    __tsan_switch_to_fiber(f->race_fiber, __tsan_switch_to_fiber_no_sync);
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
        if (f.state == IN_WARP_OPERATION)
            fail("a warp operation that not every lane reached, at", f.place, NULL);
        if (f.state == AT_BARRIER && !place)
            place = f.place;
        else if (f.state == AT_BARRIER && f.place != place && strcmp(f.place, place) != 0)
            fail("threads of a block wait at different barriers,", place, f.place);
    }
    if (block->done > 0)
        fail("some threads have ended while others wait at the barrier", place, NULL);
    block->barriers++;
    for (Fiber &f : block->fibers) {
        f.state = READY;
        block->ready.push_back(&f);
    }
}

/* The next fiber is any that can run. */
void run_block()
{
    std::vector<Fiber *> &ready = block->ready;
    while (block->done < block->fibers.size()) {
        if (ready.empty()) {
            open_barrier();
            continue;
        }
        size_t i = next_random() % ready.size();
        Fiber *f = ready[i];
        ready[i] = ready.back();
        ready.pop_back();
        to_fiber(f);
    }
}

} // namespace

Fiber *current()
{
    return block->current;
}

void fail(const char *what, const char *place, const char *other)
{
    fprintf(stderr, "emulation: kernel %s: %s", block ? block->kernel : "?", what);
    if (place)
        fprintf(stderr, " %s", place);
    if (other)
        fprintf(stderr, " and %s", other);
    fprintf(stderr, "\n");
    abort();
}

unsigned warp_gather(const char *place, const void *give, size_t bytes, void (*last)(Warp *w, unsigned set))
{
    Fiber *f = block->current;
    Warp *w = f->warp;
    if (bytes > sizeof w->given[0][0])
        fail("a warp operation on a value that is too long, at", place, NULL);
    if (w->arrived == 0)
        w->place = place;
    else if (w->place != place && strcmp(w->place, place) != 0)
        fail("lanes of a warp are at different operations,", w->place, place);
    unsigned set = w->generation & 1;
    move_bytes(w->given[set][f->lane], give, bytes);
    if (++w->arrived < w->lanes) {
        f->state = IN_WARP_OPERATION;
        f->place = place;
        to_scheduler(false);
        return set;
    }
    if (last)
        last(w, set);
    w->arrived = 0;
    w->generation++;
    for (unsigned l = 0; l < w->lanes; l++)
        if (w->fibers[l].state == IN_WARP_OPERATION) {
            w->fibers[l].state = READY;
            block->ready.push_back(&w->fibers[l]);
        }
    return set;
}

} // namespace emulation

using namespace emulation;

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
    char *token = &block->barrier_tokens[block->barriers & 1];
    RACES_RELEASE(token);
    to_scheduler(false);
    RACES_ACQUIRE(token);
    (void)token;
}

/* Orders the memory of a warp's lanes, which shuffles don't. */
void emulation_syncwarp(const char *place)
{
    Warp *w = block->current->warp;
    unsigned char *token = &w->given[w->generation & 1][0][0];
    RACES_RELEASE(token);
    warp_gather(place, "", 0, NULL);
    RACES_ACQUIRE(token);
    (void)token;
}

void emulation_trap(const char *place)
{
    fail("a trap, at", place, NULL);
}

void emulation_check_aligned(const char *place, const void *p, size_t bytes)
{
    if ((uintptr_t)p % bytes != 0)
        fail("a vector that is not aligned, at", place, NULL);
}

void *emulation_shared(const char *place, size_t bytes)
{
    if (!place)
        bytes = block->dynamic_bytes;
    for (Shared &s : block->shared)
        if (place == s.place || (place && s.place && strcmp(place, s.place) == 0))
            return s.memory;
    block->static_bytes += place ? bytes : 0;
    if (block->static_bytes > SHARED_PLAIN || block->static_bytes + block->dynamic_bytes > SHARED_MOST)
        fail("too much shared memory", place, NULL);
    if (block->static_bytes + block->dynamic_bytes > SHARED_PLAIN && asked[block->function] < block->dynamic_bytes)
        fail("more than 48 KB of shared memory, its variables' included, without cudaFuncSetAttribute", place, NULL);
#ifdef RACES
    shared_used = (shared_used + SHARED_ALIGNED - 1) / SHARED_ALIGNED * SHARED_ALIGNED;
    void *memory = shared_room + shared_used;
    shared_used += bytes;
#else
    void *memory = NULL;
    if (posix_memalign(&memory, SHARED_ALIGNED, bytes ? bytes : 1) != 0)
        fail("no memory", place, NULL);
    memset(memory, 0xff, bytes);
#endif
    block->shared.push_back({place, memory});
    return memory;
}

static void all_lanes(const Warp *w, unsigned mask, const char *place)
{
    unsigned all = w->lanes == 32 ? 0xffffffffu : (1u << w->lanes) - 1;
    if ((mask & all) != all)
        fail("a warp operation of some lanes only is not emulated, at", place, NULL);
}

unsigned emulation_ballot(const char *place, unsigned mask, bool vote)
{
    Warp *w = block->current->warp;
    all_lanes(w, mask, place);
    unsigned set = warp_gather(place, &vote, sizeof vote, NULL), votes = 0;
    for (unsigned l = 0; l < w->lanes; l++)
        votes |= (unsigned)(w->given[set][l][0] != 0) << l;
    return votes;
}

void emulation_exchange(const char *place, unsigned mask, const void *give, void *take, size_t bytes, unsigned from)
{
    Warp *w = block->current->warp;
    all_lanes(w, mask, place);
    if (from >= w->lanes)
        fail("a warp operation reads a lane that is not there, at", place, NULL);
    unsigned set = warp_gather(place, give, bytes, NULL);
    move_bytes(take, w->given[set][from], bytes);
}

std::vector<cudaStream_t> &emulation_streams()
{
    static thread_local std::vector<cudaStream_t> streams;
    return streams;
}

cudaError_t emulation_need_shared(const void *kernel, size_t bytes)
{
    if (bytes > SHARED_MOST)
        return last_error = cudaErrorInvalidValue;
    asked[kernel] = bytes;
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

void emulation_fail_launch()
{
    fail_next = true;
}

void emulation_launch(const char *name, const void *kernel, dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()> &body)
{
    size_t threads = (size_t)size.x * size.y * size.z, blocks = (size_t)grid.x * grid.y * grid.z;
    if (fail_next) {
        fail_next = false;
        last_error = cudaErrorLaunchFailure;
        return;
    }
    EmulationAccess access;
    Block here;
    here.kernel = name;
    here.function = kernel;
    block = &here;
    if (threads == 0 || threads > 1024 || size.z > 64)
        fail("a block of 0 or more than 1,024 threads", NULL, NULL);
    if (blocks == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffff)
        fail("a grid that is empty or too large", NULL, NULL);
    if (shared_bytes > SHARED_PLAIN && asked[kernel] < shared_bytes)
        fail("more than 48 KB of shared memory without cudaFuncSetAttribute", NULL, NULL);
    while (stacks.size() < threads)
        stacks.push_back((char *)malloc(STACK_BYTES));
    here.body = &body;
    here.dynamic_bytes = shared_bytes;
#ifdef RACES
    std::vector<void *> spent;
    std::vector<char *> spent_rooms;
    while (stacks.size() < threads * blocks)
        stacks.push_back((char *)malloc(STACK_BYTES));
#endif
    for (size_t b = 0; b < blocks; b++) {
        here.fibers.resize(threads);
        here.warps.resize((threads + 31) / 32);
        here.done = here.static_bytes = 0;
        for (Warp &w : here.warps)
            w.arrived = w.lanes = 0;
        for (size_t t = 0; t < threads; t++) {
            Fiber *f = &here.fibers[t];
            f->self.thread = {(unsigned)(t % size.x), (unsigned)(t / size.x % size.y), (unsigned)(t / size.x / size.y)};
            f->self.block = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
            f->self.block_size = size;
            f->self.grid_size = grid;
            f->state = READY;
            f->group = 0;
            f->copies.clear();
            f->lane = (unsigned)(t % 32);
            f->warp = &here.warps[t / 32];
            if (f->lane == 0)
                f->warp->fibers = f;
            f->warp->lanes++;
#ifdef RACES
            f->stack = stacks[b * threads + t];
#else
            f->stack = stacks[t];
#endif
            prepare(f);
            here.ready.push_back(f);
        }
#ifdef RACES
        scheduler_fiber = __tsan_get_current_fiber();
        shared_room = (char *)aligned_alloc(SHARED_ALIGNED, SHARED_MOST + 16 * SHARED_ALIGNED);
        memset(shared_room, 0xff, SHARED_MOST + 16 * SHARED_ALIGNED);
        shared_used = 0;
        here.shared.reserve(64);
        for (Fiber &f : here.fibers) {
            f.race_fiber = __tsan_create_fiber(0);
            f.copies.reserve(4096);
        }
        RACES_RELEASE(&here.begin_token);
        run_block();
        for (Fiber &f : here.fibers)
            spent.push_back(f.race_fiber);
        spent_rooms.push_back(shared_room);
#else
        run_block();
        for (Shared &s : here.shared)
            free(s.memory);
#endif
        here.shared.clear();
    }
#ifdef RACES
    /* Fibers and shared memory of one launch are all different, so that blocks are strangers to one another. */
    RACES_ACQUIRE(&here.end_token);
    for (void *f : spent)
        __tsan_destroy_fiber(f);
    for (char *room : spent_rooms)
        free(room);
#endif
    block = NULL;
}
