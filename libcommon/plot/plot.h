/* Curves and points as SVG or PNG, drawn by gnuplot. Panels stand side by side. */
#ifndef PLOT_PLOT_H
#define PLOT_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef struct PlotSeries {
    const char *title;       /* NULL: not in the key */
    const double *x, *y;
    size_t count;
    bool line;               /* else points */
    int color;               /* series of one number have one colour; 0: the next one */
} PlotSeries;

typedef struct PlotPanel {
    const char *title, *x_label, *y_label;
    bool log_x, log_y;
    const PlotSeries *series;
    size_t count;
} PlotPanel;

/* The path's ending says svg or png. */
int plot_write(const char *path, const PlotPanel *panels, size_t count, Error *err);

#endif
