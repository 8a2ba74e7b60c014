#include "curves.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "plot/plot.h"
#include "train/history.h"

/* A drawing of W×H characters, each 2×4 dots of Unicode's braille. */
typedef struct Canvas {
    int width, height;
    unsigned char *dots;
} Canvas;

static void dot(Canvas *c, int x, int y)
{
    static const unsigned char bit[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x >= 0 && x < 2 * c->width && y >= 0 && y < 4 * c->height)
        c->dots[y / 4 * c->width + x / 2] |= bit[y % 4][x % 2];
}

static void range(const double *x, size_t n, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (isfinite(x[i])) {
            *low = fmin(*low, x[i]);
            *high = fmax(*high, x[i]);
        }
}

/* Columns of dots hold the mean of the losses that fall into them, joined from column to column. */
static void draw(Canvas *c, const History *h, double last, double low, double high)
{
    int columns = 2 * c->width, rows = 4 * c->height, before = -1;
    double *sum = memory_zalloc((size_t)columns, sizeof *sum);
    int *n = memory_zalloc((size_t)columns, sizeof *n);
    for (size_t i = 0; i < h->count; i++) {
        double at = h->column[HISTORY_TOKENS][i] / last * (columns - 1), loss = h->column[HISTORY_LOSS][i];
        if (!(at >= 0 && at < columns) || !isfinite(loss))
            continue;
        sum[(int)at] += loss;
        n[(int)at]++;
    }
    for (int x = 0; x < columns; x++) {
        if (n[x] == 0)
            continue;
        int y = (int)lround((high - sum[x] / n[x]) / (high - low) * (rows - 1));
        for (int k = before < 0 ? y : before; k != y; k += k < y ? 1 : -1)
            dot(c, x, k);
        dot(c, x, y);
        before = y;
    }
    free(sum);
    free(n);
}

static void braille(unsigned char dots)
{
    printf("\xe2%c%c", 0xa0 | dots >> 6, 0x80 | (dots & 63));
}

/* The newest numbers; what the log lacks is left out. */
static void numbers(Buffer *text, const History *h)
{
    size_t i = h->count - 1, v = i;
    const double *val = h->column[HISTORY_VAL_LOSS], tokens = h->column[HISTORY_TOKENS][i], rate = h->column[HISTORY_LR][i], norm = h->column[HISTORY_GRAD_NORM][i],
                 speed = h->column[HISTORY_SPEED][i], mfu = h->column[HISTORY_MFU][i];
    while (v > 0 && !isfinite(val[v]))
        v--;
    buffer_format(text, "step %.0f", h->column[HISTORY_STEP][i]);
    if (isfinite(tokens))
        buffer_format(text, "  tokens %.4g", tokens);
    buffer_format(text, "  loss %.4f", h->column[HISTORY_LOSS][i]);
    if (isfinite(val[v]))
        buffer_format(text, "  held-out %.4f", val[v]);
    if (isfinite(rate))
        buffer_format(text, "  rate %.3g", rate);
    if (isfinite(norm))
        buffer_format(text, "  norm %.3g", norm);
    if (isfinite(speed))
        buffer_format(text, "  %.0f tokens/s", speed);
    if (isfinite(mfu))
        buffer_format(text, "  mfu %.2f", mfu);
    buffer_string(text, h->final ? "  (ended)" : "");
}

/* Numbers and curve, with room for the cursor below them: a line more would scroll the first one away. Where there is no room for a curve the
 * numbers stand alone. */
static void picture(const History *h)
{
    enum { LABEL = 10, LEAST_WIDTH = 16, LEAST_HEIGHT = 3 };
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 1;
    int columns = known ? size.ws_col : 80, room = known ? columns * (size.ws_row - 1) : INT_MAX;
    Buffer text = {0};
    numbers(&text, h);
    int length = text.length < (size_t)room ? (int)text.length : room;
    printf("%.*s\n", length, text.data);
    buffer_free(&text);
    Canvas c = {.width = columns - LABEL, .height = known ? size.ws_row - 2 - ((length - 1) / columns + 1) : 16};
    double low, high, first, last; /* tokens need not rise from line to line: one log may hold two runs */
    range(h->column[HISTORY_LOSS], h->count, &low, &high);
    range(h->column[HISTORY_TOKENS], h->count, &first, &last);
    if (!(high > low) || !(last > 0) || c.width < LEAST_WIDTH || c.height < LEAST_HEIGHT)
        return;
    c.dots = memory_zalloc((size_t)(c.width * c.height), 1);
    draw(&c, h, last, low, high);
    for (int y = 0; y < c.height; y++) {
        double loss = high - (high - low) * y / (c.height - 1);
        printf(fabs(loss) < 1000 ? "%8.4f " : "%8.2g ", loss);
        for (int x = 0; x < c.width; x++)
            braille(c.dots[y * c.width + x]);
        printf("\n");
    }
    printf("%9s0%*.4g tokens\n", "", c.width - 8, last);
    free(c.dots);
}

int curves_watch(const char *log)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    for (;;) {
        History h;
        Error err;
        bool there = history_read(&h, log, &err) == 0;
        if (!there && !(terminal && h.absent))
            return message_failed(&err);
        if (terminal)
            printf("\033[H\033[2J");
        if (!there)
            printf("%s: not there yet\n", log);
        else if (h.count > 0)
            picture(&h);
        else
            printf("%s: no step yet\n", log);
        bool end = h.final || !terminal;
        history_free(&h);
        if (fflush(stdout) != 0) {
            error_set(&err, "standard output:");
            return message_failed(&err);
        }
        if (end)
            return 0;
        sleep(1);
    }
}

/* A run's name in the key: its log's too, and of a long one the end, which tells runs apart. A key too wide for its panel is not drawn. */
static char *title_of(const char *log)
{
    enum { LONGEST = 18 };
    static const char ending[] = "/log.jsonl";
    size_t n = strlen(log), end = sizeof ending - 1;
    if (n > end && strcmp(log + n - end, ending) == 0)
        n -= end;
    while (n > 1 && log[n - 1] == '/')
        n--;
    if (n <= LONGEST)
        return memory_copy(log, n);
    size_t from = n - LONGEST;
    while (from < n && ((unsigned char)log[from] & 0xc0) == 0x80) /* within a character */
        from++;
    return memory_format("…%.*s", (int)(n - from), log + from);
}

/* Of many rows the lowest and the highest of each stretch, in their order: what a panel of a few hundred pixels shows of them. A picture of a
 * long run would take megabytes and seconds for each viewer otherwise. */
static size_t thin(double *x, double *y, size_t n)
{
    enum { STRETCHES = 2000 };
    size_t kept = 0;
    if (n <= 2 * STRETCHES)
        return n;
    for (size_t k = 0; k < STRETCHES; k++) {
        size_t begin = n * k / STRETCHES, end = n * (k + 1) / STRETCHES, low = begin, high = begin;
        for (size_t i = begin; i < end; i++) {
            low = y[i] < y[low] ? i : low;
            high = y[i] > y[high] ? i : high;
        }
        size_t first = low < high ? low : high, second = low < high ? high : low;
        x[kept] = x[first];
        y[kept++] = y[first];
        if (second != first) {
            x[kept] = x[second];
            y[kept++] = y[second];
        }
    }
    return kept;
}

/* A series of the rows that have both numbers; the caller frees x and y. */
static PlotSeries series_of(const History *h, HistoryColumn column, const char *title, PlotStyle style, uint32_t color)
{
    double *x = memory_alloc(h->count, sizeof *x), *y = memory_alloc(h->count, sizeof *y);
    size_t n = 0;
    for (size_t i = 0; i < h->count; i++)
        if (isfinite(h->column[HISTORY_TOKENS][i]) && isfinite(h->column[column][i])) {
            x[n] = h->column[HISTORY_TOKENS][i];
            y[n++] = h->column[column][i];
        }
    return (PlotSeries){.title = title, .x = x, .y = y, .count = style == PLOT_LINE ? thin(x, y, n) : n, .style = style, .color = color};
}

/* Series that hold nothing are left out. */
static size_t series_keep(PlotSeries *s, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i].count > 0) {
            s[kept++] = s[i];
        } else {
            free((void *)(uintptr_t)s[i].x);
            free((void *)(uintptr_t)s[i].y);
        }
    return kept;
}

int curves_plot(const char *file, const char *const *logs)
{
    size_t n = 0, kept[3] = {0};
    while (logs[n])
        n++;
    PlotSeries *s[3];
    char **titles = memory_zalloc(n, sizeof *titles);
    for (int p = 0; p < 3; p++)
        s[p] = memory_zalloc(2 * n, sizeof *s[p]);
    Error err;
    int status = 0;
    bool held_out = false;
    for (size_t i = 0; i < n && status == 0; i++) {
        History h;
        status = history_read(&h, logs[i], &err);
        if (status < 0)
            break;
        uint32_t color = plot_color(i, n);
        titles[i] = title_of(logs[i]);
        s[0][kept[0]++] = series_of(&h, HISTORY_LOSS, titles[i], PLOT_LINE, color);
        s[0][kept[0]] = series_of(&h, HISTORY_VAL_LOSS, held_out ? NULL : "held-out", PLOT_MARKS, color); /* once in the key: it narrows the panel */
        held_out |= s[0][kept[0]++].count > 0;
        s[1][kept[1]++] = series_of(&h, HISTORY_LR, NULL, PLOT_LINE, color);
        s[2][kept[2]++] = series_of(&h, HISTORY_GRAD_NORM, NULL, PLOT_LINE, color);
        history_free(&h);
    }
    for (int p = 0; p < 3; p++)
        kept[p] = series_keep(s[p], kept[p]);
    if (status == 0 && kept[0] == 0)
        status = error_set(&err, "%s: no step to draw", logs[0]);
    if (status == 0) {
        const PlotPanel panels[] = {{.title = "loss", .x_label = "tokens", .y_label = "nats a token", .series = s[0], .count = kept[0]},
                                    {.title = "learning rate", .x_label = "tokens", .y_label = "", .series = s[1], .count = kept[1]},
                                    {.title = "gradient norm", .x_label = "tokens", .y_label = "", .log_y = true, .series = s[2], .count = kept[2]}};
        status = plot_write(file, panels, kept[1] > 0 && kept[2] > 0 ? 3 : 1, &err);
    }
    for (int p = 0; p < 3; p++) {
        for (size_t i = 0; i < kept[p]; i++) {
            free((void *)(uintptr_t)s[p][i].x);
            free((void *)(uintptr_t)s[p][i].y);
        }
        free(s[p]);
    }
    for (size_t i = 0; i < n; i++)
        free(titles[i]);
    free(titles);
    return status < 0 ? message_failed(&err) : 0;
}
