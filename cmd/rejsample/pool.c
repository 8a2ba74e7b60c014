#include "pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pool_add(Pool *p, Span text, const double *scores, bool reference, uint64_t *twice)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i].length == text.length && memcmp(p->items[i].text, text.data, text.length) == 0) {
            p->items[i].times += !reference;
            if (twice)
                ++*twice;
            return;
        }
    p->items = memory_realloc(p->items, p->count + 1, sizeof *p->items);
    Candidate *c = &p->items[p->count++];
    *c = (Candidate){.text = memory_copy(text.data, text.length), .length = text.length, .scores = memory_zalloc(p->models, sizeof *c->scores),
                     .times = !reference, .reference = reference};
    if (scores)
        memcpy(c->scores, scores, p->models * sizeof *scores);
}

void pool_free(Pool *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->items[i].text);
        free(p->items[i].scores);
    }
    free(p->items);
    *p = (Pool){0};
}

double candidate_mean(const Pool *p, size_t i)
{
    double sum = 0;
    for (size_t m = 0; m < p->models; m++)
        sum += p->items[i].scores[m];
    return sum / (double)p->models;
}

/* Σ over the models of (score − mean) / deviation. */
static double standardised(const Pool *p, size_t i)
{
    double total = 0;
    for (size_t m = 0; m < p->models; m++) {
        double sum = 0, squares = 0, n = (double)p->count;
        for (size_t k = 0; k < p->count; k++)
            sum += p->items[k].scores[m];
        for (size_t k = 0; k < p->count; k++)
            squares += pow(p->items[k].scores[m] - sum / n, 2);
        if (squares > 0)
            total += (p->items[i].scores[m] - sum / n) / sqrt(squares / n);
    }
    return total;
}

size_t pool_best(const Pool *p, bool worst, bool by_mean, int64_t *votes)
{
    double sign = worst ? -1 : 1;
    int64_t *got = memory_zalloc(p->count, sizeof *got);
    for (size_t m = 0; m < p->models; m++) {
        size_t choice = 0;
        for (size_t i = 1; i < p->count; i++)
            if (sign * p->items[i].scores[m] > sign * p->items[choice].scores[m])
                choice = i;
        got[choice]++;
    }
    size_t best = 0;
    double height = sign * standardised(p, 0);
    for (size_t i = 1; i < p->count; i++) {
        double h = sign * standardised(p, i);
        if (by_mean || got[i] == got[best] ? h > height : got[i] > got[best]) {
            best = i;
            height = h;
        }
    }
    *votes = got[best];
    free(got);
    return best;
}
