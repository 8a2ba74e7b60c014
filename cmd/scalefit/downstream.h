/* Downstream accuracy in two steps (Llama 3, section 3.2.1): the loss of the right answer from compute, or from parameters and tokens;
 * accuracy from that loss. Shared by the fit and its report. */
#ifndef SCALEFIT_DOWNSTREAM_H
#define SCALEFIT_DOWNSTREAM_H

#include "form3.h"
#include "sigmoid.h"

/* A row that has the task's loss; NAN where a number is absent. */
typedef struct TaskRun {
    const char *name;
    double flops, params, tokens, nll, accuracy;
    bool first; /* step 1 is fitted to it */
} TaskRun;

typedef struct TaskFit {
    const char *task, *nll_column, *accuracy_column;
    double chance; /* NAN: fitted */
    TaskRun *runs;
    int count;
    bool by_size;            /* step 1 by parameters and tokens */
    Line line;               /* log10 of the loss on log10 of the compute */
    double law[FORM3_VALUES], objective;
    int law_points;
    Sigmoid sigmoid;
    /* Of rows drawn with replacement. */
    size_t samples;
    Line *lines;
    double *laws;            /* [samples, FORM3_VALUES] */
    Sigmoid *sigmoids;
} TaskFit;

/* Where something is predicted; what step 1 does not need may be NAN. */
typedef struct TaskPoint {
    const char *name;
    double flops, params, tokens;
} TaskPoint;

double task_nll(const TaskFit *f, size_t sample, const TaskPoint *p); /* sample: SIZE_MAX is the fit to all rows */
double task_accuracy(const TaskFit *f, size_t sample, double nll);

void downstream_json(const Settings *s, const TaskFit *fits, size_t count);
void downstream_text(const Settings *s, const TaskFit *fits, size_t count);
int downstream_plot(const Settings *s, const TaskFit *fits, size_t count, Error *err);

#endif
