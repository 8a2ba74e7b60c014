/* plan --published: a training's FLOPs as papers and programs count them. */
#include "scalefit.h"

void plan_counts(const Settings *s, const PlanShape *p)
{
    bool j = s->json;
    double d = s->tokens, l = p->layers, h = p->hidden, q = p->query, t = (double)s->sequence, tables = p->vocab * h;
    double used = s->params - (s->shared_table ? 0 : tables), bodies = used - tables;
    /* Of a sequence forward; as many key heads as heads, two feed-forward matrices. */
    double forward = 4 * t * p->vocab * h + l * (6 * t * h * q + 4 * t * t * q + 3 * p->heads * t * t + 2 * t * q * h + 4 * t * h * p->feed);
    /* Narayanan et al. 2021, appendix, as Megatron-LM counts today: products of half of all pairs, key heads, a third feed-forward matrix. */
    double megatron = 12 * l * h * h * ((1 + p->kv / q + t / h / 2) * q / h + 1.5 * p->feed / h + p->vocab / (2 * l * h));
    plan_row(j, "flops_full_attention", (6 * used + 12 * l * q * t) * d, "FLOPs", "compute, attention over all pairs");
    plan_row(j, "flops_recompute", 8 * s->params * d, "FLOPs", "work if all is recomputed, 8 N D (HFU)");
    plan_row(j, "flops_hoffmann", 3 * forward * d / t, "FLOPs", "compute, Hoffmann et al. 2022, appendix F");
    plan_row(j, "flops_deepseek", (72 * l * h * h + 12 * l * h * t) * d, "FLOPs", "compute, DeepSeek LLM's M D");
    plan_row(j, "flops_megatron", megatron * d, "FLOPs", "compute, Megatron-LM");
    plan_row(j, "params_kaplan_count", bodies, "", "parameters of the layers alone");
    plan_row(j, "flops_layers", 6 * bodies * d, "FLOPs", "compute of them, Porian et al. 2024");
    plan_row(j, "flops_layers_output", 6 * used * d, "FLOPs", "and the output layer");
    plan_row(j, "flops_layers_attention", 6 * (used + t * q * l) * d, "FLOPs", "and attention, as s h l parameters");
}
