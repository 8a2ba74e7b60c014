#include "train/ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"

/* Slow: half as long again as the median of the ranks that do the same, for so many steps on end. */
enum { SLOW_STEPS = 20 };
static const double SLOW = 1.5;

void ranks_open(Ranks *r, Grid *g)
{
    size_t n = (size_t)g->size;
    *r = (Ranks){.grid = g, .each = memory_zalloc(n, sizeof *r->each), .slow = memory_zalloc(n, sizeof *r->slow), .sorted = memory_alloc(n, sizeof *r->sorted)};
}

void ranks_close(Ranks *r)
{
    for (int i = 0; i < RANKS_KINDS; i++)
        free(r->keys[i]);
    free(r->each);
    free(r->slow);
    free(r->sorted);
    *r = (Ranks){0};
}

void ranks_begin(Ranks *r, int64_t step)
{
    grid_step(r->grid, step);
    grid_waited(r->grid);
    r->begun = clock_seconds();
}

int ranks_agree(Ranks *r, RankStep *mine, Error *err)
{
    mine->seconds = clock_seconds() - r->begun - grid_waited(r->grid);
    if (comm_gather_host(&r->grid->world, mine, r->each, sizeof *mine, err) < 0)
        return -1;
    *mine = (RankStep){0};
    for (int i = 0; i < r->grid->size; i++) {
        const RankStep *one = &r->each[i];
        mine->stop += one->stop;
        mine->written += one->written;
        mine->squares += one->squares;
        mine->seconds += one->seconds;
        if (one->counts == 0)
            continue;
        mine->counts++;
        mine->loss += one->loss;
        mine->tokens += one->tokens;
        for (size_t k = 0; k < sizeof mine->extra / sizeof *mine->extra; k++)
            mine->extra[k] += one->extra[k];
    }
    return 0;
}

static int stage_of(const Grid *g, int rank)
{
    return rank / (g->extent[GRID_TP] * g->extent[GRID_CP]) % g->extent[GRID_PP];
}

/* How early a rank's numbers have gone wrong, the less the earlier; 0: not at all. Behind what ranks know of their own come losses, which others'
 * hidden states may have spoilt, and gradients, the last stage's first. */
static double wrong_at(const Ranks *r, int rank, const char **where)
{
    const RankStep *s = &r->each[rank];
    *where = "loss";
    if (s->astray > 0) {
        *where = s->astray < RANKS_LOSS ? "passes" : "loss";
        return s->astray;
    }
    if (!isfinite(s->loss) && s->shared == 0)
        return RANKS_LOSS + 1;
    *where = "gradient";
    return isfinite(s->squares) ? 0 : RANKS_LOSS + 1 + r->grid->extent[GRID_PP] - stage_of(r->grid, rank);
}

void ranks_blame(const Ranks *r, char *text, size_t size)
{
    enum { NAMED = 4 };
    const char *where = NULL, *one;
    double first = INFINITY;
    int found = 0;
    size_t at = 0;
    *text = 0;
    for (int i = 0; i < r->grid->size; i++) {
        double wrong = wrong_at(r, i, &one);
        if (wrong > 0 && wrong < first) {
            first = wrong;
            where = one;
        }
    }
    for (int i = 0; i < r->grid->size && where && r->grid->size > 1; i++)
        if (wrong_at(r, i, &one) == first && found++ < NAMED && at < size)
            at += (size_t)snprintf(text + at, size - at, "%s rank %d (host %s)", found > 1 ? "," : ";", i, grid_host(r->grid, i));
    if (found && at < size)
        snprintf(text + at, size - at, "%s %s it first, in %s %s", found > NAMED ? " and others" : "", found > 1 ? "have" : "has", found > 1 ? "their" : "its", where);
}

size_t ranks_sent(Ranks *r, StatsItem *items, size_t count)
{
    for (int g = 0, n = 0; g <= GRID_GROUPS; g++)
        for (int k = 0; k < COMM_KINDS; k++) {
            int64_t bytes = k == COMM_RECV ? 0 : grid_sent(r->grid, g, (CommKind)k);
            if (bytes == 0 || n == RANKS_KINDS)
                continue;
            r->keys[n] = grid_sent_key(g, (CommKind)k);
            items[count++] = (StatsItem){r->keys[n++], (double)bytes};
        }
    return count;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The upper median of the ranks of a pipeline stage, or of all (stage -1). */
static double median(Ranks *r, int stage)
{
    size_t n = 0;
    for (int i = 0; i < r->grid->size; i++)
        if (stage < 0 || stage_of(r->grid, i) == stage)
            r->sorted[n++] = r->each[i].seconds;
    qsort(r->sorted, n, sizeof *r->sorted, by_size);
    return r->sorted[n / 2];
}

static void name_slow(Ranks *r)
{
    for (int i = 0; i < r->grid->size; i++) {
        double usual = median(r, stage_of(r->grid, i));
        r->slow[i] = r->each[i].seconds > SLOW * usual ? r->slow[i] + 1 : 0;
        if (r->slow[i] == SLOW_STEPS && r->grid->rank == 0)
            message_warning("rank %d (host %s) is slow: %.3g s of its own work a step, the median is %.3g s", i, grid_host(r->grid, i), r->each[i].seconds, usual);
    }
}

void ranks_report(Ranks *r, Metrics *log)
{
    int n = r->grid->size;
    if (n == 1)
        return;
    if (n <= RANKS_SHOWN) {
        for (int i = 0; i < n; i++)
            r->sorted[i] = r->each[i].seconds;
        metrics_numbers(log, "rank_seconds", r->sorted, (size_t)n);
    } else {
        double middle = median(r, -1), ends[3] = {r->sorted[0], middle, r->sorted[n - 1]};
        metrics_numbers(log, "rank_seconds", ends, 3);
    }
    name_slow(r);
}
