#include "dist/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

static int one_gather(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    (void)c, (void)err;
    memcpy(all, mine, bytes);
    return 0;
}

static int one_sum_f32(Comm *c, Stream *s, float *data, size_t n, Error *err)
{
    (void)c, (void)s, (void)data, (void)n, (void)err;
    return 0;
}

static int one_split(Comm *c, int colour, Comm *out, Error *err)
{
    (void)c, (void)colour, (void)err;
    comm_one(out);
    return 0;
}

static bool one_failing(Comm *c)
{
    (void)c;
    return true;
}

static void one_nothing(Comm *c)
{
    (void)c;
}

void comm_one(Comm *c)
{
    static const CommOps ops = {"one rank", one_gather, one_sum_f32, one_split, one_failing, one_nothing, one_nothing};
    *c = (Comm){.size = 1, .ops = &ops};
}

int comm_sum(Comm *c, double *values, size_t n, Error *err)
{
    if (c->size == 1)
        return 0;
    double *all = memory_alloc((size_t)c->size * n, sizeof *all);
    int status = c->ops->gather(c, values, all, n * sizeof *all, err);
    for (size_t i = 0; i < n && status == 0; i++) {
        values[i] = all[i];
        for (int r = 1; r < c->size; r++)
            values[i] += all[(size_t)r * n + i];
    }
    free(all);
    return status;
}

int comm_broadcast(Comm *c, void *data, size_t bytes, int root, Error *err)
{
    if (c->size == 1)
        return 0;
    char *all = memory_alloc((size_t)c->size * bytes, 1);
    int status = c->ops->gather(c, data, all, bytes, err);
    if (status == 0)
        memcpy(data, all + (size_t)root * bytes, bytes);
    free(all);
    return status;
}
