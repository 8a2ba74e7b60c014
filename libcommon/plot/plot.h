/* Curves, points and bands as SVG or PNG, drawn by gnuplot. Panels stand side by side, or in rows. */
#ifndef PLOT_PLOT_H
#define PLOT_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef enum PlotStyle {
    PLOT_POINTS,
    PLOT_RINGS,  /* hollow: points that a fit does not use */
    PLOT_MARKS,  /* larger, with an edge: minima */
    PLOT_LINE,
    PLOT_BAND,   /* filled between y and y2 */
    PLOT_CELLS   /* a square at (x, y) from red to green, which says its y2, a share from 0 to 1; alone in its panel */
} PlotStyle;

typedef struct PlotSeries {
    const char *title;       /* NULL: not in the key */
    const double *x, *y, *y2;
    size_t count;
    PlotStyle style;
    uint32_t color;          /* 0xRRGGBB */
} PlotSeries;

typedef struct PlotPanel {
    const char *title, *x_label, *y_label, *key_title;
    bool log_x, log_y;
    double top;              /* points above are cut off; 0: none */
    const char *const *x_names, *const *y_names; /* what stands at 0, 1, … on an axis; NULL: numbers */
    size_t x_count, y_count;
    const PlotSeries *series; /* later ones are drawn over earlier ones */
    size_t count;
} PlotPanel;

/* The path's ending says svg or png. */
int plot_write(const char *path, const PlotPanel *panels, size_t count, Error *err);
/* So many panels a row. */
int plot_write_rows(const char *path, const PlotPanel *panels, size_t count, size_t columns, Error *err);

/* A colour for item i of n that come in an order: dark blue to green. */
uint32_t plot_color(size_t i, size_t n);

/* "1.25·10¹⁶", and "10¹⁶" where the mantissa is 1; plain digits below 1000. Returns text. */
char *plot_number(char *text, size_t size, double x);

#endif
