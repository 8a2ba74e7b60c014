/* What the parts of dedup share: the settings, the counts, and where documents come from and go to. A run is a row of stages;
 * each reads the documents that the one before kept:
 *   match.c    --url, --exact, --fuzzy: a document is kept or removed as it comes
 *   cut.c      --lines, --paragraphs: parts of texts are cut, after a first look at all of them */
#ifndef DEDUP_DEDUP_H
#define DEDUP_DEDUP_H

#include "base/option.h"
#include "data/document.h"
#include "removed.h"
#include "spool.h"

typedef enum Method { METHOD_URL, METHOD_EXACT, METHOD_FUZZY, METHOD_PARAGRAPHS, METHOD_LINES, METHODS } Method;
extern const char *const method_names[METHODS];

typedef struct Dedup {
    Common common; /* threads, tmp and memory are set */
    bool keep_first;
    double threshold;
    int64_t ngram, bands, rows, max_line_count, bucket;
    Removed *removed; /* NULL: not wanted */
    /* Counts. */
    uint64_t documents_in, bytes_in, documents_out, bytes_out, skipped, removed_count[METHODS], cut, spills;
} Dedup;

/* Where a stage's documents come from. */
typedef struct Source {
    const char *const *files, *const *names; /* names for messages, NULL: the files' own */
    Spool *numbers; /* of the documents, 8 bytes each; NULL: the input itself, which numbers and names them */
    uint64_t at;    /* documents numbered so far */
} Source;

/* Where they go: the output, or files for the next stage. */
typedef struct Sink {
    Writer *out;
    Spool *lines, *numbers;
} Sink;

int source_number(Dedup *d, Source *s, const Document *document, uint64_t *number, Error *err); /* in the order of documents */
int sink_write(Dedup *d, Sink *s, uint64_t number, Span line, Error *err);
int document_remove(Dedup *d, Method m, uint64_t number, Span line, uint64_t match, double similarity, Error *err);

/* Methods in order, each over what the one before has kept. */
int match_run(Dedup *d, const Method *methods, int count, Source *from, Sink *to, Error *err);
/* METHOD_LINES or METHOD_PARAGRAPHS; reads the source twice. */
int cut_run(Dedup *d, Method method, Source *from, Sink *to, Error *err);

/* The whole run: the methods in order over files (none: standard input). */
int stages_run(Dedup *d, const Method *methods, int count, const char *const *files, Writer *out, Error *err);

#endif
