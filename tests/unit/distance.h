/* How far one array is from another. */
#ifndef TESTS_DISTANCE_H
#define TESTS_DISTANCE_H

#include <math.h>
#include <stddef.h>

/* ‖a−b‖/‖b‖; ‖a−b‖ where b is zero. */
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, m = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        m += (double)b[i] * b[i];
    }
    return sqrt(d / (m > 0 ? m : 1));
}

#endif
