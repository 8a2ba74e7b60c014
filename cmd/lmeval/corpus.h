/* BLEU, chrF and TER of a task's answers: numbers of each answer, which are added up before a score is made of them, as
 * sacrebleu 2 has them by default (corpus_bleu, corpus_chrf, corpus_ter). */
#ifndef LMEVAL_CORPUS_H
#define LMEVAL_CORPUS_H

#include "task.h"

enum { CORPUS_MOST = 24 }; /* numbers of an answer */

/* How many numbers an answer has; 0: the metric is none of these. */
size_t corpus_width(MetricKind kind);
/* Those of one answer and what was wanted. */
int corpus_numbers(MetricKind kind, Span answer, Span wanted, double *out, Error *err);
/* Of the sums. */
double corpus_score(MetricKind kind, const double *sums);

/* Edits, whatever the case, and the words of what was wanted (Snover et al. 2006, "A Study of Translation Edit Rate with Targeted Human Annotation"). */
int ter_numbers(Span answer, Span wanted, double out[2], Error *err);

/* The words of a text with one blank between them, where each begins and, last, one behind the text's end. Caller frees both. */
typedef struct WordList {
    Buffer text;
    size_t *begins, count;
} WordList;
void word_list_split(WordList *w, Span text);
void word_list_free(WordList *w);
/* Without its blank. */
Span word_list_at(const WordList *w, size_t first, size_t count);

#endif
