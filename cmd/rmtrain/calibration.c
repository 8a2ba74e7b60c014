#include "calibration.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/message.h"
#include "train/sigmoid.h"

enum { BINS = 10 };

typedef struct Bin {
    double pairs, predicted, right;
} Bin;

/* Pairs of a record's answers that are not tied: which wins by the scores, how surely, and is it the better one? */
static void count_record(const Examples *e, size_t group, const float *scores, Bin bins[BINS + 1], double *squares, double *surprise)
{
    size_t first = e->group_first[group], end = e->group_first[group + 1];
    for (size_t i = first; i < end; i++)
        for (size_t j = i + 1; j < end; j++) {
            if (e->items[i].level == e->items[j].level)
                continue;
            double apart = (double)scores[i] - (double)scores[j], p = sigmoid(fabs(apart));
            int at = (int)((p - 0.5) * 2 * BINS);
            Bin *both[] = {&bins[at < BINS ? at : BINS - 1], &bins[BINS]};
            for (int k = 0; k < 2; k++) {
                both[k]->pairs++;
                both[k]->predicted += p;
                both[k]->right += apart > 0 ? 1 : apart < 0 ? 0 : 0.5;
            }
            *squares += (1 - sigmoid(apart)) * (1 - sigmoid(apart));
            *surprise -= log_sigmoid(apart);
        }
}

static int write_table(const Bin bins[BINS + 1], Writer *out, Error *err)
{
    Buffer b = {0};
    buffer_string(&b, "from\tto\tpairs\tpredicted\tobserved\tstderr\n");
    for (int i = 0; i <= BINS; i++) {
        const Bin *x = &bins[i];
        if (x->pairs == 0)
            continue;
        double from = i < BINS ? 0.5 + 0.5 * i / BINS : 0.5, to = i < BINS ? from + 0.5 / BINS : 1, observed = x->right / x->pairs;
        buffer_format(&b, "%.2f\t%.2f\t%.0f\t%.4f\t%.4f\t%.4f\n", from, to, x->pairs, x->predicted / x->pairs, observed,
                      sqrt(observed * (1 - observed) / x->pairs));
    }
    int status = writer_write(out, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

int calibration(Scorer *s, const ExampleOptions *o, const Common *common, const char *const *files, Writer *out, Error *err)
{
    Examples e;
    int status = examples_read(&e, &s->coder, o, common, files, err);
    Bin bins[BINS + 1] = {{0}};
    double squares = 0, surprise = 0, error = 0;
    float *scores = memory_alloc(e.count + 1, sizeof *scores);
    for (size_t first = 0, next; first < e.groups && status == 0; first = next) {
        for (next = first; next < e.groups && !scorer_full(s); next++)
            for (size_t i = e.group_first[next]; i < e.group_first[next + 1]; i++)
                scorer_add_ids(s, e.items[i].tokens, (size_t)e.items[i].count, (size_t)e.items[i].answer);
        status = scorer_run(s, err);
        for (size_t i = 0; i < s->count && status == 0; i++)
            scores[e.group_first[first] + i] = s->scores[i];
        scorer_clear(s);
        for (size_t g = first; g < next && status == 0; g++)
            count_record(&e, g, scores, bins, &squares, &surprise);
    }
    const Bin *all = &bins[BINS];
    for (int i = 0; i < BINS; i++)
        error += fabs(bins[i].predicted - bins[i].right) / all->pairs;
    if (status == 0)
        status = write_table(bins, out, err);
    if (status == 0)
        message("%.0f pairs of %zu records: accuracy %.4f, calibration error %.4f, Brier score %.4f, log loss %.4f", all->pairs, e.groups,
                all->right / all->pairs, error, squares / all->pairs, surprise / all->pairs);
    free(scores);
    examples_free(&e);
    return status;
}
