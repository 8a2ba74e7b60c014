/* plan --published: what published counts, laws and rules say of a run of so many parameters and tokens. */
#include <math.h>
#include "form3.h"
#include "rules.h"
#include "scalefit.h"

/* Counts of FLOPs and activations, for those who compare with a paper's. */
static void published_counts(const Settings *s, const PlanShape *p)
{
    bool j = s->json;
    double d = s->tokens, l = p->layers, h = p->hidden, q = p->query, t = (double)s->sequence, used = s->params - (s->shared_table ? 0 : p->vocab * h);
    /* Of a sequence forward; as many key heads as heads, two feed-forward matrices. */
    double forward = 4 * t * p->vocab * h + l * (6 * t * h * q + 4 * t * t * q + 3 * p->heads * t * t + 2 * t * q * h + 4 * t * h * p->feed);
    double numbers = t * (double)s->batch * h * l;
    plan_row(j, "flops_full_attention", (6 * used + 12 * l * q * t) * d, "FLOPs", "compute, attention over all pairs");
    plan_row(j, "flops_recompute", 8 * s->params * d, "FLOPs", "work if all is recomputed, 8 N D (HFU)");
    plan_row(j, "flops_hoffmann", 3 * forward * d / t, "FLOPs", "compute, Hoffmann et al. 2022, appendix F");
    plan_row(j, "flops_deepseek", (72 * l * h * h + 12 * l * h * t) * d, "FLOPs", "compute, DeepSeek LLM's M D");
    plan_row(j, "activations_scores_bytes", numbers * (34 + 5 * p->heads * t / h), "bytes", "activations, Korthikanti et al. 2022");
    plan_row(j, "activations_selective_bytes", numbers * 34, "bytes", "the same, attention recomputed");
    plan_row(j, "activations_recompute_bytes", numbers * 2, "bytes", "the same, all recomputed");
}

/* The best size, tokens and loss of a compute by a law. */
static void published_optimum(bool json, const double law[FORM3_VALUES], double flops, const char *const keys[2], const char *text)
{
    double best[3];
    form3_predict(law, flops, best);
    plan_row(json, keys[0], best[0], "", text);
    plan_row(json, keys[1], best[1], "", "and tokens");
}

void plan_published(const Settings *s, bool known, const PlanShape *p)
{
    static const double hoffmann[FORM3_VALUES] = {406.4, 410.7, 1.69, 0.34, 0.28}, besiroglu[FORM3_VALUES] = {482.01, 2085.43, 1.8172, 0.3478, 0.3658};
    static const char *const hoffmann_keys[] = {"params_hoffmann", "tokens_hoffmann"}, *const besiroglu_keys[] = {"params_besiroglu", "tokens_besiroglu"};
    bool j = s->json;
    double c = 6 * s->params * s->tokens, loss = form3_loss(besiroglu, s->params, s->tokens);
    double bodies = known ? s->params - p->vocab * p->hidden * (s->shared_table ? 1 : 2) : s->params;
    if (known)
        published_counts(s, p);
    plan_row(j, "loss_besiroglu", loss, "", "loss, nats a token, Besiroglu et al. 2024");
    published_optimum(j, besiroglu, c, besiroglu_keys, "best parameters of 6 N D, the same");
    published_optimum(j, hoffmann, c, hoffmann_keys, "best parameters, Hoffmann et al. 2022");
    plan_row(j, "tokens_llama3", 0.29 * pow(c, 0.53), "", "best tokens, Llama 3 as printed");
    plan_row(j, "flops_per_token_deepseek", 0.1715 * pow(c, 0.5243), "FLOPs", "best FLOPs a token, DeepSeek LLM");
    plan_row(j, "tokens_deepseek", 5.8316 * pow(c, 0.4757), "", "and tokens");
    plan_row(j, "lr_deepseek", rule_rate("deepseek", c, bodies, s->tokens), "", "learning rate, DeepSeek LLM");
    plan_row(j, "batch_deepseek", rule_batch("deepseek", c, bodies, s->tokens), "", "tokens a step");
    plan_row(j, "lr_step", rule_rate("step", c, bodies, s->tokens), "", "learning rate, step law");
    plan_row(j, "batch_step", rule_batch("step", c, bodies, s->tokens), "", "tokens a step");
    plan_row(j, "lr_olmo", rule_rate("olmo", c, bodies, s->tokens), "", "learning rate, OLMo's ladder");
    plan_row(j, "batch_olmo", rule_batch("olmo", c, bodies, s->tokens), "", "tokens a step");
    plan_row(j, "batch_minicpm", 1.21e9 / pow(loss, 6.24), "", "tokens a step at that loss, MiniCPM");
    plan_row(j, "batch_critical", 2e8 / pow(loss, 4.76), "", "critical batch there, Kaplan et al. 2020");
}
