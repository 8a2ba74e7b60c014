#include "train/posttrain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/stop.h"
#include "model/adapter.h"
#include "model/folder.h"
#include "train/cost.h"
#include "train/same.h"

static const char *const free_options[] = {"rows", NULL};

/* The options that are always needed; -1 to go on, else the exit status. */
static int options_check(const PostTrain *p)
{
    if (!p->common.output && !p->common.dry_run)
        return message_usage("-o DIR is needed");
    if (!p->model_path)
        return message_usage("--model DIR is needed");
    if (p->options_of_grid.ranks > 0 && !p->options_of_grid.choice)
        return message_usage("--ranks goes with --grid auto; a grid says it by --tp, --cp, --pp and --dp");
    if (p->train.patience > 0 && (!p->val || p->train.eval_every == 0))
        return message_usage("--patience goes with --val and --eval-every");
    if (p->train.merge && !p->lora.rank)
        return message_usage("--merge goes with --lora");
    Error err;
    if (train_check(&p->train, &err) < 0)
        return message_usage("%s", err.text);
    return train_finished(p->set, &p->common, free_options);
}

/* The longest ranking that fits a row; those that do not are told. */
static int64_t longest_row(const PostTrain *p)
{
    int64_t longest = 0;
    size_t apart = 0;
    for (size_t i = 0; i < p->examples.groups; i++) {
        int64_t row = examples_row(&p->examples, i);
        if (row == 0 || row > p->max_length)
            apart++;
        else
            longest = row > longest ? row : longest;
    }
    if (apart)
        message("%zu of %zu rankings do not fit one row of %" PRId64 " tokens (--max-length): their answers stand apart", apart, p->examples.groups, p->max_length);
    return longest;
}

static int read_records(PostTrain *p, const char *const *files, Error *err)
{
    char *base, *adapter;
    int status = folder_base(p->model_path, p->adapter, &base, &adapter, err);
    if (status == 0) {
        char *own = memory_format("%s/tokenizer.json", adapter ? adapter : base);
        status = chat_coder_open(&p->coder, adapter && access(own, F_OK) == 0 ? adapter : base, err);
        free(own);
    }
    free(base);
    free(adapter);
    if (status < 0)
        return -1;
    const ExampleOptions how = {.kind = p->tool->kind, .max_length = p->max_length, .split = p->packing && strcmp(p->packing, "bfd-split") == 0};
    if (examples_read(&p->examples, &p->coder, &how, &p->common, files, err) < 0)
        return -1;
    const char *held_out[] = {p->val, NULL};
    if (p->val && examples_read(&p->held_out, &p->coder, &how, &p->common, held_out, err) < 0)
        return -1;
    /* Sequences no longer than the longest example, so that short chats are not packed into long stretches of padding. */
    int64_t longest = 64;
    for (size_t i = 0; i < p->examples.count; i++)
        longest = p->examples.items[i].count > longest ? p->examples.items[i].count : longest;
    for (size_t i = 0; i < p->held_out.count; i++)
        longest = p->held_out.items[i].count > longest ? p->held_out.items[i].count : longest;
    int64_t row = p->layout && strcmp(p->layout, "row") == 0 ? longest_row(p) : 0;
    longest = row > longest ? row : longest;
    int64_t length = longest * 2 < p->max_length ? longest * 2 : p->max_length > longest ? p->max_length : longest;
    if (length > p->rows && longest <= p->rows)
        length = p->rows;
    p->length = length;
    p->row = row > 0 ? length : 0;
    return 0;
}

static void close_records(PostTrain *p)
{
    examples_free(&p->examples);
    examples_free(&p->held_out);
    if (p->coder.tokenizer)
        chat_coder_close(&p->coder);
}

void posttrain_plan(PostTrain *p, Plan *plan, const Examples *e, const Grid *g)
{
    bool training = e == &p->examples;
    int64_t length = p->length, chunks = 2 * g->extent[GRID_CP];
    if (chunks > 2)
        length = (length + chunks - 1) / chunks * chunks;
    plan_open(plan, e, training ? p->epochs : 1, p->batch_size, length, p->rows, training ? (uint64_t)p->common.seed : 0, g, p->train.shard > 1);
    plan->row = training ? p->row : 0;
    plan->grouped = p->tool->kind != EXAMPLES_CHAT;
}

/* The adapters that are trained: as the options say, or those of an adapter to go on with. */
static int adapters_plan(PostTrain *p, const char *base, const char *adapter_path, Error *err)
{
    LoraPlan *l = &p->plan_of_adapters;
    *l = (LoraPlan){.rank = p->lora.rank, .alpha = p->lora.alpha, .rslora = p->lora.rslora};
    if (adapter_path) {
        Adapter a;
        if (adapter_open(&a, adapter_path, err) < 0)
            return -1;
        *l = a.plan;
        a.plan = (LoraPlan){0};
        adapter_close(&a);
        if (l->rank != p->lora.rank)
            return error_set(err, "--lora %" PRId64 ": the adapter %s has rank %" PRId64 ", with which training goes on", p->lora.rank, adapter_path, l->rank);
    } else if (lora_targets(&l->targets, p->lora.targets, err) < 0) {
        return -1;
    }
    if (p->lora.dropout >= 0)
        l->dropout = p->lora.dropout;
    free(l->base);
    char *whole = realpath(base, NULL);
    l->base = whole ? whole : memory_string(base);
    return 0;
}

int posttrain_base(PostTrain *p, char **base, char **adapter, Error *err)
{
    int status = folder_base(p->model_path, p->adapter, base, adapter, err);
    return status == 0 && p->lora.rank ? adapters_plan(p, *base, *adapter, err) : status;
}

int posttrain_part(PostTrain *p, ModelPart *part, const char *folder, Error *err)
{
    char *path = memory_format("%s/config.json", folder);
    ModelConfig c;
    int status = config_read(&c, path, err);
    free(path);
    return status == 0 ? part_of_grid(part, &c, p->grid, &(PartStages){(int)p->options_of_grid.virtual_stages, p->options_of_grid.ends_fewer}, err) : status;
}

int posttrain_has_head(const PostTrain *p, const ModelConfig *c, const char *path, Error *err)
{
    return !p->tool->num_labels && c->num_labels ? error_set(err, "%s: a reward model has no probabilities", path) : 0;
}

static int load_model(PostTrain *p, Error *err)
{
    char *base, *adapter;
    int status = posttrain_base(p, &base, &adapter, err);
    ModelPart part;
    if (status == 0)
        status = posttrain_part(p, &part, base, err);
    const FolderLoad how = {.num_labels = p->tool->num_labels, .seed = (uint64_t)p->common.seed, .part = &part, .adapter = adapter,
                            .lora = p->lora.rank ? &p->plan_of_adapters : NULL};
    if (status == 0)
        status = folder_load(&p->model, base, &how, p->device, err);
    if (status == 0)
        status = posttrain_has_head(p, &p->model.config, adapter ? adapter : base, err);
    if (status == 0)
        status = train_prepare(&p->model, &p->train, &p->common, err);
    if (status == 0 && tokenizer_size(p->coder.tokenizer) > p->model.config.vocab_size)
        status = error_set(err, "%s: the tokenizer has %" PRId64 " tokens, the model %" PRId64, base, tokenizer_size(p->coder.tokenizer), p->model.config.vocab_size);
    free(base);
    free(adapter);
    return status;
}

/* Of the whole model, of which this rank may have a part. */
static void tell_adapters(const Model *m)
{
    ModelPart all = part_whole(&m->config);
    ModelParameters whole;
    size_t trained = 0, count = 0;
    if (param_open(&whole, &m->config, &all, NULL, NULL, NULL) < 0)
        return;
    for (size_t i = 0; i < whole.table.count; i++) {
        count += whole.table.items[i].count;
        trained += whole.table.items[i].trainable ? whole.table.items[i].count : 0;
    }
    param_close(&whole);
    message("%zu of %zu parameters are trained (%.2f %%)", trained, count, 100.0 * (double)trained / (double)count);
}

/* As large as the largest step, or what looks at the held-out records. */
static int open_passes(PostTrain *p, Error *err)
{
    PlanMost most = plan_most(&p->plan);
    if (p->val) {
        plan_all(&p->held_out_plan);
        most.rows = plan_rows(&p->held_out_plan) > most.rows ? plan_rows(&p->held_out_plan) : most.rows;
    }
    p->model.params.table.lends = !p->lora.rank && cost_lends(p->grid->extent, (int)p->train.shard) && most.one_pass;
    if (passes_open(&p->passes, &p->model, p->grid, most.rows, MODE_TRAIN, err) < 0)
        return -1;
    return p->neftune > 0 || p->plan_of_adapters.dropout > 0 ? slot_randomise(&p->passes.slots[0], p->neftune, err) : 0;
}

static int posttrain_open(PostTrain *p, Error *err)
{
    p->device = grid_device(p->grid, p->common.device, (int)p->common.threads, err);
    if (!p->device || comm_agree(&p->grid->world, load_model(p, err), err) < 0)
        return -1;
    posttrain_plan(p, &p->plan, &p->examples, p->grid);
    if (p->val)
        posttrain_plan(p, &p->held_out_plan, &p->held_out, p->grid);
    p->train.steps = p->plan.steps;
    if (p->lora.rank && !p->common.quiet)
        tell_adapters(&p->model);
    /* Generation must stop where an answer ends. */
    ModelConfig *c = &p->model.config;
    bool known = false;
    for (int i = 0; i < c->eos_count; i++)
        known |= c->eos_token_id[i] == p->coder.end_of_turn;
    if (!known && c->eos_count < CONFIG_MAX_EOS)
        c->eos_token_id[c->eos_count++] = p->coder.end_of_turn;
    return p->tool->prepare && p->tool->prepare(p, err) < 0 ? -1 : open_passes(p, err);
}

static void posttrain_close(PostTrain *p)
{
    passes_close(&p->passes);
    if (p->plan.examples)
        plan_close(&p->plan);
    if (p->held_out_plan.examples)
        plan_close(&p->held_out_plan);
    model_close(&p->model);
    lora_plan_free(&p->plan_of_adapters);
    device_close(p->device);
}

/* The context of a pass's work. */
typedef struct PostPass {
    PostTrain *p;
    Plan *plan;
    PostTrainHead head;
    void *context;
} PostPass;

static int load(void *context, int64_t pass, Slot *s, Error *err)
{
    PostPass *w = context;
    s->random.draw = 0;
    if (w->p->step >= 0)
        slot_draws(s, (uint64_t)w->p->common.seed, w->p->step);
    return slot_load(s, plan_batch(w->plan, pass), err);
}

static int head(void *context, int64_t pass, Slot *s, Error *err)
{
    PostPass *w = context;
    int status = w->head(w->p, s->model, s, plan_batch(w->plan, pass), pass, w->context, err);
    return status == 0 ? model_check(s->model, err) : status;
}

int posttrain_pass(PostTrain *p, Passes *through, Plan *plan, PostTrainWay way, PostTrainHead with, void *context, Error *err)
{
    PostPass w = {p, plan, with, context};
    const PassWork work = {.context = &w, .load = load, .head = head, .last = way != POSTTRAIN_FORWARD};
    int64_t passes = plan_passes(plan);
    if (way == POSTTRAIN_BACK && passes_kept(through, passes))
        return passes_back(through, &work, err);
    return passes_run(through, passes, plan_rows(plan), way != POSTTRAIN_FORWARD, &work, err);
}

static int accumulate(void *context, Model *m, int64_t step, TrainStep *out, Error *err)
{
    PostTrain *p = context;
    p->step = step;
    int status = p->tool->accumulate(p, m, step, out, err);
    p->step = -1;
    out->tokens = p->grid->rank == 0 ? plan_tokens(&p->plan) : 0;
    return status;
}

/* A stage without a head has nothing to add. */
int posttrain_sum(PostTrain *p, double *values, size_t n, Error *err)
{
    for (size_t i = 0; i < n; i++)
        p->astray |= !isfinite(values[i]);
    int status = comm_sum_host(&p->grid->group[GRID_DATA], values, n, err);
    return status == 0 ? comm_sum_host(&p->grid->group[GRID_PP], values, n, err) : status;
}

void posttrain_once(PostTrain *p, TrainStep *out)
{
    out->shared = true;
    out->astray = p->astray;
    p->astray = false;
    if (p->grid->rank == 0)
        return;
    out->loss = 0;
    memset(out->extra, 0, sizeof out->extra);
}

/* One rank: a process, or a thread of one. */
static int rank_main(void *context, Grid *grid)
{
    PostTrain p = *(const PostTrain *)context;
    p.grid = grid;
    p.step = -1;
    p.common.quiet |= grid->rank > 0;
    Error err;
    int status = 0;
    bool reads = !p.coder.tokenizer;
    if (p.options_of_grid.choice && grid->rank == 0 && grid_launched() > 1)
        grid_options_tell(&p.options_of_grid);
    if ((!p.common.dry_run && (grid_watch(grid, p.options_of_grid.comm_timeout, p.common.output, &err) < 0 || ranks_same_options(grid, p.set, &err) < 0)) ||
        (reads && comm_agree(&grid->world, read_records(&p, p.set->operands, &err), &err) < 0)) {
        status = grid_failed(grid, &err);
    } else if (p.common.dry_run) {
        if (grid->rank == 0 && posttrain_look_ahead(&p, grid->extent, true, &err) < 0)
            status = grid_failed(grid, &err);
    } else if (posttrain_open(&p, &err) < 0) {
        status = grid_failed(grid, &err);
    } else {
        /* With adapters alone no gradient of the other weights is computed: a third less. */
        const DataNumber records = {p.set->operand_count ? p.set->operands[0] : "-", examples_number(&p.examples)};
        TrainTask task = {.context = &p, .data = &records, .data_count = 1, .grid = grid, .accumulate = accumulate,
                          .evaluate = p.val ? p.tool->evaluate : NULL, .free_options = free_options, .extra_names = p.tool->extra_names, .sequence_length = p.length, .passes = p.lora.rank ? 2 : 3, .through = &p.passes};
        status = train_run(p.set, &p.common, &p.train, &p.model, &task);
    }
    if (p.tool->finish)
        p.tool->finish(&p);
    posttrain_close(&p);
    if (reads)
        close_records(&p);
    return status;
}

/* Ranks that are threads share the records that this process has read. */
static int run(PostTrain *p, Error *err)
{
    const char *const *files = p->set->operands;
    static const int none[GRID_DIMENSIONS] = {1, 1, 1, 1};
    const int64_t *e = p->options_of_grid.extent;
    int launched = grid_launched();
    if (launched > 1 && (!*files || strcmp(*files, "-") == 0))
        return error_set(err, "several processes cannot read standard input: give files");
    if ((launched == 1 || p->options_of_grid.choice) && read_records(p, files, err) < 0)
        return -1;
    if (p->options_of_grid.choice && posttrain_look_ahead(p, none, false, err) < 0)
        return -1;
    const int extent[GRID_DIMENSIONS] = {(int)e[GRID_TP], (int)e[GRID_CP], (int)e[GRID_PP], (int)e[GRID_DP]};
    if (!p->common.dry_run || launched > 1)
        return grid_run_within(extent, p->options_of_grid.comm_timeout, rank_main, p, err);
    const int whole[GRID_DIMENSIONS] = {extent[GRID_TP], extent[GRID_CP], extent[GRID_PP], extent[GRID_DP] > 0 ? extent[GRID_DP] : 1};
    return posttrain_look_ahead(p, whole, true, err);
}

int posttrain_run(PostTrain *p, OptionSet *set, const PostTrainTool *tool)
{
    p->tool = tool;
    p->set = set;
    int status = options_check(p);
    if (status >= 0)
        return status;
    Error err;
    stop_install(); /* a signal while things are loaded is answered after the first step */
    status = run(p, &err);
    if (status < 0)
        status = message_failed(&err);
    close_records(p);
    option_free(set);
    return status;
}

int posttrain_main(PostTrain *p, OptionSet *set, int argc, char **argv, const PostTrainTool *tool)
{
    int status = option_main(set, argc, argv);
    return status >= 0 ? status : posttrain_run(p, set, tool);
}
