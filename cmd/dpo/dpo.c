/* dpo: direct preference optimisation in Llama 3's form: the sigmoid loss on sums of log-probabilities, a term of plain
 * likelihood on the chosen answers, and the tokens that end a turn masked out of the preference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "io/stream.h"
#include "loss.h"
#include "model/folder.h"
#include "reference.h"
#include "train/posttrain.h"

static PostTrain self = POSTTRAIN_DEFAULT;
static struct {
    const char *reference_path, *reference_file;
    PairLoss loss;
    double nll_weight;
    bool keep_endings;
} dpo = {.loss = {.kind = "sigmoid", .beta = 0.1, .label_smoothing = 0.1, .gamma = 0.5}, .nll_weight = -1};

static const Option options[] = {
    POSTTRAIN_OPTIONS(&self),
    POSTTRAIN_VAL_OPTIONS(&self),
    {"reference", 0, OPTION_STRING, &dpo.reference_path, "DIR", "reference model (default: --model)", 0, 0, 0},
    {"beta", 0, OPTION_NUMBER, &dpo.loss.beta, "X", "strength of the reference (default 0.1)", 0, 1e-9, 1e6},
    {"loss", 0, OPTION_CHOICE, &dpo.loss.kind, "KIND", "sigmoid, hinge, ipo, orpo, simpo, … (default sigmoid)", DPO_LOSSES, 0, 0},
    {"nll-weight", 0, OPTION_NUMBER, &dpo.nll_weight, "X", "of the chosen answers' mean token loss (default 0.2)", 0, -1, 1e6},
    POSTTRAIN_LORA_OPTIONS(&self),
    OPTION_MORE_HEADING("the loss:"),
    {"label-smoothing", 0, OPTION_NUMBER, &dpo.loss.label_smoothing, "X", "wrong labels that cdpo, robust expect (default 0.1)", 0, 0, 0.49},
    {"gamma", 0, OPTION_NUMBER, &dpo.loss.gamma, "X", "margin of simpo (default 0.5)", 0, 0, 1e6},
    {"reference-file", 0, OPTION_STRING, &dpo.reference_file, "FILE", "keep the reference's log-probabilities there, for other runs too", 0, 0, 0},
    {"keep-endings", 0, OPTION_FLAG, &dpo.keep_endings, 0, "let the end-of-turn token count in the preference", 0, 0, 0},
    TRAIN_OPTIONS(&self.train, "1e-5", "0"),
    POSTTRAIN_OPTIONS_END(&self),
};

static const char *const extras[] = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "nll_loss", "logps/chosen", "logps/rejected",
                                      "logits/chosen", "logits/rejected", "entropy", "mean_token_accuracy", NULL};

/* Sums over the tokens of each example's answer: of what the preference counts, and beside it of all. */
typedef struct AnswerSum {
    double counted, all; /* log-probabilities */
    double counted_tokens, all_tokens;
    double logits, entropy, right; /* of the counted: mean logits, entropies, arg maxes */
} AnswerSum;
enum { ANSWER_NUMBERS = sizeof(AnswerSum) / sizeof(double) };

static HeadRows rows_new(int64_t count)
{
    size_t n = (size_t)count;
    return (HeadRows){memory_alloc(n, sizeof(float)), memory_alloc(n, sizeof(float)), memory_alloc(n, sizeof(int32_t)), memory_alloc(n, sizeof(float)),
                      memory_alloc(n, sizeof(float))};
}

static void rows_free(HeadRows *r)
{
    free(r->logprob);
    free(r->lse);
    free(r->best);
    free(r->mean);
    free(r->entropy);
}

static bool counts(const Example *e, int64_t label_at)
{
    unsigned char f = e->flags[label_at];
    return (f & TOKEN_TRAINED) && (dpo.keep_endings || !(f & TOKEN_ENDING));
}

static void add_sums(const Examples *examples, const Batch *b, const HeadRows *rows, AnswerSum *sums)
{
    for (size_t d = 0; d < b->document_count; d++) {
        const BatchDocument *doc = &b->documents[d];
        const Example *e = &examples->items[doc->source];
        AnswerSum *s = &sums[doc->source];
        for (int64_t t = 0, row = doc->first; t + 1 < doc->count; t++, row++) {
            if (!(e->flags[t + 1] & TOKEN_TRAINED))
                continue;
            s->all += (double)rows->logprob[row];
            s->all_tokens++;
            if (!counts(e, t + 1))
                continue;
            s->counted += (double)rows->logprob[row];
            s->counted_tokens++;
            s->logits += (double)rows->mean[row];
            s->entropy += (double)rows->entropy[row];
            s->right += rows->best[row] == b->labels[row];
        }
    }
}

/* All ranks get what each has of a plan's examples. */
static int share_sums(PostTrain *p, const Plan *plan, AnswerSum *sums, Error *err)
{
    AnswerSum *all = memory_alloc(plan->step_count, sizeof *all);
    for (size_t i = 0; i < plan->step_count; i++)
        all[i] = sums[plan->step_examples[i]];
    int status = posttrain_sum(p, &all->counted, ANSWER_NUMBERS * plan->step_count, err);
    for (size_t i = 0; i < plan->step_count && status == 0; i++)
        sums[plan->step_examples[i]] = all[i];
    free(all);
    return status;
}

/* Sums of every example of a plan that is laid out, by a forward pass over its batches. */
static int plan_sums(PostTrain *p, Model *m, Slot *slot, const Examples *x, Plan *plan, int64_t batches, AnswerSum *sums, int64_t *tokens, Error *err)
{
    const Batch *b = &plan->batch;
    HeadRows rows = rows_new(b->rows);
    int status = 0;
    for (int64_t i = 0; i < batches && status == 0; i++) {
        if (!plan_mine(plan, i))
            continue;
        plan_batch(plan, i, true);
        status = slot_load(slot, b, err);
        if (status < 0)
            break;
        model_forward(m, slot);
        head_measure(m, slot, b->labels, &rows);
        add_sums(x, b, &rows, sums);
        *tokens += b->tokens_used;
    }
    rows_free(&rows);
    return status == 0 ? share_sums(p, plan, sums, err) : status;
}

static double *reference_sums(PostTrain *p, Model *m, Slot *slot, const Examples *x, Plan *plan, Error *err)
{
    AnswerSum *sums = memory_zalloc(x->count, sizeof *sums);
    double *out = memory_alloc(x->count, sizeof *out);
    int64_t tokens = 0;
    int status = plan_sums(p, m, slot, x, plan, plan_all(plan, true), sums, &tokens, err);
    for (size_t i = 0; i < x->count; i++)
        out[i] = sums[i].counted;
    free(sums);
    if (status == 0)
        return out;
    free(out);
    return NULL;
}

static double nll_weight(void)
{
    if (dpo.nll_weight >= 0)
        return dpo.nll_weight;
    return strcmp(dpo.loss.kind, "orpo") == 0 ? 1 : strcmp(dpo.loss.kind, "simpo") == 0 ? 0 : 0.2;
}

/* One pass over the reference model for all pairs, or what an earlier one has left in a file. */
static int reference_pass(PostTrain *p, Error *err)
{
    Model other = {0}, *m = &p->model;
    Reference *r = p->own = memory_zalloc(1, sizeof *r);
    if (pair_loss_is_free(&dpo.loss)) {
        r->sums = memory_zalloc(p->examples.count, sizeof *r->sums);
        r->held_out = memory_zalloc(p->held_out.count + 1, sizeof *r->held_out);
        return dpo.reference_path ? error_set(err, "--reference: the loss %s has none", dpo.loss.kind) : 0;
    }
    if (dpo.reference_path && (p->adapter || strcmp(dpo.reference_path, p->model_path) != 0)) {
        char *base, *adapter;
        ModelPart part;
        int status = folder_base(dpo.reference_path, NULL, &base, &adapter, err);
        if (status == 0)
            status = posttrain_part(p, &part, base, err);
        if (status == 0)
            status = folder_load(&other, base, &(FolderLoad){.part = &part, .adapter = adapter}, p->device, err);
        free(base);
        free(adapter);
        if (status < 0)
            return -1;
        m = &other;
    }
    Slot slot = {0};
    int status = m == &other ? model_compute_in(m, p->model.dtype, err) : 0;
    if (status == 0 && m->config.vocab_size != p->model.config.vocab_size)
        status = error_set(err, "%s: the reference has another vocabulary than the model", dpo.reference_path);
    /* A rank of several has a part of the weights, of which no key is made. */
    bool keeps = p->grid->size == 1, known = false;
    char key[17], *path = dpo.reference_file ? memory_string(dpo.reference_file) : memory_format("%s/reference.json", p->common.output);
    size_t pairs = p->examples.count, held_out = p->val ? p->held_out.count : 0;
    if (status == 0 && keeps)
        status = reference_key(m, dpo.keep_endings, &p->examples, &p->held_out, key, err);
    if (status == 0 && keeps)
        known = reference_read(r, path, key, pairs, held_out);
    if (status == 0 && !known)
        status = slot_new(&slot, m, p->plan.rows, MODE_SCORE, err);
    if (status == 0 && !known)
        status = (r->sums = reference_sums(p, m, &slot, &p->examples, &p->plan, err)) ? 0 : -1;
    if (status == 0 && p->val && !known)
        status = (r->held_out = reference_sums(p, m, &slot, &p->held_out, &p->held_out_plan, err)) ? 0 : -1;
    if (status == 0 && keeps && !known && (dpo.reference_file || folder_create(p->common.output, err) == 0))
        status = reference_write(r, path, key, pairs, held_out, err);
    free(path);
    slot_free(&slot);
    if (m == &other)
        model_close(&other);
    return status;
}

static void reference_free(PostTrain *p)
{
    Reference *r = p->own;
    if (!r)
        return;
    free(r->sums);
    free(r->held_out);
    free(r);
}

/* From the sums of a layout's pairs to the loss and its metrics (in the order of `extras`); where the arrays are given, to
 * d loss / d log-probability of each example's tokens too. */
static double pairs_loss(const Plan *plan, const AnswerSum *sums, const double *reference, double *counted_gradient,
                         double *nll_gradient, double *e)
{
    bool by_token = pair_loss_is_free(&dpo.loss);
    double pairs = (double)plan->step_count / 2, loss = 0, beta = dpo.loss.beta;
    AnswerSum sides[2];
    memset(sides, 0, sizeof sides);
    for (size_t i = 0; i < plan->step_count; i++) {
        const AnswerSum *s = &sums[plan->step_examples[i]];
        sides[i % 2].all_tokens += s->all_tokens;
        sides[i % 2].counted_tokens += s->counted_tokens;
        sides[i % 2].logits += s->logits;
        sides[i % 2].entropy += s->entropy;
        sides[i % 2].right += s->right;
    }
    double chosen_tokens = sides[0].all_tokens;
    for (size_t i = 0; i + 1 < plan->step_count; i += 2) {
        size_t c = plan->step_examples[i], w = plan->step_examples[i + 1];
        PairSide up = {sums[c].counted - reference[c], sums[c].counted_tokens}, down = {sums[w].counted - reference[w], sums[w].counted_tokens};
        double dc, dr;
        loss += pair_loss(&dpo.loss, up, down, &dc, &dr) / pairs;
        if (counted_gradient) {
            counted_gradient[c] = dc / pairs;
            counted_gradient[w] = dr / pairs;
            nll_gradient[c] = -nll_weight() / chosen_tokens;
        }
        /* Without a reference TRL's rewards are by token. */
        double r = beta * up.ratio / (by_token ? up.tokens : 1), s = beta * down.ratio / (by_token ? down.tokens : 1);
        e[0] += r / pairs;
        e[1] += s / pairs;
        e[2] += (r > s) / pairs;
        e[3] += (r - s) / pairs;
        e[4] -= sums[c].all / chosen_tokens;
        e[5] += sums[c].counted / pairs;
        e[6] += sums[w].counted / pairs;
    }
    e[7] = sides[0].logits / fmax(1, sides[0].counted_tokens);
    e[8] = sides[1].logits / fmax(1, sides[1].counted_tokens);
    e[9] = (sides[0].entropy + sides[1].entropy) / fmax(1, sides[0].counted_tokens + sides[1].counted_tokens);
    e[10] = sides[0].right / fmax(1, sides[0].counted_tokens);
    return loss + nll_weight() * e[4];
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
static int accumulate(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err)
{
    const Batch *b = &p->plan.batch;
    int64_t batches = plan_step(&p->plan, step, true);
    size_t n = p->examples.count;
    AnswerSum *sums = memory_zalloc(n, sizeof *sums);
    double *counted = memory_zalloc(n, sizeof *counted), *nll = memory_zalloc(n, sizeof *nll);
    HeadRows rows = rows_new(b->rows);
    int status = 0;
    int64_t mine = 0;
    for (int64_t i = 0; i < batches; i++)
        mine += plan_mine(&p->plan, i);
    for (int pass = 0; pass < 2 && status == 0; pass++) {
        for (int64_t i = 0; i < batches && status == 0; i++) {
            if (!plan_mine(&p->plan, i))
                continue;
            if (pass == 0 || mine > 1) {
                plan_batch(&p->plan, i, true);
                status = slot_load(&p->slot, b, err);
                if (status < 0)
                    break;
                model_forward(m, &p->slot);
                head_measure(m, &p->slot, b->labels, &rows);
            }
            if (pass == 0) {
                add_sums(&p->examples, b, &rows, sums);
                out->tokens += b->tokens_used;
                continue;
            }
            token_gradients(&p->examples, b, counted, nll, rows.logprob);
            head_backward(m, &p->slot, b->labels, rows.lse, rows.logprob, NULL);
            model_backward(m, &p->slot);
        }
        if (pass == 0 && status == 0)
            status = share_sums(p, &p->plan, sums, err);
        if (pass == 0)
            out->loss = pairs_loss(&p->plan, sums, ((const Reference *)p->own)->sums, counted, nll, out->extra);
    }
    posttrain_once(p, out);
    free(sums);
    free(counted);
    free(nll);
    rows_free(&rows);
    return status;
}

/* val_loss, and as the score the share of pairs whose chosen answer has the greater reward. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    PostTrain *p = context;
    AnswerSum *sums = memory_zalloc(p->held_out.count, sizeof *sums);
    double e[TRAIN_EXTRAS] = {0};
    int64_t tokens = 0;
    int status = plan_sums(p, m, &p->slot, &p->held_out, &p->held_out_plan, plan_all(&p->held_out_plan, true), sums, &tokens, err);
    if (status == 0) {
        *loss = pairs_loss(&p->held_out_plan, sums, ((const Reference *)p->own)->held_out, NULL, NULL, e);
        *score = e[2];
        metrics_number(log, "val_rewards/accuracies", e[2]);
        metrics_number(log, "val_rewards/margins", e[3]);
    }
    free(sums);
    return status;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "dpo", .synopsis = "dpo --model DIR [--reference DIR] [OPTION]… -o DIR [FILE]…",
                     .summary = "Direct preference optimisation on pairs of answers.", .options = options};
    self.train.weight_decay = 0;
    self.train.lr = 1e-5;
    static const PostTrainTool tool = {.kind = EXAMPLES_PREFERENCE, .prepare = reference_pass, .finish = reference_free, .accumulate = accumulate,
                                       .evaluate = evaluate, .extra_names = extras};
    return posttrain_main(&self, &set, argc, argv, &tool);
}
