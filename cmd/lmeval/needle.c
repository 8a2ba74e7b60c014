/* Needle in a haystack: "The magic number of Xyz is 7." stands somewhere in filler text, and the end of the text asks for it.
 * A needle counts as found if the right digit is more probable than the nine wrong ones; chance is 0.1. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "lmeval.h"
#include "plot/plot.h"

static const char *const filler[] = {
    " The grass is green and the sky is blue.", " A road goes through the valley and over the hill.", " In the evening the wind came from the west.",
    " The house by the river has a red door.", " Many people walk along the old wall in summer.", " The bread was good and the water was cold.",
    " He read the letter and put it on the table.", " Rain fell on the roof of the small school.",
};
static const char *const names[] = {"London", "Paris", "Rome", "Berlin", "Madrid", "Vienna", "Athens", "Dublin"};

static int add_text(Eval *e, Ids *ids, const char *text, Error *err)
{
    return encoder_encode(e->encoder, (Span){text, strlen(text)}, NULL, ids, err);
}

/* Filler until `length` tokens, with the needle in at `depth` of it, moved back to the end of a sentence. */
static int build(Eval *e, int64_t length, double depth, uint64_t seed, int *digit, Ids *out, Error *err)
{
    Ids needle = {0}, question = {0};
    char text[128];
    const char *name = names[random_below(seed, RANDOM_SAMPLE, 1, 8)];
    *digit = (int)random_below(seed, RANDOM_SAMPLE, 0, 10);
    snprintf(text, sizeof text, " The magic number of %s is %d.", name, *digit);
    int status = add_text(e, &needle, text, err);
    snprintf(text, sizeof text, " The magic number of %s is", name);
    if (status == 0)
        status = add_text(e, &question, text, err);
    int64_t room = length - (int64_t)needle.count - (int64_t)question.count - 1, begin = (int64_t)(depth * (double)room);
    out->count = 0;
    bool placed = false;
    for (uint64_t i = 0; status == 0 && (int64_t)out->count < room + (placed ? (int64_t)needle.count : 0); i++) {
        Ids sentence = {0};
        status = add_text(e, &sentence, filler[random_below(seed, RANDOM_SAMPLE, i + 2, 8)], err);
        bool full = (int64_t)(out->count + sentence.count) > room + (placed ? (int64_t)needle.count : 0);
        if (!placed && status == 0 && ((int64_t)(out->count + sentence.count) > begin || full)) {
            for (size_t k = 0; k < needle.count; k++)
                ids_add(out, needle.data[k]);
            placed = true;
        }
        for (size_t k = 0; k < sentence.count && !full; k++)
            ids_add(out, sentence.data[k]);
        ids_free(&sentence);
        if (full)
            break;
    }
    for (size_t k = 0; k < question.count && status == 0; k++)
        ids_add(out, question.data[k]);
    ids_free(&needle);
    ids_free(&question);
    return status;
}

static int find(Eval *e, int64_t length, double depth, uint64_t seed, bool *found, Error *err)
{
    int digit;
    Ids ids = {0};
    Requests q = {0};
    int status = build(e, length, depth, seed, &digit, &ids, err);
    size_t context = ids.count;
    requests_group(&q); /* ten ends of one text */
    for (int d = 0; d < 10 && status == 0; d++) {
        char text[16];
        snprintf(text, sizeof text, " %d.", d);
        ids.count = context;
        status = add_text(e, &ids, text, err);
        requests_add(&q, e, ids.data, (int64_t)ids.count, (int64_t)context);
    }
    if (status == 0)
        status = requests_score(&q, e, err);
    size_t best = 0;
    for (size_t d = 1; d < q.count; d++)
        if (q.items[d].logprob > q.items[best].logprob)
            best = d;
    *found = (int)best == digit;
    requests_free(&q);
    ids_free(&ids);
    return status;
}

/* The shares found, [depths, lengths]. */
typedef struct Haystacks {
    int64_t lengths[64];
    size_t count;
    int64_t depths;
    double *found;
} Haystacks;

static int haystacks_lengths(Eval *e, Haystacks *g, Error *err)
{
    for (size_t i = 0; i < e->needle_lengths.count && g->count < 64; i++) {
        const char *text = e->needle_lengths.values[i];
        char *end;
        int64_t n = g->lengths[g->count++] = strtoll(text, &end, 10);
        if (*end || n < 64 || n > e->max_length)
            return error_set(err, "--needle-length %s must lie in 64 … %" PRId64, text, e->max_length);
    }
    for (int64_t part = 4; g->count < 3 && e->needle_lengths.count == 0; part /= 2)
        g->lengths[g->count++] = e->sample_length / part;
    return 0;
}

static double depth_of(const Haystacks *g, int64_t d)
{
    return g->depths > 1 ? (double)d / (double)(g->depths - 1) : 0.5;
}

static int haystacks_fill(Eval *e, Haystacks *g, Error *err)
{
    for (size_t i = 0; i < g->count; i++) {
        int64_t right = 0, all = g->depths * e->needle_samples;
        for (int64_t d = 0; d < g->depths; d++) {
            int64_t hits = 0;
            for (int64_t k = 0; k < e->needle_samples; k++) {
                bool found;
                uint64_t seed = (uint64_t)e->common.seed + (uint64_t)k * 7919 + (uint64_t)d * 104729 + (uint64_t)g->lengths[i];
                if (find(e, g->lengths[i], depth_of(g, d), seed, &found, err) < 0)
                    return -1;
                hits += found;
            }
            char *task = memory_format("needle/%" PRId64 "/depth-%.0f", g->lengths[i], 100 * depth_of(g, d));
            double share = g->found[d * (int64_t)g->count + (int64_t)i] = (double)hits / (double)e->needle_samples;
            result_print(e, task, "found", share, NAN, e->needle_samples);
            free(task);
            right += hits;
        }
        char *task = memory_format("needle/%" PRId64, g->lengths[i]);
        double p = (double)right / (double)all;
        result_print(e, task, "found", p, all > 1 ? sqrt(p * (1 - p) / (double)(all - 1)) : NAN, all);
        free(task);
    }
    return 0;
}

static void haystacks_print(const Haystacks *g)
{
    printf("\n%-12s", "depth, %");
    for (size_t i = 0; i < g->count; i++)
        printf(" %8" PRId64, g->lengths[i]);
    putchar('\n');
    for (int64_t d = 0; d < g->depths; d++) {
        printf("%-12.0f", 100 * depth_of(g, d));
        for (size_t i = 0; i < g->count; i++)
            printf(" %8.2f", g->found[d * (int64_t)g->count + (int64_t)i]);
        putchar('\n');
    }
}

/* Lengths from left to right, depths from the top down. */
static int haystacks_plot(const Haystacks *g, const char *path, Error *err)
{
    size_t cells = g->count * (size_t)g->depths;
    double *x = memory_alloc(cells, sizeof *x), *y = memory_alloc(cells, sizeof *y);
    char **marks = memory_alloc(g->count + (size_t)g->depths, sizeof *names);
    for (size_t i = 0; i < g->count; i++)
        marks[i] = memory_format("%" PRId64, g->lengths[i]);
    for (int64_t d = 0; d < g->depths; d++)
        marks[g->count + (size_t)(g->depths - 1 - d)] = memory_format("%.0f", 100 * depth_of(g, d));
    for (size_t i = 0; i < cells; i++) {
        x[i] = (double)(i % g->count);
        y[i] = (double)(g->depths - 1 - (int64_t)(i / g->count));
    }
    PlotSeries series = {.x = x, .y = y, .y2 = g->found, .count = cells, .style = PLOT_CELLS};
    PlotPanel panel = {.title = "Needles found", .x_label = "tokens", .y_label = "depth in percent", .series = &series, .count = 1, .x_names = (const char *const *)marks,
                       .y_names = (const char *const *)marks + g->count, .x_count = g->count, .y_count = (size_t)g->depths};
    int status = plot_write(path, &panel, 1, err);
    for (size_t i = 0; i < g->count + (size_t)g->depths; i++)
        free(marks[i]);
    free(marks);
    free(x);
    free(y);
    return status;
}

int eval_needle(Eval *e, Error *err)
{
    Haystacks g = {.depths = e->needle_depths};
    if (haystacks_lengths(e, &g, err) < 0)
        return -1;
    g.found = memory_alloc(g.count * (size_t)g.depths, sizeof *g.found);
    int status = haystacks_fill(e, &g, err);
    if (status == 0 && !e->json)
        haystacks_print(&g);
    if (status == 0 && e->needle_plot)
        status = haystacks_plot(&g, e->needle_plot, err);
    free(g.found);
    return status;
}
