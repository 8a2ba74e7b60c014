/* sft: supervised fine-tuning on chats; only what an assistant says is learned. */
#include <math.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "train/posttrain.h"

static PostTrain self = POSTTRAIN_DEFAULT;

static const Option options[] = {
    POSTTRAIN_OPTIONS(&self),
    POSTTRAIN_VAL_OPTIONS(&self),
    POSTTRAIN_LORA_OPTIONS(&self),
    OPTION_MORE_HEADING("the loss:"),
    {"neftune", 0, OPTION_NUMBER, &self.neftune, "A", "noise on the embeddings, A/sqrt(length * width) (default 0)", 0, 0, 1e6},
    TRAIN_OPTIONS(&self.train, "2e-5", "0"),
    POSTTRAIN_OPTIONS_END(&self),
};

static const char *const extras[] = {"entropy", "mean_token_accuracy", NULL};

/* Mean over the answers' tokens of the whole step, however they are packed. */
static int accumulate(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err)
{
    int64_t batches = plan_step(&p->plan, step, false);
    double weight = 0;
    HeadSums sums = {.measure = true};
    for (int64_t b = 0; b < batches; b++) {
        plan_batch(&p->plan, b, true);
        weight += p->plan.batch.weight;
    }
    for (int64_t b = 0; b < batches; b++) {
        const Batch *batch = &p->plan.batch;
        if (!plan_mine(&p->plan, b))
            continue;
        plan_batch(&p->plan, b, true);
        if (slot_load(&p->slot, batch, err) < 0)
            return -1;
        model_forward(m, &p->slot);
        head_cross_entropy(m, &p->slot, batch->labels, batch->weights, 1 / weight, 0, &sums);
        model_backward(m, &p->slot);
        out->tokens += batch->tokens_used;
    }
    out->loss = sums.nll / weight;
    out->extra[0] = sums.entropy / weight;
    out->extra[1] = sums.right / weight;
    return 0;
}

/* val_loss, and as the score the share of chats whose every answer token is the arg max: what greedy decoding would say
 * word for word. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    PostTrain *p = context;
    Plan *plan = &p->held_out_plan;
    const Batch *batch = &plan->batch;
    int64_t batches = plan_all(plan, false);
    struct {
        double nll, weight, right, documents;
    } sum = {0};
    float *logprob = memory_alloc((size_t)batch->rows, sizeof *logprob);
    int32_t *best = memory_alloc((size_t)batch->rows, sizeof *best);
    int status = 0;
    for (int64_t b = 0; b < batches && status == 0; b++) {
        if (!plan_mine(plan, b))
            continue;
        plan_batch(plan, b, true);
        status = slot_load(&p->slot, batch, err);
        if (status < 0)
            break;
        model_forward(m, &p->slot);
        head_logprobs(m, &p->slot, batch->labels, logprob, NULL, best);
        sum.weight += batch->weight;
        for (size_t d = 0; d < batch->document_count; d++) {
            const BatchDocument *doc = &batch->documents[d];
            bool exact = true;
            for (int64_t r = doc->first; r < doc->first + doc->count; r++)
                if (batch->weights[r] > 0) {
                    sum.nll -= (double)logprob[r];
                    exact &= best[r] == batch->labels[r];
                }
            sum.right += exact;
            sum.documents++;
        }
    }
    free(logprob);
    free(best);
    if (status == 0)
        status = posttrain_sum(p, &sum.nll, sizeof sum / sizeof sum.nll, err);
    *loss = sum.nll / sum.weight;
    *score = sum.right / sum.documents;
    metrics_number(log, "val_exact", *score);
    return status;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "sft", .synopsis = "sft --model DIR [OPTION]… -o DIR [FILE]…",
                     .summary = "Fine-tune a model on chats: the loss counts assistant tokens only.", .options = options};
    self.train.weight_decay = 0;
    self.train.lr = 2e-5;
    static const PostTrainTool tool = {.kind = EXAMPLES_CHAT, .accumulate = accumulate, .evaluate = evaluate, .extra_names = extras};
    return posttrain_main(&self, &set, argc, argv, &tool);
}
