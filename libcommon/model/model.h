/* A decoder-only transformer: parameters, stages of layers, and the slots in which activations live.
 *
 * A forward pass reads a batch from a slot (slot_load), leaves the final hidden states there, and a head (head.h) turns
 * them into losses or scores and leaves their gradient there; the backward pass takes it from the slot and adds to the
 * gradients of the parameters. Nothing is allocated between slot_new and slot_free. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "data/batch.h"
#include "model/config.h"
#include "model/param.h"

/* What a training slot keeps of the forward pass; the rest is computed again when the backward pass needs it, with the same bits:
 * NORMS drops the outputs of norms and of SwiGLU, LAYER everything but each layer's input; NONE is NORMS where that costs nothing (slot.c). */
typedef enum Recompute { RECOMPUTE_NONE, RECOMPUTE_NORMS, RECOMPUTE_LAYER } Recompute;

typedef struct Model {
    ModelConfig config;    /* of the whole */
    ModelPart part;        /* what this rank holds of it */
    PartShape shape;       /* widths of layers and vocabulary on this rank */
    ModelParameters params;
    Device *device;
    Stream *stream;
    float *cosine, *sine;  /* device [rope_positions, head_dim/2] */
    int64_t rope_positions;
    Dtype dtype;           /* F32, or BF16: what products read and write (model_compute_in); the weights are f32 always */
    Recompute recompute;   /* the policy of training slots opened from now on; a slot has its own */
    void **packed;         /* of the first parameter of each product: its weights as packed.c laid them out; NULL: none are */
    char *tokenizer_folder; /* where the tokenizer's files lie, NULL: not known; copied when the model is saved */
    /* tensor_parallel.c's: */
    Comm replicas;         /* ranks with the same key-value heads, where neither one nor all of tp have them */
    int64_t *first_token;  /* of each rank's part of the vocabulary; behind the last its size */
    bool astray;                /* this rank's own words about labels were not finite; whoever looks makes it false again */
    bool failed;           /* a collective of a pass has, and why */
    Error failure;
} Model;

/* Allocates what the part (NULL: all) holds of a model, with weights 0: then param_initialise, or folder_load. */
int model_open(Model *m, const ModelConfig *c, const ModelPart *part, Device *d, Error *err);
void model_close(Model *m);
/* -1: a collective of the passes so far has failed, and their results are worth nothing. */
int model_check(const Model *m, Error *err);
/* Computes in this type from now on; slots are opened after it. */
int model_compute_in(Model *m, Dtype t, Error *err);
/* Tables for positions 0 … positions-1 of the configured RoPE (again after rope_theta has changed). */
int model_rope(Model *m, int64_t positions, Error *err);

/* Rows of logits that stand at once, a multiple of HEAD_CHUNK: what fills a GPU, or on a CPU more where tokens are few, since the output
 * layer's weights are packed, and its gradient is read and written, once for each. Tensor-parallel ranks send one another the words of
 * HEAD_CHUNK rows at a time. */
enum { HEAD_CHUNK = 256, HEAD_CHUNK_CPU = 512, HEAD_CHUNK_GPU = 2048, HEAD_LOGITS_CPU = 2 << 20 };
int64_t model_head_chunk(const Model *m);

/* What a pass keeps: everything a backward pass needs, or nothing but the last hidden states. */
typedef enum Mode { MODE_TRAIN, MODE_SCORE } Mode;

/* What one layer keeps of a pass over R rows; q, kv and f are this rank's widths of queries, keys and MLP. h1, h2 and raw_qk are
 * f32, the others of the model's dtype. What has the width H is there for this rank's share of the rows alone, R/t of t
 * tensor-parallel ranks. Layers share what the slot does not keep. */
typedef struct LayerSlot {
    Tensor h1, y1, qkv, attended, h2, y2, gate_up, activated; /* [R/t, R/t, R, R, R/t, R/t, R, R] × [H H q+2kv q H H 2f f] */
    Tensor raw_qk;                                            /* before QK-norm [R, q+kv] */
    float *r1, *r2, *lse, *rq, *rk;
} LayerSlot;


/* What a rank's part of the vocabulary says about HEAD_CHUNK labels (device memory). */
typedef struct ChunkSaid {
    float logprob[HEAD_CHUNK], lse[HEAD_CHUNK]; /* of the label, 0 where it is another rank's; log Σ exp */
    float best_logprob[HEAD_CHUNK];             /* of the most probable token */
    float mean[HEAD_CHUNK], entropy[HEAD_CHUNK];
    int32_t best[HEAD_CHUNK];
} ChunkSaid;

/* Of each row, on the host; NULL: not wanted, but logprob always is. */
typedef struct HeadRows {
    float *logprob, *lse; /* of the label; log Σ exp of the logits */
    int32_t *best;        /* the arg max */
    float *mean;          /* of the logits */
    float *entropy;       /* of the distribution, in nats */
} HeadRows;

/* Random numbers of a training pass. Rows have keys by record and position, and each use draws on its own. */
typedef struct SlotRandom {
    uint64_t draw;                      /* of the step; 0: none are drawn */
    uint64_t *keys, *host_keys;         /* [rows] */
    float neftune, *noise, *host_noise; /* NEFTune's α, 0: none (Jain et al. 2023); of each row: α/√(length·H) */
} SlotRandom;

typedef struct Slot {
    Model *model;
    Mode mode;
    Recompute recompute;
    int64_t rows;                /* room */
    void *memory, *scratch;      /* what is kept; what is used up within a pass, NULL: another slot's */
    size_t lent, lent_end;       /* of what is kept some stands in place of these floats' gradients (param_lend) */
    LayerRange stage;            /* the layers that pass now */
    LayerSlot *layers;           /* of the stage; one for all in MODE_SCORE */
    Tensor branch, hidden, last_h, dhidden, dqkv, dattended; /* the first four: R/t rows */
    Tensor dbranch, dactivated;  /* [R/t, H], [R, f] where the model has adapters, else gradients of y1, y2 and activated take their place */
    Tensor dstream;              /* gradient of the residual stream, f32; dhidden's memory where that is f32 too */
    Tensor dnarrow;              /* dstream as products read it; NULL data: as it is */
    float *last_r, *delta;
    Tensor lora_u, lora_du;      /* where the model has adapters: [rows, largest rank] */
    Tensor lora_x;               /* the input of an adapter under dropout, and in bf16 its product */
    Tensor chunk, chunk_narrow;  /* of logits [model_head_chunk, vocabulary] f32, and their gradient as products read it; NULL data: none. Where a
                                  * backward pass has its scratch. */
    float *chunk_logprob, *chunk_lse, *chunk_dlogprob, *chunk_dlse; /* [rows], most of it for what waits until all chunks are through */
    int32_t *chunk_best;         /* [rows] */
    void *wide, *partial;        /* all ranks' rows [R, H] of either dtype, gathered, and before they are added up; NULL: one rank */
    ChunkSaid *said;             /* this rank's word, then all ranks' in order, of each HEAD_CHUNK of a chunk's rows */
    /* Under context parallelism: keys and values side by side [R·c, 2kv] of c ranks, one rank's rows behind another's and in the
     * order of the sequences, the latter's gradient, and where each row of one stands in the other (batch_orders). */
    Tensor dealt_keys, keys, dkeys;
    int32_t *dealt_order, *whole_order;
    /* The batch, on the device; tokens and labels counted from the first of this rank's, -1 where they are another's. */
    int32_t *tokens, *labels, *positions, *begin, *end;
    int64_t sequences, sequence_rows, used; /* used = sequences · sequence_rows */
    int64_t mine;                           /* rows of this rank: used / t, rounded up */
    int64_t key_rows;                       /* rows of a sequence that may be seen: all ranks' */
    int32_t *window_begin;                  /* begin under the sliding window */
    /* On the host, so that no pass allocates: where it makes what the batch does not have as it stands, the copy of what all ranks have
     * said, and the entries whose units a pass will ask for. */
    int32_t *prepared;
    ChunkSaid *heard;
    int *asked;
    SlotRandom random;
    /* Set by cache.c while a pass fills the KV cache or decodes one token a sequence from it. */
    struct KvCache *cache;
    bool decoding;
} Slot;

/* Bytes that so many slots of so many rows take that lie beside one another. */
size_t slot_bytes(const Model *m, int64_t rows, Mode mode, int slots);
int slot_new(Slot *s, Model *m, int64_t rows, Mode mode, Error *err);
/* Another slot like the first, for another micro-batch in flight. They share what is used up within a pass: one passes at a time, and
 * the first is freed last. */
int slot_beside(Slot *s, const Slot *first, Error *err);
void slot_free(Slot *s);
/* The next pass goes through that stage of the model's part (0 … ranges-1); after slot_new through the first. */
void slot_stage(Slot *s, int chunk);
/* Between the two the device may take operations whose rows are independent together (rows_begin of kernels/ops.h). */
void slot_rows_begin(Slot *s);
void slot_rows_end(Slot *s);
/* Copies the batch's integers to the device. The batch must fit the slot and its tokens the vocabulary. */
int slot_load(Slot *s, const Batch *b, Error *err);

/* Random numbers in training passes (noise.c): room for them, once; then slot_draws before a step's passes, and random.draw = 0
 * before passes that draw none. */
int slot_randomise(Slot *s, double neftune, Error *err);
void slot_draws(Slot *s, uint64_t seed, int64_t step);
uint64_t slot_draw(const Slot *s, uint64_t use); /* the seed of one use in a pass */
void slot_random_load(Slot *s, const Batch *b);
void slot_add_noise(Slot *s, Tensor embedded); /* this rank's rows */
void slot_random_free(Slot *s);

/* What adapters add to y = x·Wᵀ, W the entries first … last, and to its backward pass (lora.c). */
void lora_forward(Model *m, Slot *s, Tensor y, Tensor x, int first, int last);
void lora_backward(Model *m, Slot *s, Tensor dx, Tensor dy, Tensor x, int first, int last);
/* W += s·B·A: the model has no adapters any more, and all of it counts as trained. Each rank merges what it holds. */
void lora_merge(Model *m);

/* The slot's stage. `in` [mine, H] f32 is the residual stream that came from the stage before, without data where this one begins
 * with the embedding; `out` is what the next stage gets, without data where this one ends with the last norm: then slot.hidden
 * [mine, H] is what the head reads. They may not be the same memory. */
void stage_forward(Model *m, Slot *s, Tensor in, Tensor out);
/* dout: the gradient of what stage_forward gave, which is used up; without data it comes from slot.dhidden. din: that of what it got.
 * The parameters' gradients are added to, and what the slot has kept of the stage's forward pass is used up: each has one backward pass. */
void stage_backward(Model *m, Slot *s, Tensor dout, Tensor din);
/* A model that is one stage. */
void model_forward(Model *m, Slot *s);
void model_backward(Model *m, Slot *s);

#endif
