/* plan --published: what published laws and rules say of a run of so many parameters and tokens. */
#include <math.h>
#include "form3.h"
#include "rules.h"
#include "scalefit.h"

/* The best size, tokens and loss of a compute by a law. */
static void published_optimum(bool json, const double law[FORM3_VALUES], double flops, const char *const keys[2], const char *text)
{
    double best[3];
    form3_predict(law, flops, best);
    plan_row(json, keys[0], best[0], "", text);
    plan_row(json, keys[1], best[1], "", "and tokens");
}

/* Kaplan et al. 2020: N without both tables, compute in days of a PFLOP/s. */
static void published_kaplan(bool j, double c, double bodies, double tokens)
{
    const double day = 8.64e19;
    plan_row(j, "loss_kaplan_params", pow(8.8e13 / bodies, 0.076), "", "loss of that size, Kaplan et al. 2020");
    plan_row(j, "loss_kaplan_tokens", pow(5.4e13 / tokens, 0.095), "", "of those tokens");
    plan_row(j, "params_kaplan", 1.3e9 * pow(c / day, 0.73), "", "best parameters of that compute");
}

/* Muennighoff et al. 2023: what tokens are worth of which only some are unique. */
static void published_repeated(const Settings *s)
{
    static const double law[FORM3_VALUES] = {520.824952, 1487.71609, 1.86914368, 0.3526596, 0.3526596};
    double d, n, u = fmin(s->unique_tokens, s->tokens), best = pow(law[0] / law[1], 1 / law[3]) * u;
    d = repeated_worth(u, s->tokens, 15.387756);
    n = repeated_worth(fmin(best, s->params), s->params, 5.309743);
    plan_row(s->json, "epochs", s->tokens / u, "", "epochs of the unique tokens");
    plan_row(s->json, "tokens_worth", d, "", "tokens of worth, Muennighoff et al. 2023");
    plan_row(s->json, "params_worth", n, "", "parameters of worth");
    plan_row(s->json, "loss_repeated", form3_loss(law, n, d), "", "loss");
    plan_row(s->json, "loss_unrepeated", form3_loss(law, s->params, s->tokens), "", "loss, were all tokens unique");
}

void plan_published(const Settings *s, bool known, const PlanShape *p, const PlanGiven *g)
{
    static const double hoffmann[FORM3_VALUES] = {406.4, 410.7, 1.69, 0.34, 0.28}, besiroglu[FORM3_VALUES] = {482.01, 2085.43, 1.8172, 0.3478, 0.3658};
    static const char *const hoffmann_keys[] = {"params_hoffmann", "tokens_hoffmann"}, *const besiroglu_keys[] = {"params_besiroglu", "tokens_besiroglu"};
    bool j = s->json;
    double c = 6 * s->params * s->tokens, loss = form3_loss(besiroglu, s->params, s->tokens);
    double bodies = known ? s->params - p->vocab * p->hidden * (s->shared_table ? 1 : 2) : s->params;
    if (known) {
        plan_counts(s, p);
        plan_parallel(s, p, g);
    }
    published_kaplan(j, c, bodies, s->tokens);
    if (s->unique_tokens > 0)
        published_repeated(s);
    plan_row(j, "loss_besiroglu", loss, "", "loss, nats a token, Besiroglu et al. 2024");
    published_optimum(j, besiroglu, c, besiroglu_keys, "best parameters of 6 N D, the same");
    published_optimum(j, hoffmann, c, hoffmann_keys, "best parameters, Hoffmann et al. 2022");
    plan_row(j, "tokens_llama3", 0.29 * pow(c, 0.53), "", "best tokens, Llama 3 as printed");
    plan_row(j, "tokens_llama3_reached", 0.29 * pow(c, 0.5378), "", "with the exponent of its 16.55T, 0.5378");
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
