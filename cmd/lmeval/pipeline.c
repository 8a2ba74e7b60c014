/* What a definition says of answers: how they are written, which filters they pass, what is counted. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "definition.h"

int generation_take(Definition *d)
{
    Task *t = d->t;
    static const char *const lengths[] = {"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"};
    const JsonValue *v = definition_take(d, "generation_kwargs"), *until = json_get(v, "until");
    if (v && v->type != JSON_OBJECT)
        return definition_complain(d, "generation_kwargs", "must be a mapping");
    t->max_tokens = 0;
    for (size_t i = 0; v && i < v->count; i++) {
        const char *key = v->keys[i].data;
        const JsonValue *value = &v->items[i];
        bool fine = strcmp(key, "until") == 0 || (strcmp(key, "num_beams") == 0 && value->type == JSON_INTEGER && value->integer == 1) || (strcmp(key, "do_sample") == 0 && value->type == JSON_BOOL && !value->boolean) ||
                    (strcmp(key, "temperature") == 0 && (value->type == JSON_INTEGER || value->type == JSON_NUMBER) && value->number == 0);
        for (int k = 0; k < 4; k++)
            fine |= strcmp(key, lengths[k]) == 0 && value->type == JSON_INTEGER && value->integer > 0 && value->integer < 1 << 20;
        if (!fine) {
            char *reason = memory_format("has '%s' with a value that is not known here: answers are written greedily", key);
            definition_complain(d, "generation_kwargs", reason);
            free(reason);
            return -1;
        }
    }
    for (int k = 3; k >= 0; k--) /* the first wins */
        if (json_get(v, lengths[k]))
            t->max_tokens = json_get(v, lengths[k])->integer;
    if (t->max_tokens == 0)
        t->max_tokens = 256;
    size_t n;
    const JsonValue *stops = json_list(until, &n);
    t->until = memory_zalloc(n + 2, sizeof *t->until);
    if (!until)
        t->until[t->until_count++] = t->delimiter;
    for (size_t i = 0; i < n; i++) {
        if (stops[i].type != JSON_STRING)
            return definition_complain(d, "generation_kwargs", "has an 'until' that is no text");
        t->until[t->until_count++] = stops[i].string.data;
    }
    return 0;
}

/* Arguments of exact_match of answers; other metrics ignore them, and those of choices and continuations two more, as in the harness. */
static int read_argument(Definition *d, Metric *m, const char *key, const JsonValue *value)
{
    static const char *const passed[] = {"metric", "aggregation", "higher_is_better", NULL}, *const match[] = {"ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore", NULL},
                      *const others[] = {"weight_by_size", "average", NULL};
    bool *flags[] = {&m->ignore_case, &m->ignore_punctuation, &m->ignore_numbers}, *to = NULL, matches = d->t->kind == TASK_GENERATE && m->kind == METRIC_EXACT_MATCH;
    for (int i = 0; i < 3; i++)
        to = strcmp(match[i], key) == 0 ? flags[i] : to;
    if (is_among(key, passed) || (strcmp(key, "hf_evaluate") == 0 && value->type == JSON_BOOL && !value->boolean) || (!matches && (is_among(key, match) || is_among(key, others))))
        return 0;
    if (matches && strcmp(key, "regexes_to_ignore") == 0)
        return filter_patterns(value, &m->ignored, &m->ignored_count, d->err);
    if (!matches || !to || value->type != JSON_BOOL)
        return error_set(d->err, "'%s' of the metric '%s' is not known here", key, metric_names[m->kind]);
    *to = value->boolean;
    return 0;
}

/* One entry of metric_list. */
static int read_metric(Definition *d, Metric *m, const JsonValue *v)
{
    const JsonValue *name = json_get(v, "metric"), *aggregation = json_get(v, "aggregation");
    if (!json_is(name, JSON_STRING))
        return error_set(d->err, "an entry names no 'metric'");
    int kind = 0;
    while (kind < METRICS && strcmp(metric_names[kind], name->string.data) != 0)
        kind++;
    if (kind == METRICS || !metric_allowed(d->t->kind, (MetricKind)kind))
        return error_set(d->err, "the metric '%s' is not known for this output_type", name->string.data);
    *m = metric_new((MetricKind)kind);
    const char *own = metric_aggregations[kind], *wanted = json_is(aggregation, JSON_STRING) ? aggregation->string.data : own;
    m->median = strcmp(own, "mean") == 0 && strcmp(wanted, "median") == 0;
    if ((aggregation && aggregation->type != JSON_STRING) || (strcmp(wanted, own) != 0 && !m->median))
        return error_set(d->err, "the aggregation '%s' of '%s' is not known here", wanted, name->string.data);
    for (size_t i = 0; i < v->count; i++)
        if (read_argument(d, m, v->keys[i].data, &v->items[i]) < 0)
            return -1;
    return 0;
}

/* The metrics that the harness counts where the definition names none (api/registry.py, DEFAULT_METRIC_REGISTRY). */
static void standard_metrics(Task *t, Pipeline *p)
{
    static const MetricKind of[][3] = {[TASK_GENERATE] = {METRIC_EXACT_MATCH}, [TASK_CHOICE] = {METRIC_ACC, METRIC_ACC_NORM}, [TASK_LIKELIHOOD] = {METRIC_PERPLEXITY, METRIC_ACC},
                                       [TASK_ROLLING] = {METRIC_WORD_PERPLEXITY, METRIC_BYTE_PERPLEXITY, METRIC_BITS_PER_BYTE}};
    t->metric_count = t->kind == TASK_GENERATE ? 1 : t->kind == TASK_ROLLING ? 3 : 2;
    p->metrics = memory_zalloc(t->metric_count, sizeof *p->metrics);
    for (size_t i = 0; i < t->metric_count; i++)
        p->metrics[i] = metric_new(of[t->kind][i]);
}

int pipelines_take(Definition *d)
{
    Task *t = d->t;
    const JsonValue *filters = definition_take(d, "filter_list"), *metrics = definition_take(d, "metric_list");
    if ((filters && filters->type != JSON_ARRAY) || (metrics && (metrics->type != JSON_ARRAY || metrics->count == 0)))
        return definition_complain(d, filters && filters->type != JSON_ARRAY ? "filter_list" : "metric_list", "must be a list");
    if (filters && t->kind != TASK_GENERATE)
        return definition_complain(d, "filter_list", "is known for output_type generate_until alone");
    t->pipeline_count = filters && filters->count ? filters->count : 1;
    t->pipelines = memory_zalloc(t->pipeline_count, sizeof *t->pipelines);
    for (size_t i = 0; i < t->pipeline_count; i++) {
        Pipeline *p = &t->pipelines[i];
        const JsonValue *v = filters && filters->count ? &filters->items[i] : NULL, *name = json_get(v, "name"), *list = json_get(v, "filter");
        if (v && (!json_is(name, JSON_STRING) || !json_is(list, JSON_ARRAY)))
            return definition_complain(d, "filter_list", "needs a 'name' and a 'filter' in each entry");
        p->name = memory_string(v ? name->string.data : "none");
        p->filters = memory_zalloc((list ? list->count : 0) + 1, sizeof *p->filters);
        for (; list && p->count < list->count; p->count++)
            if (filter_read(&p->filters[p->count], &list->items[p->count], d->err) < 0)
                return definition_place(d, "filter_list");
        if (!metrics) {
            standard_metrics(t, p);
            continue;
        }
        t->metric_count = metrics->count;
        p->metrics = memory_zalloc(t->metric_count, sizeof *p->metrics);
        for (size_t k = 0; k < t->metric_count; k++)
            if (read_metric(d, &p->metrics[k], &metrics->items[k]) < 0)
                return definition_place(d, "metric_list");
    }
    return 0;
}
