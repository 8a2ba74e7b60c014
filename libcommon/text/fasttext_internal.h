/* What files (fasttext_file.c), answers (fasttext.c) and training (fasttext_train.c) of classifiers share; callers use fasttext.h. */
#ifndef TEXT_FASTTEXT_INTERNAL_H
#define TEXT_FASTTEXT_INTERNAL_H

#include <stdbool.h>
#include "text/fasttext.h"

/* The format's numbers. */
enum { FASTTEXT_SUPERVISED = 3, LOSS_HS = 1, LOSS_NS = 2, LOSS_SOFTMAX = 3, LOSS_OVA = 4 };

typedef struct FastTextEntry {
    char *word;
    size_t length;
    int64_t count;
    int8_t type; /* 0 word, 1 label */
} FastTextEntry;

typedef struct FastTextKept {
    int32_t gram, row; /* -1: free; its row behind the words */
} FastTextKept;

struct FastText {
    int32_t dim, ws, epoch, min_count, neg, word_ngrams, loss, model, bucket, minn, maxn, update_rate;
    double t;
    int32_t words, labels;
    int64_t tokens;
    FastTextEntry *entries; /* words, then labels, by falling count */
    int32_t *slots; /* hash of a word -> entry + 1 */
    size_t mask;
    float *input, *output; /* [words + bucket, dim], [labels, dim] */
    FastTextKept *kept;    /* NULL, or a hash table of the n-grams that a pruned model has: [kept_mask + 1] */
    size_t kept_mask;
    int32_t (*tree)[2];    /* of LOSS_HS: the children of each of labels - 1 inner nodes, which are numbered behind the labels */
};

static inline bool fasttext_is_break(char c)
{
    return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' || c == 0 || c == '\n';
}

/* FNV-1a whose bytes are sign-extended, as fastText's. */
uint32_t fasttext_hash(const char *s, size_t n);
/* Where a pruned model has an n-gram, or a free place with row -1. */
FastTextKept *fasttext_kept(const FastText *f, int32_t gram);
/* Makes the table of entries' hashes anew. */
void fasttext_index(FastText *f);
/* Rows of a line, ending with </s>, into s->ids; a label goes to *label (may be NULL). Makes room for hidden and output. */
void fasttext_line(const FastText *f, FastTextScratch *s, Span text, int32_t *label);
/* The mean of the rows, and the labels' probabilities. */
void fasttext_hidden(const FastText *f, FastTextScratch *s);
void fasttext_output(const FastText *f, const float *hidden, float *p);

#endif
