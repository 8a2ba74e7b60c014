/* A definition's fields, its own and those of the files that it includes. */
#include "definition.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/yaml.h"

enum { MAX_INCLUDES = 16 };

static struct Member *member_find(Definition *d, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->members[i].name, name) == 0)
            return &d->members[i];
    return NULL;
}

char *definition_beside(const char *path, const char *file)
{
    const char *slash = strrchr(path, '/');
    return file[0] == '/' || !slash ? memory_string(file) : memory_format("%.*s/%s", (int)(slash - path), path, file);
}

static bool holds_function(const JsonValue *v)
{
    if (json_get(v, YAML_FUNCTION))
        return true;
    for (size_t i = 0; (v->type == JSON_ARRAY || v->type == JSON_OBJECT) && i < v->count; i++)
        if (holds_function(&v->items[i]))
            return true;
    return false;
}

int definition_load(Definition *d, const char *path, int depth)
{
    Task *t = d->t;
    YamlTree tree;
    if (depth > MAX_INCLUDES || t->tree_count >= MAX_INCLUDES)
        return error_set(d->err, "%s: files include each other without end", path);
    if (yaml_parse_file(&tree, path, d->err) < 0)
        return -1;
    t->trees = memory_realloc(t->trees, t->tree_count + 1, sizeof *t->trees);
    t->trees[t->tree_count++] = tree.tree;
    const JsonValue *root = tree.tree.root, *include = json_get(root, "include");
    if (!json_is(root, JSON_OBJECT))
        return error_set(d->err, "%s: not a task's definition", path);
    const char *name = arena_copy(&t->arena, path, strlen(path));
    for (size_t i = 0; i < root->count; i++) {
        if (member_find(d, root->keys[i].data))
            continue;
        if (d->count == MAX_MEMBERS)
            return error_set(d->err, "%s: too many fields", path);
        d->members[d->count++] = (struct Member){root->keys[i].data, name, tree.lines[i], &root->items[i], false};
    }
    int status = 0;
    /* Of several files the last has the word. */
    size_t n;
    const JsonValue *files = json_list(json_is(include, JSON_NULL) ? NULL : include, &n);
    for (size_t i = n; i-- > 0 && status == 0;) {
        if (files[i].type != JSON_STRING)
            return error_set(d->err, "%s: 'include' must name files", path);
        char *other = definition_beside(path, files[i].string.data);
        status = definition_load(d, other, depth + 1);
        free(other);
    }
    return status;
}

int definition_complain(Definition *d, const char *name, const char *reason)
{
    const struct Member *m = member_find(d, name);
    if (!m)
        return error_set(d->err, "%s: %s", d->t->path, reason);
    return error_set(d->err, "%s:%" PRId64 ": '%s' %s", m->path, m->line, name, reason);
}

int definition_place(Definition *d, const char *name)
{
    const struct Member *m = member_find(d, name);
    return m ? error_prefix(d->err, "%s:%" PRId64, m->path, m->line) : error_prefix(d->err, "%s", d->t->path);
}

const JsonValue *definition_take(Definition *d, const char *name)
{
    struct Member *m = member_find(d, name);
    if (!m)
        return NULL;
    m->used = true;
    return m->value->type == JSON_NULL ? NULL : m->value;
}

int definition_string(Definition *d, const char *name, const char **out)
{
    const JsonValue *v = definition_take(d, name);
    if (v && v->type != JSON_STRING)
        return definition_complain(d, name, "must be a text");
    if (v)
        *out = v->string.data;
    return 0;
}

/* What has no influence on the numbers. */
static const char *const idle[] = {"tag", "task_alias", "group_alias", "metadata", "dataset_name", "should_decontaminate", "doc_to_decontamination_query", "include", NULL};

static const char *const rows_from[] = {"process_docs", "custom_dataset", NULL}, *const columns_from[] = {"doc_to_text", "doc_to_target", "doc_to_choice", NULL};

bool is_among(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name) != 0)
        list++;
    return *list != NULL;
}

/* Is all of the member's Python done where rows are what it made? */
static bool is_processed(const char *name, const JsonValue *v)
{
    bool function = json_get(v, YAML_FUNCTION) != NULL, fine = is_among(name, rows_from) || (function && is_among(name, columns_from));
    if (strcmp(name, "fewshot_config") != 0 || v->type != JSON_OBJECT || function)
        return fine || !holds_function(v);
    for (size_t i = 0; i < v->count; i++)
        if (!is_processed(v->keys[i].data, &v->items[i]))
            return false;
    return true;
}

int definition_python(Definition *d, bool processed)
{
    for (size_t i = 0; i < d->count; i++) {
        struct Member *m = &d->members[i];
        if (!holds_function(m->value) || is_among(m->name, idle))
            continue;
        if (!processed)
            return definition_complain(d, m->name, is_processed(m->name, m->value) ? "has the tag " YAML_FUNCTION ", which is not known here (Python is not run; see --processed)"
                                                                                   : "has the tag " YAML_FUNCTION ", which is not known here (Python is not run)");
        if (!is_processed(m->name, m->value))
            return definition_complain(d, m->name, "has the tag " YAML_FUNCTION " where rows alone are not enough (Python is not run)");
        m->used |= is_among(m->name, rows_from);
    }
    return 0;
}

int definition_finish(Definition *d)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct Member *m = &d->members[i];
        bool fine = m->used || m->value->type == JSON_NULL || (strcmp(m->name, "unsafe_code") == 0 && m->value->type == JSON_BOOL && !m->value->boolean);
        if (!fine && !is_among(m->name, idle))
            return definition_complain(d, m->name, "is a field that is not known here");
    }
    return 0;
}
