#include "loss.h"

#include <math.h>
#include <string.h>
#include "train/sigmoid.h"

/* Losses of the difference d of the two sides alone; *slope gets the derivative. */
static double difference_loss(const PairLoss *l, double d, double *slope)
{
    double b = l->beta, e = l->label_smoothing;
    if (strncmp(l->kind, "ipo", 3) == 0) {
        double off = d - 1 / (2 * b);
        *slope = 2 * off;
        return off * off;
    }
    if (strcmp(l->kind, "hinge") == 0) {
        *slope = b * d < 1 ? -b : 0;
        return fmax(0, 1 - b * d);
    }
    double right = -log_sigmoid(b * d), wrong = -log_sigmoid(-b * d), dright = -b * sigmoid(-b * d), dwrong = b * sigmoid(b * d);
    if (strcmp(l->kind, "cdpo") == 0) {
        *slope = (1 - e) * dright + e * dwrong;
        return (1 - e) * right + e * wrong;
    }
    if (strcmp(l->kind, "robust") == 0) {
        *slope = ((1 - e) * dright - e * dwrong) / (1 - 2 * e);
        return ((1 - e) * right - e * wrong) / (1 - 2 * e);
    }
    *slope = dright;
    return right;
}

bool pair_loss_is_free(const PairLoss *l)
{
    return strcmp(l->kind, "orpo") == 0 || strcmp(l->kind, "simpo") == 0;
}

/* Losses of the log-probabilities by token; the derivatives are by them too. */
static double free_loss(const PairLoss *l, double chosen, double rejected, double *dchosen, double *drejected)
{
    if (strcmp(l->kind, "simpo") == 0) {
        double d = l->beta * (chosen - rejected) - l->gamma;
        *dchosen = -l->beta * sigmoid(-d);
        *drejected = -*dchosen;
        return -log_sigmoid(d);
    }
    double d = chosen - rejected - (log1p(-exp(chosen)) - log1p(-exp(rejected))), slope = -l->beta * sigmoid(-d);
    *dchosen = slope / -expm1(chosen);
    *drejected = -slope / -expm1(rejected);
    return -l->beta * log_sigmoid(d);
}

double pair_loss(const PairLoss *l, PairSide chosen, PairSide rejected, double *dchosen, double *drejected)
{
    double b = l->beta, c = b * chosen.ratio, r = b * rejected.ratio;
    if (strcmp(l->kind, "apo_zero") == 0) {
        *dchosen = -b * sigmoid(c) * sigmoid(-c);
        *drejected = b * sigmoid(r) * sigmoid(-r);
        return 1 - sigmoid(c) + sigmoid(r);
    }
    if (strcmp(l->kind, "nca_pair") == 0) {
        *dchosen = b * (-sigmoid(-c) + 0.5 * sigmoid(c));
        *drejected = b * 0.5 * sigmoid(r);
        return -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r);
    }
    if (pair_loss_is_free(l)) {
        double n = fmax(1, chosen.tokens), m = fmax(1, rejected.tokens), loss = free_loss(l, chosen.ratio / n, rejected.ratio / m, dchosen, drejected);
        *dchosen /= n;
        *drejected /= m;
        return loss;
    }
    bool by_token = strcmp(l->kind, "ipo") == 0 || strcmp(l->kind, "sigmoid_norm") == 0;
    double nc = by_token ? fmax(1, chosen.tokens) : 1, nr = by_token ? fmax(1, rejected.tokens) : 1, slope;
    double loss = difference_loss(l, chosen.ratio / nc - rejected.ratio / nr, &slope);
    *dchosen = slope / nc;
    *drejected = -slope / nr;
    return loss;
}
