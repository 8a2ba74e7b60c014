/* What scalefit's commands share: tables of runs, least squares, intervals. */
#ifndef SCALEFIT_SCALEFIT_H
#define SCALEFIT_SCALEFIT_H

#include "base/option.h"

typedef struct Table {
    char **columns;
    size_t column_count;
    char ***cells; /* [row][column], NULL: absent */
    size_t row_count, row_capacity;
} Table;

/* TSV, CSV or JSON Lines by the first line. Of training logs (lines with "final") only final lines count. renames: "a=b": column
 * a is called b. wheres: "col=val". */
int table_read(Table *t, const char *const *files, const OptionList *wheres, const OptionList *renames, Error *err);
void table_free(Table *t);
/* The number in a row's column; NAN where absent. */
double table_number(const Table *t, size_t row, const char *column);
bool table_has(const Table *t, const char *column);

typedef struct Line {
    double slope, intercept, slope_error, intercept_error, r2;
    double residual;   /* standard deviation of the residuals, n − 2 */
    double mean_x, sxx;
    int points;
} Line;
/* Ordinary least squares; at least 2 points. */
void line_fit(Line *l, const double *x, const double *y, int n);
/* Student's t: the quantile that 95 % lie inside. */
double t_quantile95(int degrees);
/* Half the width of the 95 % interval of the line's value at x. */
double line_interval(const Line *l, double x);
/* Least squares c0 + c1·x + c2·x² (x centred by the caller's choice is not needed). */
void parabola_fit(const double *x, const double *y, int n, double c[3]);

typedef struct Settings {
    Common common;
    OptionList wheres, renames, budgets;
    const char *window, *plot, *x, *y, *model_config;
    double tolerance;
    bool json;
    /* plan and shape */
    double params, tokens, peak, mfu, gpus, bits, bytes_weights, step_seconds, checkpoint_seconds, mtbf_hours, availability;
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, sequence, batch, aspect;
    bool tied;
    int64_t bos, eos;
} Settings;

int command_isoflop(const Settings *s, const char *const *files, Error *err);
int command_power(const Settings *s, const char *const *files, Error *err);
/* Takes what --model-config says where no option does. */
int plan_config(Settings *s, Error *err);
int command_plan(const Settings *s, Error *err);
int command_shape(const Settings *s, Error *err);

#endif
