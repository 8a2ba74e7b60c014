/* Removed records: each removed document with a field `removed` that says how and because of which document. They are written
 * at the end, in the order of the input, because only then it is known which document stayed: what removed a document may be
 * removed itself by a later method. */
#ifndef DEDUP_REMOVED_H
#define DEDUP_REMOVED_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"

typedef struct Removed Removed;

/* Appends the line of a removed document: its record with `removed` set. kept and match may be NULL. */
void removal_write(Buffer *line, Span raw, const char *method, const Span *kept, const Span *match, double similarity);

typedef struct Removal {
    uint64_t number;    /* of the removed document, in the order of the input */
    uint64_t match;     /* the document that it is like; UINT64_MAX: none, its text was cut away */
    const char *method; /* a string constant */
    double similarity;  /* negative: not measured */
} Removal;

/* Memory: what sorting may take. */
Removed *removed_open(const char *path, const char *tmp, size_t memory, int threads, Error *err);
/* The documents' names, in the order of their numbers. */
int removed_name(Removed *r, Span id, Error *err);
int removed_add(Removed *r, Removal removal, Span line, Error *err);
int removed_close(Removed *r, Error *err); /* writes the file; r is gone afterwards */
void removed_abandon(Removed *r);          /* NULL is fine, here and above */

#endif
