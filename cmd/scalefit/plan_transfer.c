/* plan: what carries over from small runs: learning rate and initialisation by width (muP), the batch by the noise of its gradients. */
#include <math.h>
#include "scalefit.h"

/* Yang et al. 2022, table 8, for Adam: what a model `width` times as wide as the one tuned takes. */
void plan_width(const Settings *s, const PlanShape *p)
{
    bool j = s->json;
    double m = p->hidden / s->base_hidden, head = p->query / fmax(1, p->heads), rate = s->lr > 0 ? s->lr : 1;
    plan_row(j, "mup_width", m, "", "muP: width over the one tuned");
    plan_row(j, "mup_lr_hidden", rate / m, "", s->lr > 0 ? "learning rate of hidden matrices" : "learning rate of hidden matrices, times");
    plan_row(j, "mup_lr_other", rate, "", s->lr > 0 ? "learning rate of embedding and norms" : "of embedding and norms, times");
    plan_row(j, "mup_variance_hidden", 1 / m, "", "initial variance of hidden matrices, times");
    plan_row(j, "mup_deviation_hidden", 1 / sqrt(m), "", "their standard deviation, times");
    plan_row(j, "mup_logits", 1 / m, "", "logits, times");
    plan_row(j, "mup_scores", 1 / head, "", "attention scores, times (1/d for 1/sqrt d)");
}

/* McCandlish et al. 2018, appendix A.1: |G|^2 and tr(Sigma) without bias from the mean squared norms of gradients over two batches; the noise
 * scale is tr(Sigma) / |G|^2, in what the batches are counted in. */
int plan_gradients(const Settings *s, PlanGiven *g, Error *err)
{
    double v[4];
    g->noise_scale = s->noise_scale;
    if (!s->gradient_norms)
        return 0;
    if (parse_numbers("gradient-norms", s->gradient_norms, v, 4, err) < 0)
        return -1;
    double small = v[0], big = v[2];
    if (!(small < big))
        return error_set(err, "--gradient-norms %s: the second batch must be the larger", s->gradient_norms);
    g->gradient_square = (big * v[3] - small * v[1]) / (big - small);
    g->gradient_noise = (v[1] - v[3]) / (1 / small - 1 / big);
    if (!(g->gradient_square > 0 && g->gradient_noise > 0))
        return error_set(err, "--gradient-norms %s: no noise scale fits these (|G|^2 %g, tr(Sigma) %g)", s->gradient_norms, g->gradient_square, g->gradient_noise);
    g->noise_scale = g->gradient_noise / g->gradient_square;
    return 0;
}

void plan_noise(const Settings *s, const PlanGiven *g)
{
    bool j = s->json;
    double critical = g->noise_scale, batch = s->batch_tokens;
    if (g->gradient_square > 0) {
        plan_row(j, "gradient_square", g->gradient_square, "", "squared gradient without noise, |G|^2");
        plan_row(j, "gradient_noise", g->gradient_noise, "", "its noise, tr(Sigma)");
    }
    plan_row(j, "noise_scale", critical, "", "noise scale: critical batch, tokens");
    if (batch > 0) {
        double steps = s->tokens / batch, more_steps = 1 + critical / batch, more_tokens = 1 + batch / critical;
        plan_row(j, "steps", steps, "", "steps");
        plan_row(j, "steps_least", steps / more_steps, "", "steps of a large batch, S/(1 + Bcrit/B)");
        plan_row(j, "tokens_least", s->tokens / more_tokens, "", "tokens by a small one, E/(1 + B/Bcrit)");
        plan_row(j, "flops_least", 6 * s->params * s->tokens / more_tokens, "FLOPs", "compute by it, C/(1 + B/Bcrit)");
    }
}
