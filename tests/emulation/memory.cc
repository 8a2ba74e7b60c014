/* The emulated device's memory: a stretch of addresses that the host may touch only while a kernel, a library call or a copy runs;
 * a stray access of the host ends the process, as it would beside a GPU. */
#include "fiber.h"

#include <stdio.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <mutex>

namespace {

/* Pages are large where the system has such, so that opening and closing them costs little. */
const size_t ROOM = (size_t)64 << 30, PAGE = 2 << 20, GAP = 256, FILLED = 1 << 20;

struct Piece {
    char *begin;
    size_t bytes;
    bool used;
};

struct Memory {
    std::mutex lock;
    char *base = NULL;
    size_t high = 0; /* bytes that have ever been handed out */
    int open = 0;    /* accesses under way */
    std::vector<Piece> pieces;
} memory;

void protect(int how)
{
    if (memory.high > 0)
        mprotect(memory.base, memory.high, how);
}

void touched(int number, siginfo_t *info, void *)
{
    const char *p = (const char *)info->si_addr;
    if (p >= memory.base && p < memory.base + ROOM) {
        static const char words[] = "emulation: the host touches device memory\n";
        (void)!write(2, words, sizeof words - 1);
    }
    signal(number, SIG_DFL);
}

/* Behind each piece lies a gap that only the address sanitizer knows. */
void shade(char *p, size_t bytes, bool usable)
{
#ifdef ASAN
    usable ? __asan_unpoison_memory_region(p, bytes) : __asan_poison_memory_region(p, bytes);
#else
    (void)p, (void)bytes, (void)usable;
#endif
}

void start()
{
    memory.base = (char *)mmap(NULL, ROOM + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory.base == MAP_FAILED)
        return;
    memory.base = (char *)(((uintptr_t)memory.base + PAGE - 1) / PAGE * PAGE);
    madvise(memory.base, ROOM, MADV_HUGEPAGE);
#ifndef ASAN
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = touched;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, NULL);
#else
    (void)touched;
#endif
}

} // namespace

EmulationAccess::EmulationAccess()
{
    std::lock_guard<std::mutex> guard(memory.lock);
    if (memory.open++ == 0)
        protect(PROT_READ | PROT_WRITE);
}

EmulationAccess::~EmulationAccess()
{
    std::lock_guard<std::mutex> guard(memory.lock);
    if (--memory.open == 0)
        protect(PROT_NONE);
}

static void *take(size_t bytes)
{
    std::lock_guard<std::mutex> guard(memory.lock);
    if (!memory.base)
        start();
    size_t wanted = (bytes + GAP + 255) / 256 * 256;
    if (bytes > ROOM || memory.base == MAP_FAILED)
        return NULL;
    for (Piece &p : memory.pieces)
        if (!p.used && p.bytes >= wanted && p.bytes < wanted + wanted / 4 + 4096) {
            p.used = true;
            shade(p.begin, bytes, true);
            return p.begin;
        }
    size_t at = memory.pieces.empty() ? 0 : (size_t)(memory.pieces.back().begin - memory.base) + memory.pieces.back().bytes;
    if (at + wanted > ROOM)
        return NULL;
    memory.pieces.push_back({memory.base + at, wanted, true});
    size_t high = (at + wanted + PAGE - 1) / PAGE * PAGE;
    if (high > memory.high) {
        memory.high = high;
        protect(memory.open > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
    shade(memory.base + at, wanted, false);
    shade(memory.base + at, bytes, true);
    return memory.base + at;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = take(bytes);
    /* Of a large piece the head only: what nobody touches costs nothing. */
    return *p ? cudaMemset(*p, 0xff, bytes < FILLED ? bytes : FILLED) : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *p)
{
    emulation_idle();
    std::lock_guard<std::mutex> guard(memory.lock);
    for (Piece &piece : memory.pieces)
        if (piece.begin == p && piece.used) {
            piece.used = false;
            shade(piece.begin, piece.bytes, false);
            while (!memory.pieces.empty() && !memory.pieces.back().used)
                memory.pieces.pop_back();
            return cudaSuccess;
        }
    return p ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    EmulationAccess access;
    memset(p, value, bytes);
    return cudaSuccess;
}

static bool on_device(const void *p)
{
    return (const char *)p >= memory.base && (const char *)p < memory.base + ROOM;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (bytes > 0 && (on_device(to) != to_device || on_device(from) != from_device))
        return cudaErrorInvalidValue;
    emulation_reach(s);
    EmulationAccess access;
    memmove(to, from, bytes);
    return cudaSuccess;
}
