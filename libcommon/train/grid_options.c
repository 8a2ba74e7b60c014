#include "train/grid_options.h"

#include <inttypes.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/message.h"

int grid_options_ranks(const GridOptions *g)
{
    return grid_launched() > 1 ? grid_launched() : g->ranks > 0 ? (int)g->ranks : 1;
}

void grid_options_tell(const GridOptions *g)
{
    message("--grid auto: --tp %" PRId64 " --cp %" PRId64 " --pp %" PRId64 " --dp %" PRId64 " --virtual-stages %" PRId64 " --ends-fewer %" PRId64, g->extent[GRID_TP],
            g->extent[GRID_CP], g->extent[GRID_PP], g->extent[GRID_DP], g->virtual_stages, g->ends_fewer);
}

int grid_options_choose(GridOptions *g, const CostRun *like, bool gpu, Error *err)
{
    int ranks = grid_options_ranks(g);
    CostCluster c = gpu ? cost_cluster_h100() : cost_cluster_cpu(ranks, (double)memory_available() / ranks);
    CostRun any = *like;
    CostChoice *found = NULL;
    size_t count = 0;
    if (g->virtual_stages == 1)
        any.stages.chunks = 0;
    if (any.micro_batch == 0)
        any.micro_batch = -1;
    if (cost_search(&any, ranks, &c, gpu ? 0 : ranks, &found, &count, err) < 0)
        return -1;
    const CostRun *best = &found[0].run;
    int status = 0;
    if (!found[0].fits)
        status = error_set(err, "--grid auto: no grid of %d ranks fits into %.1f GB a rank; the least is %.1f GB", ranks, c.memory / 1e9, found[0].memory.all / 1e9);
    for (int i = 0; i < GRID_DIMENSIONS; i++)
        g->extent[i] = best->extent[i];
    g->virtual_stages = best->stages.chunks;
    g->ends_fewer = best->stages.ends_fewer;
    free(found);
    if (status == 0 && grid_launched() == 1)
        grid_options_tell(g);
    return status;
}
