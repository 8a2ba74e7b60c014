#include "train/schedule.h"

#include <math.h>
#include <string.h>

int64_t schedule_decay(double share, int64_t steps)
{
    /* 0.07 of 100 steps are 7, though their product is a little more than that in binary. */
    return (int64_t)ceil(share * (double)steps * (1 - 1e-14));
}

int schedule_make(Schedule *s, const char *kind, int64_t steps, int64_t warmup, double decay_share, double peak,
                  double minimum, Error *err)
{
    static const char *const names[] = {"cosine", "wsd", "linear", "constant"};
    int k = 0;
    while (k < 4 && strcmp(kind, names[k]) != 0)
        k++;
    if (k == 4)
        return error_set(err, "unknown schedule '%s'", kind);
    if (!(peak >= 0) || !isfinite(peak) || !(minimum >= 0) || minimum > peak)
        return error_set(err, "learning rates must be finite, with 0 <= minimum (%g) <= peak (%g)", minimum, peak);
    if (steps < 0 || warmup < 0 || decay_share < 0 || decay_share > 1)
        return error_set(err, "steps and warm-up must not be negative, and the decay share must lie in 0 … 1");
    *s = (Schedule){.kind = (ScheduleKind)k, .steps = steps, .warmup = warmup, .peak = peak,
                    .minimum = minimum, .decay = schedule_decay(decay_share, steps)};
    if (s->decay > steps - warmup)
        s->decay = steps > warmup ? steps - warmup : 0;
    return 0;
}

double schedule_rate(const Schedule *s, int64_t done)
{
    if (done < s->warmup)
        return s->peak * (double)(done + 1) / (double)s->warmup;
    int64_t begin = s->kind == SCHEDULE_WSD ? s->steps - s->decay : s->warmup;
    double fall = s->peak - s->minimum;
    if (s->kind == SCHEDULE_CONSTANT || done < begin || s->steps <= begin)
        return s->peak;
    double r = (double)(done + 1 - begin) / (double)(s->steps - begin);
    if (r > 1)
        r = 1;
    switch (s->kind) {
    case SCHEDULE_COSINE:
        return s->minimum + fall * 0.5 * (1 + cos(M_PI * r));
    case SCHEDULE_LINEAR:
        return s->peak - fall * r;
    default:
        return s->minimum + fall * (1 - sqrt(r));
    }
}
