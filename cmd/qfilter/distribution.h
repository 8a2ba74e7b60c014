/* How often each token stands in a corpus, and how far a document's tokens lie from it. `qfilter distribution` counts. */
#ifndef QFILTER_DISTRIBUTION_H
#define QFILTER_DISTRIBUTION_H

#include "base/option.h"
#include "text/tokenizer.h"

/* 0, 0.1, … 100 % of the corpus's documents have at most this divergence. */
enum { DISTRIBUTION_QUANTILES = 1001 };

typedef struct Distribution {
    Tokenizer *tokenizer;
    double *logs;                               /* ln p of each id, add-one smoothed: (count + 1) / (tokens + vocabulary) */
    int64_t size;                               /* ids */
    double quantiles[DISTRIBUTION_QUANTILES];
} Distribution;

/* One a thread. */
typedef struct Divergence {
    Encoder *encoder;
    Ids ids;
    uint32_t *counts; /* of each id, 0 between documents */
} Divergence;

/* The file was written with this tokenizer, or it is refused. */
int distribution_read(Distribution *d, const char *path, const char *tokenizer, Error *err);
void distribution_free(Distribution *d);
/* The greatest divergence of that share of documents (0 … 100), linear between the file's steps. */
double distribution_quantile(const Distribution *d, double percent);

/* KL(document ‖ corpus) = Σ p ln(p / q) in nats over the document's tokens; 0 of an empty text. */
int divergence_of(const Distribution *d, Divergence *scratch, Span text, double *kl, Error *err);
void divergence_free(Divergence *scratch);

int distribution_main(int argc, char **argv);

#endif
