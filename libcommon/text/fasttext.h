/* Linear text classifiers in fastText's formats (src/fasttext.cc, dictionary.cc, productquantizer.cc): reading of .bin and .ftz
 * models with any loss, word n-grams and subwords, dense, quantised or pruned, and training of dense softmax models. */
#ifndef TEXT_FASTTEXT_H
#define TEXT_FASTTEXT_H

#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"
#include "io/stream.h"

typedef struct FastText FastText;

typedef struct FastTextOptions {
    int dim, epoch, word_ngrams, minn, maxn, min_count, bucket;
    double lr;
    uint64_t seed;
} FastTextOptions;

FastText *fasttext_load(const char *path, Error *err);
int fasttext_save(const FastText *f, Writer *to, Error *err); /* closes it, or gives it up */
void fasttext_free(FastText *f);
int fasttext_labels(const FastText *f);
const char *fasttext_label(const FastText *f, int i); /* without __label__ */

/* Probabilities of the labels for one line of text (newlines count as blanks); scratch grows and is the caller's. Returns -1
 * where nothing is known of the text. */
typedef struct FastTextScratch {
    int32_t *ids;
    size_t count, capacity;
    int32_t *hashes;
    size_t hash_capacity;
    float *hidden, *output;
} FastTextScratch;
int fasttext_predict(const FastText *f, FastTextScratch *s, Span text, float *probabilities);
void fasttext_scratch_free(FastTextScratch *s);

/* Lines "__label__x text". The same seed gives the same model. */
FastText *fasttext_train(const FastTextOptions *o, Span lines, Error *err);

#endif
