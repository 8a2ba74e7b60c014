#include "train/grid_options.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"

int grid_options_ranks(const GridOptions *g)
{
    return grid_launched() > 1 ? grid_launched() : g->ranks > 0 ? (int)g->ranks : 1;
}

void grid_options_tell(const GridOptions *g)
{
    message("--grid auto: --tp %" PRId64 " --cp %" PRId64 " --pp %" PRId64 " --dp %" PRId64 " --virtual-stages %" PRId64 " --ends-fewer %" PRId64, g->extent[GRID_TP],
            g->extent[GRID_CP], g->extent[GRID_PP], g->extent[GRID_DP], g->virtual_stages, g->ends_fewer);
}

/* Seconds of all steps on that grid, INFINITY where one of them cannot be made there. */
static double seconds_of(const CostStretch *run, size_t count, int64_t micro_batch, const CostRun *grid, const CostCluster *c)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        CostRun r = *grid;
        CostTime t;
        Error ignored;
        r.sequence_length = run[i].sequence_length;
        r.samples = run[i].samples;
        r.micro_batch = cost_micro_batch(r.sequence_length, r.samples, micro_batch, r.extent);
        sum += cost_time(&r, c, &t, &ignored) < 0 ? INFINITY : run[i].steps * t.all;
    }
    return sum;
}

/* The given dimensions of a grid. */
static bool as_given(const GridOptions *g, const OptionSet *set, const CostRun *r)
{
    bool same = true;
    for (int i = 0; i < GRID_DIMENSIONS; i++)
        same &= !option_given(set, &g->extent[i]) || g->extent[i] == r->extent[i];
    return same;
}

int grid_options_choose(GridOptions *g, const OptionSet *set, const CostRun *like, const CostStretch *run, size_t count, Error *err)
{
    int ranks = grid_options_ranks(g);
    /* A launcher may bind its processes to fewer CPUs than its ranks together have. */
    bool launched = grid_launched() > 1;
    int here = launched ? grid_launched_here() : ranks, cores = launched ? (int)sysconf(_SC_NPROCESSORS_ONLN) : thread_default_count();
    CostCluster c = like->gpu ? cost_cluster_h100() : cost_cluster_cpu(here, cores, (double)memory_available() / here);
    CostRun any = *like;
    CostChoice *found = NULL;
    const CostChoice *best = NULL;
    double least = INFINITY, room = INFINITY;
    size_t n = 0;
    if (!option_given(set, &g->virtual_stages))
        any.stages.chunks = 0;
    if (any.micro_batch == 0)
        any.micro_batch = -1;
    if (cost_search(&any, ranks, &c, like->gpu ? 0 : ranks, &found, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        double seconds = as_given(g, set, &found[i].run) ? seconds_of(run, count, like->micro_batch, &found[i].run, &c) : INFINITY;
        if (isinf(seconds))
            continue;
        room = fmin(room, found[i].memory.all);
        if (found[i].fits && seconds < least) {
            least = seconds;
            best = &found[i];
        }
    }
    int status = 0;
    if (isinf(room)) {
        status = error_set(err, "--grid auto: no grid of %d ranks does for all steps with the options given", ranks);
    } else if (!best) {
        status = error_set(err, "--grid auto: no grid of %d ranks fits into %.1f GB a rank; the least is %.1f GB", ranks, c.memory / 1e9, room / 1e9);
    } else {
        for (int i = 0; i < GRID_DIMENSIONS; i++)
            g->extent[i] = best->run.extent[i];
        g->virtual_stages = best->run.stages.chunks;
        g->ends_fewer = best->run.stages.ends_fewer;
    }
    free(found);
    if (status == 0 && grid_launched() == 1)
        grid_options_tell(g);
    return status;
}
