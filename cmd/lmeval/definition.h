/* The fields of a task's definition, as its reader takes them one by one. What nobody takes is refused by name. */
#ifndef LMEVAL_DEFINITION_H
#define LMEVAL_DEFINITION_H

#include "task.h"

enum { MAX_MEMBERS = 64 };

/* The members of a definition and of what it includes, its own first. */
typedef struct Definition {
    Task *t;
    struct Member {
        const char *name, *path;
        int64_t line;
        const JsonValue *value;
        bool used;
    } members[MAX_MEMBERS];
    size_t count;
    bool without_documents; /* --check: only the definition is read */
    bool processed;         /* --processed */
    Error *err;
} Definition;

/* Adds the fields of a file, then of what it includes; depth begins at 0. */
int definition_load(Definition *d, const char *path, int depth);
/* A member's value; NULL where it is absent or null. */
const JsonValue *definition_take(Definition *d, const char *name);
/* Leaves *out as it is where the member is absent or null. */
int definition_string(Definition *d, const char *name, const char **out);
/* Refuses what Python would have to be run for; processed: but for what it does to rows, which is done. */
int definition_python(Definition *d, bool processed);
/* Refuses what nobody took. */
int definition_finish(Definition *d);

/* An error that names the member and its place. Both return -1. */
int definition_complain(Definition *d, const char *name, const char *reason);
/* Puts the member's place before the message that is there. */
int definition_place(Definition *d, const char *name);

/* The path of `file`, which is named in `path`. Caller frees. */
char *definition_beside(const char *path, const char *file);

/* Is the name in a NULL-terminated list? */
bool is_among(const char *name, const char *const *list);

int generation_take(Definition *d);
int pipelines_take(Definition *d);

#endif
