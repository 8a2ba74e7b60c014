/* Pipeline schedules: in which order a rank passes its micro-batches through its part of the layers, and what it sends and
 * receives in between. Pure: nothing is computed or sent here. One list of actions is executed (passes.h), drawn as a trace and
 * simulated.
 *
 * `stages` ranks stand in a row and each holds `chunks` virtual stages (1: plain 1F1B; more: interleaved): rank p's chunk c is
 * global stage c·stages + p, of stages·chunks in all. What leaves a global stage enters the next one, from the last rank's chunk c
 * to the first rank's chunk c+1. Backward passes go the other way.
 *
 * Any number of micro-batches goes. The order is Megatron-LM's (Narayanan et al. 2021), but that of M >= stages micro-batches
 * ⌊M/stages⌋ groups are made whose sizes differ by one at most, where Megatron wants M a multiple of the group; fewer are one
 * group. Chunk by chunk a group passes forward, in the opposite order of chunks backward. */
#ifndef TRAIN_PIPELINE_H
#define TRAIN_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum PipelineVerb { PIPELINE_RECEIVE, PIPELINE_COMPUTE, PIPELINE_SEND } PipelineVerb;

/* RECEIVE posts a receive and goes on; the COMPUTE that needs it waits for it. SEND posts what the COMPUTE before it has made, and a
 * place is filled again once its last send is over. The ranks come to an end, and in the same time, whether a send waits for nothing,
 * for the receiver's RECEIVE, or with its place until the receiver's COMPUTE. A single micro-batch's receives stand right before their
 * computes, which may then wait for all that was posted, as a GPU does that loads a kernel. */
typedef struct PipelineAction {
    PipelineVerb verb;
    bool backward;       /* the pass that it belongs to */
    int chunk;           /* this rank's, 0 … chunks-1 */
    int64_t micro_batch; /* 0 … M-1 */
    int peer;            /* of RECEIVE and SEND: the rank on the other side, 0 … stages-1 */
    int in;              /* of RECEIVE and COMPUTE: place where what comes lands, 0 … receives-1; -1: nothing comes */
    int out;             /* of SEND and COMPUTE: place that holds what leaves, 0 … sends-1; -1: nothing does */
    int slot;            /* of COMPUTE: where its activations live from the forward to the backward pass, 0 … slots-1 */
} PipelineAction;

typedef struct PipelineSchedule {
    int stages, stage, chunks;
    int64_t micro_batches;
    bool backward;       /* passes go forward and backward; false: forward alone, as a validation does */
    PipelineAction *actions;
    size_t count;
    int slots;           /* micro-batches times chunks in flight at most: min(stages − stage, M) for one chunk */
    int receives, sends; /* places for what comes and for what leaves */
} PipelineSchedule;

/* The actions of rank `stage`. */
void pipeline_open(PipelineSchedule *s, int stages, int stage, int chunks, int64_t micro_batches, bool backward);
void pipeline_close(PipelineSchedule *s);
/* Its sizes alone: slots, receives, sends. Nothing to close. */
void pipeline_size(PipelineSchedule *s, int stages, int stage, int chunks, int64_t micro_batches, bool backward);

/* Idle over busy time of a rank where all passes take equally long and messages none: (stages−1)/(chunks·M). It holds for
 * M >= stages; with fewer micro-batches an interleaved schedule idles longer. */
double pipeline_bubble(int stages, int chunks, int64_t micro_batches);

#endif
