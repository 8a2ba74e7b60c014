/* Context parallelism, Llama 3's form (section 3.3.2): each rank has two mirrored chunks of every sequence (batch_deal), and for
 * attention the keys and values of all of it, which the ranks gather in every layer and bring into the order of the sequence:
 *
 *     rank 0   ▓░░░░░░▓        queries of chunks 0 and 7   over   keys 0 … 7
 *     rank 1   ░▓░░░░▓░                          1 and 6
 *     rank 2   ░░▓░░▓░░                          2 and 5
 *     rank 3   ░░░▓▓░░░                          3 and 4
 *
 * Under a causal mask all have equally much to do. Documents need nothing more: what a query sees is a stretch of keys. Backwards keys
 * are gathered again, and their gradients added up where the rows belong. Keys are few where heads share them, and gathering is
 * hidden by attention's work, which grows with the square of the length. With one rank everything here hands back what it got. */
#ifndef MODEL_CONTEXT_PARALLEL_H
#define MODEL_CONTEXT_PARALLEL_H

#include "model/model.h"

/* Where the slot's rows stand, for a batch that slot_load has begun to load. */
int cp_load(Model *m, Slot *s, Error *err);
/* All ranks' rows of x [used, 2kv], keys and values side by side, in the order of the sequences; they lie in slot.keys until the
 * next call. */
Tensor cp_gather(Model *m, Slot *s, Tensor x);
/* Where attention puts the gradient of what cp_gather gave, of this rank's queries alone; and then its sum over ranks, this rank's rows. */
Tensor cp_partial(Slot *s, Tensor dx);
void cp_scatter(Model *m, Slot *s, Tensor dx);

#endif
