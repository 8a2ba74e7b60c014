#include "stages.h"
#include "train/cost.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/source.h"

/* One "TOKENS:…" of a list: the count, and the text behind the colon. */
static int border_parse(const char *option, const char *text, int64_t *tokens, const char **rest, Error *err)
{
    const char *colon = strchr(text, ':');
    char *number = memory_copy(text, colon ? (size_t)(colon - text) : 0);
    int status = option_whole(number, 1000, tokens);
    free(number);
    if (status < 0 || *tokens < 0)
        return error_set(err, "--%s %s: tokens and a colon are wanted first, as in 1e6:…", option, text);
    *rest = colon + 1;
    return 0;
}

static int ramp_value(const char *option, const char *text, int64_t *tokens, int64_t *value, Error *err)
{
    const char *rest;
    if (border_parse(option, text, tokens, &rest, err) < 0)
        return -1;
    if (option_whole(rest, 1000, value) < 0 || *value < 1 || *value > (int64_t)1e12)
        return error_set(err, "--%s %s: no positive whole number behind the colon", option, text);
    return 0;
}

/* The value of the last entry that has begun by `at`, and the next border after it. Entries must come in order. */
static int ramp_at(const char *option, const OptionList *list, int64_t at, int64_t *value, int64_t *next, Error *err)
{
    int64_t before = -1;
    for (size_t i = 0; i < list->count; i++) {
        int64_t tokens = 0, v = 0;
        if (ramp_value(option, list->values[i], &tokens, &v, err) < 0)
            return -1;
        if (tokens <= before)
            return error_set(err, "--%s %s: comes before the one it follows", option, list->values[i]);
        before = tokens;
        if (tokens <= at)
            *value = v;
        else if (tokens < *next)
            *next = tokens;
    }
    return 0;
}

/* "math=0.7,general=0.3" into weights; sources that are not named rest. */
static int phase_weights(const char *text, const char *list, const Sources *sources, double *weights, Error *err)
{
    memset(weights, 0, sources->count * sizeof *weights);
    while (*list) {
        const char *this = list;
        Span name;
        double weight;
        if (source_number(&list, &name, &weight, err) < 0)
            return error_set(err, "--phase %s: '%s' is no NAME=WEIGHT with a weight from 0 on", text, this);
        int64_t i = sources_find(sources, name);
        if (i < 0)
            return error_set(err, "--phase %s: '%.*s' is the name of no --data", text, (int)name.length, name.data);
        if (weights[i] > 0)
            return error_set(err, "--phase %s: '%.*s' stands twice", text, (int)name.length, name.data);
        weights[i] = weight;
    }
    double sum = 0;
    for (size_t i = 0; i < sources->count; i++)
        sum += weights[i];
    return sum > 0 ? 0 : error_set(err, "--phase %s: names no source", text);
}

/* Those that no step reaches are checked too: into `unreached`. */
static int phases_read(const OptionList *list, int64_t at, const Sources *sources, double *weights, double *unreached, int64_t *next, Error *err)
{
    int64_t before = -1;
    for (size_t i = 0; i < list->count; i++) {
        int64_t tokens;
        const char *rest;
        if (border_parse("phase", list->values[i], &tokens, &rest, err) < 0)
            return -1;
        if (tokens <= before)
            return error_set(err, "--phase %s: comes before the one it follows", list->values[i]);
        before = tokens;
        if (sources && phase_weights(list->values[i], rest, sources, tokens <= at ? weights : unreached, err) < 0)
            return -1;
        if (tokens > at && tokens < *next)
            *next = tokens;
    }
    return 0;
}

static int phase_at(const OptionList *list, int64_t at, const Sources *sources, double *weights, int64_t *next, Error *err)
{
    double *unreached = sources ? memory_zalloc(sources->count, sizeof *unreached) : NULL;
    int status = phases_read(list, at, sources, weights, unreached, next, err);
    free(unreached);
    return status;
}

/* The first sample of a source that a stage may take: one that earlier stages have begun, in samples of another length, is left out. */
static int64_t first_sample(const Stage *s, size_t source)
{
    return (s->used[source] + s->sequence_length - 1) / s->sequence_length;
}

/* How far each source has been read when s begins. */
static void use(Stage *s, const Stage *before, const Sources *sources)
{
    memcpy(s->used, before->used, sources->count * sizeof *s->used);
    Dealer d;
    dealer_open(&d, before, sources);
    dealer_seek(&d, before->steps * before->samples);
    for (size_t i = 0; i < d.blend.count; i++)
        if (d.blend.used[i] > 0)
            s->used[d.source[i]] = (first_sample(before, d.source[i]) + (int64_t)d.blend.used[i]) * before->sequence_length;
    dealer_close(&d);
}

/* The stage that begins after `at` tokens. Returns the tokens at which the next one does, -1 on errors. */
static int64_t stage_make(Stage *s, const StagePlan *p, int64_t at, const Sources *sources, Error *err)
{
    int64_t next = INT64_MAX, batch = p->batch_tokens;
    s->sequence_length = p->sequence_length;
    if (sources) {
        s->weights = memory_alloc(sources->count, sizeof *s->weights);
        s->used = memory_zalloc(sources->count, sizeof *s->used);
        for (size_t i = 0; i < sources->count; i++)
            s->weights[i] = sources->items[i].weight;
    }
    if (ramp_at("batch-ramp", p->batch_ramp, at, &batch, &next, err) < 0 || ramp_at("length-ramp", p->length_ramp, at, &s->sequence_length, &next, err) < 0 ||
        phase_at(p->phases, at, sources, s->weights, &next, err) < 0)
        return -1;
    if (s->sequence_length < 2 || s->sequence_length > 1 << 24)
        return error_set(err, "--length-ramp: a sample has 2 to %d tokens, not %" PRId64, 1 << 24, s->sequence_length);
    if (batch % s->sequence_length != 0)
        return error_set(err, "a batch of %" PRId64 " tokens is no multiple of samples of %" PRId64, batch, s->sequence_length);
    s->samples = batch / s->sequence_length;
    return next;
}

int stages_open(Stages *s, const StagePlan *p, const Sources *sources, Error *err)
{
    *s = (Stages){0};
    int64_t at = 0, step = 0;
    while (p->tokens ? at < p->tokens : step < p->steps) {
        s->items = memory_realloc(s->items, s->count + 1, sizeof *s->items);
        Stage *stage = &s->items[s->count++], *before = s->count > 1 ? stage - 1 : NULL;
        *stage = (Stage){.first_step = step};
        int64_t next = stage_make(stage, p, at, sources, err), batch = stage->samples * stage->sequence_length;
        if (next < 0)
            return -1;
        if (before && sources)
            use(stage, before, sources);
        if (batch > 0 && (p->tokens ? 0 : p->steps - step) > (INT64_MAX - at) / batch / 2)
            return error_set(err, "%" PRId64 " steps of %" PRId64 " tokens are too many", p->steps - step, batch);
        int64_t end = p->tokens && p->tokens < next ? p->tokens : next;
        stage->steps = (end - at - 1) / batch + 1;
        if (!p->tokens && stage->steps > p->steps - step)
            stage->steps = p->steps - step;
        step += stage->steps;
        at += stage->steps * batch;
    }
    s->steps = step;
    s->tokens = at;
    return 0;
}

void stages_close(Stages *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->items[i].weights);
        free(s->items[i].used);
    }
    free(s->items);
    *s = (Stages){0};
}

void stages_mix(Stages *s, int64_t step, const double *weights, const Sources *sources)
{
    size_t k = (size_t)(stages_at(s, step) - s->items), n = sources->count;
    int64_t into = step - s->items[k].first_step;
    if (into > 0) {
        s->items = memory_realloc(s->items, s->count + 1, sizeof *s->items);
        memmove(&s->items[k + 1], &s->items[k], (s->count - k) * sizeof *s->items);
        s->count++;
        Stage *before = &s->items[k], *after = &s->items[++k];
        after->first_step = step;
        after->steps -= into;
        after->weights = memory_alloc(n, sizeof *after->weights);
        after->used = memory_alloc(n, sizeof *after->used);
        before->steps = into;
    }
    for (size_t i = k; i < s->count; i++) {
        memcpy(s->items[i].weights, weights, n * sizeof *weights);
        if (i > 0)
            use(&s->items[i], &s->items[i - 1], sources);
    }
}

const Stage *stages_at(const Stages *s, int64_t step)
{
    size_t i = 0;
    while (i + 1 < s->count && s->items[i + 1].first_step <= step)
        i++;
    return &s->items[i];
}

int64_t stages_longest(const Stages *s)
{
    int64_t longest = 0;
    for (size_t i = 0; i < s->count; i++)
        longest = s->items[i].sequence_length > longest ? s->items[i].sequence_length : longest;
    return longest;
}

int64_t stage_pass(const Stage *s, int64_t most, const int extent[GRID_DIMENSIONS])
{
    return cost_micro_batch(s->sequence_length, s->samples, most, extent);
}

int64_t stage_passes(const Stage *s, int64_t most, const int extent[GRID_DIMENSIONS])
{
    CostRun r = {.samples = s->samples, .micro_batch = stage_pass(s, most, extent)};
    memcpy(r.extent, extent, sizeof r.extent);
    return cost_passes(&r);
}

void dealer_open(Dealer *d, const Stage *s, const Sources *sources)
{
    *d = (Dealer){.stage = s, .sources = sources, .source = memory_alloc(sources->count, sizeof *d->source)};
    double *weights = memory_alloc(sources->count, sizeof *weights);
    size_t n = 0;
    for (size_t i = 0; i < sources->count; i++)
        if (s->weights[i] > 0) {
            d->source[n] = i;
            weights[n++] = s->weights[i];
        }
    blend_new(&d->blend, weights, n);
    d->mark_used = memory_zalloc(n, sizeof *d->mark_used);
    free(weights);
}

void dealer_close(Dealer *d)
{
    blend_free(&d->blend);
    free(d->source);
    free(d->mark_used);
    *d = (Dealer){0};
}

void dealer_mark(Dealer *d, int64_t sample)
{
    dealer_seek(d, sample);
    d->mark = d->blend.next;
    memcpy(d->mark_used, d->blend.used, d->blend.count * sizeof *d->mark_used);
}

void dealer_seek(Dealer *d, int64_t sample)
{
    if ((uint64_t)sample < d->blend.next && (uint64_t)sample >= d->mark) {
        d->blend.next = d->mark;
        memcpy(d->blend.used, d->mark_used, d->blend.count * sizeof *d->mark_used);
    }
    blend_seek(&d->blend, (uint64_t)sample);
}

const Source *dealer_next(Dealer *d, int64_t *number)
{
    uint64_t index;
    size_t i = d->source[blend_next(&d->blend, &index)];
    *number = first_sample(d->stage, i) + (int64_t)index;
    return &d->sources->items[i];
}
