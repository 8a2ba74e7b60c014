#include "index.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/memory.h"
#include "definition.h"

enum { DEEPEST = 8, MOST_FILES = 20000 };

bool names_have(const Names *n, const char *name)
{
    for (size_t i = 0; i < n->count; i++)
        if (strcmp(n->items[i], name) == 0)
            return true;
    return false;
}

void names_add(Names *n, const char *name)
{
    n->items = memory_realloc(n->items, n->count + 1, sizeof *n->items);
    n->items[n->count++] = memory_string(name);
}

void names_free(Names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->items[i]);
    free(n->items);
}

static void tags_add(struct Entry *entry, const JsonValue *v)
{
    size_t n;
    const JsonValue *tags = json_list(v, &n);
    for (size_t i = 0; i < n; i++)
        if (tags[i].type == JSON_STRING)
            names_add(&entry->tags, tags[i].string.data);
}

/* What is no definition is passed over: it may be anything. */
static void index_add(Index *x, const char *path)
{
    Task t = {.path = path};
    Error ignored;
    Definition d = {.t = &t, .err = &ignored};
    if (definition_load(&d, path, 0) == 0) {
        const JsonValue *group = definition_take(&d, "group"), *task = definition_take(&d, "task");
        const JsonValue *name = json_is(task, JSON_STRING) ? task : group;
        if (json_is(name, JSON_STRING)) {
            x->entries = memory_grow(x->entries, &x->capacity, x->count + 1, sizeof *x->entries);
            struct Entry *entry = &x->entries[x->count++];
            *entry = (struct Entry){.path = memory_string(path), .name = memory_string(name->string.data)};
            if (name == task)
                tags_add(entry, definition_take(&d, "tag"));
        }
    }
    task_close(&t);
}

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

static int compare_entries(const void *a, const void *b)
{
    const struct Entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->path, y->path);
}

void index_read(Index *x, const char *folder)
{
    index_folder(x, folder, 0);
    if (x->count)
        qsort(x->entries, x->count, sizeof *x->entries, compare_entries);
}

void index_free(Index *x)
{
    for (size_t i = 0; i < x->count; i++) {
        names_free(&x->entries[i].tags);
        free(x->entries[i].name);
        free(x->entries[i].path);
    }
    free(x->entries);
}

const struct Entry *index_find(const Index *x, const char *name)
{
    for (size_t i = 0; i < x->count; i++)
        if (strcmp(x->entries[i].name, name) == 0)
            return &x->entries[i];
    return NULL;
}
