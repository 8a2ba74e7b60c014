/* What the parts of dedup share: the settings, the counts, and where documents come from and go to. A run is a row of stages;
 * each reads the documents that the one before kept:
 *   match.c    --url, --exact, --fuzzy: a document is kept or removed as it comes
 *   cut.c      --lines, --paragraphs: parts of texts are cut, after a first look at all of them
 * By many machines (parts.h) a method of match.c is five steps: sign.c, sort.c, pair.c (dedup match), verify.c, apply.c. */
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

enum { DEDUP_LEAST_MEMORY = 1 << 16 };

/* Rows of option tables; wanted: bool [METHODS]. */
#define OPTION_WHOLE_DOCUMENTS(wanted, d)                                                                                          \
    {"url", 0, OPTION_FLAG, &(wanted)[METHOD_URL], 0, "one document an address (`url`)", 0, 0, 0},                                \
    {"exact", 0, OPTION_FLAG, &(wanted)[METHOD_EXACT], 0, "one document a text, byte for byte", 0, 0, 0},                         \
    {"fuzzy", 0, OPTION_FLAG, &(wanted)[METHOD_FUZZY], 0, "near-duplicates: MinHash bands, verified by Jaccard", 0, 0, 0},        \
    {"threshold", 0, OPTION_NUMBER, &(d)->threshold, "J", "least Jaccard similarity of --fuzzy (default 0.8)", 0, 0.01, 1},       \
    {"ngram", 0, OPTION_INTEGER, &(d)->ngram, "N", "words a shingle (default 5)", 0, 1, 100},                                     \
    {"bands", 0, OPTION_INTEGER, &(d)->bands, "B", "bands of the signature (default: by the threshold)", 0, 1, 256},              \
    {"rows", 0, OPTION_INTEGER, &(d)->rows, "R", "hashes a band (default: by the threshold)", 0, 1, 256}
#define OPTION_MEMORY_OF_TABLES(c) \
    {"memory", 0, OPTION_SIZE, &(c)->memory, "SIZE", "memory of the tables (default: half the machine's)", 0, DEDUP_LEAST_MEMORY, 9e18}

void common_settle(Common *c); /* threads, tmp and memory, where they were not given */
int stats_write(const Dedup *d, double seconds, Error *err);

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
