/* A model's config.json, in Hugging Face's names: dense Llama, Mistral, Qwen2 and Qwen3. What would change the mathematics
 * and is not known is refused by name; every default is the one that transformers has for that family. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/error.h"
#include "base/memory.h"
#include "io/json.h"

enum { CONFIG_MAX_EOS = 8, CONFIG_MAX_LAYERS = 4096 };

typedef enum RopeKind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 } RopeKind;

typedef struct RopeScaling {
    RopeKind kind;
    double factor, low_freq_factor, high_freq_factor;
    int64_t original_max_position_embeddings;
} RopeScaling;

typedef struct ModelConfig {
    char model_type[16]; /* llama, mistral, qwen2, qwen3 */
    int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
    int64_t max_position_embeddings;
    double rms_norm_eps, rope_theta, initializer_range;
    double attention_dropout; /* transformers has it in training alone; ours refuses to train with it (train_prepare) */
    RopeScaling rope_scaling;
    bool tie_word_embeddings;
    bool qkv_bias, output_bias, mlp_bias, qk_norm;
    int64_t sliding_window; /* 0: none */
    uint64_t sliding_layers[CONFIG_MAX_LAYERS / 64]; /* bit i: layer i has it */
    const struct LoraPlan *lora; /* adapters that the model has (lora.h), NULL: none; whoever opens the model keeps it */
    int64_t num_labels;     /* 0: a causal LM; 1: a reward model (…ForSequenceClassification) */
    int64_t bos_token_id, pad_token_id; /* -1: none */
    int64_t eos_token_id[CONFIG_MAX_EOS];
    int eos_count;
} ModelConfig;

int config_read(ModelConfig *c, const char *path, Error *err);
int config_parse(ModelConfig *c, const JsonValue *root, const char *name, Error *err);
/* Adds the end tokens of a generation_config.json, by which transformers ends answers: chat models often name more there. */
int config_read_generation(ModelConfig *c, const char *path, Error *err);
/* Sizes that fit one another; called by config_parse, and after a tool has changed something. */
int config_check(const ModelConfig *c, const char *name, Error *err);
/* As transformers 4 writes it, which 5 and llama.cpp read too. */
void config_write(const ModelConfig *c, Dtype weights, Buffer *out);

/* The sliding window of a layer, 0: it sees everything before it. */
int64_t config_window(const ModelConfig *c, int64_t layer);

int64_t config_parameters(const ModelConfig *c);
/* All weights but the input embedding (a tied one counts as the output layer): the `params` of logs and scaling laws. */
int64_t config_parameters_compute(const ModelConfig *c);
/* Training FLOPs a token: 6 × the above, and 6·layers·width·length for causal attention (half of 12, forward and backward). */
double config_flops_per_token(const ModelConfig *c, int64_t sequence_length);

#endif
