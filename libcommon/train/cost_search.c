/* The search for the best grid of a cluster. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "train/cost.h"

typedef struct Found {
    CostChoice *items;
    size_t count, capacity;
} Found;

static int compare(const void *a, const void *b)
{
    const CostChoice *x = a, *y = b;
    if (x->fits != y->fits)
        return y->fits - x->fits;
    return (x->time.all > y->time.all) - (x->time.all < y->time.all);
}

/* Of a grid's variants the fastest that fits; where none does the one that takes least memory. */
static bool better(const CostChoice *a, const CostChoice *b)
{
    if (a->fits != b->fits)
        return a->fits;
    return a->fits ? a->time.all < b->time.all : a->memory.all < b->memory.all;
}

/* The first and the last stage one layer fewer each, where only that deals the layers out evenly (Llama 3). */
static PartStages even_stages(int64_t layers, int64_t all, int chunks)
{
    bool fewer = all > 2 && layers % all != 0 && (layers + 2) % all == 0;
    return (PartStages){.chunks = chunks, .ends_fewer = fewer};
}

/* false: it needs more memory than there is. One that is no faster than the best so far is not looked at. */
static bool try_variant(CostRun r, const CostCluster *c, CostChoice *best, bool *any)
{
    Error ignored;
    int stage;
    CostChoice x = {.run = r};
    if (cost_time(&r, c, &x.time, &ignored) < 0 || (*any && best->fits && x.time.all >= best->time.all) ||
        cost_memory_most(&r, &x.memory, &stage, &ignored) < 0)
        return true;
    x.fits = x.memory.all <= c->memory;
    if (!*any || better(&x, best))
        *best = x;
    *any = true;
    return x.fits;
}

/* The best variant of the grid r.extent; false: there is none. */
static bool try_grid(const CostRun *like, CostRun r, const CostCluster *c, CostChoice *best)
{
    bool any = false;
    int64_t layers = r.config->num_hidden_layers, each = (r.samples + r.extent[GRID_DP] - 1) / r.extent[GRID_DP];
    int stages = r.extent[GRID_PP], wanted = like->stages.chunks;
    /* This engine makes passes no longer than a rank's share, and by itself as long as cost_micro_batch says. */
    bool given = like->micro_batch < 0 || (like->micro_batch > 0 && r.engine == COST_LMPIPE);
    int64_t own = given ? cost_micro_batch(r.sequence_length, r.samples, like->micro_batch > 0 ? like->micro_batch : 0, r.extent) : 0;
    for (int64_t b = given ? own : like->micro_batch > 0 ? like->micro_batch : 1; b <= each && (b <= 16 || given); b *= 2) {
        r.micro_batch = b;
        for (int v = wanted > 0 ? wanted : 1; v <= PART_MAX_RANGES && (int64_t)v * stages <= layers + 2; v = v < 4 ? v + 1 : v + 2) {
            r.stages = like->stages.ends_fewer > 0 ? (PartStages){v, like->stages.ends_fewer} : even_stages(layers, (int64_t)v * stages, v);
            for (int shard = 0; shard <= 3; shard++) {
                /* With a pipeline gradients live through all micro-batches, and one rank shares with nobody. */
                bool alone = r.extent[GRID_CP] * r.extent[GRID_DP] == 1;
                bool wanted_shard = alone ? shard == 0 : like->shard >= 0 ? shard == like->shard : shard > 0;
                if (!wanted_shard || (like->shard < 0 && shard > 1 && stages > 1))
                    continue;
                r.shard = shard;
                /* What keeps less comes first: if that does not fit, nothing does. */
                for (int recompute = RECOMPUTE_LAYER; recompute >= RECOMPUTE_NONE; recompute--) {
                    if ((int)like->recompute >= 0 && recompute != (int)like->recompute)
                        continue;
                    r.recompute = (Recompute)recompute;
                    if (!try_variant(r, c, best, &any))
                        break;
                }
            }
            if (stages == 1 || wanted > 0)
                break;
        }
        if (like->micro_batch != 0 || (any && !best->fits))
            break;
    }
    return any;
}

int cost_choose(const CostRun *like, const CostCluster *c, CostChoice *out, Error *err)
{
    CostRun r = *like;
    r.micro_batch = r.micro_batch > 0 ? r.micro_batch : 1;
    r.stages.chunks = r.stages.chunks > 0 ? r.stages.chunks : 1;
    if (cost_check(&r, err) < 0)
        return -1;
    return try_grid(like, r, c, out) ? 0 : error_set(err, "this grid has no run with these options");
}

int cost_search(const CostRun *like, int64_t ranks, const CostCluster *c, int t_most, CostChoice **out, size_t *count, Error *err)
{
    Found found = {0};
    const ModelConfig *m = like->config;
    t_most = t_most > 0 ? t_most : c->node;
    for (int64_t t = 1; t <= t_most && t <= ranks; t++)
        for (int64_t cp = 1; ranks % t == 0 && (like->engine == COST_LMPIPE || m->num_attention_heads % t == 0) && t * cp <= ranks; cp++) {
            if (ranks / t % cp != 0 || (cp > 1 && like->sequence_length % (2 * cp) != 0))
                continue;
            for (int64_t p = 1; p <= m->num_hidden_layers + 2 && t * cp * p <= ranks; p++) {
                int64_t d = ranks / (t * cp * p);
                if (d * t * cp * p != ranks || d > like->samples)
                    continue;
                CostRun r = *like;
                const int extent[GRID_DIMENSIONS] = {(int)t, (int)cp, (int)p, (int)d};
                memcpy(r.extent, extent, sizeof extent);
                found.items = memory_grow(found.items, &found.capacity, found.count + 1, sizeof *found.items);
                found.count += try_grid(like, r, c, &found.items[found.count]);
            }
        }
    if (found.count == 0) {
        free(found.items); /* tried, and none of them can be */
        return error_set(err, "no grid of %lld ranks divides this model and its %lld sequences a step", (long long)ranks, (long long)like->samples);
    }
    qsort(found.items, found.count, sizeof *found.items, compare);
    *out = found.items;
    *count = found.count;
    return 0;
}
