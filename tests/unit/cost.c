/* The cost of grids: memory and traffic by hand, the formula of the bubble against the simulation, and Llama 3's published layouts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tap.h"
#include "train/cost.h"
#include "train/pipeline.h"

static double forward_seconds = 1, backward_seconds = 2;

static double even(void *context, int stage, int chunk, int64_t micro_batch, bool backward)
{
    (void)micro_batch;
    (void)context;
    (void)stage;
    (void)chunk;
    return backward ? backward_seconds : forward_seconds;
}

static double one_slow(void *context, int stage, int chunk, int64_t micro_batch, bool backward)
{
    return even(context, stage, chunk, micro_batch, backward) * (stage == *(int *)context ? 1.5 : 1);
}

static void test_simulation(void)
{
    double worst = 0;
    int runs = 0;
    Error err;
    CostSimulation s;
    for (int stages = 1; stages <= 8; stages++)
        for (int chunks = 1; chunks <= 4; chunks++)
            for (int m = stages; m <= 24; m++) {
                if (chunks > 1 && stages == 1)
                    continue;
                if (cost_simulate(stages, chunks, m, even, NULL, 0, 0, &s, &err) < 0) {
                    ok(false, "%s", err.text);
                    return;
                }
                worst = fmax(worst, fabs(s.bubble - pipeline_bubble(stages, chunks, m)));
                runs++;
            }
    ok(worst < 1e-9, "the simulated bubble of %d pipelines is (P − 1)/(vM): off by %g", runs, worst);
    CostSimulation plain, late;
    int slow = 2;
    static const double messages[] = {0.01, 0.1, 0.5, 1, 2, 5};
    worst = 0;
    for (int stages = 4; stages <= 16; stages *= 2)
        for (int chunks = 1; chunks <= 8; chunks *= 2)
            for (int m = stages; m <= 8 * stages; m *= 2)
                for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
                    for (int kind = 0; kind < 3; kind++) { /* a wire that is busy, a long one, both */
                        double x = messages[i], busy = kind == 0 ? x : kind == 1 ? 0 : x / 2;
                        if (cost_simulate(stages, chunks, m, even, NULL, 0, 0, &plain, &err) < 0 || cost_simulate(stages, chunks, m, even, NULL, busy, x - busy, &s, &err) < 0) {
                            ok(false, "%s", err.text);
                            return;
                        }
                        double said = plain.seconds + cost_messages(stages, chunks, m, x, forward_seconds, backward_seconds);
                        worst = fmax(worst, fabs(said / s.seconds - 1));
                    }
    ok(worst < 0.12, "what pipelines wait for messages is what the simulation says: off by %.1f %% of the step at most", 100 * worst);
    cost_simulate(4, 2, 16, even, NULL, 0, 0, &plain, &err);
    cost_simulate(4, 2, 16, one_slow, &slow, 0, 0, &s, &err);
    ok(s.seconds > plain.seconds * 1.35 && s.seconds < plain.seconds * 1.5, "a slow stage holds up all: %g s for %g", s.seconds, plain.seconds);
    cost_simulate(4, 2, 16, even, NULL, 0.01, 0.02, &late, &err);
    /* Messages that overlap computing cost what the first and the last micro-batch wait for them. */
    ok(late.seconds > plain.seconds && late.seconds < plain.seconds + 2 * 8 * 2 * 0.03, "messages hide behind computing: %g s for %g", late.seconds, plain.seconds);
}

static ModelConfig small(void)
{
    ModelConfig c = {.model_type = "llama", .vocab_size = 256, .hidden_size = 64, .intermediate_size = 128, .num_hidden_layers = 4, .num_attention_heads = 4,
                     .num_key_value_heads = 2, .head_dim = 16, .max_position_embeddings = 64, .rms_norm_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02,
                     .bos_token_id = -1, .pad_token_id = -1};
    return c;
}

static void test_memory(void)
{
    static const int first[GRID_DIMENSIONS], last[GRID_DIMENSIONS] = {[GRID_PP] = 1};
    ModelConfig c = small();
    CostRun r = {.config = &c, .extent = {1, 1, 1, 1}, .stages = {.chunks = 1}, .sequence_length = 64, .samples = 8, .micro_batch = 2, .dtype = DTYPE_F32};
    CostMemory one, m;
    CostTraffic t;
    Error err;
    double n = (double)config_parameters(&c);
    ok(cost_memory(&r, first, &one, &err) == 0 && one.parameters == n, "one rank holds all %g parameters", n);
    ok(one.weights == 4 * n && one.gradients == 4 * n && one.states == 8 * n, "16 bytes each");
    cost_traffic(&r, first, NULL, &t, &err);
    ok(t.all == 0, "and sends nothing");
    r.extent[GRID_DP] = 4;
    cost_memory(&r, first, &m, &err);
    ok(m.states == 8 * n && m.weights == one.weights, "four data-parallel ranks hold as much each");
    cost_traffic(&r, first, NULL, &t, &err);
    double sum = t.bytes[GRID_DATA][COMM_SUM];
    ok(sum >= 2 * 3.0 / 4 * 4 * n && sum < 2 * 3.0 / 4 * 4 * n * 1.01 && t.all == sum, "a sum moves 2 (D − 1)/D of the gradients: %g", sum);
    r.shard = 1;
    cost_memory(&r, first, &m, &err);
    ok(m.states >= 2 * n && m.states < 2 * n * 1.05, "--shard 1 cuts the states in four: %g bytes", m.states);
    cost_traffic(&r, first, NULL, &t, &err);
    ok(t.bytes[GRID_DATA][COMM_SUM] == 0 && fabs(t.all - 2 * 3.0 / 4 * 4 * n) < 0.05 * n, "and moves as much");
    r.extent[GRID_DP] = 1;
    r.extent[GRID_TP] = 2;
    r.shard = 0;
    cost_memory(&r, first, &m, &err);
    ok(m.parameters > n / 2 && m.parameters < n / 2 + 9 * 64 + 100, "tensor-parallel ranks hold half, and the norms");
    cost_traffic(&r, first, NULL, &t, &err);
    /* 4 passes of 128 rows, 64 rows of 64 numbers each to the other rank: 6 gathers and 4 sums a layer; the embedding 1 and 1, the head 1
     * and 1, and its words about the labels. */
    double piece = 4 * 64 * 64 * 4;
    ok(t.bytes[GRID_TP][COMM_REDUCE_SCATTER] == piece * (4 * 4 + 2), "bytes of --tp's sums: %g", t.bytes[GRID_TP][COMM_REDUCE_SCATTER]);
    ok(t.bytes[GRID_TP][COMM_ALL_GATHER] == piece * (6 * 4 + 2) + 4 * (double)sizeof(ChunkSaid), "of its gathers: %g", t.bytes[GRID_TP][COMM_ALL_GATHER]);
    r.extent[GRID_TP] = 1;
    r.extent[GRID_CP] = 2;
    cost_traffic(&r, first, NULL, &t, &err);
    double gathered = t.bytes[GRID_CP][COMM_ALL_GATHER], scattered = t.bytes[GRID_CP][COMM_REDUCE_SCATTER];
    ok(scattered == 4.0 * 4 * 64 * 64 * 4 && gathered == 2 * scattered, "of --cp's keys and values: %g, %g", gathered, scattered);
    r.extent[GRID_CP] = 1;
    r.extent[GRID_PP] = 2;
    cost_traffic(&r, first, NULL, &t, &err);
    ok(t.bytes[GRID_PP][COMM_SEND] == 4.0 * 128 * 64 * 4, "of the messages between two stages: %g", t.bytes[GRID_PP][COMM_SEND]);
    cost_memory(&r, first, &m, &err);
    ok(m.slots == 2 && cost_memory(&r, last, &m, &err) == 0 && m.slots == 1, "the first of two stages has two micro-batches in flight, the last one");
    static const struct {
        int extent[GRID_DIMENSIONS];
        const char *why;
    } refused[] = {{{8, 1, 1, 1}, "attention heads"}, {{1, 1, 5, 1}, "layers"}, {{1, 1, 1, 9}, "samples"}, {{1, 3, 1, 1}, "chunks"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        memcpy(r.extent, refused[i].extent, sizeof r.extent);
        ok(cost_check(&r, &err) < 0 && strstr(err.text, refused[i].why), "refused: %s", err.text);
    }
}

/* Seconds of a step by its formula, and by the simulation of its passes with what lies outside them added. */
static double simulated(const CostChoice *x, const CostCluster *c)
{
    CostSimulation s;
    Error err;
    return cost_simulate_run(&x->run, c, NULL, &s, &err) < 0 ? NAN : s.seconds + x->time.dp + x->time.optimizer + x->time.stragglers;
}

/* The least of all grids that can be, with their virtual stages, tried one by one; INFINITY: there is none. */
static double least_of_all(const CostRun *like, int ranks, const CostCluster *c)
{
    double least = INFINITY;
    for (int t = 1; t <= ranks; t++)
        for (int cp = 1; cp <= ranks / t; cp++)
            for (int p = 1; p <= ranks / t / cp; p++)
                for (int v = 1; v <= 3 && t * cp * p * (ranks / (t * cp * p)) == ranks; v++) {
                    CostRun r = *like;
                    CostMemory m;
                    CostTime time;
                    Error err;
                    int stage;
                    const int extent[GRID_DIMENSIONS] = {t, cp, p, ranks / (t * cp * p)};
                    memcpy(r.extent, extent, sizeof extent);
                    r.stages = (PartStages){.chunks = v};
                    r.micro_batch = cost_micro_batch(r.sequence_length, r.samples, 0, r.extent);
                    if (cost_check(&r, &err) == 0 && cost_memory_most(&r, &m, &stage, &err) == 0 && m.all <= c->memory && cost_time(&r, c, &time, &err) == 0)
                        least = fmin(least, time.all);
                }
    return least;
}

/* What --grid auto asks for, of models and numbers of ranks that divide badly. */
static void test_search(void)
{
    static const int heads[][2] = {{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 3}, {8, 2}, {9, 3}}, counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 12}, lengths[] = {30, 64, 96, 128, 1024};
    unsigned random = 7;
    int found_none = 0, refused = 0, too_large = 0, beaten = 0, apart = 0, inverted = 0, pairs = 0, searches = 0, odd = 0, tight = 0;
    for (int trial = 0; trial < 150; trial++) {
        int draw[8];
        for (int i = 0; i < 8; i++)
            draw[i] = (int)((random = random * 1103515245 + 12345) >> 16 & 0x7fff);
        ModelConfig c = small();
        c.num_attention_heads = heads[draw[0] % 7][0];
        c.num_key_value_heads = heads[draw[0] % 7][1];
        c.num_hidden_layers = 1 + draw[1] % 9;
        c.vocab_size = draw[2] % 2 ? 251 : 4096;
        c.intermediate_size = draw[2] % 3 ? 128 : 75;
        c.tie_word_embeddings = draw[3] % 2;
        CostRun like = {.config = &c, .sequence_length = lengths[draw[4] % 5], .samples = 1 + draw[5] % 9, .micro_batch = -1, .shard = draw[6] % 4, .dtype = DTYPE_F32,
                        .recompute = (Recompute)(draw[3] % 3)};
        int ranks = counts[draw[7] % 9];
        CostCluster cpu = cost_cluster_cpu(ranks, ranks, trial % 3 ? 1e12 : 9e6 + 3e5 * (trial % 40));
        CostChoice *found = NULL;
        size_t count = 0;
        Error err;
        double least = least_of_all(&like, ranks, &cpu);
        if (cost_search(&like, ranks, &cpu, ranks, &found, &count, &err) < 0) {
            found_none += isfinite(least);
            continue;
        }
        searches++;
        odd += found[0].run.extent[GRID_TP] > 1 && c.num_attention_heads % found[0].run.extent[GRID_TP] != 0;
        tight += !found[0].fits || !found[count - 1].fits;
        for (size_t i = 0; i < count; i++)
            refused += cost_check(&found[i].run, &err) < 0;
        too_large += found[0].fits && found[0].memory.all > cpu.memory;
        beaten += found[0].fits ? found[0].time.all > least * 1.000001 : isfinite(least);
        for (size_t i = 0; i < count; i++) {
            double s = simulated(&found[i], &cpu), f = found[i].time.all;
            apart += !(fabs(s / f - 1) < 0.2);
            for (size_t k = 0; k < i; k++, pairs++)
                inverted += f > 1.3 * found[k].time.all && s < simulated(&found[k], &cpu);
        }
        free(found);
    }
    ok(searches > 80 && odd > 0 && tight > 10, "%d searches; in %d heads are cut unevenly, in %d not all grids fit", searches, odd, tight);
    ok(found_none == 0 && beaten == 0, "the first grid is the fastest of all that can be and fit: %d are beaten, %d not found", beaten, found_none);
    ok(refused == 0 && too_large == 0, "no grid is refused, nor the first too large: %d, %d", refused, too_large);
    ok(apart == 0 && inverted == 0 && pairs > 200, "the simulation of a grid's step takes what the formula says, and orders %d pairs alike: %d, %d", pairs, apart, inverted);
}

/* Dubey et al. 2024, table 4: 405B. */
static void test_llama3(void)
{
    ModelConfig c = {.model_type = "llama", .vocab_size = 128256, .hidden_size = 16384, .intermediate_size = 53248, .num_hidden_layers = 126, .num_attention_heads = 128,
                     .num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 8192, .rms_norm_eps = 1e-5, .rope_theta = 500000, .bos_token_id = -1,
                     .pad_token_id = -1};
    static const struct {
        int ranks, sequence, cp, dp;
        double mfu;
    } published[] = {{8192, 8192, 1, 64, 0.43}, {16384, 8192, 1, 128, 0.41}, {16384, 131072, 16, 8, 0.38}};
    CostCluster h100 = cost_cluster_h100();
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        CostRun like = {.config = &c, .sequence_length = published[i].sequence, .samples = 16777216 / published[i].sequence, .shard = -1, .recompute = (Recompute)-1,
                        .dtype = DTYPE_BF16, .engine = COST_LEAN};
        CostChoice *found = NULL;
        CostSimulation s;
        size_t count = 0, at = 0;
        Error err;
        if (cost_search(&like, published[i].ranks, &h100, 8, &found, &count, &err) < 0) {
            ok(false, "%s", err.text);
            continue;
        }
        const int wanted[GRID_DIMENSIONS] = {8, published[i].cp, 16, published[i].dp};
        while (at < count && memcmp(found[at].run.extent, wanted, sizeof wanted) != 0)
            at++;
        ok(at < 10 && found[at].fits, "%d GPUs, %d tokens: TP 8 CP %d PP 16 DP %d is number %zu of %zu", published[i].ranks, published[i].sequence, published[i].cp,
           published[i].dp, at + 1, count);
        ok(at < count && fabs(found[at].time.mfu - published[i].mfu) < 0.05, "with %.1f %% MFU, published %.0f %%", 100 * found[at].time.mfu, 100 * published[i].mfu);
        const CostTime *t = &found[at].time;
        double formula = t->products + t->attention + t->elementwise + t->tp + t->cp + t->bubble + t->pp;
        int ran = at < count ? cost_simulate_run(&found[at].run, &h100, NULL, &s, &err) : -1;
        ok(ran == 0 && fabs(s.seconds / formula - 1) < 0.03, "the simulation takes %.3f s, the formula %.3f",
           s.seconds, formula);
        ok(!found[count - 1].fits && found[count - 1].memory.all > h100.memory, "grids that do not fit come last");
        free(found);
    }
}

int main(void)
{
    test_simulation();
    test_memory();
    test_search();
    test_llama3();
    return tap_end();
}
