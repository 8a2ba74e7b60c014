/* pretrain: trains a decoder-only transformer on token shards. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "data/samples.h"
#include "model/folder.h"
#include "model/head.h"
#include "sources.h"
#include "train/loop.h"

typedef struct Pretrain {
    Common common;
    TrainOptions train;
    const char *model_config, *init, *tokenizer;
    OptionList data, val;
    int64_t sequence_length, batch_tokens, tokens, micro_batch, eval_tokens, max_positions;
    int64_t tp, cp, pp, dp;
    double z_loss, rope_theta;
    bool shuffle;
    Sources sources, held_out;
    Blend blend;
    Slot slot;
    Batch batch;
    int64_t samples_per_step;
} Pretrain;

static Pretrain self = {.common = COMMON_DEFAULT, .train = TRAIN_DEFAULT, .sequence_length = 1024, .eval_tokens = 1 << 16,
                        .tp = 1, .cp = 1, .pp = 1, .dp = 1};

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
    {"steps", 0, OPTION_INTEGER, &self.train.steps, "N", "or for so many steps", 0, 1, 1e12},
    {"shuffle", 0, OPTION_FLAG, &self.shuffle, 0, "permute the samples of the first epoch too", 0, 0, 0},
    {"rope-theta", 0, OPTION_NUMBER, &self.rope_theta, "X", "with --init: new base of the rotary positions", 0, 0, 1e15},
    {"z-loss", 0, OPTION_NUMBER, &self.z_loss, "X", "weight of the squared log-sum-exp (default 0)", 0, 0, 1e3},
    TRAIN_OPTIONS(&self.train, "3e-4", "0.1"),
    TRAIN_OPTION_EVAL(&self.train),
    {"eval-tokens", 0, OPTION_INTEGER, &self.eval_tokens, "N", "tokens of each --val that are looked at (default 65536)", 0, 1, 1e12},
    OPTION_MORE_HEADING("grid of processes:"),
    {"tp", 0, OPTION_INTEGER, &self.tp, "N", "tensor-parallel ranks (default 1)", 0, 1, 65536},
    {"cp", 0, OPTION_INTEGER, &self.cp, "N", "context-parallel ranks (default 1)", 0, 1, 65536},
    {"pp", 0, OPTION_INTEGER, &self.pp, "N", "pipeline stages (default 1)", 0, 1, 65536},
    {"dp", 0, OPTION_INTEGER, &self.dp, "N", "data-parallel ranks (default 1)", 0, 1, 65536},
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_LOG(&self.common),
    OPTION_COMMON_DRY_RUN(&self.common),
    OPTION_COMMON_CONFIG(&self.common),
    OPTION_COMMON_END(&self.common),
};

static const char *const free_options[] = {"eval-every", "eval-tokens", "val", NULL};

/* Places the next samples of the run in the batch. */
static void fill_batch(Pretrain *p, int64_t first, int64_t samples)
{
    batch_clear(&p->batch);
    p->batch.sample = first;
    blend_seek(&p->blend, (uint64_t)first);
    for (int64_t i = 0; i < samples; i++) {
        uint64_t index;
        Source *s = &p->sources.items[blend_next(&p->blend, &index)];
        samples_place(&s->shard, samples_order((int64_t)index + (p->shuffle ? s->samples : 0), s->samples, (uint64_t)p->common.seed), &p->batch, i);
    }
}

static int accumulate(void *context, Model *m, int64_t step, TrainStep *out, Error *err)
{
    Pretrain *p = context;
    int64_t first = step * p->samples_per_step;
    /* The step's whole weight is known before any gradient: batches are placed twice, which costs next to nothing. */
    double weight = 0;
    for (int64_t done = 0; done < p->samples_per_step; done += p->micro_batch) {
        int64_t n = p->samples_per_step - done < p->micro_batch ? p->samples_per_step - done : p->micro_batch;
        fill_batch(p, first + done, n);
        weight += p->batch.weight;
    }
    HeadSums sums = {0};
    for (int64_t done = 0; done < p->samples_per_step; done += p->micro_batch) {
        int64_t n = p->samples_per_step - done < p->micro_batch ? p->samples_per_step - done : p->micro_batch;
        if (p->samples_per_step > p->micro_batch)
            fill_batch(p, first + done, n);
        if (slot_load(&p->slot, &p->batch, err) < 0)
            return -1;
        model_forward(m, &p->slot);
        head_cross_entropy(m, &p->slot, p->batch.labels, p->batch.weights, 1 / weight, p->z_loss, &sums);
        model_backward(m, &p->slot);
        out->tokens += p->batch.tokens_used;
    }
    out->loss = (sums.nll + p->z_loss * sums.z) / weight;
    return 0;
}

static int source_loss(Pretrain *p, Model *m, const Source *s, double *loss, Error *err)
{
    double nll = 0, weight = 0;
    int64_t samples = p->eval_tokens / p->sequence_length < 1 ? 1 : p->eval_tokens / p->sequence_length;
    if (samples > s->samples)
        samples = s->samples;
    float *logprob = memory_alloc((size_t)p->batch.rows, sizeof *logprob);
    for (int64_t done = 0; done < samples; done += p->micro_batch) {
        batch_clear(&p->batch);
        for (int64_t i = 0; i < p->micro_batch && done + i < samples; i++)
            samples_place(&s->shard, done + i, &p->batch, i);
        if (slot_load(&p->slot, &p->batch, err) < 0) {
            free(logprob);
            return -1;
        }
        model_forward(m, &p->slot);
        head_logprobs(m, &p->slot, p->batch.labels, logprob, NULL, NULL);
        for (int64_t i = 0; i < p->batch.rows; i++)
            nll -= (double)p->batch.weights[i] * (double)logprob[i];
        weight += p->batch.weight;
    }
    free(logprob);
    *loss = nll / weight;
    return 0;
}

/* val_loss: the sources' losses weighted as --val says; each one's own as val_loss_NAME. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    Pretrain *p = context;
    double sum = 0, weights = 0;
    for (size_t i = 0; i < p->held_out.count; i++) {
        const Source *s = &p->held_out.items[i];
        double one;
        if (source_loss(p, m, s, &one, err) < 0)
            return -1;
        char *key = memory_format("val_loss_%s", s->name);
        metrics_number(log, key, one);
        free(key);
        sum += s->weight * one;
        weights += s->weight;
    }
    *loss = sum / weights;
    *score = -*loss;
    return 0;
}

static int dry_run(const Pretrain *p, const Model *m)
{
    const ModelConfig *c = &m->config;
    double n = (double)config_parameters(c), rows = (double)(p->micro_batch * p->sequence_length);
    double activations = (double)slot_bytes(m, (int64_t)rows, MODE_TRAIN), tokens = (double)(p->train.steps * p->samples_per_step * p->sequence_length);
    double flops = config_flops_per_token(c, p->sequence_length) * tokens;
    printf("parameters            %14.0f\n", n);
    printf("without input table   %14" PRId64 "\n", config_parameters_compute(c));
    printf("steps                 %14" PRId64 "\n", p->train.steps);
    printf("tokens                %14.0f\n", tokens);
    printf("FLOPs                 %14.4g\n", flops);
    printf("weights               %14.1f MB\n", 4 * n / 1e6);
    printf("gradients             %14.1f MB\n", 4 * n / 1e6);
    printf("optimiser states      %14.1f MB\n", 8 * n / 1e6);
    printf("activations           %14.1f MB\n", activations / 1e6);
    printf("memory in all         %14.1f MB\n", (16 * n + activations) / 1e6);
    if (p->train.peak_flops > 0)
        printf("time at 50 %% of peak  %14.1f s\n", flops / p->train.peak_flops / 0.5);
    return 0;
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
    if (!p->tokens == !p->train.steps)
        return error_set(err, "one of --tokens and --steps is needed");
    if (p->rope_theta > 0 && !p->init)
        return error_set(err, "--rope-theta goes with --init; a new model says it in its configuration");
    if (p->batch_tokens == 0)
        p->batch_tokens = 8 * p->sequence_length;
    if (p->batch_tokens % p->sequence_length != 0)
        return error_set(err, "--batch-tokens %" PRId64 " is no multiple of --seq-len %" PRId64, p->batch_tokens, p->sequence_length);
    p->samples_per_step = p->batch_tokens / p->sequence_length;
    if (p->micro_batch == 0)
        p->micro_batch = 4096 / p->sequence_length < 1 ? 1 : 4096 / p->sequence_length;
    if (p->micro_batch > p->samples_per_step)
        p->micro_batch = p->samples_per_step;
    if (p->tokens > 0)
        p->train.steps = (p->tokens + p->batch_tokens - 1) / p->batch_tokens;
    return 0;
}

static int load_model(Pretrain *p, Model *m, Device *d, Error *err)
{
    int status;
    if (p->init) {
        char *folder = folder_resolve(p->init, err);
        status = folder ? folder_load(m, folder, 0, 0, d, err) : -1;
        free(folder);
    } else {
        ModelConfig c;
        status = config_read(&c, p->model_config, err);
        if (status == 0)
            status = model_open(m, &c, d, err);
        if (status == 0)
            param_initialise(&m->params.table, (uint64_t)p->common.seed);
    }
    if (status == 0 && m->config.num_labels)
        status = error_set(err, "%s: a reward model cannot be pre-trained", p->init ? p->init : p->model_config);
    if (status < 0)
        return -1;
    if (p->rope_theta > 0)
        m->config.rope_theta = p->rope_theta;
    if (m->config.max_position_embeddings < p->sequence_length)
        m->config.max_position_embeddings = p->sequence_length;
    if (p->tokenizer) {
        free(m->tokenizer_folder);
        m->tokenizer_folder = memory_string(p->tokenizer);
    }
    if (train_prepare(m, &p->train, &p->common, err) < 0)
        return -1;
    return model_rope(m, p->sequence_length, err);
}

static int train(Pretrain *p, OptionSet *set, Device *d, Error *err)
{
    Model m;
    if (load_model(p, &m, d, err) < 0)
        return message_failed(err);
    int status = 1;
    double weights[1024];
    if (p->data.count > 1024) {
        error_set(err, "more than 1024 sources");
    } else if (sources_open(&p->sources, &p->data, "data", p->sequence_length, m.config.vocab_size, err) == 0 &&
               sources_open(&p->held_out, &p->val, "val", p->sequence_length, m.config.vocab_size, err) == 0 &&
               slot_new(&p->slot, &m, p->micro_batch * p->sequence_length, MODE_TRAIN, err) == 0) {
        for (size_t i = 0; i < p->sources.count; i++)
            weights[i] = p->sources.items[i].weight;
        blend_new(&p->blend, weights, p->sources.count);
        batch_new(&p->batch, p->micro_batch, p->sequence_length);
        TrainTask task = {.context = p, .accumulate = accumulate, .evaluate = p->held_out.count ? evaluate : NULL,
                          .free_options = free_options, .sequence_length = p->sequence_length};
        status = train_run(set, &p->common, &p->train, &m, &task);
        err = NULL;
        batch_free(&p->batch);
        blend_free(&p->blend);
    }
    if (err)
        status = message_failed(err);
    slot_free(&p->slot);
    sources_close(&p->sources);
    sources_close(&p->held_out);
    model_close(&m);
    return status;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "pretrain", .synopsis = "pretrain --model-config FILE | --init DIR  --data SHARD…\n--tokens N | --steps N  [OPTION]… -o DIR",
                     .summary = "Train a decoder-only transformer on token shards; the same command again resumes.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    Grid grid;
    const int extent[GRID_DIMENSIONS] = {(int)self.tp, (int)self.cp, (int)self.pp, (int)self.dp};
    if (set.operand_count > 0)
        return message_usage("'%s': pretrain takes no operands", set.operands[0]);
    if (sizes(&self, &err) < 0)
        return message_usage("%s", err.text);
    if (grid_open(&grid, extent, &err) < 0)
        return message_failed(&err);
    if (self.common.output && train_finished(self.common.output)) {
        message("%s: this run has finished", self.common.output);
        return 0;
    }
    Device *d = device_open(self.common.device, (int)self.common.threads, &err);
    if (!d)
        return message_failed(&err);
    if (self.common.dry_run) {
        Model m;
        status = load_model(&self, &m, d, &err) < 0 ? message_failed(&err) : dry_run(&self, &m);
        model_close(&m);
    } else {
        status = train(&self, &set, d, &err);
    }
    device_close(d);
    grid_close(&grid);
    option_free(&set);
    return status;
}
