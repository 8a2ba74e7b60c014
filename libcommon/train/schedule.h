/* Learning rates by step: linear warm-up, then cosine, linear, constant, or warmup-stable-decay. */
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

#include <stdint.h>
#include "base/error.h"

typedef enum ScheduleKind { SCHEDULE_COSINE, SCHEDULE_WSD, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } ScheduleKind;

typedef struct Schedule {
    ScheduleKind kind;
    int64_t steps, warmup;
    int64_t decay; /* steps of WSD's last part */
    double peak, minimum;
} Schedule;

/* kind: cosine|wsd|linear|constant. decay_share: of the steps, for wsd. */
int schedule_make(Schedule *s, const char *kind, int64_t steps, int64_t warmup, double decay_share, double peak,
                  double minimum, Error *err);
/* So many last steps are that share of all, rounded up. */
int64_t schedule_decay(double share, int64_t steps);
/* The rate of the step after `done` steps, done = 0 … steps-1. Warm-up is peak·(done+1)/warmup, so that the first step
 * moves (llm.c's form, not transformers', whose first rate is 0). After it, with r = (done+1−warmup)/(steps−warmup):
 * cosine minimum + (peak−minimum)·½(1+cos πr), linear peak + (minimum−peak)·r; both reach the minimum at the last step.
 * WSD holds the peak, then falls as 1−√r over its last part (Hägele et al. 2024). */
double schedule_rate(const Schedule *s, int64_t done);

#endif
