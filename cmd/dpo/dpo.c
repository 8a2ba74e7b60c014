/* dpo: direct preference optimisation in Llama 3's form: the sigmoid loss on sums of log-probabilities, a term of plain
 * likelihood on the chosen answers, and the tokens that end a turn masked out of the preference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "model/folder.h"
#include "train/posttrain.h"

static PostTrain self = POSTTRAIN_DEFAULT;
static struct {
    const char *reference, *loss;
    double beta, nll_weight;
    bool keep_endings;
    float *reference_sums; /* of each example, computed once */
} dpo = {.beta = 0.1, .nll_weight = 0.2, .loss = "sigmoid"};

static const Option options[] = {
    POSTTRAIN_OPTIONS(&self),
    {"reference", 0, OPTION_STRING, &dpo.reference, "DIR", "reference model (default: --model)", 0, 0, 0},
    {"beta", 0, OPTION_NUMBER, &dpo.beta, "X", "strength of the reference (default 0.1)", 0, 1e-9, 1e6},
    {"loss", 0, OPTION_CHOICE, &dpo.loss, "KIND", "sigmoid, hinge or ipo (default sigmoid)", "sigmoid|hinge|ipo", 0, 0},
    {"nll-weight", 0, OPTION_NUMBER, &dpo.nll_weight, "X", "of the chosen answers' mean token loss (default 0.2)", 0, 0, 1e6},
    {"keep-endings", 0, OPTION_FLAG, &dpo.keep_endings, 0, "let the end-of-turn token count in the preference", 0, 0, 0},
    TRAIN_OPTIONS(&self.train, "1e-5", "0"),
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_LOG(&self.common),
    OPTION_COMMON_CONFIG(&self.common),
    OPTION_COMMON_END(&self.common),
};

static const char *const free_options[] = {"rows", NULL};
static const char *const extras[] = {"rewards_chosen", "rewards_rejected", "rewards_accuracy", "rewards_margin", "nll", "logps_chosen", "logps_rejected", NULL};

static double log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

static double sigmoid(double x)
{
    return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
}

/* d loss / d delta and the loss of one pair; delta is the policy's log-ratio less the reference's (for ipo each side has been
 * divided by its length). trl/trainer/dpo_trainer.py. */
static double pair_loss(double delta, double *gradient)
{
    if (strcmp(dpo.loss, "hinge") == 0) {
        *gradient = dpo.beta * delta < 1 ? -dpo.beta : 0;
        return fmax(0, 1 - dpo.beta * delta);
    }
    if (strcmp(dpo.loss, "ipo") == 0) {
        double off = delta - 1 / (2 * dpo.beta);
        *gradient = 2 * off;
        return off * off;
    }
    *gradient = -dpo.beta * sigmoid(-dpo.beta * delta);
    return -log_sigmoid(dpo.beta * delta);
}

/* Sum of the log-probabilities of each example's answer: what the preference counts, and beside it all of it. */
typedef struct AnswerSum {
    double counted, all;
    int64_t counted_tokens, all_tokens;
} AnswerSum;

static bool counts(const Example *e, int64_t label_at)
{
    unsigned char f = e->flags[label_at];
    return (f & TOKEN_TRAINED) && (dpo.keep_endings || !(f & TOKEN_ENDING));
}

static void add_sums(const Examples *examples, const Batch *b, const float *logprob, AnswerSum *sums)
{
    for (size_t d = 0; d < b->document_count; d++) {
        const BatchDocument *doc = &b->documents[d];
        const Example *e = &examples->items[doc->source];
        AnswerSum *s = &sums[doc->source];
        for (int64_t t = 0; t + 1 < doc->count; t++)
            if (e->flags[t + 1] & TOKEN_TRAINED) {
                s->all += (double)logprob[doc->first + t];
                s->all_tokens++;
                if (counts(e, t + 1)) {
                    s->counted += (double)logprob[doc->first + t];
                    s->counted_tokens++;
                }
            }
    }
}

/* One pass over the reference model for all pairs. */
static int reference_sums(PostTrain *p, Error *err)
{
    Model reference, *m = &p->model;
    bool other = dpo.reference && strcmp(dpo.reference, p->model_path) != 0;
    if (other) {
        char *folder = folder_resolve(dpo.reference, err);
        int status = folder ? folder_load(&reference, folder, 0, 0, p->device, err) : -1;
        free(folder);
        if (status < 0)
            return -1;
        m = &reference;
        if (model_compute_in(m, p->model.dtype, err) < 0) {
            model_close(&reference);
            return -1;
        }
        if (reference.config.vocab_size != p->model.config.vocab_size) {
            model_close(&reference);
            return error_set(err, "%s: the reference has another vocabulary than the model", dpo.reference);
        }
    }
    Slot slot;
    int status = slot_new(&slot, m, p->plan.rows, MODE_SCORE, err);
    AnswerSum *sums = memory_zalloc(p->examples.count, sizeof *sums);
    float *logprob = memory_alloc((size_t)p->plan.rows, sizeof *logprob);
    int64_t batches = plan_all(&p->plan, true);
    for (int64_t b = 0; b < batches && status == 0; b++) {
        plan_batch(&p->plan, b, true);
        status = slot_load(&slot, &p->plan.batch, err);
        if (status < 0)
            break;
        model_forward(m, &slot);
        head_logprobs(m, &slot, p->plan.batch.labels, logprob, NULL, NULL);
        add_sums(&p->examples, &p->plan.batch, logprob, sums);
    }
    dpo.reference_sums = memory_alloc(p->examples.count, sizeof *dpo.reference_sums);
    for (size_t i = 0; i < p->examples.count; i++)
        dpo.reference_sums[i] = (float)sums[i].counted;
    free(sums);
    free(logprob);
    slot_free(&slot);
    if (other)
        model_close(&reference);
    return status;
}

/* From the sums of a step's pairs to d loss / d log-probability of each example's tokens. */
static void step_gradients(PostTrain *p, const AnswerSum *sums, double *counted_gradient, double *nll_gradient, TrainStep *out)
{
    const Examples *x = &p->examples;
    int64_t pairs = 0, chosen_tokens = 0;
    for (size_t i = 0; i < p->plan.step_count; i++)
        if (x->items[p->plan.step_examples[i]].rank == 0) {
            pairs++;
            chosen_tokens += sums[p->plan.step_examples[i]].all_tokens;
        }
    double preference = 0, nll = 0, *e = out->extra;
    bool ipo = strcmp(dpo.loss, "ipo") == 0;
    for (size_t i = 0; i + 1 < p->plan.step_count; i += 2) {
        size_t c = p->plan.step_examples[i], r = p->plan.step_examples[i + 1];
        double up = sums[c].counted - (double)dpo.reference_sums[c], down = sums[r].counted - (double)dpo.reference_sums[r], gradient;
        double nc = ipo ? fmax(1, (double)sums[c].counted_tokens) : 1, nr = ipo ? fmax(1, (double)sums[r].counted_tokens) : 1;
        preference += pair_loss(up / nc - down / nr, &gradient) / (double)pairs;
        counted_gradient[c] = gradient / nc / (double)pairs;
        counted_gradient[r] = -gradient / nr / (double)pairs;
        nll -= sums[c].all / (double)chosen_tokens;
        nll_gradient[c] = -dpo.nll_weight / (double)chosen_tokens;
        e[0] += dpo.beta * up / (double)pairs;
        e[1] += dpo.beta * down / (double)pairs;
        e[2] += (up > down) / (double)pairs;
        e[3] += dpo.beta * (up - down) / (double)pairs;
        e[5] += sums[c].counted / (double)pairs;
        e[6] += sums[r].counted / (double)pairs;
    }
    e[4] = nll;
    out->loss = preference + dpo.nll_weight * nll;
}

static void token_gradients(const Examples *examples, const Batch *b, const double *counted_gradient, const double *nll_gradient, float *dlogprob)
{
    memset(dlogprob, 0, (size_t)b->rows * sizeof *dlogprob);
    for (size_t d = 0; d < b->document_count; d++) {
        const BatchDocument *doc = &b->documents[d];
        const Example *e = &examples->items[doc->source];
        for (int64_t t = 0; t + 1 < doc->count; t++)
            if (e->flags[t + 1] & TOKEN_TRAINED)
                dlogprob[doc->first + t] = (float)(nll_gradient[doc->source] + (counts(e, t + 1) ? counted_gradient[doc->source] : 0));
    }
}

/* The weights of tokens depend on whole answers, so the log-probabilities come first; a step of one batch keeps its hidden
 * states, a larger one runs forward again. */
static int accumulate(void *context, Model *m, int64_t step, TrainStep *out, Error *err)
{
    PostTrain *p = context;
    const Batch *b = &p->plan.batch;
    int64_t batches = plan_step(&p->plan, step, true);
    size_t n = p->examples.count;
    AnswerSum *sums = memory_zalloc(n, sizeof *sums);
    double *counted = memory_zalloc(n, sizeof *counted), *nll = memory_zalloc(n, sizeof *nll);
    float *logprob = memory_alloc((size_t)b->rows, sizeof *logprob), *lse = memory_alloc((size_t)b->rows, sizeof *lse);
    int status = 0;
    for (int pass = 0; pass < 2 && status == 0; pass++) {
        for (int64_t i = 0; i < batches && status == 0; i++) {
            if (pass == 0 || batches > 1) {
                plan_batch(&p->plan, i, true);
                status = slot_load(&p->slot, b, err);
                if (status < 0)
                    break;
                model_forward(m, &p->slot);
                head_logprobs(m, &p->slot, b->labels, logprob, lse, NULL);
            }
            if (pass == 0) {
                add_sums(&p->examples, b, logprob, sums);
                out->tokens += b->tokens_used;
                continue;
            }
            token_gradients(&p->examples, b, counted, nll, logprob);
            head_backward(m, &p->slot, b->labels, lse, logprob, NULL);
            model_backward(m, &p->slot);
        }
        if (pass == 0)
            step_gradients(p, sums, counted, nll, out);
    }
    free(sums);
    free(counted);
    free(nll);
    free(logprob);
    free(lse);
    return status;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "dpo", .synopsis = "dpo --model DIR [--reference DIR] [OPTION]… -o DIR [FILE]…",
                     .summary = "Direct preference optimisation on pairs of answers.", .options = options};
    self.train.weight_decay = 0;
    self.train.lr = 1e-5;
    int status = option_main(&set, argc, argv);
    if (status >= 0 || (status = posttrain_check(&self)) >= 0)
        return status;
    Error err;
    if (posttrain_open(&self, EXAMPLES_PREFERENCE, 0, set.operands, &err) < 0 || reference_sums(&self, &err) < 0) {
        status = message_failed(&err);
    } else {
        TrainTask task = {.context = &self, .accumulate = accumulate, .free_options = free_options, .extra_names = extras,
                          .sequence_length = self.plan.sequence_length};
        status = train_run(&set, &self.common, &self.train, &self.model, &task);
    }
    free(dpo.reference_sums);
    posttrain_close(&self);
    option_free(&set);
    return status;
}
