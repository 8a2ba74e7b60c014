/* Published rules for the batch and the learning rate of a run. */
#ifndef SCALEFIT_RULES_H
#define SCALEFIT_RULES_H

/* Tokens a step, and the rate, by a rule's name: "deepseek" (DeepSeek LLM 2024, eq. 1: of the compute), "step" (Li et al. 2025: of
 * tokens and, for the rate, parameters without both tables), "olmo" (Bhagia et al. 2024: of those parameters, sequences of 2,048
 * tokens). NAN: there is no such rule. */
double rule_batch(const char *rule, double flops, double bodies, double tokens);
double rule_rate(const char *rule, double flops, double bodies, double tokens);

#endif
