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

int answerer_open(Answerer *a, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Dtype dtype, Device *d,
                  Error *err)
{
    memset(a, 0, sizeof *a);
    a->raw = raw;
    char *folder = folder_resolve(path, err);
    int status = folder ? folder_load(&a->model, folder, 0, 0, NULL, d, err) : -1;
    if (status == 0 && a->model.config.num_labels)
        status = error_set(err, "%s: a reward model does not write", folder);
    if (status == 0)
        status = model_compute_in(&a->model, dtype, err);
    if (status == 0 && raw) {
        a->tokenizer = tokenizer_open(folder, err);
        status = a->tokenizer ? 0 : -1;
        a->encoder = a->tokenizer ? encoder_new(a->tokenizer) : NULL;
    } else if (status == 0) {
        status = chat_coder_open(&a->coder, folder, err);
        a->tokenizer = a->coder.tokenizer;
    }
    free(folder);
    if (status < 0) {
        answerer_close(a);
        return -1;
    }
    GenerateOptions g = {.sample = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                                    .repetition_penalty = o->repetition_penalty, .seed = seed},
                         .max_tokens = o->max_tokens, .samples = o->samples, .batch = o->batch};
    stop_add(&g, tokenizer_eos(a->tokenizer));
    for (int i = 0; i < a->model.config.eos_count; i++)
        stop_add(&g, a->model.config.eos_token_id[i]);
    if (!raw)
        stop_add(&g, a->coder.end_of_turn);
    if (generator_open(&a->generator, &a->model, &g, o->max_prompt, err) < 0) {
        answerer_close(a);
        return -1;
    }
    return 0;
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
    model_close(&a->model);
    ids_free(&a->ids);
    buffer_free(&a->flags);
    memset(a, 0, sizeof *a);
}

int answerer_prompt(Answerer *a, const JsonValue *prompt, Error *err)
{
    if (!a->raw)
        return chat_tokens(&a->coder, &(ChatInput){.messages = prompt, .generation = true}, &a->ids, &a->flags, err);
    if (!json_is(prompt, JSON_STRING))
        return error_set(err, "with --raw a prompt must be a string");
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

int answerer_text(Answerer *a, const Answer *answer, Buffer *out, Error *err)
{
    Buffer text = {0};
    int status = tokenizer_decode(a->tokenizer, answer->tokens, (size_t)answer->count, true, &text, err);
    utf8_repair(&text);
    buffer_append(out, text.data, text.length);
    buffer_free(&text);
    return status;
}
