/* The parameter table: the only path to weights. Initialising, loading, saving, AdamW, clipping and (later) sharding and
 * LoRA walk it and nothing else. Weights, gradients and optimiser states are flat arenas in which an entry has the same
 * offset; entries that are not trained lie first, and gradients, states and averages have no room for them. Entries that one
 * product uses together (q, k and v; gate and up) lie adjacent, rows behind rows. */
#ifndef MODEL_PARAM_H
#define MODEL_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "dist/comm.h"
#include "kernels/ops.h"
#include "model/part.h"

typedef struct Parameter {
    char *name;                   /* Hugging Face's */
    int ndim;
    int64_t shape[2];             /* of the whole tensor: [out, in], or [n] */
    int64_t begin[2], extent[2];  /* the box that this rank holds */
    int split;                    /* the dimension cut over tensor-parallel ranks, -1: none */
    int replicas;                 /* neighbouring tensor-parallel ranks that hold this box; their gradients add up to its */
    bool owner;                   /* this rank's replica is the one that is saved and counted in norms */
    bool tied;                    /* the first and the last stage of a pipeline both hold it; their gradients add up */
    int unit;                     /* that it lies in */
    bool trainable, decayed;
    size_t offset, count;         /* floats in the arena of weights; param_trained finds them in those of what is trained */
    double deviation;             /* initial values: N(0, deviation²), or where 0 the constant */
    double bound;                 /* > 0: U(-bound, bound) instead */
    float constant;
    int adapter;                  /* place of its adapter's A, behind which B stands; -1: none */
    float scale;                  /* of an A: what B·A is multiplied with */
} Parameter;

/* A stretch of the arenas that travels together: a layer's entries, the embedding, what follows the last layer. Its length is a
 * multiple of the ranks that share its gradients and states, so that each owns an equal slice. */
typedef struct ParameterUnit {
    size_t offset, count; /* floats, as the entries' */
    int first, last;      /* entries */
    bool cleared;         /* in this step its gradient has been set to zero */
} ParameterUnit;

typedef struct ParameterTable {
    Parameter *items;
    size_t count;
    ParameterUnit *units;         /* of what is trained and what is not, in the arena's order */
    int unit_count;
    size_t total;                 /* floats in the arena of weights */
    size_t frozen;                /* of them, before the first trainable entry; gradients, moments and averages begin there */
    Device *device;
    Stream *stream;
    float *weights, *gradients;   /* device memory; gradients NULL until asked for; of slices, where ranks share them (sharding.h) */
    uint16_t *working;            /* bf16 copy of the weights that products read, NULL: they read the weights, and may round them */
    bool stale;                   /* the working copy is older than the weights */
    bool lends;                   /* activations may stand in place of gradients (param_lend): no step has more than one pass */
    size_t lent, lent_end;        /* and do there; equal: nowhere */
    struct Sharding *sharding;    /* NULL: everything is here all the time */
    bool last;                    /* the pass that runs is the last of a step through its stage (passes.c) */
    void (*finished)(void *context, int unit); /* called then when a unit's gradient is complete; NULL: nobody waits for it */
    void *finished_context;
} ParameterTable;

/* Where the parameters of a layer stand in the table; -1: the model has none, or another rank has the layer. */
typedef struct LayerParameters {
    int q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm;
    int gate, up, down, gate_bias, up_bias, down_bias, input_norm, post_norm;
} LayerParameters;

typedef struct ModelParameters {
    ParameterTable table;
    LayerParameters *layers; /* of the whole model */
    int embedding, norm;     /* -1: another rank's, as the two below */
    int output; /* lm_head, or the embedding where tied; -1 for a reward model */
    int score;  /* of a reward model, else -1 */
} ModelParameters;

/* Lays out what the part holds and allocates the weights (zeros); d NULL: the layout alone. */
int param_open(ModelParameters *p, const ModelConfig *c, const ModelPart *part, Device *d, Stream *s, Error *err);
void param_close(ModelParameters *p);
int param_need_gradients(ParameterTable *t, Error *err);
/* Units lie in the order of the forward pass, and a backward pass comes to them from behind. Where it is the only one of a step, the places of
 * gradients before a layer's unit are nobody's until its pass has ended: activations of the layer may stand there. Floats `begin` … `end` (of
 * the arena of weights) are lent so, and their units' gradients become zero when the pass comes to them (param_begin), not when the step begins. */
void param_lend(ParameterTable *t, size_t begin, size_t end);
bool param_is_lent(const ParameterTable *t, int unit);
/* Gradients of floats `begin` … `end` of the unit, which are all that the rank keeps of it, become zero; those of a lent unit that has the entry
 * (-1: none), where they have not in this step. */
void param_clear(ParameterTable *t, int unit, size_t begin, size_t end);
void param_begin(ParameterTable *t, int entry);
/* Floats in an arena of what is trained, and where an entry's begin in one. */
size_t param_trained_total(const ParameterTable *t);
float *param_trained(const ParameterTable *t, float *arena, const Parameter *p);

/* What of the floats *begin … *end of the arena of weights is the parameter's; false: nothing. */
bool param_within(const Parameter *p, size_t *begin, size_t *end);
/* The entries of a unit from i on that are of one kind, which lie together: the entry behind them; *begin … *end becomes what of it is theirs. */
typedef int (*ParameterKind)(const Parameter *p);
int param_run(const ParameterTable *t, int i, ParameterKind kind, size_t *begin, size_t *end);
/* -1: there is none of that name. */
int param_find(const ParameterTable *t, const char *name);

/* The trained floats of a unit, and of them the slice that is this rank's of the data group: begin … end of the arena of weights. */
void param_unit_trained(const ParameterTable *t, int unit, size_t *begin, size_t *end);
void param_unit_slice(const ParameterTable *t, int unit, const Comm *data, size_t *begin, size_t *end);

/* Where float `offset` of the arena of weights lies of a unit's that this rank keeps: of units whose weights (gradients) ranks share
 * (sharding.h) its own slice, else all. And how many floats of what is trained the arena of weights has then. */
float *param_kept_weight(const ParameterTable *t, int unit, size_t offset);
float *param_kept_trained(const ParameterTable *t); /* where what is trained begins in the arena of weights */
float *param_kept_gradient(const ParameterTable *t, int unit, size_t offset);
size_t param_kept_total(const ParameterTable *t);
/* Sets what this rank keeps of a parameter. */
void param_store(ParameterTable *t, const Parameter *p, const float *values);

/* From now on products read matrices as bf16; the weights stay f32. A device that does not round them as it reads gets a copy: whoever
 * writes weights says so with param_changed, and param_refresh, at the head of a pass, rounds them again. */
int param_need_working(ParameterTable *t, Error *err);
void param_changed(ParameterTable *t);
void param_refresh(ParameterTable *t);

/* Initial values: counter-based random numbers of (seed, name, global index), so that every grid starts from the same bits.
 * Matrices N(0, initializer_range²), of o_proj and down_proj divided by √(2·layers) as GPT-2 and Megatron do; norms 1; adapters' A U(-1/√in, 1/√in), B 0 (PEFT). */
void param_initialise(ParameterTable *t, uint64_t seed);
void param_initialise_one(ParameterTable *t, size_t place, uint64_t seed);

/* The matrix of entries first … last, which lie adjacent and have equal columns, as products read it; vectors are f32, and so are
 * matrices that products of bf16 round themselves. Between acquire and release the whole of it is in this rank's memory, where sharded weights are gathered first. */
Tensor param_acquire(ParameterTable *t, int first, int last);
void param_release(ParameterTable *t, int first, int last);
/* The same in f32, whatever products read: vectors, and rows that are looked up. */
Tensor param_acquire_f32(ParameterTable *t, int first, int last);
/* An entry that was acquired in f32 has been changed where it stands: what the rank keeps of it too. */
void param_keep(ParameterTable *t, int entry);
/* The same stretch of the gradients; data NULL where they are frozen or nobody asked for gradients. */
Tensor param_gradient(ParameterTable *t, int first, int last);

/* A pass will use the weights of these entries next, in this order. */
void param_expect(ParameterTable *t, const int *entries, int count);
/* The pass adds nothing more to the gradients of the entry's unit (-1: of none). */
void param_finished(ParameterTable *t, int entry);

#endif
