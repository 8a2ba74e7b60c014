/* From hidden states to losses, by chunks of model_head_chunk tokens, so that the logits of a whole batch never stand in memory.
 *
 * Forward gives per token the log-probability of the label and the log-sum-exp (optionally the arg max), or for a reward
 * model a score per sequence. Backward takes the gradients of those. Where the weights of the labels are known beforehand
 * (cross-entropy) both are one fused pass; where they depend on whole sequences (DPO) chunks are computed again. A loss is
 * then a small function that turns sums into weights. */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "model/model.h"

typedef struct HeadSums {
    double nll;     /* Σ weight·(−log p) */
    double weight;  /* Σ weight */
    double z;       /* Σ weight·lse² */
    /* Where `measure` is set, over the rows that have a label of weight above 0: */
    bool measure;
    double right;   /* labels that were the arg max */
    double entropy; /* of the distribution there, in nats */
    double rows;
} HeadSums;

/* Fused cross-entropy: the gradient of scale·Σ weight·(−log p + z_loss·lse²) goes to slot.dhidden and the output layer's
 * gradient; sums are added to *sums. labels and weights are the batch's, on the host. */
void head_cross_entropy(Model *m, Slot *s, const int32_t *labels, const float *weights, double scale, double z_loss, HeadSums *sums);

/* Per row logprob[t] of labels[t] (0 where < 0), lse[t], best[t]; any of the last two may be NULL. Host arrays. */
void head_logprobs(Model *m, Slot *s, const int32_t *labels, float *logprob, float *lse, int32_t *best);
/* More of each row, 0 where it has no label. */
void head_measure(Model *m, Slot *s, const int32_t *labels, const HeadRows *out);
/* slot.dhidden and the output layer's gradient from d loss/d logprob and d loss/d lse (NULL: none). Host arrays. */
void head_backward(Model *m, Slot *s, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse);

/* Logits of single rows of the last forward pass: out[i] = logits of rows[i], [n, vocab_size], host. */
void head_logits(Model *m, Slot *s, const int64_t *rows, int64_t n, float *out);

/* Logits of every row, [used, vocab_size], host. */
void head_logits_all(Model *m, Slot *s, float *out);

/* A reward model's score at each of n rows, and back. Host arrays. */
void head_scores(Model *m, Slot *s, const int64_t *rows, int64_t n, float *scores);
void head_scores_backward(Model *m, Slot *s, const int64_t *rows, int64_t n, const float *dscores);

#endif
