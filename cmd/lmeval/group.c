/* Groups of tasks (lm_eval/config/group.py, api/group.py): a definition whose `task` is a list of tasks, tags and groups, which stand in
 * files beside it; and what the group's numbers are made of theirs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "definition.h"
#include "index.h"
#include "io/yaml.h"
#include "task.h"

enum { DEEPEST = 8 };

typedef struct Group {
    Eval *e;
    const char *path; /* of the file */
    Index index;
    YamlTree *trees; /* of files whose values are in use */
    size_t tree_count;
} Group;

/* What a group holds. Its numbers are made of those of all tasks below: a task that stands in two of its groups counts twice, as in
 * the harness (Group.get_all_tasks). */
typedef struct Members {
    Names children; /* each once */
    Names tasks;
} Members;

/* False where the group has it already. */
static bool members_add(Members *m, const char *child)
{
    if (names_have(&m->children, child))
        return false;
    names_add(&m->children, child);
    return true;
}

static void members_free(Members *m)
{
    names_free(&m->children);
    names_free(&m->tasks);
}

static const Result *result_find(const Eval *e, const char *task, const char *metric, const char *filter)
{
    for (size_t i = 0; i < e->result_count; i++) {
        const Result *r = &e->results[i];
        if (strcmp(r->task, task) == 0 && strcmp(r->metric, metric) == 0 && strcmp(r->filter, filter) == 0)
            return r;
    }
    return NULL;
}

/* One metric of the group by one filter: the mean of the tasks', weighted by their documents or not, and its error (pooled_sample_stderr,
 * unweighted_mean_stderr in lm_eval/api/metrics.py). */
static void combine(Group *g, const char *name, const char *metric, const char *filter, bool by_size, const Names *tasks)
{
    double sum = 0, weight = 0, squares = 0, spare = 0;
    int64_t n = 0, found = 0;
    for (size_t i = 0; i < tasks->count; i++) {
        const Result *r = result_find(g->e, tasks->items[i], metric, filter);
        if (!r)
            continue;
        double own = by_size ? (double)r->n : 1;
        sum += own * r->value;
        weight += own;
        squares += by_size ? (double)(r->n - 1) * r->stderror * r->stderror * (double)r->n : r->stderror * r->stderror;
        spare += (double)(r->n - 1);
        n += r->n;
        found++;
    }
    if (found > 0)
        result_print_filtered(g->e, name, metric, filter, sum / weight, by_size ? sqrt(squares / spare / (double)n) : sqrt(squares) / (double)found, n);
    else
        message_warning("group %s: no task has the metric %s,%s", name, metric, filter);
}

static int aggregate(Group *g, const char *name, const JsonValue *list, const Names *tasks, Error *err)
{
    size_t n;
    const JsonValue *entries = json_list(list, &n);
    for (size_t i = 0; i < n; i++) {
        const JsonValue *v = &entries[i], *metric = json_get(v, "metric"), *filters = json_get(v, "filter_list");
        const JsonValue *by_size = json_get(v, "weight_by_size"), *how = json_get(v, "aggregation");
        if (!json_is(metric, JSON_STRING) || (how && (how->type != JSON_STRING || strcmp(how->string.data, "mean") != 0)))
            return error_set(err, "%s: 'aggregate_metric_list' of '%s' needs a 'metric', and knows the aggregation 'mean' alone", g->path, name);
        bool weighted = !by_size || by_size->type != JSON_BOOL || by_size->boolean;
        if (filters && filters->type != JSON_NULL) {
            size_t kinds;
            const JsonValue *filter = json_list(filters, &kinds);
            for (size_t k = 0; k < kinds; k++)
                if (filter[k].type == JSON_STRING)
                    combine(g, name, metric->string.data, filter[k].string.data, weighted, tasks);
            continue;
        }
        /* Every filter by which a task has the metric, once. */
        for (size_t k = 0, end = g->e->result_count; k < end; k++) {
            Result r = g->e->results[k]; /* the list grows meanwhile */
            bool first = strcmp(r.metric, metric->string.data) == 0 && names_have(tasks, r.task);
            for (size_t m = 0; m < k && first; m++)
                first = strcmp(g->e->results[m].metric, r.metric) != 0 || strcmp(g->e->results[m].filter, r.filter) != 0 || !names_have(tasks, g->e->results[m].task);
            if (first)
                combine(g, name, r.metric, r.filter, weighted, tasks);
        }
    }
    return 0;
}

static bool group_is(const JsonValue *root)
{
    return json_is(json_get(root, "group"), JSON_STRING) && json_is(json_get(root, "task"), JSON_ARRAY);
}

static int run_group(Group *g, const JsonValue *v, const char *within, int depth, Members *above, Error *err);

/* What --check says of a definition that was read, or was not. */
static void check_print(Eval *e, const Task *t, int status, const Error *err)
{
    if (status < 0) {
        message_failed(err);
        e->refused++;
        return;
    }
    printf("%s:", t->name);
    for (size_t i = 0; i < t->pipeline_count; i++)
        for (size_t k = 0; k < t->metric_count; k++)
            printf(" %s,%s", metric_names[t->pipelines[i].metrics[k].kind], t->pipelines[i].name);
    printf(" of %s", t->test ? t->test : t->validation);
    if (t->num_fewshot > 0)
        printf(", %" PRId64 " examples of %s", t->num_fewshot, task_pool(t) ? task_pool(t) : "the definition");
    printf("\n");
}

static int run_file(Group *g, const char *path, int depth, Members *members, Error *err)
{
    YamlTree tree;
    Error ignored;
    if (yaml_parse_file(&tree, path, &ignored) == 0) {
        if (group_is(tree.tree.root)) {
            g->trees = memory_realloc(g->trees, g->tree_count + 1, sizeof *g->trees);
            g->trees[g->tree_count++] = tree;
            return run_group(g, tree.tree.root, NULL, depth, members, err);
        }
        json_free(&tree.tree);
    }
    Task t;
    int status = task_open(&t, path, g->e, err);
    if (g->e->check) {
        check_print(g->e, &t, status, err);
        task_close(&t);
        return 0;
    }
    bool done = false;
    for (size_t i = 0; status == 0 && i < g->e->result_count; i++)
        done |= strcmp(g->e->results[i].task, t.name) == 0;
    if (status == 0 && !done)
        status = task_run(g->e, &t, err);
    if (status == 0 && members_add(members, t.name))
        names_add(&members->tasks, t.name);
    task_close(&t);
    return status;
}

/* A task or group of that name, or all tasks that have the tag. */
static int run_name(Group *g, const char *name, int depth, Members *members, Error *err)
{
    const struct Entry *one = index_find(&g->index, name);
    if (one)
        return run_file(g, one->path, depth, members, err);
    size_t found = 0;
    int status = 0;
    for (size_t i = 0; i < g->index.count && status == 0; i++)
        if (names_have(&g->index.entries[i].tags, name)) {
            found++;
            status = run_file(g, g->index.entries[i].path, depth, members, err);
        }
    return found ? status : error_set(err, "%s: 'task' names '%s', which no definition beside it or below has", g->path, name);
}

static int check_keys(const Group *g, const JsonValue *v, const char *const *known, Error *err)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->items[i].type != JSON_NULL && !is_among(v->keys[i].data, known))
            return error_set(err, "%s: '%s' in a group is not known here", g->path, v->keys[i].data);
    return 0;
}

/* `within`: the name of the group in whose list this one stands, which begins its name. */
static int run_group(Group *g, const JsonValue *v, const char *within, int depth, Members *above, Error *err)
{
    static const char *const of_group[] = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", NULL}, *const of_task[] = {"task", "task_alias", NULL};
    const JsonValue *list = json_get(v, "task");
    Members members = {0};
    if (depth > DEEPEST)
        return error_set(err, "%s: groups hold each other without end", g->path);
    const char *last = json_get(v, "group")->string.data;
    char *name = within ? memory_format("%s::%s", within, last) : memory_string(last);
    int status = check_keys(g, v, of_group, err);
    if (status == 0 && list->count == 0)
        status = error_set(err, "%s: the group '%s' holds no task", g->path, name);
    for (size_t i = 0; i < list->count && status == 0; i++) {
        const JsonValue *one = &list->items[i], *task = json_get(one, "task"), *group = json_get(one, "group");
        bool known = json_is(group, JSON_STRING) && index_find(&g->index, group->string.data);
        if (one->type == JSON_STRING)
            status = run_name(g, one->string.data, depth + 1, &members, err);
        else if (group_is(one))
            status = run_group(g, one, known ? NULL : name, depth + 1, &members, err);
        else if (known && one->count == 1)
            status = run_name(g, group->string.data, depth + 1, &members, err);
        else if (!json_is(task, JSON_STRING))
            status = error_set(err, "%s: 'task' holds what is neither a name nor a group", g->path);
        else if ((status = check_keys(g, one, of_task, err)) == 0)
            status = run_name(g, task->string.data, depth + 1, &members, err);
    }
    if (status == 0 && !g->e->check)
        status = aggregate(g, name, json_get(v, "aggregate_metric_list"), &members.tasks, err);
    if (above && members_add(above, name))
        for (size_t i = 0; i < members.tasks.count; i++)
            names_add(&above->tasks, members.tasks.items[i]);
    members_free(&members);
    free(name);
    return status;
}

int eval_task(Eval *e, const char *path, Error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? memory_copy(path, (size_t)(slash - path)) : memory_string(".");
    Group g = {.e = e, .path = path};
    YamlTree tree;
    Error ignored;
    if (yaml_parse_file(&tree, path, &ignored) == 0) {
        if (group_is(tree.tree.root))
            index_read(&g.index, folder);
        json_free(&tree.tree);
    }
    results_cut(e);
    Members members = {0};
    int status = run_file(&g, path, 0, &members, err);
    members_free(&members);
    index_free(&g.index);
    for (size_t i = 0; i < g.tree_count; i++)
        json_free(&g.trees[i].tree);
    free(g.trees);
    free(folder);
    return status;
}
