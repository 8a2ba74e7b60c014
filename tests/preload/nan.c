/* In the process of one rank of an MPI job, $NAN_RANK, logf gives a NaN after its first $NAN_AFTER calls: a number that goes wrong. */
#include <math.h>
#include <stdlib.h>

static int wanted(void)
{
    const char *mine = getenv("OMPI_COMM_WORLD_RANK"), *named = getenv("NAN_RANK");
    mine = mine ? mine : getenv("PMI_RANK");
    return mine && named && atoi(mine) == atoi(named);
}

float logf(float x)
{
    static long calls;
    const char *after = getenv("NAN_AFTER");
    if (wanted() && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) > (after ? atol(after) : 0))
        return NAN;
    return (float)log((double)x);
}
