/* Laws of data mixtures: the loss L of one domain from the shares r of the mix.
 *
 *   exponential  L = c + exp(Σ t_j r_j)   (Ye et al. 2024; as Σ r = 1, their factor k is a shift of t and is left out)
 *   linear       L = Σ beta_j r_j         (RegMix, Liu et al. 2024) */
#ifndef SCALEFIT_MIXTURE_H
#define SCALEFIT_MIXTURE_H

#include "scalefit.h"

enum { MIXTURE_MOST = 64 }; /* domains */

typedef struct MixtureRuns {
    double *shares; /* [count, domains], each row of sum 1 */
    double *losses;
    int count, domains;
    const double *weight; /* how often a run counts; NULL: once */
} MixtureRuns;

/* v: c and t (exponential), or beta. */
typedef struct MixtureLaw {
    double v[MIXTURE_MOST + 1], sse;
    int domains;
    bool linear;
} MixtureLaw;

/* `near`: begin the exponential fit there; NULL: from several starts. */
void mixture_fit(MixtureLaw *l, const MixtureRuns *r, bool linear, const MixtureLaw *near);
double mixture_loss(const MixtureLaw *l, const double *shares);
/* The mix that makes Σ aims[i] · laws[i] least, with no share above its limit. Sums of exponentials are convex, so it's the only
 * minimum. From the shares given, which it replaces. */
void mixture_best(const MixtureLaw *laws, const double *aims, size_t count, const double *limits, double *shares);

#endif
