/* smoke: every collective and the sends of every back end against what one thread would compute: ranks as threads, NCCL's code over
 * the emulation, and with the argument "cpu" or "nccl" this process as a rank of a launcher's. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/plugin.h"
#include "dist/internal.h"
#include "tests/unit/tap.h"

typedef struct Outcome {
    bool nccl, large;
    int wrong; /* ranks (added atomically) that saw something wrong */
    char what[256];
} Outcome;

/* A rank at its group, with memory that the group's collectives take. */
typedef struct Bench {
    Outcome *o;
    Comm *c;
    Comm *line[2]; /* of what goes to the next rank, and to the one before */
    Device *d;
    Stream *s;
} Bench;

static void expect(Bench *b, bool right, const char *what, size_t n, const Error *err)
{
    if (right)
        return;
    if (__atomic_fetch_add(&b->o->wrong, 1, __ATOMIC_RELAXED) == 0)
        snprintf(b->o->what, sizeof b->o->what, "%s of %zu on rank %d of %d of %s: %.100s", what, n, b->c->rank, b->c->size, b->c->name, err->text);
}

static float value(int rank, size_t i)
{
    uint64_t x = (i * 64 + (uint64_t)rank + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
    return (float)(int32_t)(x >> 32) * 0x1p-31f;
}

static void put(Dtype t, void *to, size_t i, float x)
{
    if (t == DTYPE_F32)
        ((float *)to)[i] = x;
    else
        ((uint16_t *)to)[i] = f32_to_bf16(x);
}

/* n values of a rank from its element `first` on. */
static void fill(Dtype t, void *to, int rank, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(t, to, i, value(rank, first + i));
}

/* Their sum over ranks in order, or their maximum. */
static void fill_reduced(Dtype t, void *to, int ranks, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float all = 0;
        for (int r = 0; r < ranks; r++) {
            float x = value(r, first + i);
            x = t == DTYPE_F32 ? x : bf16_to_f32(f32_to_bf16(x));
            all = r == 0 ? x : all + x;
        }
        put(t, to, i, all);
    }
}

static void *to_device(Bench *b, const void *host, size_t bytes)
{
    void *p = b->d->alloc(b->d, bytes ? bytes : 1);
    b->d->copy(b->s, p, host, bytes, COPY_TO_DEVICE);
    return p;
}

/* Frees device memory after comparing it with what is wanted. */
static void compare(Bench *b, void *device, const void *want, size_t bytes, const char *what, size_t n)
{
    Error err = {"other bits"};
    void *got = memory_alloc(bytes ? bytes : 1, 1);
    b->d->copy(b->s, got, device, bytes, COPY_TO_HOST);
    if (b->d->stream_wait(b->s, &err) < 0 || memcmp(got, want, bytes) != 0)
        expect(b, false, what, n, &err);
    b->d->release(b->d, device);
    free(got);
}

static void test_all_gather(Bench *b, size_t bytes, bool placed)
{
    Error err = {{0}};
    size_t size = (size_t)b->c->size, place = (size_t)b->c->rank * bytes;
    unsigned char *want = memory_alloc(size * bytes, 1), *before = memory_zalloc(size * bytes, 1);
    for (size_t i = 0; i < size * bytes; i++)
        want[i] = (unsigned char)(i * 7 + i / 251 + 1);
    memcpy(before + place, want + place, bytes);
    char *all = to_device(b, before, size * bytes), *mine = placed ? all + place : to_device(b, want + place, bytes);
    expect(b, comm_all_gather(b->c, b->s, mine, all, bytes, &err) == 0, "all-gather", bytes, &err);
    compare(b, all, want, size * bytes, placed ? "all-gather in place" : "all-gather", bytes);
    if (!placed)
        b->d->release(b->d, mine);
    memset(before, 0, size * bytes);
    expect(b, comm_gather_host(b->c, want + place, before, bytes, &err) == 0 && memcmp(before, want, size * bytes) == 0, "host gather", bytes, &err);
    free(want);
    free(before);
}

static void test_reduce_scatter(Bench *b, Dtype t, size_t n, bool placed)
{
    Error err = {{0}};
    size_t each = n * dtype_size(t), size = (size_t)b->c->size;
    char *host = memory_alloc(size * each, 1), *want = memory_alloc(each, 1);
    fill(t, host, b->c->rank, 0, size * n);
    fill_reduced(t, want, b->c->size, (size_t)b->c->rank * n, n);
    char *all = to_device(b, host, size * each), *mine = placed ? all + (size_t)b->c->rank * each : to_device(b, want, 0);
    if (!placed) {
        b->d->release(b->d, mine);
        mine = b->d->alloc(b->d, each);
    }
    expect(b, comm_reduce_scatter(b->c, b->s, t, all, mine, n, &err) == 0, "reduce-scatter", n, &err);
    if (placed) { /* its neighbours' places are nobody's concern */
        char *copy = b->d->alloc(b->d, each);
        b->d->copy(b->s, copy, mine, each, COPY_ON_DEVICE);
        compare(b, copy, want, each, "reduce-scatter in place", n);
        b->d->release(b->d, all);
    } else {
        compare(b, mine, want, each, "reduce-scatter", n);
        compare(b, all, host, size * each, "what reduce-scatter reads", n);
    }
    free(host);
    free(want);
}

static void test_sum(Bench *b, Dtype t, size_t n)
{
    Error err = {{0}};
    char *host = memory_alloc(n, dtype_size(t)), *want = memory_alloc(n, dtype_size(t));
    fill(t, host, b->c->rank, 0, n);
    fill_reduced(t, want, b->c->size, 0, n);
    void *x = to_device(b, host, n * dtype_size(t));
    int64_t before = b->c->count[COMM_SUM].bytes, sent;
    expect(b, comm_sum(b->c, b->s, t, x, n, &err) == 0, "sum", n, &err);
    compare(b, x, want, n * dtype_size(t), "sum", n);
    /* All ranks together send 2·(size-1)·n numbers. */
    sent = b->c->count[COMM_SUM].bytes - before;
    double all = (double)sent;
    expect(b, comm_sum_host(b->c, &all, 1, &err) == 0 && all == 2.0 * (b->c->size - 1) * (double)(n * dtype_size(t)), "count of a sum", n, &err);
    free(host);
    free(want);
}

enum { LETTERS = 3 };

/* One direction of the ring: what goes to `to` and comes from `from`. Values name the sender, the letter and the direction. */
typedef struct Way {
    int to, from;
    void *out[LETTERS], *in[LETTERS];
    CommRequest sent[LETTERS], got[LETTERS];
} Way;

static size_t letter_size(size_t n, int letter)
{
    return n + (size_t)letter;
}

static size_t letter_first(int way, int letter)
{
    return (size_t)(1000 * way + 100 * letter);
}

/* Around the ring in both directions, several letters at once; the receiver posts them in another order where tags tell. */
static void test_ring(Bench *b, size_t n)
{
    Error err = {{0}};
    Comm *c = b->c;
    Way ways[2] = {{.to = (c->rank + 1) % c->size, .from = (c->rank + c->size - 1) % c->size}};
    ways[1] = (Way){.to = ways[0].from, .from = ways[0].to};
    float *host = memory_alloc(letter_size(n, LETTERS), sizeof *host);
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < LETTERS; i++) {
            int letter = b->o->nccl ? i : (i + 2) % LETTERS;
            size_t bytes = letter_size(n, letter) * sizeof *host;
            ways[w].in[letter] = b->d->alloc(b->d, bytes);
            expect(b, comm_recv(b->line[w], b->s, ways[w].in[letter], bytes, ways[w].from, w * LETTERS + letter, &ways[w].got[letter], &err) == 0, "receive", n, &err);
        }
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < LETTERS; i++) {
            size_t bytes = letter_size(n, i) * sizeof *host;
            fill(DTYPE_F32, host, c->rank, letter_first(w, i), letter_size(n, i));
            ways[w].out[i] = to_device(b, host, bytes);
            expect(b, comm_send(b->line[w], b->s, ways[w].out[i], bytes, ways[w].to, w * LETTERS + i, &ways[w].sent[i], &err) == 0, "send", n, &err);
            b->d->stream_wait(b->s, &err); /* host is filled again */
        }
    for (int w = 1; w >= 0; w--)
        for (int i = LETTERS - 1; i >= 0; i--) {
            expect(b, comm_wait(b->line[w], b->s, &ways[w].got[i], &err) == 0 && ways[w].got[i].handle == 0, "wait", n, &err);
            fill(DTYPE_F32, host, ways[w].from, letter_first(w, i), letter_size(n, i));
            compare(b, ways[w].in[i], host, letter_size(n, i) * sizeof *host, "letter", n);
        }
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < LETTERS; i++) {
            expect(b, comm_wait(b->line[w], b->s, &ways[w].sent[i], &err) == 0, "wait for a send", n, &err);
            b->d->stream_wait(b->s, &err);
            b->d->release(b->d, ways[w].out[i]);
        }
    CommRequest none;
    expect(b, comm_send(c, b->s, host, 4, c->rank, 0, &none, &err) < 0 && strstr(err.text, "cannot send to"), "a send to oneself", n, &err);
    free(host);
}

static void exercise(Bench *b)
{
    static const size_t sizes[] = {1, 2, 7, 1023, 4096, 10007};
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t n = sizes[i];
            test_all_gather(b, n, round == 1);
            for (int t = 0; t < 2; t++) {
                test_reduce_scatter(b, t ? DTYPE_BF16 : DTYPE_F32, n, round == 1);
                test_sum(b, t ? DTYPE_BF16 : DTYPE_F32, n);
            }
            if (b->c->size > 1)
                test_ring(b, n);
        }
    if (b->o->large) { /* past the pieces that a back end cuts */
        test_all_gather(b, (17 << 20) + 3, true);
        test_reduce_scatter(b, DTYPE_F32, 2200001, false);
        test_sum(b, DTYPE_F32, 4500001);
        test_ring(b, 1 << 20);
    }
}

static Device *(*emulated_open)(int, Error *);
static NcclWrap wrap;

static int rank_main(void *context, Grid *g)
{
    Outcome *o = context;
    Error err = {{0}};
    Device *d = o->nccl ? emulated_open(g->local_rank, &err) : device_open("cpu", 1, &err);
    Bench b = {.o = o, .c = &g->group[GRID_PP], .line = {&g->group[GRID_PP], &g->group[GRID_PP_BACK]}, .d = d, .s = d ? d->stream_new(d) : NULL};
    if (!d || (o->nccl && (wrap(b.line[0], d, 1, &err) < 0 || wrap(b.line[1], d, -1, &err) < 0)))
        return grid_failed(g, &err);
    exercise(&b);
    d->stream_free(b.s);
    comm_close(b.line[1]);
    comm_close(b.line[0]);
    d->close(d);
    return 0;
}

static int run(Outcome *o, int ranks)
{
    const int extent[GRID_DIMENSIONS] = {1, 1, ranks, 1};
    Error err = {{0}};
    int status = grid_run(extent, rank_main, o, &err);
    if (status < 0)
        snprintf(o->what, sizeof o->what, "%.200s", err.text);
    return status == 0 && o->wrong == 0;
}

static void test_threads(void)
{
    for (int ranks = 1; ranks <= 4; ranks++) {
        Outcome o = {0};
        int good = run(&o, ranks);
        ok(good, "%d ranks as threads: all collectives and sends have the expected bits %s", ranks, o.what);
    }
}

static void standin_load(Error *err)
{
    emulated_open = (Device * (*)(int, Error *))(uintptr_t)plugin_symbol("emulation", "LMPIPE_CUDA", "liblmpipe-emulated.so", "cuda_device_open", false, err);
    wrap = (NcclWrap)(uintptr_t)plugin_symbol("stand-in", "LMPIPE_NCCL", "liblmpipe-nccl-emulated.so", "nccl_wrap", false, err);
}

static void test_nccl(void)
{
    Error err;
    standin_load(&err);
    for (int ranks = 2; ranks <= 4; ranks++) {
        if (!emulated_open || !wrap) {
            skip("ranks over NCCL's code", err.text);
            continue;
        }
        Outcome o = {.nccl = true};
        int good = run(&o, ranks);
        ok(good, "%d ranks over NCCL's code and the stand-in: the same %s", ranks, o.what);
    }
}

/* Where each rank of a grid lies, and whom it meets in each group. */
static int places(void *context, Grid *g)
{
    Outcome *o = context;
    const int *e = g->extent;
    int t = e[0], c = e[1], p = e[2], at = g->place[0] + t * (g->place[1] + c * (g->place[2] + p * g->place[3]));
    bool end = g->place[2] == 0 || g->place[2] == p - 1;
    const int want[GRID_GROUPS][2] = {{t, g->place[0]}, {c, g->place[1]}, {p, g->place[2]}, {e[3], g->place[3]},
                                      {c * e[3], g->place[1] + c * g->place[3]}, {p > 1 && end ? 2 : 1, p > 1 && end ? g->place[2] / (p - 1) : 0}, {p, g->place[2]}};
    bool good = at == g->rank;
    for (int i = 0; i < GRID_GROUPS; i++) {
        Comm *group = &g->group[i];
        int ranks[64];
        Error err;
        good &= group->size == want[i][0] && group->rank == want[i][1];
        good &= comm_gather_host(group, &g->rank, ranks, sizeof *ranks, &err) == 0;
        for (int r = 0; r < group->size && good; r++) /* ascending in the world; this one at its place */
            good &= (r == 0 || ranks[r] > ranks[r - 1]) && (r != group->rank || ranks[r] == g->rank);
    }
    if (!good)
        __atomic_fetch_add(&o->wrong, 1, __ATOMIC_RELAXED);
    return 0;
}

static void test_grids(void)
{
    static const int grids[][GRID_DIMENSIONS] = {{2, 2, 2, 2}, {1, 3, 1, 2}, {2, 1, 3, 1}, {1, 1, 4, 2}, {3, 2, 2, 1}, {1, 1, 1, 1}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        Outcome o = {0};
        Error err;
        int status = grid_run(grids[i], places, &o, &err);
        ok(status == 0 && o.wrong == 0, "groups of the grid %d,%d,%d,%d", grids[i][0], grids[i][1], grids[i][2], grids[i][3]);
    }
}

/* A rank fails while another waits for its letter. */
static int gives_up(void *context, Grid *g)
{
    Outcome *o = context;
    Error err = {{0}};
    CommRequest r;
    char letter[4];
    if (g->rank == 1)
        return 1;
    if (comm_recv(&g->world, NULL, letter, sizeof letter, 1, 5, &r, &err) < 0 || comm_wait(&g->world, NULL, &r, &err) == 0 || !strstr(err.text, "another rank has failed"))
        __atomic_fetch_add(&o->wrong, 1, __ATOMIC_RELAXED);
    return 1;
}

static int wrong_size(void *context, Grid *g)
{
    Outcome *o = context;
    Error err = {{0}};
    CommRequest r;
    char letter[8] = "";
    int status = g->rank == 0 ? comm_send(&g->world, NULL, letter, 8, 1, 5, &r, &err) : comm_recv(&g->world, NULL, letter, 4, 0, 5, &r, &err);
    if (status < 0 && strstr(err.text, "rank 0 sends other than the"))
        __atomic_fetch_add(&o->wrong, 1, __ATOMIC_RELAXED);
    comm_wait(&g->world, NULL, &r, &err);
    return 0;
}

static void test_failures(void)
{
    const int two[GRID_DIMENSIONS] = {1, 1, 1, 2};
    Outcome o = {0};
    Error err;
    ok(grid_run(two, gives_up, &o, &err) == 1 && o.wrong == 0, "a letter of a rank that has failed does not come");
    ok(grid_run(two, wrong_size, &o, &err) == 0 && o.wrong == 1, "a letter of another size is refused");
}

static int process_main(bool nccl)
{
    const int extent[GRID_DIMENSIONS] = {1, 1, grid_launched(), 1};
    Outcome o = {.large = !nccl, .nccl = nccl};
    Error err = {{0}};
    if (nccl)
        standin_load(&err);
    int status = grid_run(extent, rank_main, &o, &err);
    if (status != 0 || o.wrong)
        fprintf(stderr, "collectives: %s %s\n", o.what, err.text);
    return status != 0 || o.wrong;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return process_main(strcmp(argv[1], "nccl") == 0);
    test_threads();
    test_nccl();
    test_grids();
    test_failures();
    return tap_end();
}
