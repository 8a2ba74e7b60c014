/* scalefit: scaling laws from tables of runs, and plans for large ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "io/stats.h"
#include "scalefit.h"

static Settings self = {.common = COMMON_DEFAULT, .window = "2", .tolerance = 0.1, .x = "flops", .y = "loss", .peak = 989, .mfu = 0.4, .gpus = 1, .bits = 16,
                        .bytes_weights = 14, .checkpoint_seconds = 60, .mtbf_hours = 50677, .availability = 1, .sequence = 2048, .batch = 1, .head_dim = 64,
                        .aspect = 64, .bootstrap = 1000, .objective = "huber", .first_law = "compute", .weights = "w_", .tied = true, .bos = -1, .eos = -1, .engine = "lean",
                        .slow = 1.1, .shard = -1, .top = 10, .rule = "step", .ratio = 1.5, .count = 7};

static const Option options[] = {
    {NULL, 0, OPTION_HEADING, 0, 0, "isoflop, power, parametric, downstream, mixture, repeated:", 0, 0, 0},
    {"where", 0, OPTION_LIST, &self.wheres, "COND", "only rows with COL=VAL, COL<X, COL>=X … (repeatable)", 0, 0, 0},
    {"columns", 0, OPTION_LIST, &self.renames, "A=B", "read the table's column A as B (repeatable)", 0, 0, 0},
    {"budget", 0, OPTION_LIST, &self.budgets, "FLOPS", "predict for this compute (repeatable)", 0, 0, 0},
    {"plot", 0, OPTION_STRING, &self.plot, "FILE", "draw to FILE.svg or FILE.png, with gnuplot", 0, 0, 0},
    {"json", 0, OPTION_FLAG, &self.json, 0, "a JSON object instead of text (plan too)", 0, 0, 0},
    {"bootstrap", 0, OPTION_INTEGER, &self.bootstrap, "N", "samples for intervals, 0: none (default 1000)", 0, 0, 1e6},
    OPTION_MORE_HEADING("isoflop, power, parametric, downstream:"),
    {"window", 0, OPTION_STRING, &self.window, "N|all", "isoflop: neighbours a side of the lowest loss that the parabola is fitted to (default 2)", 0, 0, 0},
    {"tolerance", 0, OPTION_NUMBER, &self.tolerance, "X", "isoflop: runs of one budget differ by this share (default 0.1)", 0, 0, 10},
    {"x", 0, OPTION_STRING, &self.x, "COL", "power: x of y = k·x^a (default flops)", 0, 0, 0},
    {"y", 0, OPTION_STRING, &self.y, "COL", "power: y of it (default loss)", 0, 0, 0},
    {"objective", 0, OPTION_CHOICE, &self.objective, "WHAT", "parametric: huber or likelihood, with a free scale (default huber)", "huber|likelihood", 0, 0},
    {"task", 0, OPTION_LIST, &self.tasks, "NAME", "downstream: columns NAME_bpb (_nll, _loss) and NAME_acc (repeatable; default: all there are)", 0, 0, 0},
    {"nll", 0, OPTION_STRING, &self.nll, "COL", "downstream: loss of the right answer (default nll)", 0, 0, 0},
    {"accuracy", 0, OPTION_STRING, &self.accuracy, "COL", "downstream: share of right answers (default accuracy)", 0, 0, 0},
    {"chance", 0, OPTION_LIST, &self.chances, "X|TASK=X", "downstream: accuracy of guessing (repeatable; default: fitted)", 0, 0, 0},
    {"first", 0, OPTION_LIST, &self.firsts, "COND", "downstream: rows of the first step, as --where; the others are predicted (repeatable)", 0, 0, 0},
    {"first-law", 0, OPTION_CHOICE, &self.first_law, "LAW", "downstream: the loss from compute, or from size: parameters and tokens (default compute)", "compute|size", 0, 0},
    {"at", 0, OPTION_LIST, &self.points, "N,D[,U]", "downstream, repeated: predict for parameters, tokens (repeated: and unique ones; repeatable)", 0, 0, 0},
    OPTION_MORE_HEADING("mixture, repeated:"),
    {"shares", 0, OPTION_STRING, &self.weights, "PREFIX", "columns that begin so are shares of a mix (default w_)", 0, 0, 0},
    {"target", 0, OPTION_LIST, &self.targets, "COL", "loss to fit (repeatable; default: all columns that begin with loss_)", 0, 0, 0},
    {"test", 0, OPTION_LIST, &self.tests, "TABLE", "other runs, of which the laws' ranks and errors are told (repeatable)", 0, 0, 0},
    {"mixture", 0, OPTION_LIST, &self.mixtures, "NAME=X,…", "predict for this mix (repeatable)", 0, 0, 0},
    {"aim", 0, OPTION_LIST, &self.aims, "NAME=X,…", "weights of the losses that the best mix makes least (default: equal)", 0, 0, 0},
    {"law", 0, OPTION_STRING, &self.law, "LAW", "what predicts: exponential or linear (default exponential); repeated: A,B,E,ALPHA,BETA that are given", 0, 0, 0},
    {"lifetimes", 0, OPTION_STRING, &self.lifetimes, "RD,RN", "repeated: with --law: nothing is fitted, --at is predicted", 0, 0, 0},
    {"untied", 0, OPTION_FLAG, &self.untied, 0, "repeated: alpha and beta differ (default: they are one)", 0, 0, 0},
    OPTION_MORE_HEADING("plan, shape, grid:"),
    {"params", 0, OPTION_NUMBER, &self.params, "N", "parameters; shape: without the input embedding", 0, 0, 1e20},
    {"vocab", 0, OPTION_INTEGER, &self.vocab, "V", "size of the vocabulary (shape needs it)", 0, 0, 1e9},
    {"tokenizer", 0, OPTION_STRING, &self.tokenizer, "DIR", "shape, grid: take --vocab and --eos from there", 0, 0, 0},
    {"seq-len", 0, OPTION_INTEGER, &self.sequence, "T", "tokens a sequence (default 2048)", 0, 1, 1e9},
    OPTION_MORE_HEADING("plan:"),
    {"tokens", 0, OPTION_NUMBER, &self.tokens, "N", "training tokens", 0, 0, 1e24},
    {"model-config", 0, OPTION_STRING, &self.model_config, "FILE", "take sizes from a config.json, a model or a run, which says the rest too", 0, 0, 0},
    {"tflops", 0, OPTION_NUMBER, &self.peak, "X", "peak of a GPU in TFLOP/s (default 989: H100, bf16)", 0, 1e-9, 1e9},
    {"mfu", 0, OPTION_NUMBER, &self.mfu, "X", "share of the peak that is used (default 0.4)", 0, 1e-6, 1},
    {"gpus", 0, OPTION_NUMBER, &self.gpus, "N", "how many GPUs (default 1)", 0, 1, 1e9},
    {"availability", 0, OPTION_NUMBER, &self.availability, "X", "share of the wall time that trains (default 1)", 0, 1e-6, 1},
    {"bits", 0, OPTION_NUMBER, &self.bits, "Q", "bits a weight in inference (default 16)", 0, 1, 64},
    {"layers", 0, OPTION_INTEGER, &self.layers, "N", "layers; with --hidden: activations, attention, KV cache", 0, 0, 1e6},
    {"hidden", 0, OPTION_INTEGER, &self.hidden, "N", "width", 0, 0, 1e9},
    {"heads", 0, OPTION_INTEGER, &self.heads, "N", "query heads (default: width / 128)", 0, 0, 1e6},
    {"kv-heads", 0, OPTION_INTEGER, &self.kv_heads, "N", "key and value heads (default: as many)", 0, 0, 1e6},
    {"intermediate", 0, OPTION_INTEGER, &self.intermediate, "N", "width of the feed-forward layer (default: 8/3 of the width)", 0, 0, 1e9},
    {"batch", 0, OPTION_INTEGER, &self.batch, "N", "sequences at once (default 1)", 0, 1, 1e9},
    {"checkpoint-bytes", 0, OPTION_NUMBER, &self.bytes_weights, "X", "bytes a parameter in a checkpoint (default 14)", 0, 1, 100},
    {"checkpoint-seconds", 0, OPTION_NUMBER, &self.checkpoint_seconds, "S", "for which a save blocks (default 60)", 0, 1e-6, 1e9},
    {"restart-seconds", 0, OPTION_NUMBER, &self.restart_seconds, "S", "that a restart takes (default 0)", 0, 0, 1e9},
    {"mtbf-hours", 0, OPTION_NUMBER, &self.mtbf_hours, "H", "between two failures of a GPU (default 50677: Llama 3's)", 0, 1e-3, 1e12},
    {"price", 0, OPTION_NUMBER, &self.price, "X", "of a GPU hour", 0, 0, 1e9},
    {"hours", 0, OPTION_NUMBER, &self.hours, "H", "GPU hours that a run took: its MFU", 0, 0, 1e15},
    {"published", 0, OPTION_FLAG, &self.published, 0, "what published counts, laws and rules say, too; with --grid of that grid", 0, 0, 0},
    {"unique-tokens", 0, OPTION_NUMBER, &self.unique_tokens, "N", "--published: of --tokens that are unique", 0, 0, 1e24},
    {"base-hidden", 0, OPTION_NUMBER, &self.base_hidden, "N", "muP from a model of this width, tuned at --lr", 0, 0, 1e9},
    {"noise-scale", 0, OPTION_NUMBER, &self.noise_scale, "N", "critical batch in tokens: steps and tokens at --batch-tokens", 0, 0, 1e15},
    {"gradient-norms", 0, OPTION_STRING, &self.gradient_norms, "B,G,C,H", "it from squared gradient norms G, H over B < C tokens", 0, 0, 0},
    OPTION_MORE_HEADING("plan --layout:"),
    {"layout", 0, OPTION_FLAG, &self.layout, 0, "search the grids of --gpus GPUs", 0, 0, 0},
    {"grid", 0, OPTION_STRING, &self.grid, "T,C,P,D", "this one alone", 0, 0, 0},
    {"batch-tokens", 0, OPTION_NUMBER, &self.batch_tokens, "N", "tokens a step (default: 16 · 2^20)", 0, 1, 1e15},
    {"micro-batch", 0, OPTION_INTEGER, &self.micro_batch, "N", "sequences a pass (default: the best)", 0, 0, 1e6},
    {"virtual-stages", 0, OPTION_INTEGER, &self.virtual_stages, "N", "of a pipeline rank (default: the best)", 0, 0, 64},
    {"recompute", 0, OPTION_CHOICE, &self.recompute, "WHAT", "none, norms or layer (default: the best)", "none|norms|layer", 0, 0},
    {"shard", 0, OPTION_INTEGER, &self.shard, "N", "what is cut over the data group: 1 states, 2 gradients too, 3 weights too (default: the best)", 0, -1, 3},
    {"tp-most", 0, OPTION_INTEGER, &self.tp_most, "N", "tensor-parallel ranks at most (default: those of a node)", 0, 0, 65536},
    {"engine", 0, OPTION_CHOICE, &self.engine, "WHAT", "whose memory is counted: lean (bf16 weights, as Megatron-LM) or lmpipe (default lean)", "lean|lmpipe", 0, 0},
    {"top", 0, OPTION_INTEGER, &self.top, "N", "layouts that are printed (default 10)", 0, 1, 1e6},
    {"cluster", 0, OPTION_LIST, &self.cluster, "KEY=X,…", "what differs from H100 nodes: node=8 memory=80 memory-bandwidth=3350 intra-bandwidth=450 "
     "inter-bandwidth=50 (GB, GB/s a GPU) intra-latency=3 inter-latency=10 (µs) products=0.62 attention=0.5 links=0.8 (shares reached) overlap=0.25 spread=0.01 (repeatable)", 0, 0, 0},
    {"slow", 0, OPTION_NUMBER, &self.slow, "X", "simulate with a stage that takes X times as long too (default 1.1)", 0, 0.1, 100},
    OPTION_MORE_HEADING("shape, grid:"),
    {"rule", 0, OPTION_CHOICE, &self.rule, "RULE", "of batch and learning rate: step (law), deepseek, olmo, width (0.3 / width; default step)", "step|deepseek|olmo|width", 0, 0},
    {"sizes", 0, OPTION_INTEGER, &self.count, "N", "how many of a --budget that names none (default 7)", 0, 3, 100},
    {"ratio", 0, OPTION_NUMBER, &self.ratio, "X", "of a size to the one below (default 1.5)", 0, 1.01, 100},
    {"around", 0, OPTION_STRING, &self.around, "K,A", "sizes lie around K·C^A (default 0.0913,0.5: 20 tokens a parameter)", 0, 0, 0},
    {"lr", 0, OPTION_NUMBER, &self.lr, "X", "of every run, instead of the rule's", 0, 0, 1e6},
    {"train", 0, OPTION_STRING, &self.train, "OPTIONS", "of pretrain for every run: '--data PREFIX --val PREFIX'", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&self.common),
    {"head-dim", 0, OPTION_INTEGER, &self.head_dim, "N", "size of a head (default 64)", 0, 2, 256},
    {"aspect", 0, OPTION_INTEGER, &self.aspect, "N", "width for each layer (default 64)", 0, 1, 4096},
    {"tied", 0, OPTION_FLAG, &self.tied, 0, "one table for input and output (default; --no-tied: two)", 0, 0, 0},
    {"bos", 0, OPTION_INTEGER, &self.bos, "ID", "bos_token_id (default: none)", 0, 0, 1e9},
    {"eos", 0, OPTION_INTEGER, &self.eos, "ID", "eos_token_id (default: none)", 0, 0, 1e9},
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_END(&self.common),
};

static int condition_check(const char *option, const char *text, Error *err)
{
    size_t name;
    char op[3];
    const char *value;
    return where_split(text, &name, op, &value) ? 0 : error_set(err, "--%s %s is not COLUMN=VALUE, COLUMN<X or COLUMN>X", option, text);
}

int parse_numbers(const char *option, const char *text, double *out, int n, Error *err)
{
    const char *at = text;
    for (int i = 0; i < n; i++) {
        char *end;
        out[i] = strtod(at, &end);
        if (end == at || !(out[i] > 0 && isfinite(out[i])) || *end != (i + 1 < n ? ',' : 0))
            return error_set(err, "--%s %s: %d positive numbers with commas between them are wanted", option, text, n);
        at = end + 1;
    }
    return 0;
}

static int check_numbers(const char *command, Error *err)
{
    char *end, sizes = strcmp(command, "grid") == 0 ? ':' : 0;
    for (size_t i = 0; i < self.budgets.count; i++)
        if (!(strtod(self.budgets.values[i], &end) > 0) || !isfinite(strtod(self.budgets.values[i], NULL)) || (*end && *end != sizes))
            return error_set(err, "--budget %s is not a positive number", self.budgets.values[i]);
    for (size_t i = 0; i < self.wheres.count; i++)
        if (condition_check("where", self.wheres.values[i], err) < 0)
            return -1;
    for (size_t i = 0; i < self.firsts.count; i++)
        if (condition_check("first", self.firsts.values[i], err) < 0)
            return -1;
    for (size_t i = 0; i < self.renames.count; i++)
        if (!strchr(self.renames.values[i], '='))
            return error_set(err, "--columns %s is not A=B", self.renames.values[i]);
    if (strcmp(self.window, "all") != 0 && (strspn(self.window, "0123456789") != strlen(self.window) || atoi(self.window) < 1))
        return error_set(err, "--window %s is neither a number nor all", self.window);
    return 0;
}

int main(int argc, char **argv)
{
    OptionSet set = {.tool = "scalefit",
                     .synopsis = "scalefit isoflop|power|parametric|downstream|… [OPTION]… TABLE…\nscalefit plan|shape|grid OPTION…",
                     .summary = "Fit scaling laws to tables of runs or training logs; plan large runs.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    double begin = clock_seconds();
    if (set.operand_count == 0)
        return message_usage("a command is needed: isoflop, power, parametric, downstream, mixture, repeated, grid, plan or shape");
    if (check_numbers(set.operands[0], &err) < 0)
        return message_usage("%s", err.text);
    static const struct {
        const char *name;
        int (*run)(const Settings *, const char *const *, Error *);
    } fits[] = {{"isoflop", command_isoflop}, {"power", command_power}, {"parametric", command_parametric}, {"downstream", command_downstream},
                {"mixture", command_mixture}, {"repeated", command_repeated}};
    const char *command = set.operands[0], *const *files = (const char *const *)set.operands + 1;
    size_t fit = 0;
    while (fit < sizeof fits / sizeof *fits && strcmp(command, fits[fit].name) != 0)
        fit++;
    if (fit < sizeof fits / sizeof *fits)
        status = fits[fit].run(&self, files, &err);
    else if ((strcmp(command, "plan") == 0 || strcmp(command, "shape") == 0) && *files)
        return message_usage("%s reads no table: '%s'", command, *files);
    else if (strcmp(command, "plan") == 0) {
        bool shape = self.layers > 0 && self.hidden > 0 && self.vocab > 0;
        if (self.layout || (self.grid && !self.published))
            status = command_layout(&self, &err);
        else if ((!(self.tokens > 0) && !self.model_config) || (!(self.params > 0) && !self.model_config && !shape))
            return message_usage("plan needs --tokens, and --params, --model-config or --layers, --hidden and --vocab");
        else
            status = command_plan(&self, &err);
    } else if (strcmp(command, "shape") == 0 || strcmp(command, "grid") == 0) {
        bool grid = command[0] == 'g';
        if (shape_vocabulary(&self, &err) < 0)
            return message_failed(&err);
        if (grid && (self.budgets.count == 0 || self.vocab < 1))
            return message_usage("grid needs --budget, and --vocab or --tokenizer");
        if (!grid && (!(self.params > 0) || self.vocab < 1))
            return message_usage("shape needs --params, and --vocab or --tokenizer");
        status = grid ? command_grid(&self, files, &err) : command_shape(&self, &err);
    } else
        return message_usage("unknown command '%s' (isoflop, power, parametric, downstream, mixture, repeated, grid, plan, shape)", command);
    if (status == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        status = error_set(&err, "standard output:");
    if (status == 0)
        status = stats_write(self.common.stats, NULL, 0, begin, &err);
    status = status < 0 ? message_failed(&err) : 0;
    option_free(&set);
    return status;
}
