/* A batch: what one forward pass sees, in host memory. `sequences` rows of `sequence_rows` tokens each lie one after the
 * other; documents are packed into them and attention stays inside a document. Packing happens before a process grid deals
 * batches out; a group (a preference pair, a ranking) is never split over batches. The weights of a whole step are known
 * before its backward pass begins, so losses are sums over tokens, never means of means. */
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* One document in a batch (a whole sample's part, an answer with its prompt, …). */
typedef struct BatchDocument {
    int64_t first, count; /* rows, of a dealt batch those of the whole */
    int32_t group;        /* which pair or ranking of the step; -1: none */
    int32_t rank;         /* place in its group, best 0; in a pair chosen 0, rejected 1 */
    int64_t source;       /* index of the record it came from */
} BatchDocument;

typedef struct Batch {
    int64_t sequences, sequence_rows, rows; /* rows = sequences · sequence_rows */
    int64_t key_rows;    /* of a sequence that begin and end count: all of it, of which the batch has a part (batch_deal) or all */
    int32_t *tokens;     /* [rows]; padding rows hold token 0, no label, and see only themselves */
    int32_t *labels;     /* [rows] the next token, or -1 */
    float *weights;      /* [rows] of the label's term in the loss; 0 where there is none */
    int32_t *positions;  /* [rows] from 0 in each document */
    int32_t *begin;      /* [rows] first row that the row may see (its document's first) */
    int32_t *end;        /* [rows] one past the last row that it may see: its own + 1 */
    int32_t *document;   /* [rows] whose row it is, -1: padding; its position says which of that document's */
    BatchDocument *documents;
    size_t document_count, document_capacity;
    int64_t sample;      /* global number of the first sample, so that a step is the same on any grid */
    double weight;       /* Σ weights */
    int64_t tokens_used; /* rows that are not padding */
} Batch;

/* Allocates for sequences × sequence_rows; batch_clear makes every row padding. */
void batch_new(Batch *b, int64_t sequences, int64_t sequence_rows);
void batch_clear(Batch *b);
void batch_free(Batch *b);
/* Places a document of n tokens at rows first …: labels[i] (-1: none) and weights[i] belong to token i; NULL labels mean
 * the next token, none for the last. The rows must lie inside one sequence. tokens and labels may be the rows themselves. */
void batch_place(Batch *b, int64_t first, const int32_t *tokens, const int32_t *labels, const float *weights, int64_t n,
                 int32_t group, int32_t rank, int64_t source);

/* Context parallelism: the part of a batch that rank `rank` of `ranks` has. Of 2·ranks equal chunks of each sequence those are the
 * rank-th and its mirror image, which have as much to see together as any other rank's (Llama 3). `to` has room for rows/ranks;
 * sequence_rows is a multiple of 2·ranks. begin, end and documents stay those of the whole; tokens_used is left out. */
void batch_deal(Batch *to, const Batch *from, int rank, int ranks);
/* What all ranks have, one rank's rows behind another's, against the order of the whole: row i of the whole is row dealt[i], and row
 * j of the ranks' is row whole[j]. Both [sequences · sequence_rows], sequence_rows of the whole. */
void batch_orders(int64_t sequences, int64_t sequence_rows, int ranks, int32_t *dealt, int32_t *whole);

/* Best-fit decreasing: where items of the given lengths go in bins of `room`. bin[i] and offset[i] are filled for each
 * item; returns the number of bins. An item longer than the room gets a bin of its own and is the caller's to cut. Items
 * of equal length keep their order (the `bfd` packing of TRL). */
size_t batch_pack_bfd(const int64_t *lengths, size_t count, int64_t room, size_t *bin, int64_t *offset);

#endif
