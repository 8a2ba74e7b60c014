/* What is asked for: operands and phases, and the tokens that each source gives to each phase. */
#include "mix.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "data/source.h"

static bool name_is_valid(Span name)
{
    for (size_t i = 0; i < name.length; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", name.data[i]))
            return false;
    return name.length > 0 && name.length < 200 && name.data[0] != '.';
}

static int64_t source_find(const Mix *m, Span name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strlen(m->sources[i].name) == name.length && memcmp(m->sources[i].name, name.data, name.length) == 0)
            return (int64_t)i;
    return -1;
}

static bool weight_read(const char *text, char stop, double *weight, const char **rest)
{
    char *end;
    *weight = strtod(text, &end);
    *rest = end;
    return end != text && *end == stop && isfinite(*weight) && *weight >= 0 && *weight <= 1e12;
}

static int operand_parse(Mix *m, const char *text, Error *err)
{
    SourceOperand s;
    if (source_parse(&s, text, err) < 0)
        return -1;
    if (!s.weighted)
        return error_set(err, "%s: not NAME=WEIGHT:PREFIX", text);
    if (!name_is_valid(s.name))
        return error_set(err, "%s: a name has letters, digits, '_', '-' and '.' alone", text);
    if (source_find(m, s.name) >= 0)
        return error_set(err, "%s: the name %.*s is there twice", text, (int)s.name.length, s.name.data);
    m->sources[m->count++] = (Source){.name = memory_copy(s.name.data, s.name.length), .prefix = s.prefix, .weight = s.weight, .max_epochs = 1};
    return 0;
}

static int weights_normalise(const Mix *m, double *weight, const char *what, Error *err)
{
    double sum = 0;
    for (size_t i = 0; i < m->count; i++)
        sum += weight[i];
    if (!(sum > 0))
        return error_set(err, "%s: the weights sum to 0", what);
    for (size_t i = 0; i < m->count; i++)
        weight[i] /= sum;
    return 0;
}

/* SHARE:NAME=WEIGHT,NAME=WEIGHT */
static int phase_parse(const Mix *m, Phase *p, const char *text, Error *err)
{
    const char *at;
    Span name;
    p->weight = memory_zalloc(m->count, sizeof *p->weight);
    p->tokens = memory_zalloc(m->count, sizeof *p->tokens);
    bool *seen = memory_zalloc(m->count, sizeof *seen);
    int status = 0;
    if (!weight_read(text, ':', &p->share, &at) || !(p->share > 0) || p->share > 1)
        status = error_set(err, "--phase %s: not SHARE:NAME=WEIGHT,… with a share in (0, 1]", text);
    for (at += status == 0; status == 0 && *at;) {
        double weight;
        int64_t i = -1;
        if (source_number(&at, &name, &weight, err) < 0)
            status = error_set(err, "--phase %s: not SHARE:NAME=WEIGHT,… with weights from 0 on", text);
        else if ((i = source_find(m, name)) < 0)
            status = error_set(err, "--phase %s: there is no source %.*s", text, (int)name.length, name.data);
        else if (seen[i])
            status = error_set(err, "--phase %s: %s is there twice", text, m->sources[i].name);
        else {
            p->weight[i] = weight;
            seen[i] = true;
        }
    }
    free(seen);
    return status < 0 ? -1 : weights_normalise(m, p->weight, text, err);
}

static int epochs_parse(Mix *m, const char *text, Error *err)
{
    const char *equals = strchr(text, '='), *rest;
    double epochs;
    if (!weight_read(equals ? equals + 1 : text, '\0', &epochs, &rest) || !(epochs > 0))
        return error_set(err, "--max-epochs %s: not a positive number or NAME=NUMBER", text);
    int64_t only = equals ? source_find(m, (Span){text, (size_t)(equals - text)}) : -1;
    if (equals && only < 0)
        return error_set(err, "--max-epochs %s: there is no source %.*s", text, (int)(equals - text), text);
    for (size_t i = 0; i < m->count; i++)
        if (only < 0 || (int64_t)i == only)
            m->sources[i].max_epochs = epochs;
    return 0;
}

int mix_parse(Mix *m, const OptionSet *set, const OptionList *phases, const OptionList *epochs, Error *err)
{
    *m = (Mix){.sources = memory_zalloc(set->operand_count, sizeof *m->sources),
               .phases = memory_zalloc(phases->count + 1, sizeof *m->phases)};
    for (size_t i = 0; i < set->operand_count; i++)
        if (operand_parse(m, set->operands[i], err) < 0)
            return -1;
    /* A number alone is for all, whatever its place; names come after. */
    for (int named = 0; named < 2; named++)
        for (size_t i = 0; i < epochs->count; i++)
            if ((strchr(epochs->values[i], '=') != NULL) == named && epochs_parse(m, epochs->values[i], err) < 0)
                return -1;
    double left = 1;
    m->phase_count = 1;
    for (size_t i = 0; i < phases->count; i++) {
        Phase *p = &m->phases[m->phase_count++];
        if (phase_parse(m, p, phases->values[i], err) < 0)
            return -1;
        left -= p->share;
    }
    if (left < -1e-9)
        return error_set(err, "the shares of --phase sum to more than 1");
    Phase *first = &m->phases[0];
    first->share = left < 1e-9 ? 0 : left;
    first->weight = memory_zalloc(m->count, sizeof *first->weight);
    first->tokens = memory_zalloc(m->count, sizeof *first->tokens);
    for (size_t i = 0; i < m->count; i++)
        first->weight[i] = m->sources[i].weight;
    return first->share > 0 ? weights_normalise(m, first->weight, "sources", err) : 0;
}

/* Whole tokens for parts of `total`, by largest remainder, so that they sum to it; ties go to the first. */
static void deal(int64_t total, const double *weight, size_t count, int64_t *out)
{
    int64_t given = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = (int64_t)floor(weight[i] * (double)total);
        given += out[i];
    }
    while (given != total) {
        size_t best = 0;
        int sign = given < total ? 1 : -1;
        for (size_t i = 1; i < count; i++)
            if (sign * (weight[i] * (double)total - (double)out[i]) > sign * (weight[best] * (double)total - (double)out[best]))
                best = i;
        out[best] += sign;
        given += sign;
    }
}

int mix_plan(Mix *m, int64_t tokens, int64_t sequence_length, Error *err)
{
    m->tokens = tokens;
    for (size_t i = 0; i < m->count; i++)
        m->sources[i].wanted = 0;
    double *share = memory_zalloc(m->phase_count, sizeof *share);
    int64_t *total = memory_zalloc(m->phase_count, sizeof *total);
    for (size_t p = 0; p < m->phase_count; p++)
        share[p] = m->phases[p].share;
    /* Phases are whole samples; the last one has what is left. */
    deal(tokens / sequence_length, share, m->phase_count, total);
    size_t last = m->phase_count - 1;
    for (size_t p = 0; p < m->phase_count; p++) {
        total[p] = total[p] * sequence_length + (p == last ? tokens % sequence_length : 0);
        m->phases[p].total = total[p];
        if (total[p] == 0)
            continue;
        deal(total[p], m->phases[p].weight, m->count, m->phases[p].tokens);
        for (size_t i = 0; i < m->count; i++)
            m->sources[i].wanted += m->phases[p].tokens[i];
    }
    free(share);
    free(total);
    for (size_t i = 0; i < m->count; i++) {
        const Source *s = &m->sources[i];
        if (s->wanted > 0 && (s->train_tokens == 0 || (double)s->wanted > s->max_epochs * (double)s->train_tokens * (1 + 1e-12)))
            return error_set(err, "%s: runs out: the mix wants %" PRId64 " tokens, %" PRId64 " are there to train on (%.4g epochs, --max-epochs is %g)",
                             s->name, s->wanted, s->train_tokens, s->train_tokens ? (double)s->wanted / (double)s->train_tokens : INFINITY, s->max_epochs);
    }
    return 0;
}

void mix_free(Mix *m)
{
    for (size_t i = 0; i < m->count; i++) {
        Source *s = &m->sources[i];
        shard_close(&s->shard);
        free(s->name);
        free(s->held);
        free(s->held_out);
    }
    for (size_t p = 0; p < m->phase_count; p++) {
        free(m->phases[p].weight);
        free(m->phases[p].tokens);
    }
    free(m->sources);
    free(m->phases);
    *m = (Mix){0};
}
