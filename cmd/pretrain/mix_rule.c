/* Shares s_i sum to 1 and never leave [start_i / limit, start_i · limit]. The source k furthest behind goes to
 * min(s_k (1 + step), start_k limit); the others give in proportion to what they have above their least. A source at its most is
 * passed over for the next one behind, and gives nothing to it. */
#include "mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/source.h"
#include "io/json.h"

int mix_rule_open(MixRule *r, const char *targets, double step, double limit, const Sources *sources, const Sources *held_out, Error *err)
{
    *r = (MixRule){.target = memory_alloc(sources->count, sizeof *r->target), .step = step, .limit = limit};
    for (size_t i = 0; i < sources->count; i++)
        r->target[i] = NAN;
    const char *at = targets;
    do {
        const char *this = at;
        Span name;
        double loss;
        if (source_number(&at, &name, &loss, err) < 0)
            return error_set(err, "--mix-rule %s: '%s' is no NAME=LOSS", targets, this);
        int64_t i = sources_find(sources, name);
        if (i < 0 || sources_find(held_out, name) < 0)
            return error_set(err, "--mix-rule %s: '%.*s' is the name of no --%s", targets, (int)name.length, name.data, i < 0 ? "data" : "val");
        if (!isnan(r->target[i]))
            return error_set(err, "--mix-rule %s: '%.*s' stands twice", targets, (int)name.length, name.data);
        r->target[i] = loss;
    } while (*at);
    return 0;
}

void mix_rule_close(MixRule *r)
{
    free(r->target);
    *r = (MixRule){0};
}

static void normalise(double *weights, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += weights[i];
    for (size_t i = 0; i < n; i++)
        weights[i] /= sum;
}

/* n: none is behind. */
static size_t furthest(const double *behind, size_t n)
{
    size_t k = n;
    for (size_t i = 0; i < n; i++)
        if (behind[i] > 0 && (k == n || behind[i] > behind[k]))
            k = i;
    return k;
}

/* Moves share towards source k; the others keep least[i]. False where it has its most, or the others nothing to give. */
static bool raise(double *share, const double *least, size_t n, size_t k, double most, double step)
{
    double kept = 0;
    for (size_t i = 0; i < n; i++)
        kept += i == k ? 0 : least[i];
    double to = fmin(share[k] * (1 + step), fmin(most, 1 - kept));
    if (!(to > share[k] * (1 + 1e-9)))
        return false;
    double part = (1 - to - kept) / (1 - share[k] - kept);
    for (size_t i = 0; i < n; i++)
        share[i] = i == k ? to : least[i] + (share[i] - least[i]) * part;
    return true;
}

static void record(Mix *m, int64_t step, double *share, size_t k, double loss, double target)
{
    Buffer why = {0};
    buffer_string(&why, ",\"raised\":");
    json_write_string(&why, (Span){m->sources->items[k].name, strlen(m->sources->items[k].name)});
    buffer_format(&why, ",\"val_loss\":%.6g,\"target\":%.6g%c", loss, target, '\0');
    mix_change(m, step, share, why.data);
    buffer_free(&why);
}

void mix_rule_apply(Mix *m, const MixRule *r, int64_t step, const double *loss)
{
    size_t n = m->sources->count;
    if (m->count && m->changes[m->count - 1].step >= step)
        return;
    double *start = memory_alloc(n, sizeof *start), *least = memory_alloc(n, sizeof *least), *behind = memory_alloc(n, sizeof *behind);
    for (size_t i = 0; i < n; i++)
        start[i] = m->sources->items[i].weight;
    normalise(start, n);
    double *share = memory_alloc(n, sizeof *share);
    memcpy(share, m->count ? m->changes[m->count - 1].weights : start, n * sizeof *share);
    normalise(share, n);
    for (size_t i = 0; i < n; i++) {
        least[i] = start[i] / r->limit;
        behind[i] = loss[i] - r->target[i]; /* NAN: no target or no loss */
    }
    for (size_t k; share && (k = furthest(behind, n)) < n;) {
        if (raise(share, least, n, k, start[k] * r->limit, r->step)) {
            record(m, step, share, k, loss[k], r->target[k]);
            share = NULL;
        } else {
            behind[k] = 0;
            least[k] = share[k];
        }
    }
    free(start);
    free(least);
    free(behind);
    free(share);
}
