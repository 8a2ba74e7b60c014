/* pretrain: trains a decoder-only transformer on token shards. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/stop.h"
#include "base/thread.h"
#include "curves.h"
#include "dry_run.h"
#include "data/samples.h"
#include "feed.h"
#include "kernels/profile.h"
#include "model/folder.h"
#include "model/head.h"
#include "mix.h"
#include "sources.h"
#include "stages.h"
#include "text/tokenizer.h"
#include "train/grid_options.h"
#include "train/loop.h"
#include "train/passes.h"
#include "train/same.h"

/* What the command line says: the same for all ranks, and not changed once they run. */
typedef struct Pretrain {
    Common common;
    TrainOptions train;
    GridOptions grid;
    const char *model_config, *init, *tokenizer, *mix_file, *mix_rule, *watch, *plot;
    OptionList data, val, batch_ramp, length_ramp, phases;
    int64_t sequence_length, batch_tokens, tokens, steps, micro_batch, eval_tokens;
    int64_t longest; /* sequence of the run */
    double z_loss, rope_theta, mix_step, mix_limit;
    bool shuffle, profile;
    OptionSet set;
} Pretrain;

/* One rank's own things. */
typedef struct Trainer {
    const Pretrain *o;
    Grid *grid;
    Device *device;
    Model model;
    Sources sources, held_out;
    Stages stages;
    Mix mix;         /* the first rank's */
    int64_t mixed;   /* does the mix change while the run goes on? */
    MixRule rule;
    int64_t done;    /* steps of the run that have been computed, */
    Feed feed;
    Passes passes;
    /* Of what is passed now, on the last stage: */
    double weight;   /* of the whole step */
    HeadSums sums;
    float *logprob;  /* of an evaluation's batch */
} Trainer;

static Pretrain self = {.common = COMMON_DEFAULT, .train = TRAIN_DEFAULT, .sequence_length = 1024, .eval_tokens = 1 << 16, .mix_step = 0.1, .mix_limit = 2,
                        .grid = GRID_DEFAULT};

static const Option options[] = {
    {"output", 'o', OPTION_STRING, &self.common.output, "DIR", "the run: checkpoints, log, final model", 0, 0, 0},
    {"model-config", 0, OPTION_STRING, &self.model_config, "FILE", "config.json of a new model", 0, 0, 0},
    {"init", 0, OPTION_STRING, &self.init, "DIR", "start from this model or run instead", 0, 0, 0},
    {"data", 0, OPTION_LIST, &self.data, "SHARD", "PREFIX, or NAME=WEIGHT:PREFIX (repeatable)", 0, 0, 0},
    {"val", 0, OPTION_LIST, &self.val, "SHARD", "held-out PREFIX or NAME=WEIGHT:PREFIX (repeatable)", 0, 0, 0},
    {"tokenizer", 0, OPTION_STRING, &self.tokenizer, "DIR", "vocabulary that goes into the model's folder", 0, 0, 0},
    {"seq-len", 0, OPTION_INTEGER, &self.sequence_length, "T", "tokens a sample (default 1024)", 0, 2, 1 << 24},
    {"batch-tokens", 0, OPTION_INTEGER, &self.batch_tokens, "N", "tokens a step (default: 8 samples)", 0, 1, 1e12},
    {"micro-batch", 0, OPTION_INTEGER, &self.micro_batch, "N", "samples a pass (default: as many as fit 4096 tokens)", 0, 1, 1e6},
    {"tokens", 0, OPTION_INTEGER, &self.tokens, "N", "train on so many tokens,", 0, 1, 1e18},
    {"steps", 0, OPTION_INTEGER, &self.steps, "N", "or for so many steps", 0, 1, 1e12},
    TRAIN_OPTIONS(&self.train, "3e-4", "0.1"),
    TRAIN_OPTION_EVAL(&self.train),
    {"eval-tokens", 0, OPTION_INTEGER, &self.eval_tokens, "N", "tokens of each --val that are looked at (default 65536)", 0, 1, 1e12},
    OPTION_MORE_HEADING("recipe:"),
    {"shuffle", 0, OPTION_FLAG, &self.shuffle, 0, "permute the samples of the first epoch too", 0, 0, 0},
    {"rope-theta", 0, OPTION_NUMBER, &self.rope_theta, "X", "with --init: new base of the rotary positions", 0, 0, 1e15},
    {"z-loss", 0, OPTION_NUMBER, &self.z_loss, "X", "weight of the squared log-sum-exp (default 0)", 0, 0, 1e3},
    {"batch-ramp", 0, OPTION_LIST, &self.batch_ramp, "N:B", "after N tokens of the run steps have B (repeatable)", 0, 0, 0},
    {"length-ramp", 0, OPTION_LIST, &self.length_ramp, "N:T", "after N tokens samples have T (repeatable)", 0, 0, 0},
    {"phase", 0, OPTION_LIST, &self.phases, "N:MIX", "after N tokens the mix is NAME=WEIGHT,… (repeatable)", 0, 0, 0},
    {"mix-file", 0, OPTION_STRING, &self.mix_file, "FILE", "weights by source as a JSON object, read again whenever it changes", 0, 0, 0},
    {"mix-rule", 0, OPTION_STRING, &self.mix_rule, "LIST", "NAME=LOSS,…: at evaluations raise what is furthest behind its target", 0, 0, 0},
    {"mix-step", 0, OPTION_NUMBER, &self.mix_step, "X", "by this part of its share (default 0.1)", 0, 1e-6, 10},
    {"mix-limit", 0, OPTION_NUMBER, &self.mix_limit, "X", "shares stay within a factor X of the first ones (default 2)", 0, 1, 1e6},
    OPTION_MORE_HEADING("looking at a log:"),
    {"watch", 0, OPTION_STRING, &self.watch, "LOG", "show the curve of a run or its log until it ends, and train nothing", 0, 0, 0},
    {"plot", 0, OPTION_STRING, &self.plot, "FILE", "draw the runs or logs named as operands, .svg or .png", 0, 0, 0},
    {"profile", 0, OPTION_FLAG, &self.profile, 0, "time every operation of the training and print a table", 0, 0, 0},
    TRAIN_OPTION_TRACE(&self.train),
    OPTION_MORE_HEADING("grid:"),
    GRID_OPTIONS_CHOICE(&self.grid),
    GRID_OPTIONS(&self.grid, &self.train),
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_LOG(&self.common),
    OPTION_COMMON_DRY_RUN(&self.common),
    OPTION_COMMON_CONFIG(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* A run may go on with other passes: its losses stay the same but for the order of additions. What evaluations look at is
 * free too, but where they rule the mix. */
static const char *const free_options[] = {"eval-every", "eval-tokens", "val", "profile", "micro-batch", "mix-file", NULL};
enum { OF_EVALUATION = 3 };

static const char *const *free_of(const Pretrain *p)
{
    return free_options + (p->mix_rule ? OF_EVALUATION : 0);
}

/* Changes of the mix that rule from this step on: the first rank reads them, all follow. */
static int mix_follow(Trainer *t, int64_t step, Error *err)
{
    size_t n = t->sources.count;
    double *values = memory_zalloc(n + 2, sizeof *values); /* is there one, from which step, the weights */
    int status = 0;
    do {
        const MixChange *change = t->grid->rank == 0 ? mix_next(&t->mix, step) : NULL;
        values[0] = change != NULL;
        if (change) {
            values[1] = (double)change->step;
            memcpy(values + 2, change->weights, n * sizeof *values);
        }
        status = comm_broadcast_host(&t->grid->world, values, (n + 2) * sizeof *values, 0, err);
        if (status == 0 && values[0] > 0) {
            feed_leave(&t->feed);
            stages_mix(&t->stages, (int64_t)values[1], values + 2, &t->sources);
        }
    } while (status == 0 && values[0] > 0);
    free(values);
    return status;
}

static int load(void *context, int64_t pass, Slot *s, Error *err)
{
    Trainer *t = context;
    return slot_load(s, feed_batch(&t->feed, pass), err);
}

static int head_train(void *context, int64_t pass, Slot *s, Error *err)
{
    Trainer *t = context;
    const Batch *b = feed_batch(&t->feed, pass);
    head_cross_entropy(&t->model, s, b->labels, b->weights, 1 / t->weight, t->o->z_loss, &t->sums);
    return model_check(&t->model, err);
}

static int head_score(void *context, int64_t pass, Slot *s, Error *err)
{
    Trainer *t = context;
    const Batch *b = feed_batch(&t->feed, pass);
    head_logprobs(&t->model, s, b->labels, t->logprob, NULL, NULL);
    for (int64_t i = 0; i < b->rows; i++)
        t->sums.nll -= (double)b->weights[i] * (double)t->logprob[i];
    t->sums.weight += b->weight;
    return model_check(&t->model, err);
}

static int accumulate(void *context, Model *m, int64_t step, TrainStep *out, Error *err)
{
    Trainer *t = context;
    const PassWork work = {.context = t, .load = load, .head = head_train, .last = true};
    if (t->o->profile && t->grid->rank == 0 && profile_begin(m->device, err) < 0)
        return -1;
    t->done = step + 1;
    if (t->mixed && mix_follow(t, step, err) < 0)
        return -1;
    const Stage *stage = stages_at(&t->stages, step);
    feed_enter(&t->feed, stage, t->o->micro_batch);
    feed_begin(&t->feed, NULL, (step - stage->first_step) * stage->samples, stage->samples);
    out->sequence_length = stage->sequence_length;
    /* The step's whole weight is known before any gradient: batches are placed twice, which costs next to nothing. */
    int64_t passes = feed_passes(&t->feed);
    bool one_of_all = t->grid->place[GRID_CP] == 0 && t->grid->place[GRID_PP] == 0;
    t->weight = 0;
    for (int64_t i = 0; i < passes; i++) {
        feed_batch(&t->feed, i);
        t->weight += t->feed.whole.weight;
        out->tokens += one_of_all ? t->feed.whole.tokens_used : 0;
    }
    if (comm_sum_host(&t->grid->group[GRID_DP], &t->weight, 1, err) < 0)
        return -1;
    t->sums = (HeadSums){0};
    if (passes_run(&t->passes, passes, t->feed.part.rows, true, &work, err) < 0)
        return -1;
    out->loss = (t->sums.nll + t->o->z_loss * t->sums.z) / t->weight;
    return 0;
}

static int source_loss(Trainer *t, const Source *s, double *loss, Error *err)
{
    const PassWork work = {.context = t, .load = load, .head = head_score};
    int64_t length = t->feed.stage->sequence_length, samples = t->o->eval_tokens / length < 1 ? 1 : t->o->eval_tokens / length;
    if (samples > samples_count(&s->shard, length))
        samples = samples_count(&s->shard, length);
    feed_begin(&t->feed, s, 0, samples);
    t->sums = (HeadSums){0};
    t->logprob = memory_alloc((size_t)t->feed.part.rows, sizeof *t->logprob);
    int status = passes_run(&t->passes, feed_passes(&t->feed), t->feed.part.rows, false, &work, err);
    free(t->logprob);
    /* Tensor-parallel ranks all have the sums. */
    bool counts = t->grid->place[GRID_TP] == 0;
    double sums[2] = {counts ? t->sums.nll : 0, counts ? t->sums.weight : 0};
    if (status < 0 || comm_sum_host(&t->grid->world, sums, 2, err) < 0)
        return -1;
    *loss = sums[0] / sums[1];
    return 0;
}

/* val_loss: the sources' losses weighted as --val says; each one's own as val_loss_NAME. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    (void)m;
    Trainer *t = context;
    double sum = 0, weights = 0, *by_source = memory_alloc(t->sources.count, sizeof *by_source);
    for (size_t i = 0; i < t->sources.count; i++)
        by_source[i] = NAN;
    for (size_t i = 0; i < t->held_out.count; i++) {
        const Source *s = &t->held_out.items[i];
        double one;
        if (source_loss(t, s, &one, err) < 0) {
            free(by_source);
            return -1;
        }
        int64_t k = sources_find(&t->sources, (Span){s->name, strlen(s->name)});
        if (k >= 0)
            by_source[k] = one;
        char *key = memory_format("val_loss_%s", s->name);
        metrics_number(log, key, one);
        free(key);
        sum += s->weight * one;
        weights += s->weight;
    }
    if (t->o->mix_rule && t->grid->rank == 0 && t->done < t->o->train.steps)
        mix_rule_apply(&t->mix, &t->rule, t->done, by_source);
    free(by_source);
    *loss = sum / weights;
    *score = -*loss;
    return 0;
}

/* Rows of a rank's largest pass. */
static int64_t most_rows(const Pretrain *p, const Stages *s, const int extent[GRID_DIMENSIONS])
{
    int64_t most = 0;
    for (size_t i = 0; i < s->count; i++) {
        int64_t rows = stage_pass(&s->items[i], p->micro_batch, extent) * s->items[i].sequence_length / extent[GRID_CP];
        most = rows > most ? rows : most;
    }
    return most;
}

/* Does no rank make more than one pass in any step? */
static bool one_pass(const Pretrain *p, const Stages *s, const int extent[GRID_DIMENSIONS])
{
    for (size_t i = 0; i < s->count; i++)
        if (stage_passes(&s->items[i], p->micro_batch, extent) > 1)
            return false;
    return true;
}

static StagePlan plan_of(const Pretrain *p)
{
    return (StagePlan){.sequence_length = p->sequence_length, .batch_tokens = p->batch_tokens, .tokens = p->tokens, .steps = p->steps,
                       .batch_ramp = &p->batch_ramp, .length_ramp = &p->length_ramp, .phases = &p->phases};
}

/* Of the model that the run begins with. */
static int config_of(const Pretrain *p, ModelConfig *c, Error *err)
{
    char *folder = p->init ? folder_resolve(p->init, err) : NULL;
    if (p->init && !folder)
        return -1;
    char *path = folder ? memory_format("%s/config.json", folder) : memory_string(p->model_config);
    int status = config_read(c, path, err);
    if (status == 0 && c->num_labels)
        status = error_set(err, "%s: a reward model cannot be pre-trained", p->init ? p->init : p->model_config);
    free(path);
    free(folder);
    return status;
}

/* Tells what the run takes on a grid, where `tell`; else chooses the grid (--grid auto). */
static int look_ahead(Pretrain *p, const int extent[GRID_DIMENSIONS], bool tell, Error *err)
{
    ModelConfig c;
    Stages s;
    StagePlan plan = plan_of(p);
    Sources held_out = {0};
    if (config_of(p, &c, err) < 0 || (p->common.stats && sources_open(&held_out, &p->val, "val", p->longest, c.vocab_size, err) < 0) ||
        stages_open(&s, &plan, NULL, err) < 0)
        return -1;
    if (c.max_position_embeddings < p->longest)
        c.max_position_embeddings = p->longest;
    DryRun d = {.run = {.config = &c, .stages = {(int)p->grid.virtual_stages, p->grid.ends_fewer}, .shard = (int)p->train.shard,
                        .dtype = dtype_of_option(p->common.dtype), .gpu = strcmp(p->common.device, "cuda") == 0, .threads = (int)p->common.threads,
                        .recompute = train_recompute(&p->train), .saves = p->train.save_every > 0, .averages = p->train.average_every > 0,
                        .lends = !tell || one_pass(p, &s, extent)},
                .stages = &s, .micro_batch = p->micro_batch, .peak_flops = p->train.peak_flops, .stats = p->common.stats, .held_out = &held_out,
                .eval_every = p->train.eval_every, .eval_tokens = p->eval_tokens};
    memcpy(d.run.extent, extent, sizeof d.run.extent);
    int status = tell ? dry_run(&d, err) : dry_run_choose(&d, &p->grid, &p->set, err);
    stages_close(&s);
    sources_close(&held_out);
    return status;
}

/* Sizes that follow from one another; usage errors are the caller's to print. */
static int sizes(Pretrain *p, Error *err)
{
    if (!p->common.output && !p->common.dry_run)
        return error_set(err, "-o DIR is needed");
    if (!p->model_config == !p->init)
        return error_set(err, "one of --model-config and --init is needed");
    if (p->data.count == 0 && !p->common.dry_run)
        return error_set(err, "--data is needed");
    if (!p->tokens == !p->steps)
        return error_set(err, "one of --tokens and --steps is needed");
    if (p->grid.ranks > 0 && !p->grid.choice)
        return error_set(err, "--ranks goes with --grid auto; a grid says it by --tp, --cp, --pp and --dp");
    if (p->mix_file && p->phases.count > 0)
        return error_set(err, "--mix-file and --phase both rule the mix: give one");
    if (p->mix_rule && (p->mix_file || p->phases.count > 0))
        return error_set(err, "--mix-rule and --%s both rule the mix: give one", p->mix_file ? "mix-file" : "phase");
    if (p->mix_rule && (p->val.count == 0 || p->train.eval_every == 0))
        return error_set(err, "--mix-rule looks at evaluations: --val and --eval-every are needed");
    if (p->rope_theta > 0 && !p->init)
        return error_set(err, "--rope-theta goes with --init; a new model says it in its configuration");
    if (train_check(&p->train, err) < 0)
        return -1;
    if (p->batch_tokens == 0)
        p->batch_tokens = 8 * p->sequence_length;
    StagePlan plan = plan_of(p);
    Stages s;
    int status = stages_open(&s, &plan, NULL, err);
    if (status == 0)
        p->train.steps = s.steps;
    p->longest = stages_longest(&s);
    stages_close(&s);
    return status;
}

/* The first rank writes it; the others have its name. One of a kind that we cannot use is copied all the same. */
static int vocabulary_take(const Pretrain *p, Model *m, const Grid *g, Error *err)
{
    free(m->tokenizer_folder);
    m->tokenizer_folder = memory_string(p->tokenizer);
    if (g->rank > 0)
        return 0;
    char *path = memory_format("%s/tokenizer.json", p->tokenizer);
    bool there = access(path, R_OK) == 0;
    free(path);
    if (!there)
        return error_set(err, "--tokenizer %s: not a folder with a tokenizer.json", p->tokenizer);
    Error unusable;
    Tokenizer *t = tokenizer_open(p->tokenizer, &unusable);
    int status = 0;
    if (!t)
        message_warning("--tokenizer: %s; it is copied as it is", unusable.text);
    else if (tokenizer_size(t) > m->config.vocab_size)
        status = error_set(err, "--tokenizer %s: %" PRId64 " tokens, more than the model's vocabulary of %" PRId64, p->tokenizer, tokenizer_size(t), m->config.vocab_size);
    if (t)
        tokenizer_close(t);
    return status;
}

static int load_model(const Pretrain *p, Model *m, Grid *g, Device *d, Error *err)
{
    char *folder = p->init ? folder_resolve(p->init, err) : NULL;
    if (p->init && !folder)
        return -1;
    const PartStages stages = {(int)p->grid.virtual_stages, p->grid.ends_fewer};
    ModelPart part;
    ModelConfig c;
    int status = config_of(p, &c, err);
    if (status == 0)
        status = part_of_grid(&part, &c, g, &stages, err);
    if (status == 0)
        status = folder ? folder_load(m, folder, &(FolderLoad){.part = &part}, d, err) : model_open(m, &c, &part, d, err);
    if (status == 0 && !folder)
        param_initialise(&m->params.table, (uint64_t)p->common.seed);
    free(folder);
    if (status < 0)
        return -1;
    if (p->rope_theta > 0)
        m->config.rope_theta = p->rope_theta;
    if (m->config.max_position_embeddings < p->longest)
        m->config.max_position_embeddings = p->longest;
    if (p->tokenizer && vocabulary_take(p, m, g, err) < 0)
        return -1;
    if (train_prepare(m, &p->train, &p->common, err) < 0)
        return -1;
    return model_rope(m, p->longest, err);
}

static int trainer_open(Trainer *t, Error *err)
{
    const Pretrain *p = t->o;
    int64_t ranks = t->grid->extent[GRID_DP], vocabulary = t->model.config.vocab_size;
    StagePlan plan = plan_of(p);
    if (sources_open(&t->sources, &p->data, "data", p->longest, vocabulary, err) < 0 || sources_open(&t->held_out, &p->val, "val", p->longest, vocabulary, err) < 0 ||
        stages_open(&t->stages, &plan, &t->sources, err) < 0 ||
        (p->mix_rule && mix_rule_open(&t->rule, p->mix_rule, p->mix_step, p->mix_limit, &t->sources, &t->held_out, err) < 0) ||
        (t->grid->rank == 0 && mix_open(&t->mix, p->mix_file, p->common.output, &t->sources, err) < 0))
        return -1;
    if (t->mix.count > 0 && p->phases.count > 0)
        return error_set(err, "%s and --phase both rule the mix", t->mix.record);
    t->mixed = p->mix_file || p->mix_rule || t->mix.count > 0;
    for (size_t i = 0; i < t->stages.count; i++)
        if (ranks > t->stages.items[i].samples)
            return error_set(err, "--dp %" PRId64 ": a step has %" PRId64 " samples, fewer than ranks", ranks, t->stages.items[i].samples);
    for (size_t i = 0; i < t->stages.count; i++)
        if (t->grid->extent[GRID_CP] > 1 && t->stages.items[i].sequence_length % (2 * t->grid->extent[GRID_CP]) != 0)
            return error_set(err, "--cp %d: sequences of %" PRId64 " tokens cannot be cut into %d chunks", t->grid->extent[GRID_CP],
                             t->stages.items[i].sequence_length, 2 * t->grid->extent[GRID_CP]);
    t->feed = (Feed){.grid = t->grid, .even = p->train.shard > 1, .sources = &t->sources, .shuffle = p->shuffle, .seed = (uint64_t)p->common.seed};
    t->model.params.table.lends = cost_lends(t->grid->extent, (int)p->train.shard) && one_pass(p, &t->stages, t->grid->extent);
    return passes_open(&t->passes, &t->model, t->grid, most_rows(p, &t->stages, t->grid->extent), MODE_TRAIN, err);
}

static void trainer_close(Trainer *t)
{
    feed_leave(&t->feed);
    mix_close(&t->mix);
    mix_rule_close(&t->rule);
    passes_close(&t->passes);
    stages_close(&t->stages);
    sources_close(&t->sources);
    sources_close(&t->held_out);
    model_close(&t->model);
    device_close(t->device);
}

/* One rank: a process, or a thread of one. */
static int rank_main(void *context, Grid *grid)
{
    Pretrain *p = context;
    stop_install(); /* a signal while things are loaded is answered after the first step */
    Trainer t = {.o = p, .grid = grid};
    Error err;
    if (p->grid.choice && grid->rank == 0 && grid_launched() > 1)
        grid_options_tell(&p->grid);
    if (p->common.dry_run)
        return grid->rank == 0 && look_ahead(p, grid->extent, true, &err) < 0 ? grid_failed(grid, &err) : 0;
    int status = grid_watch(grid, p->grid.comm_timeout, p->common.output, &err);
    if (status == 0)
        status = ranks_same_options(grid, &p->set, &err);
    t.device = status == 0 ? grid_device(grid, p->common.device, (int)p->common.threads, &err) : NULL;
    if (!t.device || comm_agree(&grid->world, load_model(p, &t.model, grid, t.device, &err), &err) < 0 ||
        comm_agree(&grid->world, trainer_open(&t, &err), &err) < 0 || comm_broadcast_host(&grid->world, &t.mixed, sizeof t.mixed, 0, &err) < 0) {
        status = grid_failed(grid, &err);
    } else {
        DataNumber *data = memory_alloc(t.sources.count, sizeof *data);
        for (size_t i = 0; i < t.sources.count; i++)
            data[i] = (DataNumber){t.sources.items[i].shard.prefix, t.sources.items[i].shard.number};
        TrainTask task = {.context = &t, .grid = grid, .data = data, .data_count = t.sources.count, .through = &t.passes, .accumulate = accumulate,
                          .evaluate = t.held_out.count ? evaluate : NULL, .free_options = free_of(p), .sequence_length = p->longest};
        status = train_run(&p->set, &p->common, &p->train, &t.model, &task);
        free(data);
        profile_end(t.device, stdout);
    }
    trainer_close(&t);
    return status;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    self.set = (OptionSet){.tool = "pretrain", .synopsis = "pretrain --model-config FILE | --init DIR  --data SHARD…\n--tokens N | --steps N  [OPTION]… -o DIR",
                           .summary = "Train a decoder-only transformer on token shards; the same command resumes.", .options = options};
    int status = option_main(&self.set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    if (self.watch)
        return self.set.operand_count == 0 ? curves_watch(self.watch) : message_usage("'%s': --watch shows one run; --plot draws several", self.set.operands[0]);
    if (self.plot)
        return self.set.operand_count > 0 ? curves_plot(self.plot, self.set.operands) : message_usage("--plot FILE wants runs or logs");
    if (self.set.operand_count > 0)
        return message_usage("'%s': pretrain takes no operands", self.set.operands[0]);
    if (sizes(&self, &err) < 0)
        return message_usage("%s", err.text);
    if ((status = train_finished(&self.set, &self.common, free_of(&self))) >= 0)
        return status;
    const int none[GRID_DIMENSIONS] = {1, 1, 1, 1};
    if (self.grid.choice && look_ahead(&self, none, false, &err) < 0)
        return message_failed(&err);
    const int64_t *e = self.grid.extent;
    const int extent[GRID_DIMENSIONS] = {(int)e[GRID_TP], (int)e[GRID_CP], (int)e[GRID_PP], (int)e[GRID_DP]};
    if (self.common.dry_run && grid_launched() == 1) { /* of any number of ranks, which are not started */
        const int whole[GRID_DIMENSIONS] = {extent[GRID_TP], extent[GRID_CP], extent[GRID_PP], extent[GRID_DP] > 0 ? extent[GRID_DP] : 1};
        status = look_ahead(&self, whole, true, &err);
    } else {
        status = grid_run_within(extent, self.grid.comm_timeout, rank_main, &self, &err);
    }
    if (status < 0)
        status = message_failed(&err);
    option_free(&self.set);
    return status;
}
