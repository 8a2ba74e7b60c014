#include "rules.h"

#include <math.h>
#include <string.h>

double rule_batch(const char *rule, double flops, double bodies, double tokens)
{
    if (strcmp(rule, "deepseek") == 0)
        return 0.2920 * pow(flops, 0.3271);
    if (strcmp(rule, "olmo") == 0)
        return 160 * 2048 * pow(bodies / 108e6, 2.0 / 3);
    return strcmp(rule, "step") == 0 ? 0.58 * pow(tokens, 0.571) : NAN;
}

double rule_rate(const char *rule, double flops, double bodies, double tokens)
{
    if (strcmp(rule, "deepseek") == 0)
        return 0.3118 * pow(flops, -0.1250);
    if (strcmp(rule, "olmo") == 0)
        return 0.0047 * pow(bodies / 108e6, -1.0 / 3);
    return strcmp(rule, "step") == 0 ? 1.79 * pow(bodies, -0.713) * pow(tokens, 0.307) : NAN;
}
