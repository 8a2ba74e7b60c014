#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/memory.h"
#include "base/thread.h"

void cpu_check(int condition, const char *operation, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "cpu %s: %s do not fit\n", operation, what);
    abort();
}

/* Products and the optimiser go from page to page of weights, which are found faster where pages are large. */
static void in_large_pages(char *p, size_t bytes)
{
    enum { LARGE = 2 << 20, LEAST = 16 * LARGE };
    char *begin = p + (LARGE - (uintptr_t)p % LARGE) % LARGE;
    if (bytes >= LEAST)
        madvise(begin, (size_t)(p + bytes - begin) / LARGE * LARGE, MADV_HUGEPAGE); /* it may be refused */
}

/* Cleared by calloc, which leaves the pages of large pieces untouched: what is never used takes no memory. The piece's own address
 * stands before the one given out. */
static void *cpu_alloc(Device *d, size_t bytes)
{
    (void)d;
    char *piece = bytes > PTRDIFF_MAX - 192 ? NULL : calloc(1, bytes + 192);
    if (!piece)
        return NULL;
    char *p = piece + 64 + (64 - (uintptr_t)piece % 64) % 64;
    memcpy(p - sizeof piece, &piece, sizeof piece);
    in_large_pages(p, bytes);
    return p;
}

static void cpu_release(Device *d, void *p)
{
    (void)d;
    char *piece;
    if (!p)
        return;
    memcpy(&piece, (char *)p - sizeof piece, sizeof piece);
    free(piece);
}

static Stream *cpu_stream_new(Device *d)
{
    Stream *s = memory_zalloc(1, sizeof *s);
    s->device = d;
    return s;
}

static void cpu_stream_free(Stream *s)
{
    free(s);
}

static int cpu_stream_wait(Stream *s, Error *err)
{
    (void)err;
    cpu_settle(s);
    return 0;
}

static void cpu_copy_bytes(Stream *s, void *to, const void *from, size_t bytes, CopyKind kind)
{
    enum { PIECE = 4 << 20 };
    (void)kind;
    cpu_settle(s);
    bool apart = (const char *)to + bytes <= (const char *)from || (const char *)from + bytes <= (const char *)to;
    if (bytes <= PIECE || !apart) {
        memmove(to, from, bytes);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (size_t at = 0; at < bytes; at += PIECE)
        memcpy((char *)to + at, (const char *)from + at, bytes - at < PIECE ? bytes - at : PIECE);
}

static void cpu_stream_order(Stream *from, Stream *to)
{
    cpu_settle(from);
    cpu_settle(to);
}

static void cpu_stream_call(Stream *s, void (*work)(void *), void *context)
{
    (void)s;
    work(context);
}

static void cpu_close(Device *d)
{
    CpuState *state = d->state;
    for (int t = 0; t < d->threads; t++) {
        free(state->panel_a[t]);
        free(state->scratch[t]);
    }
    free(state->panel_a);
    free(state->scratch);
    free(state->panel_b);
    free(state);
    free(d);
}

static const Ops cpu_ops = {
    .rows_begin = cpu_rows_begin,
    .rows_end = cpu_rows_end,
    .fill = cpu_fill,
    .copy = cpu_copy,
    .scatter = cpu_scatter,
    .add = cpu_add,
    .scale = cpu_scale,
    .matmul = cpu_matmul,
    .pack_bytes = cpu_pack_bytes,
    .pack = cpu_pack,
    .matmul_packed = cpu_matmul_packed,
    .bias_forward = cpu_bias_forward,
    .bias_backward = cpu_bias_backward,
    .embedding_forward = cpu_embedding_forward,
    .embedding_backward = cpu_embedding_backward,
    .rmsnorm_forward = cpu_rmsnorm_forward,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .rope = cpu_rope,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .attention_decode = cpu_attention_decode,
    .swiglu_forward = cpu_swiglu_forward,
    .swiglu_backward = cpu_swiglu_backward,
    .logits_forward = cpu_logits_forward,
    .logits_backward = cpu_logits_backward,
    .logits_gradient = cpu_logits_gradient,
    .dropout = cpu_dropout,
    .noise = cpu_noise,
    .sum_squares = cpu_sum_squares,
    .adamw = cpu_adamw,
};

/* Not cleared, so that pages nobody needs stay untouched. */
static void *scratch_new(size_t words)
{
    void *p;
    if (posix_memalign(&p, 64, words * sizeof(uint32_t)) == 0)
        return p;
    fprintf(stderr, "out of memory\n");
    exit(1);
}

Device *cpu_device_open(int threads, Error *err)
{
    (void)err;
    if (threads <= 0)
        threads = thread_default_count();
    Device *d = memory_zalloc(1, sizeof *d);
    CpuState *state = memory_zalloc(1, sizeof *state);
    *d = (Device){.name = "cpu", .is_host = true, .rounds = true, .threads = threads, .ops = &cpu_ops, .state = state, .alloc = cpu_alloc,
                  .release = cpu_release, .stream_new = cpu_stream_new, .stream_free = cpu_stream_free,
                  .stream_wait = cpu_stream_wait, .copy = cpu_copy_bytes, .stream_order = cpu_stream_order, .stream_call = cpu_stream_call, .close = cpu_close};
    state->panel_b = scratch_new(CPU_PANEL_B_WORDS);
    state->panel_a = memory_alloc((size_t)threads, sizeof *state->panel_a);
    state->scratch = memory_alloc((size_t)threads, sizeof *state->scratch);
    for (int t = 0; t < threads; t++) {
        state->panel_a[t] = scratch_new(CPU_PANEL_A_WORDS);
        state->scratch[t] = scratch_new(CPU_SCRATCH_FLOATS);
    }
    return d;
}
