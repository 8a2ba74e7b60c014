/* L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, approach 3): the fit and what follows from it. Two objectives:
 *
 *   HUBER       Σ Huber(log L_model − log L, delta 1e-3), as Hoffmann et al. have it
 *   LIKELIHOOD  n log s + n log Z + Σ Huber((log L_model − log L)/s, delta 1e-3) with the scale s free, as Besiroglu et al. (2024)
 *               fitted: s becomes so small that it is nearly the sum of absolute differences; Z makes exp(−Huber) a density */
#ifndef SCALEFIT_FORM3_H
#define SCALEFIT_FORM3_H

#include <stddef.h>
#include <stdint.h>
#include "minimise.h"
#include "scalefit.h"

enum { FORM3_PARAMETERS = 5, FORM3_VALUES = 6, FORM3_STARTS = 4500 };

typedef enum Form3Objective { FORM3_HUBER, FORM3_LIKELIHOOD } Form3Objective;

/* Logarithms of the runs. Sizes are counted from their mean, so that the height and the slope of a term do not pull together. */
typedef struct Form3Runs {
    double *n, *d, *loss;
    double *weight; /* how often a run counts */
    int count;
    double mean_n, mean_d, delta;
    MinimiseFunction sum; /* the objective for this CPU */
} Form3Runs;

/* Σ weight·Huber of Form3Runs at x, with its gradient; the forms differ by rounding. */
double form3_sum_plain(const void *runs, const double *x, double *gradient);
double form3_sum_avx2(const void *runs, const double *x, double *gradient);
double form3_sum_avx512(const void *runs, const double *x, double *gradient);

/* x: log A − alpha·mean log N, log B − beta·mean log D, log E, alpha, beta. */
typedef struct Form3 {
    double x[FORM3_PARAMETERS], objective;
    double log_scale; /* of the likelihood */
    double share;     /* of the starts that end within 1e-4 of the best */
    Metric metric;
} Form3;

/* The caller frees the runs, also after an error. */
int form3_runs(Form3Runs *r, const RunPoint *p, int count, Error *err);
void form3_runs_free(Form3Runs *r);
/* Descents from the paper's grid of starts, to their end: the valley is flat, and many stop elsewhere. Of more than 8,192 runs the starts
 * see so many, drawn at random, and the best goes on with all. */
int form3_fit(const Form3Runs *r, Form3Objective objective, int threads, Form3 *best, Error *err);
/* The same for runs drawn with replacement: samples × FORM3_VALUES constants, to be freed. */
int form3_bootstrap(const Form3Runs *r, Form3Objective objective, const Form3 *full, size_t samples, uint64_t seed, int threads, double **constants,
                    Error *err);
/* Of the runs as weighted, from the full fit and from Hoffmann's constants lest the former binds it. */
void form3_refit(const Form3Runs *r, Form3Objective objective, const Form3 *full, Form3 *out);

/* The constants of the law as they are printed: A, B, E, alpha, beta, and a of N = G·(C/6)^a. */
void form3_constants(const Form3Runs *r, const Form3 *f, double v[FORM3_VALUES]);
extern const char *const form3_names[FORM3_VALUES];
double form3_loss(const double v[FORM3_VALUES], double params, double tokens);
/* Best parameters, tokens and loss of a compute C = 6 N D: G = (alpha A / beta B)^(1/(alpha+beta)). */
void form3_predict(const double v[FORM3_VALUES], double flops, double out[3]);

#endif
