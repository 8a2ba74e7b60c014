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
#include "train/run.h"
#include "train/schedule.h"

/* Options that change no number of the result: how often something is saved or said, and how many threads do it. */
static const char *const loop_free[] = {"output", "threads", "log", "progress", "quiet", "verbose", "stats", "save-every", "keep", "dry-run",
                                        "max-skips", "peak-flops", "config", "device", "tmp", "memory", "recompute", NULL};

typedef struct Loop {
    OptionSet *set;
    const Common *common;
    TrainOptions *o;
    Model *m;
    const TrainTask *task;
    Run run;
    Optimizer optimizer;
    Schedule schedule;
    TrainState state;
    Metrics *log;
    Progress *progress;
    double flops_per_token, peak, last_time;
    int64_t last_tokens;
} Loop;

int train_prepare(Model *m, const TrainOptions *o, const Common *common, Error *err)
{
    m->recompute = strcmp(o->recompute, "layer") == 0 ? RECOMPUTE_LAYER : strcmp(o->recompute, "norms") == 0 ? RECOMPUTE_NORMS : RECOMPUTE_NONE;
    return model_compute_in(m, strcmp(common->dtype, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32, err);
}

bool train_finished(const char *folder)
{
    char *path = memory_format("%s/done", folder);
    bool done = access(path, F_OK) == 0;
    free(path);
    return done;
}

/* FLOP/s of a product of 768×768×768, the best of three: what this machine's products reach. */
static double measure_peak(Model *m)
{
    enum { N = 768 };
    Device *d = m->device;
    float *x = d->alloc(d, 3 * N * N * sizeof *x);
    if (!x)
        return 0;
    double best = 0;
    for (int i = 0; i < 4; i++) {
        double begin = clock_seconds();
        d->ops->matmul(m->stream, tensor_make(d, DTYPE_F32, x, N, N), tensor_make(d, DTYPE_F32, x + N * N, N, N), false,
                       tensor_make(d, DTYPE_F32, x + 2 * N * N, N, N), true, 1, 0);
        d->stream_wait(m->stream, NULL);
        double rate = 2.0 * N * N * N / (clock_seconds() - begin);
        best = rate > best && i > 0 ? rate : best;
    }
    d->release(d, x);
    return best;
}

static int save_step(Loop *l, Error *err)
{
    char *temporary = run_temporary(&l->run, "step", err);
    if (!temporary)
        return -1;
    int status = state_save(temporary, l->m, &l->optimizer, &l->state, err);
    if (status == 0)
        status = run_commit_step(&l->run, temporary, l->state.step, l->o->keep, err);
    free(temporary);
    return status;
}

/* The newest checkpoint that is whole; damaged ones are named and passed over. */
static int resume(Loop *l, Error *err)
{
    for (int64_t step = l->run.step; step >= 0; step = run_step_before(&l->run, step)) {
        char *path = run_step_path(&l->run, step);
        int status = state_load(path, l->m, &l->optimizer, &l->state, err);
        free(path);
        if (status == 0) {
            message("resuming at step %" PRId64, step);
            return 0;
        }
        message_warning("%s; going on from the checkpoint before", err->text);
    }
    if (l->run.step >= 0)
        return error_set(err, "%s: no checkpoint is whole", l->run.folder);
    return 0;
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

static int keep_best(Loop *l, Error *err)
{
    char *temporary = run_temporary(&l->run, "best", err), *path = memory_format("%s/best", l->run.folder);
    int status = temporary ? folder_save(l->m, temporary, err) : -1;
    if (status == 0)
        status = folder_remove(path, err);
    if (status == 0 && rename(temporary, path) != 0)
        status = error_set(err, "%s:", path);
    free(temporary);
    free(path);
    return status;
}

/* Returns 1 when patience has run out. */
static int evaluate(Loop *l, Error *err)
{
    if (!l->task->evaluate)
        return 0;
    double loss = NAN, score = NAN;
    if (l->task->evaluate(l->task->context, l->m, l->log, &loss, &score, err) < 0)
        return -1;
    metrics_number(l->log, "val_loss", loss);
    l->last_time = clock_seconds();
    if (l->o->patience == 0)
        return 0;
    if (score > l->state.best) {
        l->state.best = score;
        l->state.stale = 0;
        return keep_best(l, err);
    }
    return ++l->state.stale >= l->o->patience;
}

static int finish(Loop *l, Error *err)
{
    if (l->o->patience > 0 && l->state.best > 0) {
        char *best = memory_format("%s/best", l->run.folder);
        Model kept;
        int status = folder_load(&kept, best, 0, 0, l->m->device, err);
        if (status == 0) {
            l->m->device->copy(l->m->stream, l->m->params.table.weights, kept.params.table.weights,
                               l->m->params.table.total * sizeof(float), COPY_ON_DEVICE);
            param_changed(&l->m->params.table);
            status = l->m->device->stream_wait(l->m->stream, err);
            model_close(&kept);
        }
        free(best);
        if (status < 0)
            return -1;
    }
    char *temporary = run_temporary(&l->run, "final", err);
    int status = temporary ? folder_save(l->m, temporary, err) : -1;
    if (status == 0)
        status = run_commit_final(&l->run, temporary, err);
    free(temporary);
    return status;
}

/* One optimiser step; *line says whether a metrics line is open. */
static int one_step(Loop *l, TrainStep *step, double *rate, double *norm, Error *err)
{
    *step = (TrainStep){0};
    optimizer_clear(&l->optimizer);
    if (l->task->accumulate(l->task->context, l->m, l->state.step, step, err) < 0)
        return -1;
    *norm = optimizer_norm(&l->optimizer, err);
    *rate = schedule_rate(&l->schedule, l->state.step);
    if (isfinite(*norm) && isfinite(step->loss)) {
        optimizer_step(&l->optimizer, *rate, *norm);
    } else {
        l->state.skipped++;
        message_warning("step %" PRId64 ": loss %g, gradient norm %g: the step is skipped", l->state.step + 1, step->loss, *norm);
        if (l->state.skipped > l->o->max_skips)
            return error_set(err, "%s: more than %" PRId64 " steps were not finite; the last checkpoint stays as it is", l->run.folder, l->o->max_skips);
    }
    l->state.step++;
    l->state.tokens += step->tokens;
    l->state.flops += l->flops_per_token * (double)step->tokens * (l->task->passes > 0 ? l->task->passes / 3 : 1);
    return 0;
}

static int run_steps(Loop *l, Error *err)
{
    int over = 0;
    while (l->state.step < l->o->steps && !over) {
        TrainStep step;
        double rate, norm;
        if (one_step(l, &step, &rate, &norm, err) < 0)
            return -1;
        int64_t s = l->state.step;
        bool last = s == l->o->steps, evaluated = last || (l->o->eval_every > 0 && s % l->o->eval_every == 0);
        metrics_begin(l->log, s);
        write_counters(l, step.loss, rate, norm);
        for (int i = 0; l->task->extra_names && l->task->extra_names[i]; i++)
            metrics_number(l->log, l->task->extra_names[i], step.extra[i]);
        if (evaluated && (over = evaluate(l, err)) < 0)
            return -1;
        if (last || over)
            metrics_flag(l->log, "final", true);
        if (metrics_end(l->log, err) < 0)
            return -1;
        progress_set(l->progress, (uint64_t)s);
        bool stop = stop_requested() && !last && !over;
        if (stop || last || over || (l->o->save_every > 0 && s % l->o->save_every == 0)) {
            /* A disk that is full costs a checkpoint, not the run, unless it is the last chance to save. */
            if ((stop || l->o->save_every > 0) && save_step(l, err) < 0) {
                if (stop || last || over)
                    return -1;
                message_warning("%s; going on without this checkpoint", err->text);
            }
        }
        if (stop) {
            message("stopped by a signal; step %" PRId64 " is saved", s);
            return STATUS_STOPPED;
        }
    }
    return finish(l, err);
}

static const char *const *all_free(const TrainTask *task)
{
    size_t n = sizeof loop_free / sizeof *loop_free, m = 0;
    while (task->free_options && task->free_options[m])
        m++;
    const char **all = memory_alloc(n + m, sizeof *all);
    memcpy(all, loop_free, n * sizeof *all);
    for (size_t i = 0; i <= m; i++)
        all[n - 1 + i] = i < m ? task->free_options[i] : NULL;
    return all;
}

static int loop_open(Loop *l, Error *err)
{
    TrainOptions *o = l->o;
    char *options = option_json(l->set);
    const char *const *free_options = all_free(l->task);
    int status = run_open(&l->run, l->common->output, options, free_options, err);
    free(options);
    free((void *)(uintptr_t)free_options);
    if (status < 0)
        return -1;
    if (schedule_make(&l->schedule, o->schedule, o->steps, o->warmup, o->decay_share, o->lr, o->min_lr < 0 ? o->lr / 10 : o->min_lr, err) < 0 ||
        optimizer_open(&l->optimizer, &l->m->params.table, o->beta1, o->beta2, o->eps, o->weight_decay, o->grad_clip, err) < 0 ||
        resume(l, err) < 0)
        return -1;
    char *path = l->common->log ? memory_string(l->common->log) : memory_format("%s/log.jsonl", l->run.folder);
    l->log = metrics_open(path, l->state.step, err);
    free(path);
    return l->log ? 0 : -1;
}

int train_run(OptionSet *set, const Common *common, TrainOptions *o, Model *m, const TrainTask *task)
{
    Error err;
    Loop l = {.set = set, .common = common, .o = o, .m = m, .task = task};
    double begin = clock_seconds();
    l.run.lock = -1;
    stop_install();
    int status = loop_open(&l, &err);
    if (status == 0 && l.run.done) {
        message("%s: this run has finished", l.run.folder);
    } else if (status == 0) {
        l.flops_per_token = config_flops_per_token(&m->config, task->sequence_length);
        l.peak = o->peak_flops > 0 ? o->peak_flops : measure_peak(m);
        l.progress = progress_begin(common, "steps", (uint64_t)o->steps);
        l.last_time = clock_seconds();
        l.last_tokens = l.state.tokens;
        int64_t first = l.state.step > 0 ? l.state.step : 0;
        status = run_steps(&l, &err);
        progress_end(l.progress);
        const StatsItem items[] = {{"steps", (double)l.state.step}, {"steps_resumed", (double)first}, {"tokens", (double)l.state.tokens},
                                   {"flops", l.state.flops}, {"skipped_steps", (double)l.state.skipped}};
        if (status >= 0 && stats_write(common->stats, items, sizeof items / sizeof *items, begin, &err) < 0)
            status = -1;
    }
    if (metrics_close(l.log, status < 0 ? NULL : &err) < 0 && status >= 0)
        status = -1;
    optimizer_close(&l.optimizer);
    if (l.run.folder)
        run_close(&l.run);
    return status < 0 ? message_failed(&err) : status;
}
