/* What scalefit's commands share: tables of runs, least squares, intervals. */
#ifndef SCALEFIT_SCALEFIT_H
#define SCALEFIT_SCALEFIT_H

#include "base/memory.h"
#include "base/option.h"

typedef struct Table {
    char **columns;
    size_t column_count;
    char ***cells; /* [row][column], NULL: absent */
    char **places; /* FILE:LINE of each row */
    size_t row_count, row_capacity, rows_read;
} Table;

/* TSV, CSV or JSON Lines by the first line. Of training logs (lines with "final") only final lines count. renames: "a=b": column
 * a is called b. wheres: "col=val". */
int table_read(Table *t, const char *const *files, const OptionList *wheres, const OptionList *renames, Error *err);
void table_free(Table *t);
/* The number in a row's column; NAN where it is absent or says so (nan, NA, null, an empty cell). Other text is an error. */
int table_number(const Table *t, size_t row, const char *column, double *out, Error *err);
/* FILE:LINE, for messages. */
const char *table_place(const Table *t, size_t row);

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
/* The law 10^(line of log10 x) and the interval of a new point about it, at n >= 2 places that are evenly spaced in log10 x. */
void line_band(const Line *l, double low, double high, int n, double *x, double *y, double *under, double *over);
/* Least squares c0 + c1·x + c2·x² (x centred by the caller's choice is not needed). */
void parabola_fit(const double *x, const double *y, int n, double c[3]);

typedef struct Settings {
    Common common;
    OptionList wheres, renames, budgets;
    const char *window, *plot, *x, *y, *model_config;
    double tolerance;
    bool json;
    /* plan and shape */
    double params, tokens, peak, mfu, gpus, bits, bytes_weights, checkpoint_seconds, restart_seconds, mtbf_hours, availability;
    int64_t bootstrap;
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, sequence, batch, aspect;
    int64_t plan_head_dim; /* from --model-config, 0: width / heads */
    bool tied, shared_table;
    int64_t bos, eos;
} Settings;

typedef struct RunPoint {
    double flops, params, tokens, loss;
} RunPoint;

typedef struct Budget {
    double flops;                /* geometric mean of the points' */
    RunPoint *points;            /* by rising params, one a size */
    int count, used_first, used_count;
    double c[3];                 /* loss = c0 + c1·z + c2·z², z = log10 params */
    double log_n, log_d, loss;   /* the minimum: log10 of parameters and of tokens */
    const char *why;             /* not used: the reason; NULL: used */
} Budget;

/* Lines of log10 parameters, tokens and loss of the minima on log10 FLOPs; fitted if used is at least 2. */
typedef struct Laws {
    Line n, d, loss;
    int used;
} Laws;

/* Runs of a table, those that have a loss; the caller frees *out, also after an error. */
int points_read(const Table *t, RunPoint **out, int *count, Error *err);

/* Of isoflop: tables to standard output, and the picture that --plot names. */
void isoflop_json(const Settings *s, const Budget *b, int count, const Laws *l);
void isoflop_text(const Settings *s, const Budget *b, int count, const Laws *l);
int isoflop_plot(const Settings *s, const Budget *b, int count, const Laws *l, Error *err);
/* A line as the members "name": {"slope", …}, and "key": number. */
void report_line(Buffer *b, const char *name, const Line *l);
void report_number(Buffer *b, const char *key, double x);

int command_isoflop(const Settings *s, const char *const *files, Error *err);
int command_parametric(const Settings *s, const char *const *files, Error *err);
int command_power(const Settings *s, const char *const *files, Error *err);
/* Takes what --model-config says where no option does. */
int plan_config(Settings *s, Error *err);
int command_plan(const Settings *s);
int command_shape(const Settings *s, Error *err);

#endif
