/* Sharded optimiser states, gradients and weights: ranks that keep slices give the bits of ranks that keep everything, and keep less. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/plugin.h"
#include "base/random.h"
#include "dist/internal.h"
#include "model/head.h"
#include "tests/unit/tap.h"
#include "train/optimizer.h"

enum { SEQUENCES = 2, LENGTH = 24, STEPS = 5, LARGEST = 4 };

/* What the ranks of one grid give and take. */
typedef struct Run {
    int shard;
    bool tied;
    float *weights[LARGEST];
    double norms[LARGEST][STEPS];
    size_t count, states;
    int64_t bytes[LARGEST], wanted; /* of weights, gradients and moments on the device */
    int wrong;
    char what[200];
} Run;

static Device *(*emulated_open)(int, Error *); /* NULL: the CPU's */
static NcclWrap wrap;

static const ModelConfig shape = {.model_type = "llama", .vocab_size = 97, .hidden_size = 36, .intermediate_size = 50, .num_hidden_layers = 3,
                                  .num_attention_heads = 3, .num_key_value_heads = 1, .head_dim = 12, .max_position_embeddings = 64, .rms_norm_eps = 1e-5,
                                  .rope_theta = 1e4, .initializer_range = 0.1};

static void pass(Model *m, Slot *slot, Batch *b, int rank, int step)
{
    HeadSums sums = {0};
    batch_clear(b);
    for (int q = 0; q < SEQUENCES; q++) {
        int32_t tokens[LENGTH];
        for (int i = 0; i < LENGTH; i++)
            tokens[i] = (int32_t)(random_uniform(7, (uint64_t)rank, (uint64_t)((step * SEQUENCES + q) * LENGTH + i)) * 97);
        batch_place(b, q * LENGTH, tokens, NULL, NULL, LENGTH, -1, 0, q);
    }
    slot_load(slot, b, NULL);
    model_forward(m, slot);
    head_cross_entropy(m, slot, b->labels, b->weights, 0.01, 0, &sums);
    model_backward(m, slot);
}

static void read_weights(ParameterTable *t, float *to)
{
    for (int u = 0; u < t->unit_count; u++) {
        const ParameterUnit *unit = &t->units[u];
        t->device->copy(t->stream, to + unit->offset, param_acquire_f32(t, unit->first, unit->first).data, unit->count * sizeof *to, COPY_TO_HOST);
    }
}

/* A rank's device that counts the bytes which are taken. */
typedef struct Counted {
    Device device;
    Device *real;
    int64_t bytes;
    struct {
        void *at;
        int64_t bytes;
    } pieces[256];
} Counted;

static void *counted_alloc(Device *d, size_t bytes)
{
    Counted *c = (Counted *)d;
    void *p = c->real->alloc(c->real, bytes);
    for (int i = 0; i < 256; i++)
        if (!c->pieces[i].at) {
            c->pieces[i].at = p;
            c->pieces[i].bytes = (int64_t)bytes;
            c->bytes += (int64_t)bytes;
            break;
        }
    return p;
}

static void counted_release(Device *d, void *p)
{
    Counted *c = (Counted *)d;
    for (int i = 0; i < 256 && p; i++)
        if (c->pieces[i].at == p) {
            c->bytes -= c->pieces[i].bytes;
            c->pieces[i].at = NULL;
        }
    c->real->release(c->real, p);
}

static Device *counted_open(Counted *c, Error *err)
{
    memset(c, 0, sizeof *c);
    c->real = emulated_open ? emulated_open(0, err) : device_open("cpu", 1, err);
    c->device = *c->real;
    c->device.alloc = counted_alloc;
    c->device.release = counted_release;
    return &c->device;
}

/* What a rank has of weights, gradients and moments: slices, and the rooms of the widest unit. */
static int64_t wanted_bytes(const Optimizer *o, int shard)
{
    const ParameterTable *t = o->table;
    int64_t ranks = o->grid->group[GRID_DATA].size, all = (int64_t)t->total * 4, widest = 0;
    for (int u = 0; u < t->unit_count; u++)
        widest = (int64_t)t->units[u].count * 4 > widest ? (int64_t)t->units[u].count * 4 : widest;
    return (shard > 2 ? all / ranks + 3 * widest : all) + (shard > 1 ? all / ranks + 3 * widest : all) + 2 * (shard > 0 ? all / ranks : all);
}

static int rank_main(void *context, Grid *g)
{
    Run *r = context;
    Error err = {{0}};
    Counted counted;
    Device *d = counted_open(&counted, &err);
    if (emulated_open && wrap(&g->group[GRID_DATA], d, 0, &err) < 0)
        return grid_failed(g, &err);
    ModelConfig c = shape;
    c.tie_word_embeddings = r->tied;
    ModelPart part = part_whole(&c);
    part.shards = g->group[GRID_DATA].size;
    Model m;
    Optimizer o = {0};
    Slot slot;
    Batch b;
    int64_t before = counted.bytes;
    model_open(&m, &c, &part, d, NULL);
    before = counted.bytes - before - (int64_t)m.params.table.total * 4; /* what else a model has */
    param_initialise(&m.params.table, 3);
    if (optimizer_open(&o, &m, g, r->shard, &(AdamW){0.9, 0.95, 1e-8, 0.1, 0.5}, &err) < 0)
        snprintf(r->what, sizeof r->what, "%.150s", err.text);
    r->bytes[g->rank] = counted.bytes - before - (int64_t)(2 * sizeof(double));
    r->wanted = wanted_bytes(&o, r->shard);
    slot_new(&slot, &m, SEQUENCES * LENGTH, MODE_TRAIN, NULL);
    batch_new(&b, SEQUENCES, LENGTH);
    bool good = o.table != NULL;
    for (int step = 0; step < STEPS && good; step++) {
        optimizer_clear(&o);
        pass(&m, &slot, &b, g->rank, step);
        good &= optimizer_reduce(&o, &err) == 0 && optimizer_norm(&o, &r->norms[g->rank][step], &err) == 0 &&
                optimizer_step(&o, 1e-2, r->norms[g->rank][step], &err) == 0;
    }
    if (good) {
        r->count = m.params.table.total;
        r->states = optimizer_states(&o);
        r->weights[g->rank] = memory_zalloc(r->count, sizeof(float));
        read_weights(&m.params.table, r->weights[g->rank]);
        d->stream_wait(m.stream, &err);
    } else {
        __atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED);
    }
    batch_free(&b);
    slot_free(&slot);
    optimizer_close(&o);
    model_close(&m);
    comm_close(&g->group[GRID_DATA]);
    device_close(counted.real);
    return 0;
}

static void run_free(Run *r)
{
    for (int i = 0; i < LARGEST; i++)
        free(r->weights[i]);
}

static bool equal(const Run *a, int i, const Run *b, int k)
{
    return a->wrong == 0 && b->wrong == 0 && a->count == b->count && memcmp(a->weights[i], b->weights[k], a->count * sizeof(float)) == 0 &&
           memcmp(a->norms[i], b->norms[k], sizeof a->norms[i]) == 0;
}

static void test_grid(const int extent[GRID_DIMENSIONS], bool tied)
{
    static const char *const kept[] = {"", "states", "states and gradients", "states, gradients and weights"};
    int ranks = extent[GRID_CP] * extent[GRID_DP];
    Run whole = {.tied = tied}, second = {.shard = 2, .tied = tied};
    Error err;
    grid_run(extent, rank_main, &whole, &err);
    grid_run(extent, rank_main, &second, &err);
    for (int shard = 1; shard <= 3; shard++) {
        Run sliced = {.shard = shard, .tied = tied};
        grid_run(extent, rank_main, &sliced, &err);
        /* Tied embeddings come together twice, what the head adds and what the input does: another order of additions. */
        const Run *like = tied && shard > 1 ? &second : &whole;
        bool good = fabs(second.norms[0][0] - whole.norms[0][0]) <= 1e-6 * whole.norms[0][0], moved = false;
        for (int i = 0; i < ranks; i++)
            good &= equal(like, 0, &sliced, i) && equal(&whole, 0, &whole, i) && sliced.bytes[i] == sliced.wanted && (shard < 2 || sliced.bytes[i] < whole.bytes[i]);
        for (int i = 1; i < STEPS && good; i++)
            moved |= whole.norms[0][i] != whole.norms[0][i - 1];
        ok(good && moved && sliced.states * (size_t)ranks == whole.states, "cp %d, dp %d, embeddings %s: slices of %s give the bits of whole ones on every rank%s, in %lld bytes of %lld %s%s",
           extent[GRID_CP], extent[GRID_DP], tied ? "tied" : "apart", kept[shard], emulated_open ? " over NCCL's code" : "", (long long)sliced.bytes[0], (long long)whole.bytes[0], whole.what, sliced.what);
        run_free(&sliced);
    }
    run_free(&whole);
    run_free(&second);
}

int main(void)
{
    static const int grids[][GRID_DIMENSIONS] = {{1, 1, 1, 2}, {1, 1, 1, 3}, {1, 1, 1, 4}, {1, 2, 1, 2}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        test_grid(grids[i], i % 2);
    Error err;
    emulated_open = (Device * (*)(int, Error *))(uintptr_t)plugin_symbol("emulation", "LMPIPE_CUDA", "liblmpipe-emulated.so", "cuda_device_open", false, &err);
    wrap = (NcclWrap)(uintptr_t)plugin_symbol("stand-in", "LMPIPE_NCCL", "liblmpipe-nccl-emulated.so", "nccl_wrap", false, &err);
    if (emulated_open && wrap)
        test_grid(grids[1], true);
    else
        skip("slices in a GPU's memory", err.text);
    return tap_end();
}
