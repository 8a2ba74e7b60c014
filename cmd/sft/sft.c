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
    {"packing", 0, OPTION_CHOICE, &self.packing, "HOW", "of chats over --max-length: bfd cuts, bfd-split splits (default bfd)", "bfd|bfd-split", 0, 0},
    TRAIN_OPTIONS(&self.train, "2e-5", "0"),
    POSTTRAIN_OPTIONS_END(&self),
};

static const char *const extras[] = {"entropy", "mean_token_accuracy", NULL};

typedef struct Training {
    double weight; /* of the step */
    HeadSums sums;
} Training;

static int learn(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    Training *t = context;
    (void)p, (void)pass, (void)err;
    head_cross_entropy(m, s, b->labels, b->weights, 1 / t->weight, 0, &t->sums);
    return 0;
}

/* Mean over the answers' tokens of the whole step, however they are packed. */
static int accumulate(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err)
{
    (void)m;
    plan_step(&p->plan, step);
    Training t = {.weight = plan_weight(&p->plan), .sums.measure = true};
    int status = posttrain_pass(p, &p->passes, &p->plan, POSTTRAIN_BOTH, learn, &t, err);
    out->loss = t.sums.nll / t.weight;
    out->extra[0] = t.sums.entropy / t.weight;
    out->extra[1] = t.sums.right / t.weight;
    return status;
}

/* Of a held-out chat. */
typedef struct Held {
    double nll, wrong; /* Σ −log p of its answers' tokens, and of how many another token is more probable */
} Held;

static int look(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    Held *held = context;
    (void)p, (void)pass, (void)err;
    float *logprob = memory_alloc((size_t)b->rows, sizeof *logprob);
    int32_t *best = memory_alloc((size_t)b->rows, sizeof *best);
    head_logprobs(m, s, b->labels, logprob, NULL, best);
    for (int64_t r = 0; r < b->rows; r++)
        if (b->weights[r] > 0) {
            Held *h = &held[b->documents[b->document[r]].source];
            h->nll -= (double)logprob[r];
            h->wrong += best[r] != b->labels[r];
        }
    free(logprob);
    free(best);
    return 0;
}

/* val_loss, and as the score the share of chats whose every answer token is the arg max: what greedy decoding would say
 * word for word. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    PostTrain *p = context;
    (void)m;
    size_t n = p->held_out.count, right = 0;
    Held *held = memory_zalloc(n, sizeof *held);
    plan_all(&p->held_out_plan);
    int status = posttrain_pass(p, &p->passes, &p->held_out_plan, POSTTRAIN_FORWARD, look, held, err);
    if (status == 0)
        status = posttrain_sum(p, &held->nll, n * sizeof *held / sizeof held->nll, err);
    double nll = 0;
    for (size_t i = 0; i < n; i++) {
        nll += held[i].nll;
        right += held[i].wrong == 0;
    }
    free(held);
    *loss = nll / plan_weight(&p->held_out_plan);
    *score = (double)right / (double)n;
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
    self.packing = "bfd";
    static const PostTrainTool tool = {.kind = EXAMPLES_CHAT, .accumulate = accumulate, .evaluate = evaluate, .extra_names = extras};
    return posttrain_main(&self, &set, argc, argv, &tool);
}
