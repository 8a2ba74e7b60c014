/* The definitions in a folder and below, by name and by tag (lm_eval/tasks/_index.py). */
#ifndef LMEVAL_INDEX_H
#define LMEVAL_INDEX_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Names {
    char **items;
    size_t count;
} Names;

bool names_have(const Names *n, const char *name);
void names_add(Names *n, const char *name);
void names_free(Names *n);

/* Sorted by name; of equal names the first by path comes first. */
typedef struct Index {
    struct Entry {
        char *path, *name; /* of the task or the group */
        Names tags;        /* of a task */
    } *entries;
    size_t count, capacity;
} Index;

void index_read(Index *x, const char *folder);
void index_free(Index *x);
/* NULL: none of that name. */
const struct Entry *index_find(const Index *x, const char *name);

#endif
