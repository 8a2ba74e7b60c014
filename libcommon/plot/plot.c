#include "plot/plot.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"

/* One panel in pixels, and what a key beside it takes. */
enum { PANEL_WIDTH = 480, PANEL_HEIGHT = 400, KEY_WIDTH = 140, KEY_INSIDE = 4 };

uint32_t plot_color(size_t i, size_t n)
{
    /* Stops of a scale whose lightness rises evenly; its yellow end would not show on white. */
    static const double stops[4][3] = {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {122, 197, 60}};
    double at = n > 1 ? 3.0 * (double)i / (double)(n - 1) : 1;
    size_t k = at < 2 ? (size_t)at : 2;
    uint32_t color = 0;
    for (int c = 0; c < 3; c++)
        color = color << 8 | (uint32_t)(stops[k][c] + (at - (double)k) * (stops[k + 1][c] - stops[k][c]));
    return color;
}

char *plot_number(char *text, size_t size, double x)
{
    static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    double a = fabs(x);
    if (a == 0 || (a >= 1e-3 && a < 1e3)) {
        snprintf(text, size, "%.3g", x);
        return text;
    }
    char scientific[32], power[32] = "";
    snprintf(scientific, sizeof scientific, "%.2e", x);
    char *e = strchr(scientific, 'e');
    int exponent = atoi(e + 1);
    *e = 0;
    double mantissa = strtod(scientific, NULL);
    snprintf(power, sizeof power, "%d", abs(exponent));
    size_t n = mantissa == 1 ? (size_t)snprintf(text, size, "10%s", exponent < 0 ? "⁻" : "")
                             : (size_t)snprintf(text, size, "%.3g·10%s", mantissa, exponent < 0 ? "⁻" : "");
    for (const char *p = power; *p && n + 4 < size; p++)
        n += (size_t)snprintf(text + n, size - n, "%s", digits[*p - '0']);
    return text;
}

/* gnuplot's quoted strings: quotes and backslashes are not needed in titles and are dropped. */
static void put_text(FILE *f, const char *before, const char *s)
{
    fprintf(f, "%s \"", before);
    for (; s && *s; s++)
        if (*s != '"' && *s != '\\' && *s != '\n')
            fputc(*s, f);
    fputs("\"\n", f);
}

static bool visible(const PlotPanel *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!p->log_x || x > 0) && (!p->log_y || y > 0) && !(p->top > 0 && y > p->top);
}

/* Ticks of a linear axis whose numbers would run into one another: few of them, written as options take numbers, 4k, 2M or 1G. */
static void put_thousands(FILE *f, double low, double high)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    double unit = 1, step = pow(10, floor(log10((high - low) / 5)));
    size_t u = 0;
    for (; u < 4 && high >= 1000 * unit; u++)
        unit *= 1000;
    step *= (high - low) / step > 25 ? 10 : (high - low) / step > 12 ? 5 : (high - low) / step > 6 ? 2 : 1;
    fputs("set xtics (", f);
    for (double i = ceil(low / step), first = i; i * step <= high; i++)
        fprintf(f, "%s\"%.6g%s\" %.10g", i > first ? ", " : "", i * step / unit + 0.0, i == 0 ? "" : units[u], i * step);
    fputs(")\n", f);
}

/* Range and ticks of one axis. A logarithmic axis is marked at whole powers, over few decades also at 2 and 5, and within
 * three quarters of one at even steps. */
static void put_axis(FILE *f, const PlotPanel *p, bool vertical)
{
    const char *const *names = vertical ? p->y_names : p->x_names;
    if (names) {
        size_t n = vertical ? p->y_count : p->x_count;
        fprintf(f, "unset logscale %c\nset %crange [-0.5:%zu.5]\nset %ctics (", vertical ? 'y' : 'x', vertical ? 'y' : 'x', n - 1, vertical ? 'y' : 'x');
        for (size_t i = 0; i < n; i++)
            fprintf(f, "%s\"%s\" %zu", i ? ", " : "", names[i], i);
        fprintf(f, ") %s\n", !vertical && n > 8 ? "rotate by -45" : "norotate");
        return;
    }
    bool logarithmic = vertical ? p->log_y : p->log_x;
    char name = vertical ? 'y' : 'x', text[48];
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < p->series[i].count; k++) {
            const PlotSeries *s = &p->series[i];
            if (s->style == PLOT_BAND || !visible(p, s->x[k], s->y[k]))
                continue;
            double v = vertical ? s->y[k] : s->x[k];
            v = logarithmic ? log10(v) : v;
            low = fmin(low, v);
            high = fmax(high, v);
        }
    if (!(low <= high))
        low = 0, high = 1;
    /* Around one value the axis shows what is of its size, or a constant learning rate would look like none. */
    double alone = logarithmic || high == 0 ? 0.5 : 0.5 * fabs(high), margin = high > low ? 0.05 * (high - low) : alone;
    low -= margin;
    high += margin;
    if (!logarithmic) {
        fprintf(f, "unset logscale %c\nset %crange [%.10g:%.10g]\nset %ctics autofreq\n", name, name, low, high, name);
        if (!vertical && high >= 1e3 && high - low > 1e-3 * high)
            put_thousands(f, low, high);
        return;
    }
    fprintf(f, "set logscale %c\nset %crange [%.10g:%.10g]\nset %ctics (", name, name, pow(10, low), pow(10, high), name);
    if (high - low < 0.75) {
        double from = pow(10, low), to = pow(10, high), step = pow(10, floor(log10((to - from) / 4)));
        step *= (to - from) / step > 16 ? 5 : (to - from) / step > 7 ? 2 : 1;
        for (double v = ceil(from / step) * step; v <= to; v += step)
            fprintf(f, "%s\"%s\" %.10g", v < from + step ? "" : ", ", plot_number(text, sizeof text, v), v);
        fputs(")\n", f);
        return;
    }
    static const double steps[] = {1, 2, 5};
    int each = high - low < 2.2 ? 3 : 1, stride = each == 1 && high - low > 9 ? 2 : 1;
    bool first = true;
    for (int e = (int)floor(low); e <= (int)ceil(high); e += stride)
        for (int i = 0; i < each; i++) {
            double v = steps[i] * pow(10, e);
            if (log10(v) < low || log10(v) > high)
                continue;
            fprintf(f, "%s\"%s\" %.10g", first ? "" : ", ", plot_number(text, sizeof text, v), v);
            first = false;
        }
    fputs(")\n", f);
}

static const char *style_text(PlotStyle s)
{
    switch (s) {
    case PLOT_POINTS:
        return "points pt 7 ps 0.6";
    case PLOT_RINGS:
        return "points pt 6 ps 0.6";
    case PLOT_MARKS:
        return "points pt 13 ps 1.3";
    case PLOT_LINE:
        return "lines lw 2";
    default:
        return "filledcurves fs transparent solid 0.2 noborder";
    }
}

/* A key with a title or of many lines stands beside its panel. */
static bool key_outside(const PlotPanel *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        n += p->series[i].title != NULL;
    return p->key_title || n > KEY_INSIDE;
}

/* Rectangles and their numbers: no terminal draws an image the same way. */
static void put_cells(FILE *f, const PlotSeries *s)
{
    static const double stops[3][3] = {{215, 48, 39}, {254, 224, 139}, {26, 152, 80}};
    for (size_t i = 0; i < s->count; i++) {
        double share = s->y2[i] < 0 ? 0 : s->y2[i] > 1 ? 1 : s->y2[i], at = 2 * share;
        int k = at < 1 ? 0 : 1;
        unsigned color = 0;
        for (int c = 0; c < 3; c++)
            color = color << 8 | (unsigned)lround(stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]));
        fprintf(f, "set object %zu rectangle from %.10g,%.10g to %.10g,%.10g fc rgb '#%06x' fs solid 1 border lc rgb '#ffffff' behind\n", i + 1, s->x[i] - 0.5, s->y[i] - 0.5,
                s->x[i] + 0.5, s->y[i] + 0.5, color);
        fprintf(f, "set label %zu \"%.0f %%\" at %.10g,%.10g center font ',9'\n", i + 1, 100 * share, s->x[i], s->y[i]);
    }
    fputs("unset key\nunset grid\nplot NaN notitle\nunset object\nunset label\nset grid lc rgb '#dddddd' lt 1\n", f);
}

static void put_panel(FILE *f, const PlotPanel *p)
{
    put_text(f, "set title", p->title);
    put_text(f, "set xlabel", p->x_label);
    put_text(f, "set ylabel", p->y_label);
    put_axis(f, p, false);
    put_axis(f, p, true);
    /* Inside, the key stands where a first curve that rises or falls leaves room. */
    const PlotSeries *curve = p->series;
    while (curve < p->series + p->count && curve->style != PLOT_LINE)
        curve++;
    bool rises = curve < p->series + p->count && curve->count > 1 && curve->y[curve->count - 1] > curve->y[0];
    if (p->count == 1 && p->series->style == PLOT_CELLS) {
        put_cells(f, p->series);
        return;
    }
    put_text(f, key_outside(p) ? "set key outside right top vertical Left reverse samplen 1 title" :
                rises          ? "set key inside left top vertical Left reverse samplen 2 title" :
                                 "set key inside right top vertical Left reverse samplen 2 title",
             p->key_title);
    fputs("plot ", f);
    for (size_t i = 0; i < p->count; i++) {
        const PlotSeries *s = &p->series[i];
        fprintf(f, "%s'-' using %s with %s lc rgb '#%06x' ", i ? ", " : "", s->style == PLOT_BAND ? "1:2:3" : "1:2",
                style_text(s->style == PLOT_LINE && s->count == 1 ? PLOT_POINTS : s->style), s->color); /* a line of one point shows nothing */
        if (s->title) {
            fputs("title \"", f);
            for (const char *c = s->title; *c; c++)
                if (*c != '"' && *c != '\\' && *c != '\n')
                    fputc(*c, f);
            fputs("\"", f);
        } else {
            fputs("notitle", f);
        }
    }
    fputc('\n', f);
    for (size_t i = 0; i < p->count; i++) {
        const PlotSeries *s = &p->series[i];
        for (size_t k = 0; k < s->count; k++)
            if (s->style == PLOT_BAND && isfinite(s->y[k]) && isfinite(s->y2[k]))
                fprintf(f, "%.10g %.10g %.10g\n", s->x[k], s->y[k], s->y2[k]);
            else if (s->style != PLOT_BAND && visible(p, s->x[k], s->y[k]))
                fprintf(f, "%.10g %.10g\n", s->x[k], s->y[k]);
        fputs("e\n", f);
    }
}

static size_t column_width(const PlotPanel *panels, size_t count, size_t columns, size_t c)
{
    size_t width = PANEL_WIDTH;
    for (size_t i = c; i < count; i += columns)
        width = key_outside(&panels[i]) ? PANEL_WIDTH + KEY_WIDTH : width;
    return width;
}

int plot_write(const char *path, const PlotPanel *panels, size_t count, Error *err)
{
    return plot_write_rows(path, panels, count, count, err);
}

int plot_write_rows(const char *path, const PlotPanel *panels, size_t count, size_t columns, Error *err)
{
    size_t n = strlen(path), width = 0, rows = (count + columns - 1) / columns, height = rows * PANEL_HEIGHT;
    bool png = n > 4 && strcmp(path + n - 4, ".png") == 0;
    if (!png && !(n > 4 && strcmp(path + n - 4, ".svg") == 0))
        return error_set(err, "%s: a plot's name ends in .svg or .png", path);
    if (strpbrk(path, "'\n"))
        return error_set(err, "%s: a plot's name must not hold quotes", path);
    for (size_t c = 0; c < columns; c++)
        width += column_width(panels, count, columns, c);
    char *temporary = memory_format("%s.tmp-%ld", path, (long)getpid());
    /* gnuplot draws to its standard output where it cannot open a file. */
    int d = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (d < 0) {
        free(temporary);
        return error_set(err, "%s:", path);
    }
    close(d);
    void (*old)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *f = popen("gnuplot >/dev/null 2>&1", "w");
    int status = 0;
    struct stat st;
    if (!f) {
        status = error_set(err, "gnuplot:");
    } else {
        /* Twice the pixels for PNG, so that it can be printed. */
        if (png)
            fprintf(f, "set terminal pngcairo noenhanced size %zu,%zu fontscale 2 linewidth 2 pointscale 2 background 'white'\n", 2 * width, 2 * height);
        else
            fprintf(f, "set terminal svg noenhanced size %zu,%zu dynamic font 'sans-serif,12' background 'white'\n", width, height);
        fprintf(f, "set encoding utf8\nset output '%s'\nset grid lc rgb '#dddddd' lt 1\nset border lc rgb '#444444'\nset multiplot\n", temporary);
        size_t at = 0;
        for (size_t i = 0; i < count; i++) {
            size_t own = column_width(panels, count, columns, i % columns), row = i / columns;
            at = i % columns ? at : 0;
            fprintf(f, "set origin %.6f,%.6f\nset size %.6f,%.6f\n", (double)at / (double)width, 1 - (double)(row + 1) / (double)rows, (double)own / (double)width,
                    1 / (double)rows);
            put_panel(f, &panels[i]);
            at += own;
        }
        fputs("unset multiplot\nset output\n", f);
        fflush(f);
        if (pclose(f) != 0 || stat(temporary, &st) != 0 || st.st_size == 0)
            status = error_set(err, "%s: gnuplot did not draw it (is gnuplot installed?)", path);
        else if (rename(temporary, path) != 0)
            status = error_set(err, "%s:", path);
    }
    if (status < 0)
        unlink(temporary);
    signal(SIGPIPE, old);
    free(temporary);
    return status;
}
