/* Groups of tasks (lm_eval/config/group.py, api/group.py): a definition whose `task` is a list of tasks, tags and groups, which stand in
 * files beside it; and what the group's numbers are made of theirs. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/memory.h"
#include "base/message.h"
#include "io/yaml.h"
#include "task.h"

enum { DEEPEST = 8, MOST_FILES = 20000 };

/* The definitions in a folder and below. */
typedef struct Index {
    struct Entry {
        char *path, *name; /* of the task or the group */
        char **tags;
        size_t tag_count;
    } *entries;
    size_t count, capacity;
} Index;

typedef struct Group {
    Eval *e;
    const char *path; /* of the file */
    Index index;
    YamlTree *trees; /* of files whose values are in use */
    size_t tree_count;
} Group;

static void tags_add(struct Entry *entry, const JsonValue *v)
{
    for (size_t i = 0; v && i < (v->type == JSON_ARRAY ? v->count : 1); i++) {
        const JsonValue *one = v->type == JSON_ARRAY ? &v->items[i] : v;
        if (one->type != JSON_STRING)
            continue;
        entry->tags = memory_realloc(entry->tags, entry->tag_count + 1, sizeof *entry->tags);
        entry->tags[entry->tag_count++] = memory_string(one->string.data);
    }
}

/* The name in a file that is no YAML for us (it has Python in it), so that the task itself says why. */
static char *name_of_text(const char *path)
{
    Error ignored;
    Reader *r = reader_open(path, &ignored);
    char *name = NULL;
    Span line;
    while (r && !name && reader_line(r, &line, &ignored) > 0) {
        size_t at = line.length && strchr("\"'", line.data[0]) ? 1 : 0;
        if (line.length < at + 5 || memcmp(line.data + at, "task", 4) != 0)
            continue;
        for (at += 4; at < line.length && strchr("\"':\t ", line.data[at]); at++)
            ;
        size_t end = at;
        while (end < line.length && !strchr("\"'\t #\r", line.data[end]))
            end++;
        name = end > at ? memory_copy(line.data + at, end - at) : NULL;
    }
    reader_close(r);
    return name;
}

static void index_add(Index *x, const char *path)
{
    YamlTree tree;
    Error ignored;
    struct Entry entry = {0};
    if (yaml_parse_file(&tree, path, &ignored) == 0) {
        const JsonValue *group = json_get(tree.tree.root, "group"), *task = json_get(tree.tree.root, "task");
        const JsonValue *name = json_is(task, JSON_STRING) ? task : group;
        entry.name = json_is(name, JSON_STRING) ? memory_string(name->string.data) : NULL;
        tags_add(&entry, json_get(tree.tree.root, "tag"));
        json_free(&tree.tree);
    } else {
        entry.name = name_of_text(path);
    }
    if (!entry.name) {
        for (size_t i = 0; i < entry.tag_count; i++)
            free(entry.tags[i]);
        free(entry.tags);
        return;
    }
    entry.path = memory_string(path);
    x->entries = memory_grow(x->entries, &x->capacity, x->count + 1, sizeof *x->entries);
    x->entries[x->count++] = entry;
}

/* In the order of the files' names. */
static void index_folder(Index *x, const char *folder, int depth)
{
    struct dirent **names = NULL;
    int n = depth < DEEPEST ? scandir(folder, &names, NULL, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        size_t length = strlen(name);
        char *path = memory_format("%s/%s", folder, name);
        struct stat st;
        if (name[0] != '.' && x->count < MOST_FILES && stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode))
                index_folder(x, path, depth + 1);
            else if ((length > 5 && strcmp(name + length - 5, ".yaml") == 0) || (length > 4 && strcmp(name + length - 4, ".yml") == 0))
                index_add(x, path);
        }
        free(path);
        free(names[i]);
    }
    free(names);
}

static void index_free(Index *x)
{
    for (size_t i = 0; i < x->count; i++) {
        for (size_t k = 0; k < x->entries[i].tag_count; k++)
            free(x->entries[i].tags[k]);
        free(x->entries[i].tags);
        free(x->entries[i].name);
        free(x->entries[i].path);
    }
    free(x->entries);
}

/* The numbers of a group's tasks: `name` counts once, however many groups hold it. */
typedef struct Leaves {
    char **names;
    size_t count;
} Leaves;

static bool leaves_have(const Leaves *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->names[i], name) == 0)
            return true;
    return false;
}

static void leaves_add(Leaves *l, const char *name)
{
    if (leaves_have(l, name))
        return;
    l->names = memory_realloc(l->names, l->count + 1, sizeof *l->names);
    l->names[l->count++] = memory_string(name);
}

static void leaves_free(Leaves *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->names[i]);
    free(l->names);
}

/* One metric of the group by one filter: the mean of the tasks', weighted by their documents or not, and its error (pooled_sample_stderr,
 * unweighted_mean_stderr in lm_eval/api/metrics.py). */
static void combine(Group *g, const char *name, const char *metric, const char *filter, bool by_size, const Leaves *leaves)
{
    double sum = 0, weight = 0, squares = 0, spare = 0;
    int64_t n = 0, tasks = 0;
    for (size_t i = 0; i < g->e->result_count; i++) {
        const Result *r = &g->e->results[i];
        if (strcmp(r->metric, metric) != 0 || strcmp(r->filter, filter) != 0 || !leaves_have(leaves, r->task))
            continue;
        double own = by_size ? (double)r->n : 1;
        sum += own * r->value;
        weight += own;
        squares += by_size ? (double)(r->n - 1) * r->stderror * r->stderror * (double)r->n : r->stderror * r->stderror;
        spare += (double)(r->n - 1);
        n += r->n;
        tasks++;
    }
    if (tasks > 0)
        result_print_filtered(g->e, name, metric, filter, sum / weight, by_size ? sqrt(squares / spare / (double)n) : sqrt(squares) / (double)tasks, n);
    else
        message_warning("group %s: no task has the metric %s,%s", name, metric, filter);
}

static int aggregate(Group *g, const char *name, const JsonValue *list, const Leaves *leaves, Error *err)
{
    for (size_t i = 0; list && i < (list->type == JSON_ARRAY ? list->count : 1); i++) {
        const JsonValue *v = list->type == JSON_ARRAY ? &list->items[i] : list, *metric = json_get(v, "metric"), *filters = json_get(v, "filter_list");
        const JsonValue *by_size = json_get(v, "weight_by_size"), *how = json_get(v, "aggregation");
        if (!json_is(metric, JSON_STRING) || (how && (how->type != JSON_STRING || strcmp(how->string.data, "mean") != 0)))
            return error_set(err, "%s: 'aggregate_metric_list' of '%s' needs a 'metric', and knows the aggregation 'mean' alone", g->path, name);
        bool weighted = !by_size || by_size->type != JSON_BOOL || by_size->boolean;
        if (filters && filters->type != JSON_NULL) {
            for (size_t k = 0; k < (filters->type == JSON_ARRAY ? filters->count : 1); k++) {
                const JsonValue *filter = filters->type == JSON_ARRAY ? &filters->items[k] : filters;
                if (filter->type == JSON_STRING)
                    combine(g, name, metric->string.data, filter->string.data, weighted, leaves);
            }
            continue;
        }
        /* Every filter by which a task has the metric, once. */
        for (size_t k = 0, end = g->e->result_count; k < end; k++) {
            Result r = g->e->results[k]; /* the list grows meanwhile */
            bool first = strcmp(r.metric, metric->string.data) == 0 && leaves_have(leaves, r.task);
            for (size_t m = 0; m < k && first; m++)
                first = strcmp(g->e->results[m].metric, r.metric) != 0 || strcmp(g->e->results[m].filter, r.filter) != 0 || !leaves_have(leaves, g->e->results[m].task);
            if (first)
                combine(g, name, r.metric, r.filter, weighted, leaves);
        }
    }
    return 0;
}

static bool group_is(const JsonValue *root)
{
    return json_is(json_get(root, "group"), JSON_STRING) && json_is(json_get(root, "task"), JSON_ARRAY);
}

static int run_group(Group *g, const JsonValue *v, const char *within, int depth, Leaves *above, Error *err);

static int run_file(Group *g, const char *path, int depth, Leaves *leaves, Error *err)
{
    YamlTree tree;
    Error ignored;
    if (yaml_parse_file(&tree, path, &ignored) == 0) {
        if (group_is(tree.tree.root)) {
            g->trees = memory_realloc(g->trees, g->tree_count + 1, sizeof *g->trees);
            g->trees[g->tree_count++] = tree;
            return run_group(g, tree.tree.root, NULL, depth, leaves, err);
        }
        json_free(&tree.tree);
    }
    Task t;
    int status = task_open(&t, path, g->e, err);
    bool done = false;
    for (size_t i = 0; status == 0 && i < g->e->result_count; i++)
        done |= strcmp(g->e->results[i].task, t.name) == 0;
    if (status == 0 && !done)
        status = task_run(g->e, &t, err);
    if (status == 0)
        leaves_add(leaves, t.name);
    task_close(&t);
    return status;
}

/* A task or group of that name, or all that have the tag. */
static int run_name(Group *g, const char *name, int depth, Leaves *leaves, Error *err)
{
    for (size_t i = 0; i < g->index.count; i++)
        if (strcmp(g->index.entries[i].name, name) == 0)
            return run_file(g, g->index.entries[i].path, depth, leaves, err);
    size_t found = 0;
    int status = 0;
    for (size_t i = 0; i < g->index.count && status == 0; i++)
        for (size_t k = 0; k < g->index.entries[i].tag_count && status == 0; k++)
            if (strcmp(g->index.entries[i].tags[k], name) == 0) {
                found++;
                status = run_file(g, g->index.entries[i].path, depth, leaves, err);
            }
    return found ? status : error_set(err, "%s: 'task' names '%s', which no definition beside it or below has", g->path, name);
}

static int check_keys(const Group *g, const JsonValue *v, const char *const *known, Error *err)
{
    for (size_t i = 0; i < v->count; i++) {
        bool found = v->items[i].type == JSON_NULL;
        for (const char *const *k = known; *k; k++)
            found |= strcmp(*k, v->keys[i].data) == 0;
        if (!found)
            return error_set(err, "%s: '%s' in a group is not known here", g->path, v->keys[i].data);
    }
    return 0;
}

/* `within`: the name of the group in whose list this one stands, which begins its name. */
static int run_group(Group *g, const JsonValue *v, const char *within, int depth, Leaves *above, Error *err)
{
    static const char *const of_group[] = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", NULL}, *const of_task[] = {"task", "task_alias", NULL};
    const JsonValue *members = json_get(v, "task");
    Leaves leaves = {0};
    if (depth > DEEPEST)
        return error_set(err, "%s: groups hold each other without end", g->path);
    const char *last = json_get(v, "group")->string.data;
    char *name = within ? memory_format("%s::%s", within, last) : memory_string(last);
    int status = check_keys(g, v, of_group, err);
    if (status == 0 && members->count == 0)
        status = error_set(err, "%s: the group '%s' holds no task", g->path, name);
    for (size_t i = 0; i < members->count && status == 0; i++) {
        const JsonValue *one = &members->items[i], *task = json_get(one, "task");
        if (one->type == JSON_STRING)
            status = run_name(g, one->string.data, depth + 1, &leaves, err);
        else if (group_is(one))
            status = run_group(g, one, name, depth + 1, &leaves, err);
        else if (!json_is(task, JSON_STRING))
            status = error_set(err, "%s: 'task' holds what is neither a name nor a group", g->path);
        else if ((status = check_keys(g, one, of_task, err)) == 0)
            status = run_name(g, task->string.data, depth + 1, &leaves, err);
    }
    if (status == 0)
        status = aggregate(g, name, json_get(v, "aggregate_metric_list"), &leaves, err);
    for (size_t i = 0; i < leaves.count && above; i++)
        leaves_add(above, leaves.names[i]);
    leaves_free(&leaves);
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
            index_folder(&g.index, folder, 0);
        json_free(&tree.tree);
    }
    results_cut(e);
    Leaves leaves = {0};
    int status = run_file(&g, path, 0, &leaves, err);
    leaves_free(&leaves);
    index_free(&g.index);
    for (size_t i = 0; i < g.tree_count; i++)
        json_free(&g.trees[i].tree);
    free(g.trees);
    free(folder);
    return status;
}
