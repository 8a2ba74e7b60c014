#include "train/answers.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"
#include "text/utf8.h"

static void stop_add(GenerateOptions *g, int64_t id)
{
    for (int i = 0; i < g->stop_count; i++)
        if (g->stops[i] == id)
            return;
    if (id >= 0 && g->stop_count < GENERATE_MAX_STOPS)
        g->stops[g->stop_count++] = (int32_t)id;
}

size_t answerer_end(const Answerer *a, Span text)
{
    for (size_t i = 0; i < a->stops.count && text.length; i++) {
        size_t n = strlen(a->stops.values[i]);
        const char *at = n ? memmem(text.data, text.length, a->stops.values[i], n) : NULL;
        text.length = at ? (size_t)(at - text.data) : text.length;
    }
    return text.length;
}

/* Looks at as many of the last tokens as a stop text that ends in the newest can reach back to. */
bool answerer_ended(void *context, const Answer *answer)
{
    Answerer *a = context;
    int64_t first = answer->count - 1;
    for (size_t reach = 0; first > 0 && reach + 1 < a->longest_stop; first--)
        if (!tokenizer_is_special(a->tokenizer, answer->tokens[first - 1]))
            reach += tokenizer_bytes(a->tokenizer, answer->tokens[first - 1]).length;
    a->tail.length = 0;
    for (int64_t i = first; i < answer->count; i++)
        if (!tokenizer_is_special(a->tokenizer, answer->tokens[i])) {
            Span bytes = tokenizer_bytes(a->tokenizer, answer->tokens[i]);
            buffer_append(&a->tail, bytes.data, bytes.length);
        }
    return answerer_end(a, (Span){a->tail.data, a->tail.length}) < a->tail.length;
}

static int answerer_begin(Answerer *a, Model *model, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Error *err)
{
    const char *folder = model->tokenizer_folder ? model->tokenizer_folder : path;
    int status = 0;
    a->model = model;
    a->raw = raw;
    if (raw) {
        a->tokenizer = tokenizer_open(folder, err);
        status = a->tokenizer ? 0 : -1;
        a->encoder = a->tokenizer ? encoder_new(a->tokenizer) : NULL;
    } else {
        status = chat_coder_open(&a->coder, folder, err);
        a->tokenizer = a->coder.tokenizer;
    }
    if (status < 0) {
        answerer_close(a);
        return -1;
    }
    bool llama = o->order && strcmp(o->order, "llama.cpp") == 0;
    GenerateOptions g = {.sample = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                                    .repetition_penalty = o->repetition_penalty, .order = llama ? SAMPLE_LLAMA_CPP : SAMPLE_TRANSFORMERS, .seed = seed},
                         .max_tokens = o->max_tokens, .samples = o->samples, .batch = o->batch, .cache_bytes = o->memory, .keeps = o->conversation};
    a->stops = o->stops;
    for (size_t i = 0; i < a->stops.count; i++)
        a->longest_stop = strlen(a->stops.values[i]) > a->longest_stop ? strlen(a->stops.values[i]) : a->longest_stop;
    if (a->longest_stop > 0) {
        g.ends = answerer_ended;
        g.ends_context = a;
    }
    stop_add(&g, tokenizer_eos(a->tokenizer));
    for (int i = 0; i < a->model->config.eos_count; i++)
        stop_add(&g, a->model->config.eos_token_id[i]);
    if (!raw)
        stop_add(&g, a->coder.end_of_turn);
    if (generator_open(&a->generator, a->model, &g, o->max_prompt, err) < 0) {
        answerer_close(a);
        return -1;
    }
    return 0;
}

int answerer_open(Answerer *a, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Dtype dtype, Device *d,
                  Error *err)
{
    memset(a, 0, sizeof *a);
    int status = folder_load(&a->own, path, &(FolderLoad){.adapter = o->adapter}, d, err);
    if (status == 0 && a->own.config.num_labels)
        status = error_set(err, "%s: a reward model does not write", path);
    if (status == 0)
        status = model_compute_in(&a->own, dtype, err);
    if (status == 0)
        return answerer_begin(a, &a->own, path, o, raw, seed, err);
    answerer_close(a);
    return -1;
}

int answerer_open_on(Answerer *a, Model *model, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Error *err)
{
    memset(a, 0, sizeof *a);
    return answerer_begin(a, model, path, o, raw, seed, err);
}

void answerer_close(Answerer *a)
{
    if (a->generator.model)
        generator_close(&a->generator);
    if (a->raw) {
        encoder_free(a->encoder);
        tokenizer_close(a->tokenizer);
    } else if (a->coder.tokenizer) {
        chat_coder_close(&a->coder);
    }
    model_close(&a->own);
    ids_free(&a->ids);
    buffer_free(&a->flags);
    buffer_free(&a->tail);
    memset(a, 0, sizeof *a);
}

int answerer_prompt(Answerer *a, const JsonValue *prompt, const JsonValue *tools, Error *err)
{
    if (!a->raw)
        return chat_tokens(&a->coder, &(ChatInput){.messages = prompt, .tools = tools, .generation = true}, &a->ids, &a->flags, err);
    if (!json_is(prompt, JSON_STRING))
        return error_set(err, "messages need the chat template: without it a prompt must be a string");
    a->ids.count = 0;
    if (encoder_encode(a->encoder, prompt->string, NULL, &a->ids, err) < 0)
        return -1;
    if (a->ids.count == 0) { /* nothing to go on from but the beginning of a text */
        int32_t begin = tokenizer_bos(a->tokenizer) >= 0 ? tokenizer_bos(a->tokenizer) : tokenizer_eos(a->tokenizer);
        if (begin < 0)
            return error_set(err, "an empty prompt, and the tokenizer names no token that begins a text");
        ids_add(&a->ids, begin);
    }
    return 0;
}

int answer_decode(const Tokenizer *t, const Answer *answer, Buffer *out, Error *err)
{
    Ids ids = {0};
    for (int64_t i = 0; i < answer->count; i++)
        if (tokenizer_bytes(t, answer->tokens[i]).data)
            ids_add(&ids, answer->tokens[i]);
    int status = tokenizer_decode(t, ids.data, ids.count, true, out, err);
    ids_free(&ids);
    return status;
}

int answerer_text(Answerer *a, const Answer *answer, Buffer *out, Error *err)
{
    Buffer text = {0};
    int status = answer_decode(a->tokenizer, answer, &text, err);
    text.length = answerer_end(a, (Span){text.data, text.length});
    utf8_repair(&text);
    buffer_append(out, text.data, text.length);
    buffer_free(&text);
    return status;
}

size_t answerer_settled(const Answerer *a, Span text)
{
    size_t end = answerer_end(a, text);
    if (end < text.length)
        return end;
    for (size_t i = 0; i < a->stops.count; i++) {
        size_t n = strlen(a->stops.values[i]), held = n > 0 && n - 1 < text.length ? n - 1 : n > 0 ? text.length : 0;
        while (held > 0 && memcmp(text.data + text.length - held, a->stops.values[i], held) != 0)
            held--;
        end = text.length - held < end ? text.length - held : end;
    }
    return end;
}

void answerer_stats(const Answerer *a, StatsItem items[ANSWER_STATS])
{
    const GenerateCounts *n = &a->generator.counts;
    const KvCache *c = &a->generator.cache;
    const StatsItem all[ANSWER_STATS] = {
        {"prompts", (double)n->prompts}, {"prompt_tokens", (double)n->prompt_tokens}, {"kept_tokens", (double)n->kept_tokens}, {"answers", (double)n->answers},
        {"answer_tokens", (double)n->answer_tokens}, {"passes", (double)n->passes}, {"page_tokens", PAGE_TOKENS},
        {"pages_most", (double)c->most_used}, {"pages_most_unshared", (double)c->most_held}, {"pages_shared", (double)c->shared}};
    memcpy(items, all, sizeof all);
}
