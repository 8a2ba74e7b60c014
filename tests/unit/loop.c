/* smoke: the training loop with a task that fails on purpose: a step that is NaN on one rank alone is skipped on all, and leaves
 * weights and states as they were. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/random.h"
#include "io/stream.h"
#include "tests/unit/tap.h"
#include "train/average.h"
#include "train/loop.h"
#include "train/run.h"

typedef struct Job {
    Common common;
    TrainOptions train;
    OptionSet set;
    int bad_step, bad_rank; /* this rank's gradient of that step is NaN; -1: none */
    bool leave_out;         /* the bad step is not there at all */
    bool in_loss;           /* the loss is infinite instead */
} Job;

typedef struct Fake {
    const Job *job;
    Grid *grid;
} Fake;

static int accumulate(void *context, Model *m, int64_t step, TrainStep *out, Error *err)
{
    (void)err;
    Fake *f = context;
    const Job *j = f->job;
    if (j->leave_out && step >= j->bad_step)
        step++;
    ParameterTable *t = &m->params.table;
    for (size_t i = 0; i < t->total; i++)
        t->gradients[i] = (float)random_normal(1, (uint64_t)(step * 16 + f->grid->rank), i);
    out->loss = 1.0 / f->grid->size;
    out->tokens = 1;
    if (!j->leave_out && step == j->bad_step && f->grid->rank == j->bad_rank) {
        if (j->in_loss)
            out->loss = INFINITY;
        else
            t->gradients[5] = NAN;
    }
    return 0;
}

static int rank_main(void *context, Grid *grid)
{
    Job *j = context;
    Fake fake = {j, grid};
    ModelConfig c = {.model_type = "llama", .vocab_size = 30, .hidden_size = 16, .intermediate_size = 24, .num_hidden_layers = 1, .num_attention_heads = 2,
                     .num_key_value_heads = 1, .head_dim = 8, .max_position_embeddings = 64, .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.1,
                     .bos_token_id = -1, .pad_token_id = -1};
    Model m;
    Error err;
    Device *d = grid_device(grid, "cpu", 1, &err);
    if (!d || model_open(&m, &c, NULL, d, &err) < 0)
        return grid_failed(grid, &err);
    param_initialise(&m.params.table, 3);
    TrainTask task = {.context = &fake, .grid = grid, .accumulate = accumulate, .sequence_length = 8};
    int status = train_run(&j->set, &j->common, &j->train, &m, &task);
    model_close(&m);
    device_close(d);
    return status;
}

static int run(Job j, int ranks, int64_t steps, const char *folder, Buffer *weights, Buffer *log)
{
    static const Option none[] = {{NULL, 0, 0, 0, 0, 0, 0, 0, 0}};
    j.common = (Common)COMMON_DEFAULT;
    j.common.output = folder;
    j.common.quiet = true;
    j.train = (TrainOptions)TRAIN_DEFAULT;
    j.train.steps = steps;
    j.train.schedule = "constant";
    j.train.max_skips = 1;
    j.train.peak_flops = 1e9;
    j.set = (OptionSet){.tool = "loop", .options = none};
    const int extent[GRID_DIMENSIONS] = {1, 1, 1, ranks};
    Error err = {{0}};
    int status = grid_run(extent, rank_main, &j, &err);
    char *path = memory_format("%s/final/model.safetensors", folder), *lines = memory_format("%s/log.jsonl", folder);
    weights->length = log->length = 0;
    if (status == 0 && file_read(path, weights, 0, &err) < 0)
        status = 1;
    file_read(lines, log, 0, NULL);
    free(path);
    free(lines);
    folder_remove(folder, NULL);
    return status;
}

static void test_skip(int ranks, bool in_loss, const char *folder)
{
    Buffer with = {0}, without = {0}, log = {0}, other = {0};
    int a = run((Job){.bad_step = 3, .bad_rank = ranks - 1, .in_loss = in_loss}, ranks, 8, folder, &with, &log);
    int b = run((Job){.bad_step = 3, .leave_out = true}, ranks, 7, folder, &without, &other);
    ok(a == 0 && b == 0 && with.length > 0 && with.length == without.length && memcmp(with.data, without.data, with.length) == 0,
       "%s on one of %d ranks: all skip the step, which leaves no trace in the weights", in_loss ? "an infinite loss" : "a NaN in the gradient", ranks);
    ok(log.length && strstr(log.data, in_loss ? "{\"step\":4,\"tokens\":" : "\"grad_norm\":null") && strstr(log.data, "{\"step\":8,"), "and the log has its line");
    buffer_free(&with);
    buffer_free(&without);
    buffer_free(&log);
    buffer_free(&other);
}

static void test_average(void)
{
    enum { N = 1000, TIMES = 7 };
    Error err;
    Device *d = device_open("cpu", 1, &err);
    ParameterTable t = {.device = d, .stream = d->stream_new(d), .total = N, .weights = d->alloc(d, N * sizeof(float))};
    Average a = {0};
    double worst = 0;
    for (int k = 0; k < TIMES; k++) {
        for (int i = 0; i < N; i++)
            t.weights[i] = (float)random_normal(2, (uint64_t)k, (uint64_t)i);
        average_add(&a, &t, &err);
    }
    for (int i = 0; i < N; i++) {
        double mean = 0;
        for (int k = 0; k < TIMES; k++)
            mean += (double)(float)random_normal(2, (uint64_t)k, (uint64_t)i) / TIMES;
        worst = fmax(worst, fabs(mean - (double)a.weights[i]));
    }
    ok(a.count == TIMES && worst < 1e-6, "averaged weights are the mean of those added: worst difference %.2g", worst);
    average_close(&a, d);
    d->release(d, t.weights);
    d->stream_free(t.stream);
    device_close(d);
}

int main(void)
{
    char folder[] = "/tmp/loop-XXXXXX";
    message_begin("loop", true, false);
    if (!mkdtemp(folder))
        return 1;
    test_average();
    for (int ranks = 1; ranks <= 4; ranks += 3)
        for (int in_loss = 0; in_loss < 2; in_loss++)
            test_skip(ranks, in_loss, folder);
    return tap_end();
}
