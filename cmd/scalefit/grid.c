/* grid: the small runs of an IsoFLOP fit, budgets times sizes, as a Makefile. Each run's shape, tokens, batch and learning rate follow
 * from its budget and size by one rule; make trains them, several at once, and a grid that is broken off goes on where it was. With
 * the logs of runs as operands it plans what is lacking: one more size where a budget's lowest loss stands at an end. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "io/stream.h"
#include "rules.h"
#include "scalefit.h"

enum { STEPS_FEWEST = 20, STEPS_WANTED = 100, STEPS_MOST = 5000, WARMUP_MOST = 2000 };

#define LR_HOT 0.02

typedef struct Planned {
    double budget, size;   /* FLOPs; parameters without the input table that were asked for */
    ModelConfig config;
    double params, tokens, lr;
    int64_t batch, steps, warmup;
} Planned;

typedef struct Plan {
    Planned *runs;
    size_t count, capacity;
} Plan;

/* Tokens a step. `bodies`: parameters without both tables. */
static double run_batch(const Settings *s, double budget, double bodies, double tokens)
{
    if (s->batch_tokens > 0)
        return s->batch_tokens;
    if (strcmp(s->rule, "width") != 0)
        return rule_batch(s->rule, budget, bodies, tokens);
    double batch = 512;
    while (tokens / batch > STEPS_MOST)
        batch *= 2;
    return batch;
}

static double run_lr(const Settings *s, double budget, double bodies, double tokens, double width)
{
    if (s->lr > 0)
        return s->lr;
    if (strcmp(s->rule, "width") != 0)
        return rule_rate(s->rule, budget, bodies, tokens);
    return 0.3 / width; /* muP: Adam's rate falls with the width */
}

static int run_plan(const Settings *s, double budget, double size, Planned *p, Error *err)
{
    *p = (Planned){.budget = budget, .size = size};
    if (shape_find(s, size, &p->config, err) < 0)
        return -1;
    double width = (double)p->config.hidden_size, length = (double)s->sequence, tokens = budget / config_flops_per_token(&p->config, s->sequence);
    p->params = (double)config_parameters_compute(&p->config);
    double bodies = fmax(1, p->params - (double)p->config.vocab_size * width), batch = run_batch(s, budget, bodies, tokens);
    /* Whole sequences, and few enough for the schedule to have steps. */
    batch = fmax(1, floor(fmin(batch, tokens / STEPS_WANTED) / length + 0.5)) * length;
    p->batch = (int64_t)batch;
    p->steps = (int64_t)(tokens / batch + 0.5);
    if (p->steps < STEPS_FEWEST)
        return error_set(err, "%g FLOPs are %g tokens for %g parameters, less than %d steps of a sequence of %" PRId64 ": a larger --budget, smaller sizes or --seq-len", budget,
                         tokens, p->params, STEPS_FEWEST, s->sequence);
    p->tokens = (double)p->steps * batch;
    p->lr = run_lr(s, budget, bodies, tokens, width);
    /* What the published rules were fitted to begins at about 40 to 60 million parameters; they run far too hot below. */
    if (p->lr > LR_HOT)
        message_warning("--rule %s gives %g parameters a learning rate of %.3g; --rule width is for small models", s->rule, p->params, p->lr);
    p->warmup = p->steps / 20 < WARMUP_MOST ? p->steps / 20 + 1 : WARMUP_MOST;
    return 0;
}

/* Sizes that round to a shape which the budget has already are not trained twice. */
static int run_add(const Settings *s, double budget, double size, Plan *plan, Error *err)
{
    Planned p;
    if (run_plan(s, budget, size, &p, err) < 0)
        return -1;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->runs[i].budget == budget && plan->runs[i].params == p.params) {
            message("budget %g FLOPs: size %g rounds to the shape of %g", budget, size, plan->runs[i].size);
            return 0;
        }
    plan->runs = memory_grow(plan->runs, &plan->capacity, plan->count + 1, sizeof *plan->runs);
    plan->runs[plan->count++] = p;
    return 0;
}

/* "C" has --sizes sizes, each --ratio times the one before, around the best of the law N = K·C^A; "C:N,N,…" those. */
static int budget_add(const Settings *s, const char *text, Plan *plan, Error *err)
{
    char *end;
    double budget = strtod(text, &end), law[2] = {sqrt(1.0 / 120), 0.5}; /* 20 tokens a parameter */
    if (s->around && parse_numbers("around", s->around, law, 2, err) < 0)
        return -1;
    double first = law[0] * pow(budget, law[1]) * pow(s->ratio, -0.5 * (double)(s->count - 1));
    for (int64_t i = 0; *end == 0 && i < s->count; i++)
        if (run_add(s, budget, first * pow(s->ratio, (double)i), plan, err) < 0)
            return -1;
    while (*end) {
        const char *at = end + 1;
        double size = strtod(at, &end);
        if (end == at || !(size > 0 && isfinite(size)) || (*end && *end != ','))
            return error_set(err, "--budget %s is neither FLOPS nor FLOPS:SIZE,SIZE…", text);
        if (run_add(s, budget, size, plan, err) < 0)
            return -1;
    }
    return 0;
}

/* What finished runs lack: a size beyond the end at which a budget's lowest loss stands. */
static int budgets_extend(const Settings *s, const char *const *logs, Plan *plan, Error *err)
{
    Table t;
    RunPoint *points = NULL;
    Budget *found = NULL;
    int count = 0, status = table_read(&t, logs, &s->wheres, &s->renames, err);
    if (status == 0)
        status = points_read(&t, &points, &count, err);
    int n = status == 0 ? budgets_make(points, count, s->tolerance, s->window, &found) : 0;
    for (size_t i = 0; status == 0 && i < s->budgets.count; i++) {
        double budget = strtod(s->budgets.values[i], NULL);
        const Budget *b = NULL;
        for (int k = 0; k < n; k++)
            if (fabs(log(found[k].flops / budget)) <= log1p(s->tolerance) && (!b || fabs(log(found[k].flops / budget)) < fabs(log(b->flops / budget))))
                b = &found[k];
        if (!b) {
            status = error_set(err, "no run of %g FLOPs is among those given", budget);
            break;
        }
        int best = 0;
        for (int k = 1; k < b->count; k++)
            best = b->points[k].loss < b->points[best].loss ? k : best;
        if (best != 0 && best != b->count - 1)
            continue;
        bool low = best == 0;
        for (double size = b->points[best].params;;) { /* until it rounds to a shape beyond that end */
            Planned p;
            size *= low ? 1 / s->ratio : s->ratio;
            if (size < 1e3 || size > 1e14 || run_plan(s, budget, size, &p, err) < 0) {
                message_warning("budget %g FLOPs: its %s size is the best, and there is no %s one", budget, low ? "smallest" : "largest", low ? "smaller" : "larger");
                break;
            }
            if (low ? p.params < b->points[best].params : p.params > b->points[best].params) {
                message("budget %g FLOPs: its %s size is the best; %g parameters are added", budget, low ? "smallest" : "largest", p.params);
                status = run_add(s, budget, size, plan, err);
                break;
            }
        }
    }
    free(points);
    free(found);
    table_free(&t);
    return status;
}

/* For make, which reads $ and #. */
static void text_escape(Buffer *b, const char *text)
{
    for (; *text; text++)
        buffer_format(b, *text == '$' ? "$$" : *text == '#' ? "\\#" : "%c", *text);
}

static void runs_write(Buffer *b, const Plan *plan)
{
    double flops = 0;
    buffer_format(b, "#   %-22s %12s %12s %8s %6s %12s %8s %8s %10s %7s\n", "run", "budget", "params", "width", "layers", "tokens", "batch", "steps", "lr", "warmup");
    for (size_t i = 0; i < plan->count; i++) {
        const Planned *p = &plan->runs[i];
        char name[64];
        snprintf(name, sizeof name, "%g-%.4g", p->budget, p->params);
        buffer_format(b, "#   %-22s %12.4g %12.0f %8" PRId64 " %6" PRId64 " %12.0f %8" PRId64 " %8" PRId64 " %10.4g %7" PRId64 "\n", name, p->budget, p->params,
                      p->config.hidden_size, p->config.num_hidden_layers, p->tokens, p->batch, p->steps, p->lr, p->warmup);
        flops += p->budget;
    }
    buffer_format(b, "# %zu runs, %.4g FLOPs in all\n", plan->count, flops);
}

/* The options that decide about shapes, and those that decide about runs. */
static void shape_options(Buffer *b, const Settings *s)
{
    buffer_format(b, "--vocab %" PRId64 " --head-dim %" PRId64 " --aspect %" PRId64 " --seq-len %" PRId64 "%s", s->vocab, s->head_dim, s->aspect, s->sequence,
                  s->tied ? "" : " --no-tied");
    if (s->bos >= 0)
        buffer_format(b, " --bos %" PRId64, s->bos);
    if (s->eos >= 0)
        buffer_format(b, " --eos %" PRId64, s->eos);
}

static void rule_options(Buffer *b, const Settings *s)
{
    buffer_format(b, "--rule %s --ratio %g --tolerance %g", s->rule, s->ratio, s->tolerance);
    if (s->lr > 0)
        buffer_format(b, " --lr %.17g", s->lr);
    if (s->batch_tokens > 0)
        buffer_format(b, " --batch-tokens %.17g", s->batch_tokens);
    for (size_t i = 0; i < s->budgets.count; i++)
        buffer_format(b, " --budget %s", s->budgets.values[i]);
    buffer_string(b, " --train '");
    for (const char *t = s->train ? s->train : ""; *t; t++)
        text_escape(b, *t == '\'' ? "'\\''" : (char[]){*t, 0});
    buffer_string(b, "'");
}

/* What a user has no business to set bears lower-case names: the variables of the make that runs this one, such as SIZE=small, go
 * before those of the file. */
static const char rules[] =
    "$(OUT)/%/config.json:\n"
    "\t@mkdir -p $(@D)\n"
    "\t$(program_prefix)scalefit shape -q --params $(size) $(shape) > $@.part\n"
    "\t@mv $@.part $@\n"
    "$(OUT)/%/done: $(OUT)/%/config.json\n"
    "\t$(program_prefix)pretrain -q --model-config $< --seq-len $(sequence) $(options) -j $(THREADS) $(TRAIN) -o $(@D)\n"
    "\t@echo \"$*: $$(tail -n 1 $(@D)/log.jsonl | grep -oE '\"(val_)?loss\":[0-9.]+' | tail -n 1)\"\n"
    "$(OUT)/extended: $(list:%=$(OUT)/%/done)\n"
    "\t$(program_prefix)scalefit grid $(shape) $(rule) -o $(OUT)/more.mk $(OUT)/*/log.jsonl\n"
    "\t$(MAKE) -f $(OUT)/more.mk runs\n"
    "\t@touch $@\n"
    "$(OUT)/law.txt: $(OUT)/extended\n"
    "\t$(program_prefix)scalefit isoflop $(LAW) $(OUT)/*/log.jsonl > $@\n"
    "\t@cat $@\n";

static void makefile_write(Buffer *b, const Settings *s, const Plan *plan)
{
    buffer_format(b, "# Written by scalefit grid. `make -j2 -f THIS` trains each run to its own end and fits the law; what is done is not done again, and\n"
                     "# a run that was broken off goes on at its last checkpoint. Targets: all, runs (no more than these), extended (and one size more\n"
                     "# for each budget whose lowest loss stands at an end). Variables: OUT, THREADS, TRAIN, LAW.\n#\n");
    runs_write(b, plan);
    buffer_format(b, "program_prefix = %s\nOUT ?= grid\nTHREADS ?= 1\nTRAIN ?= ", message_prefix());
    text_escape(b, s->train ? s->train : "");
    buffer_format(b, "\nLAW ?= --tolerance %g\nsequence = %" PRId64 "\nshape = ", s->tolerance, s->sequence);
    shape_options(b, s);
    buffer_format(b, "\nrule = ");
    rule_options(b, s);
    buffer_format(b, "\nlist =");
    for (size_t i = 0; i < plan->count; i++)
        buffer_format(b, " \\\n    %g-%.4g", plan->runs[i].budget, plan->runs[i].params);
    buffer_format(b, "\n.DELETE_ON_ERROR:\n.PHONY: all runs\nall: $(OUT)/law.txt\nruns: $(list:%%=$(OUT)/%%/done)\n%s", rules);
    for (size_t i = 0; i < plan->count; i++) {
        const Planned *p = &plan->runs[i];
        char name[64];
        snprintf(name, sizeof name, "$(OUT)/%g-%.4g", p->budget, p->params);
        buffer_format(b, "%s/config.json: size = %.17g\n%s/done: options = --batch-tokens %" PRId64 " --steps %" PRId64 " --lr %.6g --warmup %" PRId64 " --save-every %" PRId64 "\n", name,
                      p->size, name, p->batch, p->steps, p->lr, p->warmup, p->steps / 10 + 1);
    }
}

int command_grid(const Settings *s, const char *const *logs, Error *err)
{
    Plan plan = {0};
    int status = *logs ? budgets_extend(s, logs, &plan, err) : 0;
    for (size_t i = 0; !*logs && status == 0 && i < s->budgets.count; i++)
        status = budget_add(s, s->budgets.values[i], &plan, err);
    if (status == 0 && s->train && strchr(s->train, '\n'))
        status = error_set(err, "--train holds a line's end");
    if (status == 0) {
        Buffer b = {0};
        makefile_write(&b, s, &plan);
        Writer *w = writer_open(s->common.output ? s->common.output : "-", err);
        status = w && writer_write(w, b.data, b.length, err) == 0 ? writer_close(w, err) : -1;
        buffer_free(&b);
    }
    free(plan.runs);
    return status;
}
