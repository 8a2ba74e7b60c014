#include "train/cost_shape.h"

#include <string.h>

int cost_part(const CostRun *r, const int place[GRID_DIMENSIONS], ModelPart *p, Error *err)
{
    Grid g = {0};
    memcpy(g.extent, r->extent, sizeof g.extent);
    memcpy(g.place, place, sizeof g.place);
    g.group[GRID_DATA].size = r->extent[GRID_CP] * r->extent[GRID_DP];
    if (part_of_grid(p, r->config, &g, &r->stages, err) < 0)
        return -1;
    p->tp = p->cp = NULL;
    return 0;
}

int cost_shape_open(CostShape *s, const CostRun *r, const int place[GRID_DIMENSIONS], Error *err)
{
    memset(s, 0, sizeof *s);
    Model *m = &s->model;
    memcpy(s->place, place, sizeof s->place);
    m->config = *r->config;
    m->dtype = r->dtype;
    s->device.is_host = !r->gpu;
    m->device = &s->device;
    m->recompute = r->recompute;
    if (cost_part(r, place, &m->part, err) < 0 || part_check(&m->part, r->config, err) < 0)
        return -1;
    m->shape = part_shape(&m->part, r->config);
    s->sequence_rows = r->sequence_length / r->extent[GRID_CP];
    s->rows = r->micro_batch * r->sequence_length / r->extent[GRID_CP];
    if (param_open(&m->params, r->config, &m->part, NULL, NULL, err) < 0)
        return -1;
    m->params.table.lends = r->lends && cost_passes(r) == 1 && cost_lends(r->extent, r->shard);
    const ParameterTable *t = &m->params.table;
    s->total = param_trained_total(t);
    s->frozen = t->frozen;
    cost_rooms(s, cost_passes(r));
    for (size_t i = 0; i < t->count; i++)
        s->largest = t->items[i].count > s->largest ? t->items[i].count : s->largest;
    pipeline_size(&s->schedule, r->extent[GRID_PP], place[GRID_PP], m->part.ranges, cost_passes(r), true);
    return 0;
}

void cost_shape_close(CostShape *s)
{
    param_close(&s->model.params);
}
