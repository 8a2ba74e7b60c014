#include "plot/plot.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"

/* gnuplot's quoted strings: quotes and backslashes are not needed in titles and are dropped. */
static void put_text(FILE *f, const char *s)
{
    for (; s && *s; s++)
        if (*s != '"' && *s != '\\' && *s != '\n')
            fputc(*s, f);
}

static void put_panel(FILE *f, const PlotPanel *p)
{
    fprintf(f, "%sset logscale x; %sset logscale y\n", p->log_x ? "" : "un", p->log_y ? "" : "un");
    fputs("set title \"", f);
    put_text(f, p->title);
    fputs("\"\nset xlabel \"", f);
    put_text(f, p->x_label);
    fputs("\"\nset ylabel \"", f);
    put_text(f, p->y_label);
    size_t titled = 0;
    for (size_t i = 0; i < p->count; i++)
        titled += p->series[i].title != NULL;
    fprintf(f, "\"\nset key %s\nplot ", titled > 4 ? "outside right top" : p->log_y ? "inside left top" : "inside right top");
    for (size_t i = 0; i < p->count; i++) {
        const PlotSeries *s = &p->series[i];
        fprintf(f, "%s'-' using 1:2 with %s ", i ? ", " : "", s->line ? "lines lw 2" : "points pt 7 ps 0.7");
        if (s->color)
            fprintf(f, "lc %d ", s->color);
        if (s->title) {
            fputs("title \"", f);
            put_text(f, s->title);
            fputs("\"", f);
        } else {
            fputs("notitle", f);
        }
    }
    fputc('\n', f);
    for (size_t i = 0; i < p->count; i++) {
        for (size_t k = 0; k < p->series[i].count; k++)
            if (isfinite(p->series[i].x[k]) && isfinite(p->series[i].y[k]))
                fprintf(f, "%.10g %.10g\n", p->series[i].x[k], p->series[i].y[k]);
        fputs("e\n", f);
    }
}

int plot_write(const char *path, const PlotPanel *panels, size_t count, Error *err)
{
    size_t n = strlen(path);
    bool png = n > 4 && strcmp(path + n - 4, ".png") == 0;
    if (!png && !(n > 4 && strcmp(path + n - 4, ".svg") == 0))
        return error_set(err, "%s: a plot's name ends in .svg or .png", path);
    if (strpbrk(path, "'\n"))
        return error_set(err, "%s: a plot's name must not hold quotes", path);
    char *temporary = memory_format("%s.tmp-%ld", path, (long)getpid());
    void (*old)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *f = popen("gnuplot 2>/dev/null", "w");
    int status = 0;
    if (!f) {
        status = error_set(err, "gnuplot:");
    } else {
        fprintf(f, "set terminal %s size %zu,420%s\nset output '%s'\nset grid\nset multiplot layout 1,%zu\n",
                png ? "pngcairo" : "svg", 600 * count, png ? "" : " background 'white'", temporary, count);
        for (size_t i = 0; i < count; i++)
            put_panel(f, &panels[i]);
        fputs("unset multiplot\nset output\n", f);
        fflush(f);
        if (pclose(f) != 0 || access(temporary, F_OK) != 0)
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
