/* What a run on a grid of ranks takes, before anything is started: memory a rank by part, bytes it sends by kind, the time of a step, and
 * which grid of a cluster does best. pretrain --dry-run, --grid auto and scalefit plan all ask here.
 *
 * Two engines are known. COST_LMPIPE is this one: its parts are laid out as a run lays them out (param.h, slot.c, passes.h), so they
 * are exact. COST_LEAN counts as Megatron-LM and Llama 3 do: weights and residual stream in bf16, gradients in f32, master weights
 * with the states, communication of gradients hidden behind the last backward pass (../model/tensor_parallel.h has the scheme). */
#ifndef TRAIN_COST_H
#define TRAIN_COST_H

#include "model/model.h"

typedef enum CostEngine { COST_LMPIPE, COST_LEAN } CostEngine;

typedef struct CostRun {
    const ModelConfig *config;
    int extent[GRID_DIMENSIONS];
    PartStages stages;
    int64_t sequence_length, samples, micro_batch; /* tokens a sequence, sequences a step (of all ranks), sequences a pass */
    int shard;           /* optimizer.h; 2: gradients are a slice too, 3: weights too */
    Recompute recompute;
    Dtype dtype;         /* of products */
    int threads;         /* of a rank that is alone, 0: one for each CPU */
    bool gpu;            /* products of bf16 read a copy of the weights, which CPUs' round as they read */
    bool saves;          /* checkpoints are written */
    bool averages;       /* --average-every */
    bool lends;          /* where steps have one pass activations may stand in place of gradients (cost_lends) */
    int64_t scored;      /* sequences of a pass that goes forward alone between steps, where that has more (0: it has not) */
    int64_t first;       /* sequences of a pass where the model, or the other, passes everything forward before the first step (0: none does) */
    const ModelConfig *other; /* that is there until then; NULL: none */
    double process;      /* bytes that a process has with what it has read beside the model (tokenizer, records), 0: of one that has read nothing */
    CostEngine engine;
} CostRun;

int cost_ranks(const CostRun *r);
/* Micro-batches that the ranks of a pipeline pass in a step: those of the busiest. */
int64_t cost_passes(const CostRun *r);
/* May they on this grid? Not with several stages, nor where gradients are slices. */
bool cost_lends(const int extent[GRID_DIMENSIONS], int shard);
/* Sequences a pass may have: no more than `most`, or where that is 0 as many as fit 4096 tokens, in a pipeline few enough for four
 * micro-batches a stage; and no more than a rank has. */
int64_t cost_micro_batch(int64_t sequence_length, int64_t samples, int64_t most, const int extent[GRID_DIMENSIONS]);
/* Can there be such a run? Says why not. */
int cost_check(const CostRun *r, Error *err);

/* Bytes of a rank. */
typedef struct CostMemory {
    double weights, gradients, states, activations;
    double buffers;      /* what stages send one another, position tables */
    double copy;         /* for checkpoints and the final model */
    double program;      /* what every process has, and MPI's messages */
    double start;        /* at most before the first step, where that is more than all of these */
    double all;
    double parameters;   /* that the rank holds */
    int slots;           /* micro-batches (times virtual stages) in flight */
} CostMemory;

/* Of the rank at a place of the grid; of several ranks as processes of MPI. What a run maps of its shards is not counted: the system takes it
 * back when it is wanted. -1 as cost_check. */
int cost_memory(const CostRun *r, const int place[GRID_DIMENSIONS], CostMemory *m, Error *err);
/* Of all ranks together as threads of one process of COST_LMPIPE. */
int cost_memory_threads(const CostRun *r, double *bytes, Error *err);
/* The stage that takes most, and how much. */
int cost_memory_most(const CostRun *r, CostMemory *m, int *stage, Error *err);

/* Bytes that a rank sends, as grid_sent counts them. What hosts say to one another (losses, norms) is a few hundred more. */
typedef struct CostTraffic {
    double bytes[GRID_GROUPS][COMM_KINDS];
    double all;
} CostTraffic;
/* Units whose weights a rank of --shard 3 holds between passes (../model/sharding.h), -1: none. */
typedef struct CostHeld {
    int units[2];
} CostHeld;
#define COST_HELD_NOTHING ((CostHeld){{-1, -1}})

/* What a rank's micro-batches do: forward alone; there and back; or back, of one that has just gone forward and is still there. */
typedef enum CostWay { COST_FORWARD, COST_BOTH, COST_BACK } CostWay;
typedef struct CostPasses {
    int64_t count, rows;  /* micro-batches, and the rows of each that are this rank's */
    int64_t measured;     /* chunks of HEAD_CHUNK rows, of all of them, whose labels the output layer is asked about */
    CostWay way;
} CostPasses;
/* Of a rank of COST_LMPIPE in such passes, and in what comes together once a step; held NULL: nothing is. -1 as cost_check. */
int cost_traffic_passes(const CostRun *r, const int place[GRID_DIMENSIONS], const CostPasses *p, CostHeld *held, CostTraffic *t, Error *err);
int cost_traffic_sums(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err);
/* When adapters are added to the weights. */
int cost_traffic_merge(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err);
/* Of a whole optimiser step of pretrain's. */
int cost_traffic(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err);
/* Of a validation of so many sequences: passes forward alone. */
int cost_traffic_scores(const CostRun *r, const int place[GRID_DIMENSIONS], int64_t samples, CostHeld *held, CostTraffic *t, Error *err);
void cost_traffic_add(CostTraffic *to, const CostTraffic *t, double times);

/* A cluster of equal nodes, and what part of its nominal speeds is reached. */
typedef struct CostCluster {
    int node;                                    /* GPUs a node */
    double memory;                               /* bytes a GPU */
    double flops, memory_bandwidth;              /* a GPU: FLOP/s of products, bytes a second */
    double intra_bandwidth, inter_bandwidth;     /* bytes a second of a GPU, within a node and between nodes */
    double intra_latency, inter_latency;         /* seconds a step of a collective */
    double product_share, attention_share, memory_share, link_share; /* of the above that long products, attention … reach */
    double overlap;                              /* of tensor-parallel communication, what products in pieces hide */
    double packing;                              /* times that a weight is moved in each product before it is used: CPUs pack it, once a pass */
    double core;                                 /* that a rank has of its own where ranks share a machine's CPUs (0: a whole one) */
    double spread;                               /* standard deviation of GPUs' speeds: N wait for the slowest, 1 + spread·√(2 ln N) */
} CostCluster;

/* What --dry-run and scalefit plan print of a run: memory of a rank of the fullest stage, what it sends in a step (sent; NULL: as pretrain's
 * does), the bubble. Rows that are 0 because the grid has no such dimension are left out. Returns how many, -1 as cost_check. */
enum { COST_ROWS = 20 + GRID_GROUPS * COMM_KINDS };
typedef struct CostRow {
    char key[40], text[48]; /* "weights_bytes", "weights" */
    const char *unit;       /* "bytes" */
    double value;
} CostRow;
int cost_rows(const CostRun *r, const CostTraffic *sent, CostRow rows[COST_ROWS], Error *err);
/* On standard output, a line each. */
void cost_rows_print(const CostRow *rows, int n);
/* The part of a run's --stats that is known before, of the first rank, which sends that in all; peak_bytes if the ranks are threads of its
 * process. */
int cost_stats(const char *path, const CostRun *r, double steps, double tokens, double flops, const CostTraffic *sent, Error *err);

/* CPUs with AVX-512, for --grid auto: what matters is the order of the grids. So many ranks share a machine's cores. */
CostCluster cost_cluster_cpu(int ranks_here, int cores, double memory);
/* H100 SXM nodes of eight with a 400 Gbit/s adapter each, as Llama 3's. */
CostCluster cost_cluster_h100(void);

/* The links that a group of `size` ranks, `stride` apart, goes over, within a node if all of it is there: seconds a byte, seconds a step. */
typedef struct CostLink {
    double per_byte, latency;
} CostLink;
CostLink cost_link(const CostCluster *c, double stride, double size);
/* Seconds that p ranks take for n bytes in all: an all-gather or reduce-scatter in a ring, (p - 1) latencies, or by doubling, log2 p; an
 * all-reduce in a ring, 2 (p - 1) latencies and 2 (p - 1)/p n bytes, or over a tree, 2 log2 p and 2 n (Thakur et al. 2005). */
double cost_gather_ring(CostLink l, double p, double n);
double cost_gather_doubling(CostLink l, double p, double n);
double cost_all_reduce_ring(CostLink l, double p, double n);
double cost_all_reduce_tree(CostLink l, double p, double n);

/* Seconds of a step. */
typedef struct CostTime {
    double products, attention, elementwise;     /* of the busiest stage's passes */
    double tp, cp;                               /* its exposed communication */
    double bubble, pp;                           /* idle; and waiting for messages */
    double dp, optimizer;                        /* exposed communication of gradients and weights, and the step itself */
    double stragglers;
    double all, mfu;                             /* of 6·parameters + attention, no recomputing */
    double forward, backward;                    /* of one pass through the busiest rank's stages */
    double bubble_share;                         /* idle over busy, of stages that take equally long */
} CostTime;
int cost_time(const CostRun *r, const CostCluster *c, CostTime *t, Error *err);
/* What a pipeline waits for messages in a step, each so many seconds on its way; forward and backward: a pass through one virtual stage. Plain
 * 1F1B has no slack: the P passes in flight go round by 2 (P - 1) messages, M/P times, and P - 2 more wait on the way in and out. Interleaved
 * the first goes through all v P stages and back, and later ones wait only for what is longer than the pass that runs meanwhile. Fitted to
 * the simulation. */
double cost_messages(int stages, int chunks, int64_t passes, double message, double forward, double backward);

/* A step simulated event by event from the very actions that ranks execute (pipeline.h). */
typedef struct CostSimulation {
    double seconds;      /* until the last rank is done */
    double busy_most;    /* of the busiest rank */
    double bubble;       /* seconds / busy_most − 1 */
} CostSimulation;
/* Of rank `stage`'s pass through `chunk`. */
typedef double (*CostDuration)(void *context, int stage, int chunk, int64_t micro_batch, bool backward);
/* A message takes message seconds behind those before it and latency on its way. */
int cost_simulate(int stages, int chunks, int64_t micro_batches, CostDuration duration, void *context, double message, double latency, CostSimulation *out, Error *err);
/* The pipeline of that run; slow[stage] scales a stage's times (NULL: none is slow). */
int cost_simulate_run(const CostRun *r, const CostCluster *c, const double *slow, CostSimulation *out, Error *err);

/* A grid with its best choice of micro-batch, virtual stages, recomputing and sharding. */
typedef struct CostChoice {
    CostRun run;
    CostTime time;
    CostMemory memory;   /* of the stage that takes most */
    bool fits;
} CostChoice;

/* All grids of `ranks` ranks for like's model, sequences and engine; what like says about micro_batch (0: any, -1: cost_micro_batch's),
 * stages.chunks (0: any) and recompute and shard (-1: any) stays. Those that fit come first, by time; behind them those that do not, by what they would take
 * without that limit. The caller frees *out. At most t_most tensor-parallel ranks (0: those of a node). */
int cost_search(const CostRun *like, int64_t ranks, const CostCluster *c, int t_most, CostChoice **out, size_t *count, Error *err);

/* The same for the grid that like says. */
int cost_choose(const CostRun *like, const CostCluster *c, CostChoice *out, Error *err);

#endif
