/* Near-duplicates: MinHash bands find candidates among the documents kept so far, the exact Jaccard of their shingle sets
 * decides. Every removed document has a kept one that was verified against it. Shingles of kept documents lie in a temporary
 * file; in memory a document takes bands × 12 bytes and its name. */
#ifndef DEDUP_FUZZY_H
#define DEDUP_FUZZY_H

#include "base/error.h"
#include "shingle.h"

typedef struct Fuzzy Fuzzy;

/* bands and rows 0: chosen for the threshold. */
Fuzzy *fuzzy_open(double threshold, int ngram, int bands, int rows, const char *tmp, Error *err);
void fuzzy_close(Fuzzy *f);
/* What a worker computes: shingles and the key of each band, appended to out (freed by the caller). */
void fuzzy_prepare(const Fuzzy *f, Shingles *scratch, Span text, Buffer *out);
/* Called in order: 1 if the prepared document is a near-duplicate of kept document *match (similarity filled), 0 if it is
 * kept and now called `number`, -1 on errors. */
int fuzzy_look(Fuzzy *f, const Buffer *prepared, uint64_t number, uint64_t *match, double *similarity, Error *err);

#endif
