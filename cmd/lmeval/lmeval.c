/* lmeval: perplexity and bits per byte, multiple choice, exact match of generated answers, needle in a haystack. */
#include "lmeval.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "io/stats.h"
#include "model/folder.h"

static Eval self = {.common = COMMON_DEFAULT, .max_length = 0, .max_tokens = 32, .needle_samples = 5, .needle_depths = 5, .num_fewshot = -1, .fewshot_seed = 1234, .bootstraps = 100000};
static const char *samples_path;
static OptionList perplexity, choices, match, safety, tasks;
static bool needle, chat;

static const Option options[] = {
    {"model", 0, OPTION_STRING, &self.model_path, "DIR", "model folder or run", 0, 0, 0},
    {"adapter", 0, OPTION_STRING, &self.adapter, "DIR", "add this adapter to the model", 0, 0, 0},
    {"perplexity", 0, OPTION_LIST, &perplexity, "FILE", "documents, or a token shard's PREFIX (repeatable)", 0, 0, 0},
    {"choices", 0, OPTION_LIST, &choices, "FILE", "task documents with choices and answer (repeatable)", 0, 0, 0},
    {"match", 0, OPTION_LIST, &match, "FILE", "documents with target, answered greedily (repeatable)", 0, 0, 0},
    {"safety", 0, OPTION_LIST, &safety, "FILE", "prompts, harmful or not: share refused (repeatable)", 0, 0, 0},
    {"task", 0, OPTION_LIST, &tasks, "FILE", "a task as lm-evaluation-harness defines it, YAML (repeatable)", 0, 0, 0},
    {"data", 0, OPTION_LIST, &self.data, "SPLIT=FILE", "documents of a task's split; TASK:SPLIT=FILE for one task alone", 0, 0, 0},
    {"num-fewshot", 0, OPTION_INTEGER, &self.num_fewshot, "N", "examples before each document of --task (default: the task's)", 0, 0, 1000},
    {"needle", 0, OPTION_FLAG, &needle, 0, "needle in a haystack over length and depth", 0, 0, 0},
    {"needle-length", 0, OPTION_LIST, &self.needle_lengths, "N", "tokens of the haystack (repeatable; default 1/4, 1/2 and all of --max-length)", 0, 0, 0},
    {"needle-depths", 0, OPTION_INTEGER, &self.needle_depths, "N", "places from the beginning to the end (default 5)", 0, 1, 1000},
    {"needle-plot", 0, OPTION_STRING, &self.needle_plot, "FILE", "draw found by length and depth, .svg or .png", 0, 0, 0},
    {"needle-samples", 0, OPTION_INTEGER, &self.needle_samples, "N", "needles for each length and depth (default 5)", 0, 1, 100000},
    {"chat", 0, OPTION_FLAG, &chat, 0, "put contexts through the chat template as one user turn", 0, 0, 0},
    OPTION_MORE_HEADING("of tasks:"),
    {"system", 0, OPTION_STRING, &self.system, "TEXT", "put before all", 0, 0, 0},
    {"fewshot-in-one-turn", 0, OPTION_FLAG, &self.one_turn, 0, "with --chat examples stand in the user's turn", 0, 0, 0},
    {"fewshot-seed", 0, OPTION_INTEGER, &self.fewshot_seed, "N", "draws the examples (default 1234)", 0, 0, 9.2e18},
    {"bootstrap", 0, OPTION_INTEGER, &self.bootstraps, "N", "draws for errors that need them, 0: no errors (default 100000)", 0, 0, 1e9},
    {"check", 0, OPTION_FLAG, &self.check, 0, "read the definitions of --task alone: what would be refused (needs no model)", 0, 0, 0},
    {"processed", 0, OPTION_FLAG, &self.processed, 0, "rows are what a definition's Python made of its data", 0, 0, 0},
    {"responses", 0, OPTION_STRING, &self.responses, "FILE", "score these answers (records with response) instead of the model's", 0, 0, 0},
    {"log-samples", 0, OPTION_STRING, &samples_path, "FILE", "write what came of each document of --task and --choices", 0, 0, 0},
    {"max-length", 0, OPTION_INTEGER, &self.max_length, "N", "tokens seen at once (default: the model's length)", 0, 8, 1 << 24},
    {"max-tokens", 0, OPTION_INTEGER, &self.max_tokens, "N", "longest generated answer (default 32)", 0, 1, 1 << 20},
    {"until", 0, OPTION_LIST, &self.until, "TEXT", "an answer of --match ends before this (repeatable)", 0, 0, 0},
    {"refusal", 0, OPTION_LIST, &self.refusals, "TEXT", "an answer that begins so is a refusal (repeatable; default: I can't, I'm sorry …)", 0, 0, 0},
    {"limit", 0, OPTION_INTEGER, &self.limit, "N", "first N records of each task only", 0, 1, 1e15},
    {"answers", 0, OPTION_STRING, &self.answers, "FILE", "write the records of --match and --safety with what was answered", 0, 0, 0},
    {"json", 0, OPTION_FLAG, &self.json, 0, "one JSON object a task and metric", 0, 0, 0},
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_END(&self.common),
};

void result_print(Eval *e, const char *task, const char *metric, double value, double stderror, int64_t n)
{
    result_print_filtered(e, task, metric, "none", value, stderror, n);
}

void results_cut(Eval *e)
{
    for (size_t i = 0; i < e->result_count; i++) {
        free(e->results[i].task);
        free(e->results[i].metric);
        free(e->results[i].filter);
    }
    e->result_count = 0;
}

void result_print_filtered(Eval *e, const char *task, const char *metric, const char *filter, double value, double stderror, int64_t n)
{
    bool filtered = strcmp(filter, "none") != 0;
    e->results = memory_grow(e->results, &e->result_capacity, e->result_count + 1, sizeof *e->results);
    e->results[e->result_count++] = (Result){memory_string(task), memory_string(metric), memory_string(filter), value, stderror, n};
    if (!e->json) {
        char *label = memory_format("%s%s%s", metric, filtered ? "," : "", filtered ? filter : "");
        printf("%-28s %-16s %10.4f", task, label, value);
        free(label);
        if (isfinite(stderror))
            printf("  ± %.4f", stderror);
        printf("%*s %8" PRId64 "\n", isfinite(stderror) ? 0 : 10, "", n);
        return;
    }
    Buffer b = {0};
    buffer_string(&b, "{\"task\":");
    json_write_string(&b, (Span){task, strlen(task)});
    buffer_format(&b, ",\"metric\":\"%s\"", metric);
    if (filtered) {
        buffer_string(&b, ",\"filter\":");
        json_write_string(&b, (Span){filter, strlen(filter)});
    }
    buffer_string(&b, ",\"value\":");
    json_write_number(&b, value);
    buffer_string(&b, ",\"stderr\":");
    json_write_number(&b, stderror);
    buffer_format(&b, ",\"n\":%" PRId64 "}\n", n);
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
}

char *task_name(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    char *name = memory_string(base);
    static const char *const endings[] = {".gz", ".zst", ".jsonl", ".json"};
    for (int i = 0; i < 4; i++) {
        size_t n = strlen(name), m = strlen(endings[i]);
        if (n > m && strcmp(name + n - m, endings[i]) == 0)
            name[n - m] = 0;
    }
    return name;
}

static int run(Eval *e, Error *err)
{
    int status = 0;
    double begin = clock_seconds();
    if (samples_path && !(e->samples = writer_open(samples_path, err)))
        return -1;
    for (size_t i = 0; i < perplexity.count && status == 0; i++)
        status = eval_perplexity(e, perplexity.values[i], err);
    for (size_t i = 0; i < choices.count && status == 0; i++)
        status = eval_choices(e, choices.values[i], err);
    for (size_t i = 0; i < match.count && status == 0; i++)
        status = eval_match(e, match.values[i], err);
    for (size_t i = 0; i < safety.count && status == 0; i++)
        status = eval_safety(e, safety.values[i], err);
    for (size_t i = 0; i < tasks.count && status == 0; i++)
        status = eval_task(e, tasks.values[i], err);
    if (needle && status == 0)
        status = eval_needle(e, err);
    if (status == 0)
        status = writer_close(e->samples, err);
    else
        writer_abandon(e->samples);
    if (status == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        status = error_set(err, "standard output:");
    const StatsItem items[] = {{"tasks", (double)(perplexity.count + choices.count + match.count + safety.count + tasks.count + needle)}, {"tokens", (double)e->tokens}};
    return status == 0 ? stats_write(e->common.stats, items, 2, begin, err) : status;
}

/* Reads all definitions, whatever is refused. */
static int check_tasks(Eval *e)
{
    for (size_t i = 0; i < tasks.count; i++) {
        Error err;
        if (eval_task(e, tasks.values[i], &err) < 0) {
            message_failed(&err);
            e->refused++;
        }
    }
    return e->refused > 0;
}

static int open_model(Eval *e, ChatCoder *coder, Error *err)
{
    e->device = device_open(e->common.device, (int)e->common.threads, err);
    if (!e->device || folder_load(&e->model, e->model_path, &(FolderLoad){.adapter = e->adapter}, e->device, err) < 0 ||
        model_compute_in(&e->model, dtype_of_option(e->common.dtype), err) < 0)
        return -1;
    if (e->model.config.num_labels)
        return error_set(err, "%s: a reward model has no probabilities", e->model_path);
    const char *folder = e->model.tokenizer_folder ? e->model.tokenizer_folder : e->model_path;
    e->tokenizer = tokenizer_open(folder, err);
    if (!e->tokenizer)
        return -1;
    e->encoder = encoder_new(e->tokenizer);
    if (chat) {
        if (chat_coder_open(coder, folder, err) < 0)
            return -1;
        e->coder = coder;
    }
    if (tokenizer_size(e->tokenizer) > e->model.config.vocab_size)
        return error_set(err, "%s: the tokenizer has more tokens than the model", folder);
    int64_t own = e->model.config.max_position_embeddings;
    e->sample_length = e->max_length ? e->max_length : own < 2048 ? own : 2048;
    if (e->max_length == 0)
        e->max_length = own;
    /* Longer texts make it grow. */
    return slot_new(&e->slot, &e->model, e->max_length < 2048 ? 2048 / e->max_length * e->max_length : 2048, MODE_SCORE, err);
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "lmeval", .synopsis = "lmeval --model DIR [--perplexity FILE]… [--choices FILE]… [--match FILE]…\n[--needle] [--json]",
                     .summary = "Measure a language model.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    bool without_model = self.check || (self.responses && perplexity.count + choices.count + match.count + safety.count + needle == 0);
    if (!self.model_path && !without_model)
        return message_usage("--model DIR is needed");
    if (set.operand_count > 0)
        return message_usage("'%s': files go with --perplexity, --choices, --match, --safety or --task", set.operands[0]);
    if (perplexity.count + choices.count + match.count + safety.count + tasks.count == 0 && !needle)
        return message_usage("nothing to measure: --perplexity, --choices, --match, --safety, --task or --needle");
    if (self.needle_plot && !needle)
        return message_usage("--needle-plot goes with --needle");
    if (self.answers && match.count + safety.count == 0)
        return message_usage("--answers goes with --match and --safety");
    if (samples_path && choices.count + tasks.count == 0)
        return message_usage("--log-samples goes with --task and --choices");
    Error err;
    ChatCoder coder = {0};
    if (self.check)
        status = check_tasks(&self);
    else
        status = (!without_model && open_model(&self, &coder, &err) < 0) || run(&self, &err) < 0 ? message_failed(&err) : 0;
    slot_free(&self.slot);
    cache_close(&self.cache);
    results_cut(&self);
    free(self.results);
    if (coder.tokenizer)
        chat_coder_close(&coder);
    encoder_free(self.encoder);
    tokenizer_close(self.tokenizer);
    model_close(&self.model);
    device_close(self.device);
    option_free(&set);
    return status;
}
