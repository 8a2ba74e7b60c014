/* Tensor parallelism with sequence parallelism (Megatron-LM: Korthikanti et al. 2022). Each rank of the group has its heads, its
 * columns of the MLP and its tokens of the vocabulary, for all rows of a batch; norms, the residual stream and its gradient it has
 * for its own rows alone. So rows are gathered before a product whose output is split, and the partial results of one whose
 * input is split are added up where the rows belong; backwards the two change places:
 *
 *     h1 ─ norm ─┤gather├─ q k v ─ attention ─ o ─┤add, scatter├─ + ─ norm ─┤gather├─ gate up ─ SwiGLU ─ down ─┤add, scatter├─ +
 *     [R/t, H]      [R, H]    [R, q/t]          [R, H]         [R/t, H]
 *
 * Rows that do not divide evenly are filled up with zeros. With one rank everything here hands back what it got. A collective that
 * fails makes the model fail: model_check says so after the pass. */
#ifndef MODEL_TENSOR_PARALLEL_H
#define MODEL_TENSOR_PARALLEL_H

#include "model/model.h"

int tp_open(Model *m, Error *err);
void tp_close(Model *m);

/* Rows of `rows` that each rank has. */
int64_t tp_rows(const Model *m, int64_t rows);

/* All ranks' rows of x [mine, H] as [used, H]; they lie in slot.wide until the next call. */
Tensor tp_gather(Model *m, Slot *s, Tensor x);
/* Where a product puts its part of what tp_scatter then adds up into y [mine, H]: [used, H]. */
Tensor tp_partial(Slot *s, Tensor y);
void tp_scatter(Model *m, Slot *s, Tensor y);

/* x [mine, H] = the embeddings of this rank's rows; and their gradients added to the table's. */
void tp_embedding_forward(Model *m, Slot *s, Tensor x);
void tp_embedding_backward(Model *m, Slot *s, Tensor dx);

/* What the ranks say about a chunk of labels, each from its part of the vocabulary z [n, its tokens], put together. labels and out: the
 * chunk's, labels of the whole vocabulary. */
void tp_measure(Model *m, Slot *s, Tensor z, int64_t first, const int32_t *labels, const HeadRows *out);
/* The gradients that this rank's part of the logits takes, where the label is another rank's too (kernels/ops.h: logits_backward
 * leaves out dlogprob of rows whose label it has not). */
void tp_label_gradients(const Model *m, const int32_t *labels, int64_t n, const float *dlogprob, const float *dlse, float *out);
/* out [n, vocabulary], host, from the ranks' parts z. */
void tp_logits(Model *m, Tensor z, float *out);

/* The sums of a unit's gradients of which several ranks hold a part each: norms, biases behind a sum, replicated keys and values. Once a
 * step, of what the rank keeps (param_kept_gradient). */
int tp_reduce(Model *m, int unit, Error *err);

#endif
