#include "index.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/memory.h"
#include "definition.h"

enum { DEEPEST = 8, MOST_FILES = 20000 };

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
        for (size_t k = 0; k < x->entries[i].tag_count; k++)
            free(x->entries[i].tags[k]);
        free(x->entries[i].tags);
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

bool entry_has_tag(const struct Entry *e, const char *tag)
{
    for (size_t i = 0; i < e->tag_count; i++)
        if (strcmp(e->tags[i], tag) == 0)
            return true;
    return false;
}
