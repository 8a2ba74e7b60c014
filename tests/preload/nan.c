/* In the process of rank $NAN_RANK of a job, logf, which a loss takes for each row, gives a NaN after its first $NAN_AFTER calls; where $NAN_IN is
 * sincos it is that instead, of which positions are made when a model is opened: a number that goes wrong. */
#include <math.h>
#include <string.h>
#include "rank.h"

static int wrong(const char *function, long *calls)
{
    const char *in = getenv("NAN_IN");
    return strcmp(in ? in : "logf", function) == 0 && rank() >= 0 && rank() == number("NAN_RANK") && __atomic_add_fetch(calls, 1, __ATOMIC_RELAXED) > (number("NAN_AFTER") < 0 ? 0 : number("NAN_AFTER"));
}

float logf(float x)
{
    static long calls;
    return wrong("logf", &calls) ? NAN : (float)log((double)x);
}

void sincos(double x, double *sine, double *cosine)
{
    static long calls;
    *sine = (double)sinl((long double)x);
    *cosine = wrong("sincos", &calls) ? (double)NAN : (double)cosl((long double)x);
}
