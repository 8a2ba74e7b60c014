/* smoke: ranks as threads: sums and failures. Two ranks in one process
 * give the bits they give alone. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "dist/internal.h"
#include "model/head.h"
#include "tests/unit/tap.h"
#include "train/optimizer.h"

enum { N = 10007 };

static float value(int rank, int i)
{
    return (float)random_normal(5, (uint64_t)rank, (uint64_t)i);
}

typedef struct Outcome {
    int wrong;   /* ranks (added atomically) that saw something wrong */
    int ranks;   /* that ran */
    const char *what;
} Outcome;

static void expect(Outcome *o, bool right, const char *what)
{
    if (right)
        return;
    o->what = what;
    __atomic_fetch_add(&o->wrong, 1, __ATOMIC_RELAXED);
}

/* The sum in the order of ranks, bit for bit. */
static bool summed(const float *x, int ranks)
{
    for (int i = 0; i < N; i++) {
        float sum = value(0, i);
        for (int r = 1; r < ranks; r++)
            sum += value(r, i);
        if (memcmp(&sum, &x[i], sizeof sum) != 0)
            return false;
    }
    return true;
}

static int collectives(void *context, Grid *g)
{
    Outcome *o = context;
    Error err;
    __atomic_fetch_add(&o->ranks, 1, __ATOMIC_RELAXED);
    Comm *c = &g->group[GRID_DP];
    expect(o, g->threads == (g->size > 1) && g->local_size == g->size && c->rank == g->rank && c->size == g->size, "places");
    float *x = memory_alloc(N, sizeof *x);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            x[i] = value(c->rank, i);
        expect(o, comm_sum(c, NULL, DTYPE_F32, x, N, &err) == 0 && summed(x, c->size), "comm_sum");
        double v[2] = {1.0 / (g->rank + 3), round};
        double want = 0;
        for (int r = 0; r < g->size; r++)
            want = r ? want + 1.0 / (r + 3) : 1.0 / 3;
        expect(o, comm_sum_host(&g->world, v, 2, &err) == 0 && v[0] == want && v[1] == (double)round * g->size, "comm_sum_host");
        int said = g->rank * 7;
        expect(o, comm_broadcast_host(&g->world, &said, sizeof said, g->size - 1, &err) == 0 && said == (g->size - 1) * 7, "comm_broadcast_host");
    }
    /* Odd and even ranks part. */
    Comm half;
    expect(o, comm_split(&g->world, g->rank % 2, "half", &half, &err) == 0, "split");
    expect(o, half.size == (g->size + 1 - g->rank % 2) / 2 && half.rank == g->rank / 2, "places after a split");
    double ranks = g->rank, sum = 0;
    for (int r = g->rank % 2; r < g->size; r += 2)
        sum += r;
    expect(o, comm_sum_host(&half, &ranks, 1, &err) == 0 && ranks == sum, "comm_sum_host after a split");
    comm_close(&half);
    free(x);
    return 0;
}

static void test_collectives(int ranks)
{
    const int extent[GRID_DIMENSIONS] = {1, 1, 1, ranks};
    Outcome o = {0};
    Error err;
    int status = grid_run(extent, collectives, &o, &err);
    ok(status == 0 && o.wrong == 0 && o.ranks == ranks, "%d rank%s: sums in the order of ranks, groups%s%s", ranks, ranks > 1 ? "s as threads" : "",
       o.what ? ": wrong: " : "", o.what ? o.what : "");
}

/* The second rank gives up while the others wait for it. */
static int gives_up(void *context, Grid *g)
{
    Outcome *o = context;
    if (g->rank == 1)
        return 1;
    double x = 1;
    Error err = {{0}};
    expect(o, comm_sum_host(&g->world, &x, 1, &err) < 0 && strstr(err.text, "another rank has failed"), "an error");
    return 1;
}

static int stopped(void *context, Grid *g)
{
    (void)context, (void)g;
    return 75;
}

static void test_failures(void)
{
    const int four[GRID_DIMENSIONS] = {1, 1, 1, 4};
    Outcome o = {0};
    Error err;
    int status = grid_run(four, gives_up, &o, &err);
    ok(status == 1 && o.wrong == 0, "a rank that fails takes the others with it");
    ok(grid_run(four, stopped, NULL, &err) == 75, "ranks that were stopped say so");
}

/* Steps of a small model: what a rank does, without anything between ranks. */
typedef struct Steps {
    uint64_t seed;
    float *weights;
    size_t count;
} Steps;

static void *run_steps(void *argument)
{
    enum { SEQUENCES = 3, LENGTH = 40 };
    Steps *s = argument;
    Device *d = device_open("cpu", 1, NULL);
    ModelConfig c = {.model_type = "llama", .vocab_size = 97, .hidden_size = 48, .intermediate_size = 80, .num_hidden_layers = 2, .num_attention_heads = 4,
                     .num_key_value_heads = 2, .head_dim = 12, .max_position_embeddings = 64, .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.1};
    Model m;
    Optimizer o;
    Grid g;
    Slot slot;
    Batch b;
    model_open(&m, &c, NULL, d, NULL);
    param_initialise(&m.params.table, s->seed);
    grid_one(&g);
    optimizer_open(&o, &m, &g, 0, &(AdamW){0.9, 0.95, 1e-8, 0.1, 1}, NULL);
    slot_new(&slot, &m, SEQUENCES * LENGTH, MODE_TRAIN, NULL);
    batch_new(&b, SEQUENCES, LENGTH);
    for (int step = 0; step < 4; step++) {
        batch_clear(&b);
        for (int q = 0; q < SEQUENCES; q++) {
            int32_t tokens[LENGTH];
            for (int i = 0; i < LENGTH; i++)
                tokens[i] = (int32_t)(random_uniform(s->seed, 9, (uint64_t)((step * SEQUENCES + q) * LENGTH + i)) * 97);
            batch_place(&b, q * LENGTH, tokens, NULL, NULL, LENGTH, -1, 0, q);
        }
        HeadSums sums = {0};
        double norm;
        optimizer_clear(&o);
        slot_load(&slot, &b, NULL);
        model_forward(&m, &slot);
        head_cross_entropy(&m, &slot, b.labels, b.weights, 1 / b.weight, 0, &sums);
        model_backward(&m, &slot);
        optimizer_norm(&o, &norm, NULL);
        optimizer_step(&o, 1e-2, norm, NULL);
    }
    s->count = m.params.table.total;
    s->weights = memory_alloc(s->count, sizeof(float));
    memcpy(s->weights, m.params.table.weights, s->count * sizeof(float));
    batch_free(&b);
    slot_free(&slot);
    optimizer_close(&o);
    model_close(&m);
    device_close(d);
    return NULL;
}

static bool same(const Steps *a, const Steps *b)
{
    return a->count == b->count && memcmp(a->weights, b->weights, a->count * sizeof(float)) == 0;
}

static void test_alone(void)
{
    Steps alone[2] = {{.seed = 1}, {.seed = 2}};
    run_steps(&alone[0]);
    run_steps(&alone[1]);
    int equal = 0, rounds = 4;
    for (int i = 0; i < rounds; i++) {
        Steps both[2] = {{.seed = 1}, {.seed = 2}};
        pthread_t id[2];
        for (int k = 0; k < 2; k++)
            pthread_create(&id[k], NULL, run_steps, &both[k]);
        for (int k = 0; k < 2; k++)
            pthread_join(id[k], NULL);
        equal += same(&alone[0], &both[0]) && same(&alone[1], &both[1]);
        free(both[0].weights);
        free(both[1].weights);
    }
    ok(equal == rounds && !same(&alone[0], &alone[1]), "two ranks in one process give the bits they give alone");
    free(alone[0].weights);
    free(alone[1].weights);
}

int main(void)
{
    for (int ranks = 1; ranks <= 5; ranks++)
        test_collectives(ranks);
    test_failures();
    test_alone();
    return tap_end();
}
