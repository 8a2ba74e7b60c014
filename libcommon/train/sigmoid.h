/* The logistic function and its logarithm, without overflow: what losses on pairs are made of. */
#ifndef TRAIN_SIGMOID_H
#define TRAIN_SIGMOID_H

#include <math.h>

static inline double sigmoid(double x)
{
    return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
}

static inline double log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

#endif
