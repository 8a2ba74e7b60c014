/* What scalefit's commands share: tables of runs, least squares, intervals. */
#ifndef SCALEFIT_SCALEFIT_H
#define SCALEFIT_SCALEFIT_H

#include "base/memory.h"
#include "base/option.h"
#include "model/config.h"
#include "plot/plot.h"
#include "train/cost.h"

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
/* An error that names the row unless the number there is above 0 and finite. */
int table_positive(const Table *t, size_t row, const char *column, double value, Error *err);
/* The cell's text, NULL where absent. */
const char *table_text(const Table *t, size_t row, const char *column);
bool table_has(const Table *t, const char *column);
/* An error that names the column and those that there are. */
int table_require(const Table *t, const char *column, Error *err);
/* Do all conditions hold (--where)? */
bool table_row_is(const Table *t, size_t row, const OptionList *wheres);
/* Splits a condition "COL=VAL", "COL<X" …: the length of its column's name, the operator, the value. false: it is none. */
bool where_split(const char *where, size_t *name, char op[3], const char **value);
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

/* Solves a [n, n] x = b [n, columns]; x takes b's place, a is spoilt. false: singular. */
bool matrix_solve(double *a, double *b, int n, int columns);
/* Least squares of a smooth function (Marquardt 1963): from x of n variables to a minimum, whose sum of squares is returned. The
 * function writes `count` residuals, and where asked their derivatives [count, n]. */
typedef void (*ResidualFunction)(const void *context, const double *x, double *residual, double *jacobian);
double least_squares(ResidualFunction f, const void *context, double *x, int n, int count, int iterations);

typedef struct Spread {
    double sd, low, high; /* the middle 95 % */
} Spread;
/* Standard deviation and percentiles (linear between order statistics) of x, which is put in order; NAN of fewer than two. */
Spread spread(double *x, size_t n);
/* Correlation of the ranks. */
double spearman(const double *x, const double *y, size_t n);

typedef struct Settings {
    Common common;
    OptionList wheres, renames, budgets, firsts, tasks, chances, points, tests, targets, mixtures, aims;
    const char *window, *plot, *x, *y, *model_config, *objective, *nll, *accuracy, *first_law, *weights, *law, *lifetimes;
    double tolerance;
    bool json, untied;
    /* plan and shape */
    double params, tokens, peak, mfu, gpus, bits, bytes_weights, checkpoint_seconds, restart_seconds, mtbf_hours, availability;
    int64_t bootstrap;
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, sequence, batch, aspect;
    int64_t plan_head_dim; /* from --model-config, 0: width / heads */
    bool tied, shared_table;
    /* plan --layout */
    bool layout, published;
    const char *grid, *recompute, *engine;
    OptionList cluster;
    double batch_tokens, slow;
    int64_t virtual_stages, micro_batch, shard, tp_most, top;
    int64_t bos, eos;
    const char *tokenizer; /* vocab and eos come from there where they are not said */
    /* grid */
    const char *rule, *around, *train;
    double lr, ratio;
    /* plan: scaling by width, the batch, epochs, what a run took */
    double base_hidden, noise_scale, unique_tokens, hours, price;
    const char *gradient_norms;
    int64_t count;
} Settings;

typedef struct RunPoint {
    double flops, params, tokens, loss;
} RunPoint;

typedef struct Budget {
    double flops;                /* geometric mean of the points' */
    RunPoint *points;            /* by rising params, one a size */
    int count, used_first, used_count;
    double c[3], d[3];           /* loss = c0 + c1·z + c2·z², z = log10 params; the same of log10 tokens */
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

/* Runs of about the same compute are a budget (qsorts p, which stays the caller's); fits each. Returns how many; the caller frees *out. */
int budgets_make(RunPoint *p, int count, double tolerance, const char *window, Budget **out);

/* Of isoflop: tables to standard output, and the picture that --plot names. */
void isoflop_json(const Settings *s, const Budget *b, int count, const Laws *l);
void isoflop_text(const Settings *s, const Budget *b, int count, const Laws *l);
int isoflop_plot(const Settings *s, const Budget *b, int count, const Laws *l, Error *err);
/* What a law says of runs beside what they reached: a panel a law, to the picture that --plot names. */
typedef struct Agreement {
    const char *title;
    double *fitted, *measured; /* [count] */
    size_t count;
} Agreement;
int agreement_plot(const char *path, const Agreement *a, size_t count, Error *err);
/* Such a panel; series and diagonal are the caller's, two of each. */
void agreement_panel(const Agreement *a, PlotPanel *panel, PlotSeries series[2], double diagonal[2]);
/* A line as the members "name": {"slope", …}, and "key": number. */
void report_line(Buffer *b, const char *name, const Line *l);
void report_number(Buffer *b, const char *key, double x);
/* [low, high] */
void report_spread(Buffer *b, Spread s);

int command_isoflop(const Settings *s, const char *const *files, Error *err);
int command_parametric(const Settings *s, const char *const *files, Error *err);
int command_downstream(const Settings *s, const char *const *files, Error *err);
int command_mixture(const Settings *s, const char *const *files, Error *err);
int command_repeated(const Settings *s, const char *const *files, Error *err);
/* Numbers with commas between them, exactly n of them. */
int parse_numbers(const char *option, const char *text, double *out, int n, Error *err);
int command_power(const Settings *s, const char *const *files, Error *err);
int command_plan(Settings *s, Error *err);
/* plan of a run's folder: what pretrain --dry-run says of it. Sets tokens where no option does. */
int plan_run(Settings *s, Error *err);
void plan_row(bool json, const char *key, double value, const char *unit, const char *text);
/* Widths that plan computes with; what no option says follows Llama's habits. */
typedef struct PlanShape {
    double layers, hidden, heads, query, kv, feed, vocab;
} PlanShape;
/* What options of plan say beside its sizes, checked before anything is printed. */
typedef struct PlanGiven {
    double grid[GRID_DIMENSIONS];
    CostCluster cluster;
    double noise_scale;                     /* 0: none */
    double gradient_square, gradient_noise; /* |G|^2, tr(Sigma); 0: not asked for */
} PlanGiven;
/* --published; known: the shape is. */
void plan_published(const Settings *s, bool known, const PlanShape *p, const PlanGiven *g);
/* Of it: FLOPs by several counts; memory and communication on --grid. */
void plan_counts(const Settings *s, const PlanShape *p);
void plan_parallel(const Settings *s, const PlanShape *p, const PlanGiven *g);
/* --base-hidden; --noise-scale and --gradient-norms, which plan_gradients reads. */
void plan_width(const Settings *s, const PlanShape *p);
void plan_noise(const Settings *s, const PlanGiven *g);
int plan_gradients(const Settings *s, PlanGiven *g, Error *err);
/* Tokens (or parameters) that `all` are worth of which `unique` are new, by Muennighoff et al.'s lifetime R: U + U R (1 - exp(-(all/U - 1)/R)). */
double repeated_worth(double unique, double all, double lifetime);
/* Tokens a step where no option says. */
#define PLAN_BATCH (16 * 1048576.0)
/* H100 nodes, and what --cluster says otherwise. */
int layout_cluster(const Settings *s, CostCluster *c, Error *err);
/* The model that the options describe, or --model-config. */
int plan_model(const Settings *s, ModelConfig *c, Error *err);
/* Seconds between checkpoints that block for delta seconds, where a failure comes every mtbf seconds (Young 1974; Daly 2006, eq. 37). */
void interval_young_daly(double delta, double mtbf, double *young, double *daly);
int command_layout(const Settings *s, Error *err);
int command_shape(const Settings *s, Error *err);
/* The model of legal shape with about so many parameters without the input table. */
int shape_find(const Settings *s, double params, ModelConfig *best, Error *err);
/* Vocabulary and end-of-text token of --tokenizer, where no option says them. */
int shape_vocabulary(Settings *s, Error *err);
int command_grid(const Settings *s, const char *const *logs, Error *err);

#endif
