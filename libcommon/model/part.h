/* Which part of a model a rank holds: some of its layers (pipeline stages), and of each layer its share of the heads and of the
 * MLP's width, and of the vocabulary (tensor parallelism). A rank without a grid holds all of it. */
#ifndef MODEL_PART_H
#define MODEL_PART_H

#include "dist/comm.h"
#include "model/config.h"

/* Layers that run one after the other on a rank: one (virtual) pipeline stage. */
typedef struct LayerRange {
    int64_t first, count;
    bool embedding, head; /* the stage begins with the embedding; ends with the last norm and the output layer */
} LayerRange;

enum { PART_MAX_RANGES = 64 };

typedef struct ModelPart {
    int tp_rank, tp_size;
    Comm *tp;                          /* the tensor-parallel ranks; NULL where there is one, or where sizes alone are asked for */
    int shards;                        /* ranks of the grid's data group, over which arenas are cut; 0: nobody cuts them */
    int cp_size;                       /* ranks among which each sequence is dealt out (context_parallel.h) */
    Comm *cp;                          /* they, likewise */
    int ranges;
    LayerRange range[PART_MAX_RANGES]; /* from the front of the model to its end */
} ModelPart;

/* Everything, on one rank. */
ModelPart part_whole(const ModelConfig *c);
bool part_has_layer(const ModelPart *p, int64_t layer);
bool part_has_embedding(const ModelPart *p);
bool part_has_head(const ModelPart *p);
/* How the layers are dealt out to pipeline stages: each rank gets `chunks` virtual stages (pipeline.h), chunk c of rank p is the
 * (c·stages + p)-th of all. They get as many layers each as can be, those in the middle one more where it does not come out even;
 * the first and the last can get fewer, since the embedding and the output layer take memory and time too (Llama 3: one). */
typedef struct PartStages {
    int chunks;
    int64_t ends_fewer;
} PartStages;

/* This rank's part of a model that is trained by a grid. */
int part_of_grid(ModelPart *p, const ModelConfig *c, Grid *g, const PartStages *s, Error *err);

/* Can this model be split so? Heads stay with their key-value head: the ranks get whole groups of heads where there are at least
 * as many key-value heads as ranks, else a key-value head goes to as many ranks each, which share its query heads. Heads, the
 * MLP's width and the vocabulary need not divide evenly. */
int part_check(const ModelPart *p, const ModelConfig *c, Error *err);

/* What this rank has of every layer and of the vocabulary: counts, and the first of each in the whole. */
typedef struct PartShape {
    int64_t heads, first_head, kv_heads, first_kv_head, intermediate, first_intermediate, vocab, first_token;
    int kv_replicas;         /* neighbouring ranks that hold the same key-value heads */
    int64_t q, kv;           /* widths: heads · head_dim, kv_heads · head_dim */
} PartShape;

PartShape part_shape(const ModelPart *p, const ModelConfig *c);

#endif
