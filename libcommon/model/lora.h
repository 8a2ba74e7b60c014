/* Low-rank adapters (Hu et al. 2021; peft/tuners/lora/layer.py): y = x·Wᵀ + s·drop(x)·Aᵀ·Bᵀ beside a linear layer whose W stays as it
 * is, with A [r, in], B [out, r] and s = α/r, or α/√r where rank-stabilised (Kalajdzievski 2023). A and B are entries of the
 * parameter table under PEFT's names, behind all others. */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

/* What PEFT puts before the names of a model's tensors. */
#define ADAPTER_PREFIX "base_model.model."

typedef enum LoraModule { LORA_Q, LORA_K, LORA_V, LORA_O, LORA_GATE, LORA_UP, LORA_DOWN, LORA_MODULES } LoraModule;

/* Which linear layers have an adapter. */
typedef struct LoraPlan {
    int64_t rank;
    double alpha, dropout;
    bool rslora;
    unsigned targets; /* bits 1 << LORA_…: those of every layer, with that rank and α … */
    int64_t layers;   /* … or, where not 0, arrays [layers][LORA_MODULES] that say it one by one; rank 0: no adapter */
    int64_t *ranks;
    double *alphas;
    char *base;       /* base_model_name_or_path, NULL: not known */
} LoraPlan;

const char *lora_module_name(LoraModule m); /* "self_attn.q_proj", … */

/* targets: last parts of modules' names, comma between, or "all-linear". */
int lora_targets(unsigned *targets, const char *names, Error *err);
/* Makes the arrays as long as that. */
void lora_plan_extend(LoraPlan *p, int64_t layers);
void lora_plan_free(LoraPlan *p);
int64_t lora_rank(const LoraPlan *p, int64_t layer, LoraModule m); /* 0: no adapter */
double lora_alpha(const LoraPlan *p, int64_t layer, LoraModule m);
double lora_scale(const LoraPlan *p, int64_t layer, LoraModule m);
int64_t lora_rank_max(const LoraPlan *p);

#endif
