/* What the ranks of a grid tell one another at the end of a step: shares that add up, whether a signal has come, who has the first
 * number that is not finite, and how long each worked. Whoever is slow in many steps on end is named. */
#ifndef TRAIN_RANKS_H
#define TRAIN_RANKS_H

#include "dist/comm.h"
#include "io/stats.h"
#include "train/metrics.h"

enum { TRAIN_EXTRAS = 16 }; /* numbers of a task in a line of the log */

/* One rank's share of a step. */
typedef struct RankStep {
    double counts;   /* 1, or 0: another rank says the same loss, tokens and extras */
    double loss, tokens, stop, written;
    double astray;   /* 0, or where in a pass its own numbers have gone wrong first: 1 + the virtual stage that has passed them on, behind all of
                      * those the losses */
    double shared;   /* 1: its loss is made of all ranks' numbers, and tells nothing of its own */
    double squares;  /* of its gradient before any sum over ranks: not finite where a number in it is not */
    double seconds;  /* of its own work, without waiting for others */
    double extra[TRAIN_EXTRAS];
} RankStep;

enum { RANKS_KINDS = 64, RANKS_LOSS = 1 << 20 /* RankStep.astray of losses */ };
typedef struct Ranks {
    Grid *grid;
    double begun;
    RankStep *each;  /* [size] of the last step */
    int *slow;       /* [size] steps on end */
    double *sorted;
    char *keys[RANKS_KINDS]; /* of stats */
} Ranks;

void ranks_open(Ranks *r, Grid *g);
void ranks_close(Ranks *r);
/* A step begins, number `step` of the run (1 …). */
void ranks_begin(Ranks *r, int64_t step);
/* It ends: *mine becomes the sum over ranks in their order. */
int ranks_agree(Ranks *r, RankStep *mine, Error *err);
/* "; rank 3 (host a) has it first, in its loss": the rank whose own numbers are not finite first, or those that cannot be told apart; "" where
 * none is. */
void ranks_blame(const Ranks *r, char *text, size_t size);
/* sent_GROUP_KIND: bytes that this rank has sent to others so far, of each kind that there was. Appends to items, whose keys live as long
 * as r; returns how many there are then. */
size_t ranks_sent(Ranks *r, StatsItem *items, size_t count);
/* Writes rank_seconds (of more than RANKS_SHOWN ranks the shortest, the median and the longest) into the open line, and warns of slow ranks. */
enum { RANKS_SHOWN = 64 };
void ranks_report(Ranks *r, Metrics *log);

#endif
