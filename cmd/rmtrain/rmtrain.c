/* rmtrain: a reward model from preference pairs or rankings (Bradley-Terry over all pairs of a ranking), and with --score the
 * scores of answers. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "calibration.h"
#include "data/document.h"
#include "io/stats.h"
#include "train/posttrain.h"
#include "train/scoring.h"
#include "train/sigmoid.h"

static PostTrain self = POSTTRAIN_DEFAULT;
static struct {
    bool score, calibration;
    double center;
    Scorer scorer;
    Writer *out;
    /* Records whose texts wait in the scorer. */
    struct Scored {
        char *line;
        size_t length, first, count; /* count: of its texts */
        size_t old_begin, old_length, key_begin; /* a value that is there already; length 0: none */
        bool chat;
    } *waiting;
    size_t count, capacity;
} rm;

static const Option options[] = {
    POSTTRAIN_OPTIONS(&self),
    POSTTRAIN_VAL_OPTIONS(&self),
    {"score", 0, OPTION_FLAG, &rm.score, 0, "add scores to candidates or chats instead of training", 0, 0, 0},
    {"calibration", 0, OPTION_FLAG, &rm.calibration, 0, "tell how often it is right by how sure it is, instead", 0, 0, 0},
    POSTTRAIN_LORA_OPTIONS(&self),
    OPTION_MORE_HEADING("the loss:"),
    {"layout", 0, OPTION_CHOICE, &self.layout, "HOW", "of a ranking's answers: apart, or in one row behind their prompt (default apart)", "apart|row", 0, 0},
    {"center", 0, OPTION_NUMBER, &rm.center, "X", "weight of the squared sum of two scores, which keeps them near 0 (default 0)", 0, 0, 1e6},
    TRAIN_OPTIONS(&self.train, "1e-4", "0"),
    POSTTRAIN_OPTIONS_END(&self),
};

static const char *const extras[] = {"accuracy", "margin", "min_reward", "mean_reward", "max_reward", NULL};

typedef struct PairCounts {
    int64_t pairs, right;
    double apart; /* sum of the differences of their scores */
} PairCounts;

/* −log σ(better − worse − margin) + c·(better + worse)², the mean over a record's pairs that are not tied; records weigh alike (InstructGPT,
 * trl/trainer/reward_trainer.py). Gradients are added to gradient[example]; returns the loss and counts pairs. */
static double record_loss(const Examples *x, size_t record, const double *scores, double share, double *gradient, PairCounts *counts)
{
    size_t first = x->group_first[record], n = x->group_first[record + 1] - first;
    double all = 0, loss = 0;
    for (size_t i = first; i < first + n; i++)
        for (size_t j = i + 1; j < first + n; j++)
            all += x->items[i].level != x->items[j].level;
    for (size_t i = first; i < first + n; i++)
        for (size_t j = i + 1; j < first + n; j++) {
            if (x->items[i].level == x->items[j].level)
                continue;
            double apart = scores[i] - scores[j] - x->items[i].margin, sum = scores[i] + scores[j];
            loss += (-log_sigmoid(apart) + rm.center * sum * sum) / all;
            if (gradient) {
                double g = -1 / (1 + exp(apart)), c = 2 * rm.center * sum;
                gradient[i] += share * (g + c) / all;
                gradient[j] += share * (-g + c) / all;
            }
            counts->right += scores[i] > scores[j];
            counts->apart += scores[i] - scores[j];
            counts->pairs++;
        }
    return loss;
}

/* A step's passes: each example's score, of which a rank has made those whose last token is its, and d loss / d score. */
typedef struct Scores {
    double *score, *gradient;
} Scores;

/* The rows that are a document's last, where its score is read, and whose they are. */
static int64_t last_rows(const Batch *b, int64_t *rows, int64_t *source)
{
    int64_t n = 0;
    for (int64_t r = 0; r < b->rows; r++) {
        const BatchDocument *d = b->document[r] < 0 ? NULL : &b->documents[b->document[r]];
        if (!d || b->positions[r] + 1 < d->count)
            continue;
        rows[n] = r;
        source[n++] = d->source;
    }
    return n;
}

/* Reads scores, or where `backward` leaves their gradient. */
static int at_last_rows(Model *m, Slot *s, const Batch *b, Scores *x, bool backward)
{
    int64_t *rows = memory_alloc((size_t)b->rows, sizeof *rows), *source = memory_alloc((size_t)b->rows, sizeof *source);
    int64_t n = last_rows(b, rows, source);
    float *values = memory_alloc((size_t)n + 1, sizeof *values);
    for (int64_t i = 0; i < n && backward; i++)
        values[i] = (float)x->gradient[source[i]];
    if (backward)
        head_scores_backward(m, s, rows, n, values);
    else
        head_scores(m, s, rows, n, values);
    for (int64_t i = 0; i < n && !backward; i++)
        x->score[source[i]] = (double)values[i];
    free(rows);
    free(source);
    free(values);
    return 0;
}

static int read_scores(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    (void)p, (void)pass, (void)err;
    return at_last_rows(m, s, b, context, false);
}

static int score_gradients(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err)
{
    (void)p, (void)pass, (void)err;
    return at_last_rows(m, s, b, context, true);
}

/* All ranks get all scores of what the plan has laid out. */
static int pass_scores(PostTrain *p, Plan *plan, Scores *x, Error *err)
{
    int status = posttrain_pass(p, &p->passes, plan, POSTTRAIN_FORWARD, read_scores, x, err);
    double *all = memory_alloc(plan->step_count, sizeof *all);
    for (size_t i = 0; i < plan->step_count; i++)
        all[i] = x->score[plan->step_examples[i]];
    if (status == 0)
        status = posttrain_sum(p, all, plan->step_count, err);
    for (size_t i = 0; i < plan->step_count; i++)
        x->score[plan->step_examples[i]] = all[i];
    free(all);
    return status;
}

/* The least, the mean and the greatest score of a layout's answers. */
static void reward_range(const Plan *plan, const double *scores, double range[3])
{
    range[0] = INFINITY;
    range[1] = 0;
    range[2] = -INFINITY;
    for (size_t i = 0; i < plan->step_count; i++) {
        double s = scores[plan->step_examples[i]];
        range[0] = fmin(range[0], s);
        range[1] += s / (double)plan->step_count;
        range[2] = fmax(range[2], s);
    }
}

static int accumulate(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err)
{
    (void)m;
    const Examples *e = &p->examples;
    int64_t records = 0;
    PairCounts counts = {0};
    Scores x = {memory_zalloc(e->count, sizeof *x.score), memory_zalloc(e->count, sizeof *x.gradient)};
    plan_step(&p->plan, step);
    int status = pass_scores(p, &p->plan, &x, err);
    for (size_t i = 0; i < p->plan.step_count; i++)
        records += e->items[p->plan.step_examples[i]].rank == 0;
    for (size_t i = 0; i < p->plan.step_count && status == 0; i++) {
        if (e->items[p->plan.step_examples[i]].rank != 0)
            continue;
        size_t record = examples_group(e, p->plan.step_examples[i]);
        out->loss += record_loss(e, record, x.score, 1 / (double)records, x.gradient, &counts) / (double)records;
    }
    out->extra[0] = (double)counts.right / (double)counts.pairs;
    out->extra[1] = counts.apart / (double)counts.pairs;
    reward_range(&p->plan, x.score, out->extra + 2);
    if (status == 0)
        status = posttrain_pass(p, &p->passes, &p->plan, POSTTRAIN_BACK, score_gradients, &x, err);
    posttrain_once(p, out);
    free(x.score);
    free(x.gradient);
    return status;
}

static int evaluate(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err)
{
    PostTrain *p = context;
    (void)m;
    const Examples *e = &p->held_out;
    Scores x = {.score = memory_zalloc(e->count, sizeof *x.score)};
    PairCounts counts = {0};
    plan_all(&p->held_out_plan);
    int status = pass_scores(p, &p->held_out_plan, &x, err);
    double sum = 0;
    for (size_t r = 0; r < e->groups && status == 0; r++)
        sum += record_loss(e, r, x.score, 0, NULL, &counts);
    free(x.score);
    *loss = sum / (double)e->groups;
    *score = (double)counts.right / (double)counts.pairs;
    metrics_number(log, "val_accuracy", *score);
    return status;
}

/* Writes the records that wait: `scores` beside `responses`, or `score` beside `messages`. */
static int write_waiting(Error *err)
{
    int status = scorer_run(&rm.scorer, err);
    Buffer value = {0}, line = {0};
    for (size_t i = 0; i < rm.count; i++) {
        const struct Scored *w = &rm.waiting[i];
        value.length = line.length = 0;
        buffer_string(&value, w->chat ? "" : "[");
        for (size_t k = 0; k < w->count && status == 0; k++) {
            buffer_string(&value, k ? "," : "");
            json_write_number(&value, (double)rm.scorer.scores[w->first + k]);
        }
        buffer_string(&value, w->chat ? "" : "]");
        JsonField old = {.type = w->old_length ? JSON_NUMBER : JSON_ABSENT, .raw = {w->line + w->old_begin, w->old_length}, .key_begin = w->key_begin};
        json_record_set(&line, (Span){w->line, w->length}, &old, w->chat ? "score" : "scores", (Span){value.data, value.length});
        buffer_byte(&line, '\n');
        if (status == 0)
            status = writer_write(rm.out, line.data, line.length, err);
        free(w->line);
    }
    buffer_free(&value);
    buffer_free(&line);
    rm.count = 0;
    scorer_clear(&rm.scorer);
    return status;
}

static int score_record(void *context, Document *d, Error *err)
{
    (void)context;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err), *prompt = record ? json_get(record, "prompt") : NULL;
    const JsonValue *responses = record ? json_get(record, "responses") : NULL, *messages = record ? json_get(record, "messages") : NULL;
    if (!record)
        return DOCUMENT_MALFORMED;
    bool chat = !responses && messages;
    if (!chat && (!prompt || !json_is(responses, JSON_ARRAY))) {
        error_set(err, "neither candidates (prompt, responses) nor a chat (messages)");
        return DOCUMENT_MALFORMED;
    }
    size_t n = chat ? 1 : responses->count, first = rm.scorer.count;
    for (size_t i = 0; i < n; i++) {
        ChatInput in = {.messages = chat ? messages : prompt, .answer = chat ? NULL : &responses->items[i], .tools = json_get(record, "tools")};
        if (scorer_add(&rm.scorer, &in, err) < 0) {
            rm.scorer.count = first; /* the record is left out whole */
            rm.scorer.tokens.count = first ? (size_t)rm.scorer.offsets[first] : 0;
            return DOCUMENT_MALFORMED;
        }
    }
    const JsonField *old = &d->fields[chat ? 3 : 2];
    bool there = old->type != JSON_ABSENT;
    rm.waiting = memory_grow(rm.waiting, &rm.capacity, rm.count + 1, sizeof *rm.waiting);
    rm.waiting[rm.count++] = (struct Scored){.line = memory_copy(d->raw.data, d->raw.length), .length = d->raw.length, .first = first, .count = n, .chat = chat,
                                             .old_begin = there ? (size_t)(old->raw.data - d->raw.data) : 0, .old_length = there ? old->raw.length : 0,
                                             .key_begin = old->key_begin};
    return scorer_full(&rm.scorer) ? write_waiting(err) : 0;
}

static int score(const char *const *files, Error *err)
{
    static const char *const fields[] = {"scores", "score", NULL};
    double begin = clock_seconds();
    Device *d = device_open(self.common.device, (int)self.common.threads, err);
    if (!d || scorer_open(&rm.scorer, self.model_path, self.adapter, self.max_length, dtype_of_option(self.common.dtype), d, err) < 0 ||
        !(rm.out = writer_open(self.common.output, err))) {
        device_close(d);
        return -1;
    }
    double ready = clock_seconds();
    Common plain = self.common;
    plain.threads = 1;
    DocumentReader r = {.common = &plain, .files = files, .fields = fields, .text_optional = true, .emit = score_record};
    int status = document_run(&r, err);
    document_report(&r);
    if (status < 0 && !r.input_failed)
        scorer_clear(&rm.scorer);
    if (write_waiting(status == 0 ? err : NULL) < 0)
        status = -1;
    free(rm.waiting);
    if (rm.scorer.truncated)
        message("%" PRIu64 " texts were cut at %" PRId64 " tokens (--max-length)", rm.scorer.truncated, self.max_length);
    if (status < 0)
        writer_abandon(rm.out);
    else
        status = writer_close(rm.out, err);
    const StatsItem items[] = {{"records", (double)r.documents}, {"skipped", (double)r.skipped}, {"tokens", (double)rm.scorer.scored}, {"loading_seconds", ready - begin}};
    if (status == 0)
        status = stats_write(self.common.stats, items, 4, begin, err);
    scorer_close(&rm.scorer);
    device_close(d);
    return status;
}

static int calibrate(const char *const *files, Error *err)
{
    double begin = clock_seconds();
    Device *d = device_open(self.common.device, (int)self.common.threads, err);
    const ExampleOptions how = {.kind = EXAMPLES_RANKING, .max_length = self.max_length};
    int status = d ? scorer_open(&rm.scorer, self.model_path, self.adapter, self.max_length, dtype_of_option(self.common.dtype), d, err) : -1;
    if (status == 0) {
        rm.out = writer_open(self.common.output, err);
        status = rm.out ? calibration(&rm.scorer, &how, &self.common, files, rm.out, err) : -1;
        if (status < 0 && rm.out)
            writer_abandon(rm.out);
        else if (status == 0)
            status = writer_close(rm.out, err);
        scorer_close(&rm.scorer);
    }
    device_close(d);
    return status == 0 ? stats_write(self.common.stats, NULL, 0, begin, err) : -1;
}

/* transformers reads the score at the last token that is not padding, so padding must have a token. */
static int need_padding(PostTrain *p, Error *err)
{
    (void)err;
    ModelConfig *c = &p->model.config;
    if (c->pad_token_id < 0)
        c->pad_token_id = tokenizer_pad(p->coder.tokenizer) >= 0 ? tokenizer_pad(p->coder.tokenizer) : 0;
    return 0;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "rmtrain", .synopsis = "rmtrain --model DIR [OPTION]… -o DIR [FILE]…\nrmtrain --score|--calibration --model DIR [-o FILE] [FILE]…",
                     .summary = "Train a reward model on preferences or rankings; --score applies one.", .options = options};
    self.train.weight_decay = 0;
    self.train.lr = 1e-4;
    self.layout = "apart";
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    if (rm.score || rm.calibration) {
        if (!self.model_path)
            return message_usage("--model DIR is needed");
        if (rm.score && rm.calibration)
            return message_usage("--score or --calibration, not both");
        status = (rm.score ? score : calibrate)(set.operands, &err) < 0 ? message_failed(&err) : 0;
        option_free(&set);
        return status;
    }
    static const PostTrainTool tool = {.kind = EXAMPLES_RANKING, .num_labels = 1, .prepare = need_padding, .accumulate = accumulate,
                                       .evaluate = evaluate, .extra_names = extras, .ahead = true};
    return posttrain_run(&self, &set, &tool);
}
