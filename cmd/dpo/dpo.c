/* dpo: direct preference optimisation in Llama 3's form: the sigmoid loss on sums of log-probabilities, a term of plain
 * likelihood on the chosen answers, and the tokens that end a turn masked out of the preference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
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

/* Sums over the tokens of each example's answer: of what the preference counts, and beside it of all. A rank has made its rows' part. */
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

/* A step's passes. */
typedef struct Pairs {
    const Examples *examples;
    AnswerSum *sums;        /* of each example */
    double *counted, *all;  /* d loss / d the sums */
    float *lse;             /* of the rows of all this rank's batches; NULL: nothing goes backward */
} Pairs;

static int add_sums(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    Pairs *x = context;
    (void)p, (void)err;
    HeadRows rows = rows_new(b->rows);
    head_measure(m, s, b->labels, &rows);
    for (int64_t r = 0; r < b->rows; r++) {
        if (b->labels[r] < 0)
            continue;
        int64_t source = b->documents[b->document[r]].source;
        AnswerSum *sum = &x->sums[source];
        sum->all += (double)rows.logprob[r];
        sum->all_tokens++;
        if (!counts(&x->examples->items[source], b->positions[r] + 1))
            continue;
        sum->counted += (double)rows.logprob[r];
        sum->counted_tokens++;
        sum->logits += (double)rows.mean[r];
        sum->entropy += (double)rows.entropy[r];
        sum->right += rows.best[r] == b->labels[r];
    }
    if (x->lse)
        memcpy(x->lse + pass * b->rows, rows.lse, (size_t)b->rows * sizeof *rows.lse);
    rows_free(&rows);
    return 0;
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

/* Sums of every example of what the plan has laid out. */
static int plan_sums(PostTrain *p, Passes *through, Plan *plan, Pairs *x, Error *err)
{
    int status = posttrain_pass(p, through, plan, POSTTRAIN_FORWARD, add_sums, x, err);
    return status == 0 ? share_sums(p, plan, x->sums, err) : status;
}

static double *reference_sums(PostTrain *p, Model *m, const Examples *e, Plan *plan, Error *err)
{
    Pairs x = {.examples = e, .sums = memory_zalloc(e->count, sizeof *x.sums)};
    double *out = memory_alloc(e->count, sizeof *out);
    Passes passes;
    plan_all(plan);
    int status = passes_open(&passes, m, p->grid, plan_rows(plan), MODE_SCORE, err);
    if (status == 0)
        status = plan_sums(p, &passes, plan, &x, err);
    passes_close(&passes);
    for (size_t i = 0; i < e->count; i++)
        out[i] = x.sums[i].counted;
    free(x.sums);
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

/* Where the reference's sums are kept. */
static char *reference_path(const PostTrain *p)
{
    return dpo.reference_file ? memory_string(dpo.reference_file) : memory_format("%s/reference.json", p->common.output);
}

/* Is the reference another model than the one that is trained? */
static bool is_other(const PostTrain *p)
{
    return dpo.reference_path && (p->adapter || strcmp(dpo.reference_path, p->model_path) != 0);
}

static const char *reference_model(const PostTrain *p)
{
    char *path = dpo.reference_file || p->common.output ? reference_path(p) : NULL;
    bool known = pair_loss_is_free(&dpo.loss) || (path && access(path, F_OK) == 0);
    free(path);
    return known ? NULL : is_other(p) ? dpo.reference_path : p->model_path;
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
    if (is_other(p)) {
        char *base, *adapter;
        ModelPart part;
        int status = folder_base(dpo.reference_path, NULL, &base, &adapter, err);
        if (status == 0)
            status = posttrain_part(p, &part, base, err);
        if (status == 0)
            status = folder_load(&other, base, &(FolderLoad){.part = &part, .adapter = adapter}, p->device, err);
        if (status == 0 && posttrain_has_head(p, &other.config, adapter ? adapter : base, err) < 0) {
            model_close(&other);
            status = -1;
        }
        free(base);
        free(adapter);
        if (status < 0)
            return -1;
        m = &other;
    }
    int status = m == &other ? model_compute_in(m, p->model.dtype, err) : 0;
    if (status == 0 && m->config.vocab_size != p->model.config.vocab_size)
        status = error_set(err, "%s: the reference has another vocabulary than the model", dpo.reference_path);
    bool known = false;
    char key[17], *path = reference_path(p);
    size_t pairs = p->examples.count, held_out = p->val ? p->held_out.count : 0;
    if (status == 0)
        status = reference_key(m, dpo.keep_endings, &p->examples, &p->held_out, &p->grid->world, key, err);
    if (status == 0)
        status = reference_read(r, path, key, pairs, held_out, &p->grid->world, &known, err);
    if (status == 0 && !known)
        status = (r->sums = reference_sums(p, m, &p->examples, &p->plan, err)) ? 0 : -1;
    if (status == 0 && p->val && !known)
        status = (r->held_out = reference_sums(p, m, &p->held_out, &p->held_out_plan, err)) ? 0 : -1;
    if (status == 0 && p->grid->rank == 0 && !known && (dpo.reference_file || folder_create(p->common.output, err) == 0))
        status = reference_write(r, path, key, pairs, held_out, err);
    free(path);
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

/* From the sums of a layout's pairs to the loss and its metrics (in the order of `extras`); where something goes backward, to
 * d loss / d log-probability of each example's tokens too. */
static double pairs_loss(const Plan *plan, const Pairs *x, const double *reference, double *e)
{
    const AnswerSum *sums = x->sums;
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
        if (x->counted) {
            x->counted[c] = dc / pairs;
            x->counted[w] = dr / pairs;
            x->all[c] = -nll_weight() / chosen_tokens;
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

static int token_gradients(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    Pairs *x = context;
    (void)p, (void)err;
    float *dlogprob = memory_zalloc((size_t)b->rows, sizeof *dlogprob);
    for (int64_t r = 0; r < b->rows; r++) {
        if (b->labels[r] < 0)
            continue;
        int64_t source = b->documents[b->document[r]].source;
        dlogprob[r] = (float)(x->all[source] + (counts(&x->examples->items[source], b->positions[r] + 1) ? x->counted[source] : 0));
    }
    head_backward(m, s, b->labels, x->lse + pass * b->rows, dlogprob, NULL);
    free(dlogprob);
    return 0;
}

/* The weights of tokens depend on whole answers, so the log-probabilities come first. */
static int accumulate(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err)
{
    (void)m;
    plan_step(&p->plan, step);
    size_t n = p->examples.count;
    Pairs x = {.examples = &p->examples, .sums = memory_zalloc(n, sizeof *x.sums), .counted = memory_zalloc(n, sizeof *x.counted),
               .all = memory_zalloc(n, sizeof *x.all), .lse = memory_alloc((size_t)(plan_passes(&p->plan) * plan_rows(&p->plan)) + 1, sizeof *x.lse)};
    int status = plan_sums(p, &p->passes, &p->plan, &x, err);
    if (status == 0) {
        out->loss = pairs_loss(&p->plan, &x, ((const Reference *)p->own)->sums, out->extra);
        status = posttrain_pass(p, &p->passes, &p->plan, POSTTRAIN_BACK, token_gradients, &x, err);
    }
    posttrain_once(p, out);
    free(x.sums);
    free(x.counted);
    free(x.all);
    free(x.lse);
    return status;
}

/* val_loss, and as the score the share of pairs whose chosen answer has the greater reward. */
static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    PostTrain *p = context;
    (void)m;
    Pairs x = {.examples = &p->held_out, .sums = memory_zalloc(p->held_out.count, sizeof *x.sums)};
    double e[TRAIN_EXTRAS] = {0};
    plan_all(&p->held_out_plan);
    int status = plan_sums(p, &p->passes, &p->held_out_plan, &x, err);
    if (status == 0) {
        *loss = pairs_loss(&p->held_out_plan, &x, ((const Reference *)p->own)->held_out, e);
        *score = e[2];
        metrics_number(log, "val_rewards/accuracies", e[2]);
        metrics_number(log, "val_rewards/margins", e[3]);
    }
    free(x.sums);
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
                                       .evaluate = evaluate, .extra_names = extras, .ahead = true, .first = reference_model};
    return posttrain_main(&self, &set, argc, argv, &tool);
}
