#include "train/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/stop.h"
#include "io/stats.h"
#include "model/folder.h"
#include "train/checkpoint.h"
#include "train/ranks.h"
#include "train/same.h"
#include "train/schedule.h"
#include "train/trace.h"

/* Options that change no number of the result, or no more than the order of additions does: how often something is saved or said, and
 * how many threads and ranks do it. */
static const char *const loop_free[] = {"output", "threads", "log", "progress", "quiet", "verbose", "stats", "save-every", "keep", "keep-every",
                                        "dry-run", "max-skips", "peak-flops", "config", "device", "tmp", "memory", "recompute", "save-dtype", "tensorboard", "shard", "comm-timeout", "trace",
                                        "tp", "cp", "pp", "dp", "virtual-stages", "ends-fewer", "grid", "ranks", NULL};

typedef struct Loop {
    OptionSet *set;
    const Common *common;
    TrainOptions *o;
    Model *m;
    const TrainTask *task;
    Grid *grid;  /* the first rank has the folder, the log and the say; the others compute */
    Grid alone;
    Run run;
    Checkpoints checkpoints;
    Optimizer optimizer;
    Average average;
    Schedule schedule;
    TrainState state;
    Metrics *log;
    Progress *progress;
    Ranks ranks;
    Trace trace;
    int warm; /* steps of this process */
    double flops_per_token, peak, last_time;
    int64_t last_tokens;
} Loop;

int train_check(const TrainOptions *o, Error *err)
{
    if (o->min_lr > o->lr)
        return error_set(err, "--min-lr %g is more than --lr %g", o->min_lr, o->lr);
    if (o->average_every > 0 && o->decay_share == 0)
        return error_set(err, "--average-every takes the mean in the last --decay-share of the steps, which is 0");
    return 0;
}

Recompute train_recompute(const TrainOptions *o)
{
    return strcmp(o->recompute, "layer") == 0 ? RECOMPUTE_LAYER : strcmp(o->recompute, "norms") == 0 ? RECOMPUTE_NORMS : RECOMPUTE_NONE;
}

int train_prepare(Model *m, const TrainOptions *o, const Common *common, Error *err)
{
    if (m->config.attention_dropout != 0)
        return error_set(err, "config.json: attention_dropout is %g, which is not supported in training; 0 trains without", m->config.attention_dropout);
    m->recompute = train_recompute(o);
    return model_compute_in(m, dtype_of_option(common->dtype), err);
}

/* A product of n×n×n, the best of three; infinite where there is no memory for it. */
static double product_seconds(Model *m, int64_t n)
{
    Device *d = m->device;
    size_t size = (size_t)(n * n) * dtype_size(m->dtype);
    char *x = d->alloc(d, 3 * size);
    double best = INFINITY;
    for (int i = 0; i < 4 && x; i++) {
        double begin = clock_seconds();
        d->ops->matmul(m->stream, tensor_make(d, m->dtype, x, n, n), tensor_make(d, m->dtype, x + size, n, n), false,
                       tensor_make(d, m->dtype, x + 2 * size, n, n), true, 1, 0);
        d->stream_wait(m->stream, NULL);
        double taken = clock_seconds() - begin;
        best = i > 0 ? fmin(best, taken) : best;
    }
    d->release(d, x);
    return best;
}

/* FLOP/s that this machine's products reach. A GPU is through with a small one before it has told so: there the largest counts that is worth
 * waiting for. */
static double measure_peak(Model *m)
{
    double best = 0, seconds = 0;
    for (int64_t n = 768; n == 768 || (!m->device->is_host && seconds < 1e-3 && n <= 6144); n *= 2) {
        seconds = product_seconds(m, n);
        best = fmax(best, 2.0 * (double)(n * n * n) / seconds);
    }
    return best;
}

static bool first_rank(const Loop *l)
{
    return l->grid->rank == 0;
}

/* What the disk refuses, which all ranks then know, costs a checkpoint, not the run; but where a rank is gone there is none to go on with. */
static int without_checkpoint(const Loop *l, const Error *err)
{
    const Error *agreed = l->grid->world.agreed;
    if (l->grid->size > 1 && !(agreed && strstr(err->text, agreed->text)))
        return -1;
    if (first_rank(l))
        message_warning("%s; going on without this checkpoint", err->text);
    return 0;
}

/* needed: the last chance to save, so the step is on the disk afterwards, or that is an error. */
static int save(Loop *l, bool needed, Error *err)
{
    if (checkpoint_settle(&l->checkpoints, err) < 0 && without_checkpoint(l, err) < 0)
        return -1;
    int status = checkpoint_begin(&l->checkpoints, &l->state, err);
    if (status == 0 && needed)
        status = checkpoint_settle(&l->checkpoints, err);
    return status < 0 && !needed ? without_checkpoint(l, err) : status;
}

static void write_counters(Loop *l, double loss, double rate, double norm)
{
    double now = clock_seconds(), seconds = now - l->last_time;
    double speed = seconds > 0 ? (double)(l->state.tokens - l->last_tokens) / seconds : 0;
    metrics_integer(l->log, "tokens", l->state.tokens);
    metrics_number(l->log, "loss", loss);
    metrics_number(l->log, "lr", rate);
    metrics_number(l->log, "grad_norm", norm);
    metrics_integer(l->log, "params", config_parameters_compute(&l->m->config));
    metrics_number(l->log, "flops", l->state.flops);
    metrics_number(l->log, "tokens_per_second", speed);
    metrics_number(l->log, "mfu", l->peak > 0 ? speed * l->flops_per_token / l->peak : NAN);
    progress_note(l->progress, "loss %.4f, %.0f tokens/s", loss, speed);
    l->last_time = now;
    l->last_tokens = l->state.tokens;
}

/* Is the mean of the weights taken after this step? In the last part of the run, the one in which wsd decays. */
static bool averages(const Loop *l)
{
    int64_t begin = l->o->steps - schedule_decay(l->o->decay_share, l->o->steps);
    return l->o->average_every > 0 && l->state.step > begin && (l->o->steps - l->state.step) % l->o->average_every == 0;
}

static bool patience_over(const Loop *l)
{
    return l->o->patience > 0 && l->state.stale >= l->o->patience;
}

static const float *trained_weights(const Loop *l)
{
    const ParameterTable *t = &l->m->params.table;
    return param_kept_trained(t);
}

static int evaluate(Loop *l, Error *err)
{
    if (!l->task->evaluate)
        return 0;
    double loss = NAN, score = NAN;
    if (l->task->evaluate(l->task->context, l->m, l->log, &loss, &score, err) < 0 || model_check(l->m, err) < 0)
        return -1;
    metrics_number(l->log, "val_loss", loss);
    l->last_time = clock_seconds();
    if (l->o->patience == 0)
        return 0;
    if (score > l->state.best) {
        l->state.best = score;
        l->state.stale = 0;
        return checkpoint_keep(&l->checkpoints, trained_weights(l), DTYPE_F32, "best", err);
    }
    l->state.stale++;
    return 0;
}

static int finish(Loop *l, Error *err)
{
    if (checkpoint_settle(&l->checkpoints, err) < 0 && without_checkpoint(l, err) < 0) /* else the final model matters more */
        return -1;
    Dtype type = dtype_of_option(l->o->save_dtype);
    if (l->o->patience > 0 && l->state.best > 0) {
        /* The best model's weights instead of the last ones. */
        char *best = memory_format("%s/best", l->run.folder);
        int status = comm_agree(&l->grid->world, folder_reload(l->m, best, err), err);
        free(best);
        if (status < 0)
            return -1;
    }
    if (l->average.count > 0 && checkpoint_keep(&l->checkpoints, l->average.weights, type, "average", err) < 0)
        return -1;
    if (l->o->merge)
        lora_merge(l->m);
    return checkpoint_keep(&l->checkpoints, trained_weights(l), type, "final", err);
}

/* Does this rank's word on a step count? Tensor-parallel ranks all say the same. */
static bool counts(const Loop *l)
{
    return l->grid->place[GRID_TP] == 0;
}

/* Where this rank's own numbers have gone wrong. Of tensor-parallel ranks all have the loss, of which each knows its own words. */
static int where_astray(Loop *l, const TrainStep *step, double *where, Error *err)
{
    int chunk = -1;
    bool own = l->m->part.tp_size <= 1 || l->m->astray;
    *where = own && (step->shared ? step->astray : !isfinite(step->loss)) ? RANKS_LOSS : 0;
    l->m->astray = false;
    if (l->task->through && passes_astray(l->task->through, &chunk, err) < 0)
        return -1;
    if (chunk >= 0)
        *where = 1 + chunk * l->grid->extent[GRID_PP] + l->grid->place[GRID_PP];
    return 0;
}

/* Loss, tokens and the task's numbers are shares that add up; one signal stops all; a checkpoint that all have written is due. */
static int agree(Loop *l, TrainStep *step, bool *stop, bool *written, Error *err)
{
    RankStep all = {.counts = counts(l), .loss = step->loss, .tokens = (double)step->tokens, .stop = stop_requested(), .written = checkpoint_written(&l->checkpoints),
                    .squares = l->optimizer.squares, .shared = step->shared};
    memcpy(all.extra, step->extra, sizeof all.extra);
    if (where_astray(l, step, &all.astray, err) < 0 || ranks_agree(&l->ranks, &all, err) < 0)
        return -1;
    step->loss = all.loss;
    step->tokens = (int64_t)all.tokens;
    *stop = all.stop > 0;
    *written = (int)all.written == l->grid->size;
    memcpy(step->extra, all.extra, sizeof all.extra);
    return 0;
}

/* The third step of this process is drawn, which has everything in place, or its last. */
static int trace_step(Loop *l, Error *err)
{
    const TrainOptions *o = l->o;
    l->warm++;
    if (!o->trace || !l->task->through || !(l->warm == 3 || (l->warm < 3 && l->state.step + 1 == o->steps)))
        return 0;
    if (trace_begin(&l->trace, l->grid, err) < 0)
        return -1;
    l->task->through->trace = &l->trace;
    side_record(l->optimizer.reduce, true);
    side_record(l->optimizer.gather, true);
    return 0;
}

static int trace_draw(Loop *l, Error *err)
{
    TraceSummary s;
    if (!l->task->through || !l->task->through->trace)
        return 0;
    l->task->through->trace = NULL;
    Side *sides[] = {l->optimizer.reduce, l->optimizer.gather};
    if (l->m->device->stream_wait(l->m->stream, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        trace_add_side(&l->trace, sides[i]);
        side_record(sides[i], false);
    }
    int status = trace_write(&l->trace, l->grid, l->o->trace, l->state.step + 1, l->m->part.ranges, &s, err);
    trace_close(&l->trace);
    if (status == 0 && first_rank(l) && l->grid->extent[GRID_PP] > 1)
        message("%s: in step %" PRId64 " the stages idle %.1f %% of the time that they work, %.1f %% simulated, %.1f %% by the formula", l->o->trace, l->state.step + 1, 100 * s.bubble,
                100 * s.simulated_bubble, 100 * s.formula);
    return status;
}

static int one_step(Loop *l, TrainStep *step, double *rate, double *norm, bool *stop, bool *written, Error *err)
{
    *step = (TrainStep){0};
    ranks_begin(&l->ranks, l->state.step + 1);
    optimizer_clear(&l->optimizer);
    if (trace_step(l, err) < 0 || l->task->accumulate(l->task->context, l->m, l->state.step, step, err) < 0 || model_check(l->m, err) < 0 ||
        optimizer_reduce(&l->optimizer, err) < 0 || trace_draw(l, err) < 0 || optimizer_norm(&l->optimizer, norm, err) < 0 || agree(l, step, stop, written, err) < 0)
        return -1;
    *rate = schedule_rate(&l->schedule, l->state.step);
    if (isfinite(*norm) && isfinite(step->loss)) {
        if (optimizer_step(&l->optimizer, *rate, *norm, err) < 0)
            return -1;
    } else {
        l->state.skipped++;
        char blame[512];
        ranks_blame(&l->ranks, blame, sizeof blame);
        if (l->state.skipped > l->o->max_skips) {
            l->grid->agreed = true;
            return error_set(err, "%s: more than %" PRId64 " steps were not finite (step %" PRId64 ": loss %g, gradient norm %g%s); the last checkpoint stays as it is",
                             l->run.folder, l->o->max_skips, l->state.step + 1, step->loss, *norm, blame);
        }
        if (first_rank(l))
            message_warning("step %" PRId64 ": loss %g, gradient norm %g: the step is skipped%s", l->state.step + 1, step->loss, *norm, blame);
    }
    if (step->sequence_length)
        l->flops_per_token = config_flops_per_token(&l->m->config, step->sequence_length);
    l->state.step++;
    if (averages(l) && average_add(&l->average, &l->m->params.table, err) < 0)
        return -1;
    l->state.tokens += step->tokens;
    l->state.flops += l->flops_per_token * (double)step->tokens * (l->task->passes > 0 ? l->task->passes / 3 : 1);
    return 0;
}

/* The step's line in the log, with an evaluation where one is due. */
static int report(Loop *l, const TrainStep *step, double rate, double norm, Error *err)
{
    int64_t s = l->state.step;
    bool last = s == l->o->steps;
    metrics_begin(l->log, s);
    write_counters(l, step->loss, rate, norm);
    ranks_report(&l->ranks, l->log);
    for (int i = 0; l->task->extra_names && l->task->extra_names[i]; i++)
        metrics_number(l->log, l->task->extra_names[i], step->extra[i]);
    if ((last || (l->o->eval_every > 0 && s % l->o->eval_every == 0)) && evaluate(l, err) < 0)
        return -1;
    if (last || patience_over(l))
        metrics_flag(l->log, "final", true);
    if (metrics_end(l->log, err) < 0)
        message_warning("%s; the log goes on when there is room", err->text);
    progress_set(l->progress, (uint64_t)s);
    return 0;
}

static int run_steps(Loop *l, Error *err)
{
    while (l->state.step < l->o->steps && !patience_over(l)) {
        TrainStep step;
        double rate, norm;
        bool stop, written;
        if (one_step(l, &step, &rate, &norm, &stop, &written, err) < 0 || report(l, &step, rate, norm, err) < 0)
            return -1;
        int64_t s = l->state.step;
        bool end = s == l->o->steps || patience_over(l);
        stop &= !end;
        if (stop || (l->o->save_every > 0 && (end || s % l->o->save_every == 0))) {
            if (save(l, stop, err) < 0)
                return -1;
        } else if (written && checkpoint_settle(&l->checkpoints, err) < 0 && without_checkpoint(l, err) < 0) {
            return -1;
        }
        if (stop) {
            if (first_rank(l))
                message("stopped by a signal; step %" PRId64 " is saved", s);
            return STATUS_STOPPED;
        }
    }
    return finish(l, err);
}

static const char *const *all_free(const char *const *of_task)
{
    size_t n = sizeof loop_free / sizeof *loop_free, m = 0;
    while (of_task && of_task[m])
        m++;
    const char **all = memory_alloc(n + m, sizeof *all);
    memcpy(all, loop_free, n * sizeof *all);
    for (size_t i = 0; i <= m; i++)
        all[n - 1 + i] = i < m ? of_task[i] : NULL;
    return all;
}

int train_finished(const OptionSet *set, const Common *common, const char *const *free_options)
{
    if (!common->output)
        return -1;
    Error err;
    char *options = option_json(set);
    const char *const *all = all_free(free_options);
    int finished = run_finished(common->output, options, all, &err);
    free(options);
    free((void *)(uintptr_t)all);
    if (finished > 0)
        message("%s: this run has finished", common->output);
    return finished == 0 ? -1 : finished > 0 ? 0 : message_failed(&err);
}

/* The first rank opens the folder, which checks the options and takes the lock. */
static int folder_open(Loop *l, Error *err)
{
    if (!first_rank(l)) {
        run_follow(&l->run, l->common->output);
        return 0;
    }
    char *options = option_json(l->set);
    const char *const *free_options = all_free(l->task->free_options);
    int status = run_open(&l->run, l->common->output, options, free_options, err);
    free(options);
    free((void *)(uintptr_t)free_options);
    return status == 0 && !l->run.done ? run_same_data(&l->run, l->task->data, l->task->data_count, err) : status;
}

static int log_open(Loop *l, Error *err)
{
    char *path = l->common->log ? memory_string(l->common->log) : memory_format("%s/log.jsonl", l->run.folder);
    l->log = metrics_open(first_rank(l) && !l->run.done ? path : NULL, l->state.step, err);
    free(path);
    l->checkpoints.log = l->log;
    if (!l->log || !l->o->tensorboard || !first_rank(l) || l->run.done)
        return l->log ? 0 : -1;
    return metrics_board(l->log, l->o->tensorboard, err);
}

static int loop_open(Loop *l, Error *err)
{
    TrainOptions *o = l->o;
    const AdamW adamw = {.beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .decay = o->weight_decay, .clip = o->grad_clip};
    const TrainTask *t = l->task;
    if (ranks_same_model(l->grid, l->m, err) < 0 || ranks_same_data(l->grid, t->data, t->data_count, err) < 0 || folder_open(l, err) < 0 ||
        schedule_make(&l->schedule, o->schedule, o->steps, o->warmup, o->decay_share, o->lr, o->min_lr < 0 ? o->lr / 10 : o->min_lr, err) < 0 ||
        comm_agree(&l->grid->world, optimizer_open(&l->optimizer, l->m, l->grid, (int)o->shard, &adamw, err), err) < 0)
        return -1;
    l->checkpoints = (Checkpoints){.run = &l->run, .grid = l->grid, .model = l->m, .optimizer = &l->optimizer, .average = &l->average, .keep = o->keep, .keep_every = o->keep_every};
    if (checkpoint_resume(&l->checkpoints, &l->state, err) < 0 || log_open(l, err) < 0)
        return -1;
    if (l->run.done)
        return 0;
    if ((o->average_every > 0 && average_need(&l->average, &l->m->params.table, err) < 0) ||
        (o->save_every > 0 && checkpoint_prepare(&l->checkpoints, &l->state, err) < 0))
        return -1;
    l->flops_per_token = config_flops_per_token(&l->m->config, l->task->sequence_length);
    memory_trim(); /* of weights that were drawn or read */
    l->peak = o->peak_flops > 0 ? o->peak_flops * l->grid->size : measure_peak(l->m);
    return o->peak_flops > 0 ? 0 : comm_sum_host(&l->grid->world, &l->peak, 1, err);
}

int train_run(OptionSet *set, const Common *common, TrainOptions *o, Model *m, const TrainTask *task)
{
    Error err;
    Loop l = {.set = set, .common = common, .o = o, .m = m, .task = task};
    double begin = clock_seconds();
    grid_one(&l.alone);
    l.grid = task->grid ? task->grid : &l.alone;
    l.run.lock = -1;
    ranks_open(&l.ranks, l.grid);
    stop_install();
    int status = loop_open(&l, &err);
    if (status == 0 && l.run.done) {
        if (first_rank(&l))
            message("%s: this run has finished", l.run.folder);
    } else if (status == 0) {
        Common quiet = *common;
        quiet.quiet |= !first_rank(&l);
        l.progress = progress_begin(&quiet, "steps", (uint64_t)o->steps);
        l.last_time = clock_seconds();
        l.last_tokens = l.state.tokens;
        int64_t first = l.state.step > 0 ? l.state.step : 0;
        status = run_steps(&l, &err);
        progress_end(l.progress);
        StatsItem items[5 + RANKS_KINDS] = {{"steps", (double)l.state.step}, {"steps_resumed", (double)first}, {"tokens", (double)l.state.tokens},
                                            {"flops", l.state.flops}, {"skipped_steps", (double)l.state.skipped}};
        size_t count = ranks_sent(&l.ranks, items, 5);
        if (status >= 0 && first_rank(&l) && stats_write(common->stats, items, count, begin, &err) < 0)
            status = -1;
    }
    checkpoint_close(&l.checkpoints);
    if (metrics_close(l.log, status < 0 ? NULL : &err) < 0 && status >= 0)
        status = -1;
    if (status < 0)
        status = l.grid->agreed ? (first_rank(&l) ? message_failed(&err) : STATUS_FAILED) : grid_failed(l.grid, &err);
    trace_close(&l.trace);
    average_close(&l.average, m->device);
    optimizer_close(&l.optimizer); /* what is beside the computation has heard of a failure by now */
    ranks_close(&l.ranks);
    if (l.run.folder)
        run_close(&l.run);
    return status;
}
