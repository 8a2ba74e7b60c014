#include "model/part.h"

#include <inttypes.h>

ModelPart part_whole(const ModelConfig *c)
{
    return (ModelPart){.tp_size = 1, .cp_size = 1, .ranges = 1, .range = {{.count = c->num_hidden_layers, .embedding = true, .head = true}}};
}

bool part_has_layer(const ModelPart *p, int64_t layer)
{
    for (int i = 0; i < p->ranges; i++)
        if (layer >= p->range[i].first && layer < p->range[i].first + p->range[i].count)
            return true;
    return false;
}

bool part_has_embedding(const ModelPart *p)
{
    for (int i = 0; i < p->ranges; i++)
        if (p->range[i].embedding)
            return true;
    return false;
}

bool part_has_head(const ModelPart *p)
{
    for (int i = 0; i < p->ranges; i++)
        if (p->range[i].head)
            return true;
    return false;
}

/* Layers of stage i of all `stages`. */
static int64_t layers_of(int64_t layers, int64_t stages, int64_t i, const PartStages *s)
{
    int64_t whole = layers + 2 * s->ends_fewer, each = whole / stages, more = whole % stages;
    /* Stages in the middle take the first of what is left over, then the first stage. */
    int64_t order = i == stages - 1 ? i : i == 0 ? stages - 2 : i - 1;
    return each + (order < more) - (i == 0 || i == stages - 1 ? s->ends_fewer : 0);
}

int part_of_grid(ModelPart *p, const ModelConfig *c, Grid *g, const PartStages *s, Error *err)
{
    int64_t stages = g->extent[GRID_PP], all = stages * s->chunks;
    *p = (ModelPart){.tp_rank = g->place[GRID_TP], .tp_size = g->extent[GRID_TP], .tp = &g->group[GRID_TP],
                     .cp_size = g->extent[GRID_CP], .cp = &g->group[GRID_CP], .shards = g->group[GRID_DATA].size, .ranges = s->chunks};
    if (s->chunks > PART_MAX_RANGES || (s->chunks > 1 && stages == 1))
        return error_set(err, "--virtual-stages %d: %s", s->chunks, stages == 1 ? "there is no pipeline (--pp)" : "more than a rank takes");
    if (s->ends_fewer > 0 && stages == 1)
        return error_set(err, "--ends-fewer %" PRId64 ": there is no pipeline (--pp)", s->ends_fewer);
    for (int64_t i = 0, first = 0, count; i < all; i++, first += count) {
        count = layers_of(c->num_hidden_layers, all, i, s);
        /* A virtual stage at an end may be left with the embedding or the output layer alone. */
        bool ends = s->chunks > 1 && s->ends_fewer > 0 && (i == 0 || i == all - 1);
        if (count < (ends ? 0 : 1))
            return error_set(err, "--pp %" PRId64 " --virtual-stages %d: %" PRId64 " layers leave none for stage %" PRId64 " of %" PRId64, stages, s->chunks,
                             c->num_hidden_layers, i, all);
        if (i % stages == g->place[GRID_PP])
            p->range[i / stages] = (LayerRange){first, count, i == 0, i == all - 1};
    }
    return 0;
}

int part_check(const ModelPart *p, const ModelConfig *c, Error *err)
{
    int64_t t = p->tp_size, kv = c->num_key_value_heads, most = c->num_attention_heads;
    if (t > most)
        return error_set(err, "--tp %" PRId64 ": the model has %" PRId64 " attention heads, fewer than ranks", t, most);
    if (kv < t && t % kv != 0)
        return error_set(err, "--tp %" PRId64 ": %" PRId64 " key-value heads, fewer than ranks, must divide their number", t, kv);
    if (kv < t && t / kv > most / kv)
        return error_set(err, "--tp %" PRId64 ": %" PRId64 " query heads share a key-value head, too few for %" PRId64 " ranks", t, most / kv, t / kv);
    if (t > c->intermediate_size || t > c->vocab_size)
        return error_set(err, "--tp %" PRId64 ": more ranks than the model has tokens or MLP columns", t);
    return 0;
}

typedef struct Share {
    int64_t begin, count;
} Share;

/* The share of one of `size` ranks in n things; those that do not divide evenly are dealt in units, as far as there are enough,
 * which products like better than odd widths. */
static Share share_of(int64_t n, int64_t unit, int64_t rank, int64_t size)
{
    if (n % size == 0 || n < 2 * unit * size)
        unit = 1;
    int64_t units = (n + unit - 1) / unit, each = units / size, more = units % size;
    int64_t begin = (rank * each + (rank < more ? rank : more)) * unit, end = begin + (each + (rank < more)) * unit;
    return (Share){begin, (end < n ? end : n) - begin};
}

PartShape part_shape(const ModelPart *p, const ModelConfig *c)
{
    int64_t group = c->num_attention_heads / c->num_key_value_heads, rank = p->tp_rank, size = p->tp_size;
    Share f = share_of(c->intermediate_size, 16, rank, size), v = share_of(c->vocab_size, 16, rank, size);
    PartShape s = {.intermediate = f.count, .first_intermediate = f.begin, .vocab = v.count, .first_token = v.begin, .kv_replicas = 1};
    if (c->num_key_value_heads >= size) {
        Share kv = share_of(c->num_key_value_heads, 1, rank, size);
        s.kv_heads = kv.count;
        s.first_kv_head = kv.begin;
        s.heads = kv.count * group;
        s.first_head = kv.begin * group;
    } else {
        s.kv_replicas = (int)(size / c->num_key_value_heads);
        Share q = share_of(group, 1, rank % s.kv_replicas, s.kv_replicas);
        s.kv_heads = 1;
        s.first_kv_head = rank / s.kv_replicas;
        s.heads = q.count;
        s.first_head = s.first_kv_head * group + q.begin;
    }
    s.q = s.heads * c->head_dim;
    s.kv = s.kv_heads * c->head_dim;
    return s;
}
