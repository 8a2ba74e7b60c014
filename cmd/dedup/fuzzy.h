/* Near-duplicates: MinHash bands find candidates among the documents kept so far, the exact Jaccard similarity of their sets of
 * shingles decides. A document that is a near-duplicate of several kept ones matches the first of them.
 * The band keys of kept documents stand in a table within a given memory, about 16 to 32 bytes a band; their shingles lie in a
 * temporary file, 8 bytes each. */
#ifndef DEDUP_FUZZY_H
#define DEDUP_FUZZY_H

#include <stdbool.h>
#include "base/error.h"
#include "shingle.h"
#include "spool.h"

typedef struct Fuzzy Fuzzy;

/* What is compared of a document. */
typedef struct Sketch {
    const uint64_t *keys;   /* [bands] */
    const uint64_t *hashes; /* [count] sorted shingles; NULL: they are only in the store */
    uint64_t offset;        /* of the shingles in the store; UINT64_MAX: not there yet */
    size_t count;           /* 0: too short a document, which never matches */
} Sketch;

/* bands and rows 0: chosen for the threshold. The store belongs to the caller; without one nothing is kept. */
Fuzzy *fuzzy_open(double threshold, int ngram, int bands, int rows, size_t memory, Spool *store, Error *err);
void fuzzy_close(Fuzzy *f); /* NULL is fine */
int fuzzy_bands(const Fuzzy *f);
int fuzzy_rows(const Fuzzy *f);
/* What a worker computes, in a form that its thread hands on: fuzzy_sketch takes it apart, and `out` has to live as long. */
void fuzzy_prepare(const Fuzzy *f, Shingles *scratch, Span text, Buffer *out);
Sketch fuzzy_sketch(const Fuzzy *f, const Buffer *prepared);
int fuzzy_store(Fuzzy *f, Sketch *s, Error *err); /* puts the shingles into the store, if they are not there */
/* 1: the document is a near-duplicate of kept document *match; 0: it is not; -1 on errors. */
int fuzzy_find(Fuzzy *f, const Sketch *s, uint64_t *match, double *similarity, Error *err);
/* Keeps a document under a number greater than all before: 1, 0 if the table is full, -1 on errors. */
int fuzzy_add(Fuzzy *f, Sketch *s, uint64_t number, Error *err);
void fuzzy_clear(Fuzzy *f); /* forgets the documents kept */

#endif
