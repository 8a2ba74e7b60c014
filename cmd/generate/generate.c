/* generate: answers prompts from files or a pipe (here), or chats at a terminal (chat.c). */
#include "generate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "data/document.h"
#include "io/stats.h"

static Generate self = {.common = COMMON_DEFAULT, .answer = ANSWER_DEFAULT};

static const Option options[] = {
    {"model", 0, OPTION_STRING, &self.model, "DIR", "model folder or run", 0, 0, 0},
    {"prompt", 0, OPTION_STRING, &self.prompt, "TEXT", "answer this, as plain text", 0, 0, 0},
    {"system", 0, OPTION_STRING, &self.system, "TEXT", "system message of a chat at a terminal or of --prompt", 0, 0, 0},
    {"raw", 0, OPTION_FLAG, &self.raw, 0, "continue the prompt as it stands, without a chat template", 0, 0, 0},
    {"given", 0, OPTION_FLAG, &self.given, 0, "add log-probabilities of the answers that records have", 0, 0, 0},
    ANSWER_OPTIONS(&self.answer, "1"),
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_TEXT(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* `response` (or `responses`) beside the prompt, before it why each ended: "stop" or "length". */
static int write_record(Generate *g, Span record, const Answer *answers, Error *err)
{
    int64_t samples = g->answer.samples;
    Buffer value = {0}, text = {0}, line = {0}, reasons = {0}, first = {0}, bare = {0};
    int status = 0;
    buffer_string(&reasons, samples > 1 ? "[" : "");
    for (int64_t k = 0; k < samples; k++)
        buffer_format(&reasons, "%s\"%s\"", k ? "," : "", answers[k].stopped ? "stop" : "length");
    buffer_string(&reasons, samples > 1 ? "]" : "");
    buffer_string(&value, samples > 1 ? "[" : "");
    for (int64_t k = 0; k < samples && status == 0; k++) {
        text.length = 0;
        status = answerer_text(&g->answerer, &answers[k], &text, err);
        buffer_string(&value, k ? "," : "");
        json_write_string(&value, (Span){text.data ? text.data : "", text.length});
    }
    buffer_string(&value, samples > 1 ? "]" : "");
    JsonField absent = {0};
    json_record_remove(&bare, record, "scores"); /* of other answers */
    json_record_set(&first, (Span){bare.data, bare.length}, &absent, samples > 1 ? "finish_reasons" : "finish_reason", (Span){reasons.data, reasons.length});
    json_record_set(&line, (Span){first.data, first.length}, &absent, samples > 1 ? "responses" : "response", (Span){value.data, value.length});
    buffer_byte(&line, '\n');
    if (status == 0)
        status = writer_write(g->out, line.data, line.length, err);
    buffer_free(&value);
    buffer_free(&text);
    buffer_free(&line);
    buffer_free(&reasons);
    buffer_free(&first);
    buffer_free(&bare);
    return status == 0 ? writer_flush(g->out, err) : -1;
}

/* The answers of a record (a Buffer) are there, in the order of the records; without any the memory goes. */
static int take_answers(void *context, void *tag, Answer *answers, Error *err)
{
    Generate *g = context;
    Buffer *record = tag;
    int status = answers ? write_record(g, (Span){record->data, record->length}, answers, err) : 0;
    for (int64_t k = 0; answers && k < g->answer.samples; k++)
        free(answers[k].tokens);
    buffer_free(record);
    free(record);
    if (answers)
        progress_set(g->progress, ++g->answered);
    return status;
}

static int take_prompt(void *context, Document *d, Error *err)
{
    Generate *g = context;
    JsonValue text = {.type = JSON_STRING, .string = d->text};
    const JsonValue *prompt = &text, *tools = NULL;
    if (!g->common.text) {
        JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
        const JsonValue *record = json_field_tree(d->parser, &whole, err);
        if (!record)
            return DOCUMENT_MALFORMED;
        prompt = json_get(record, "prompt");
        tools = json_get(record, "tools");
        if (!prompt) {
            error_set(err, "no field 'prompt'");
            return DOCUMENT_MALFORMED;
        }
    }
    if (answerer_prompt(&g->answerer, prompt, tools, err) < 0)
        return DOCUMENT_MALFORMED;
    if ((int64_t)g->answerer.ids.count > g->answer.max_prompt) {
        error_set(err, "a prompt of %zu tokens (--max-prompt %" PRId64 ")", g->answerer.ids.count, g->answer.max_prompt);
        return DOCUMENT_MALFORMED;
    }
    Buffer *record = memory_zalloc(1, sizeof *record);
    if (g->common.text) {
        buffer_string(record, "{\"prompt\":");
        json_write_string(record, d->text);
        buffer_byte(record, '}');
    } else {
        buffer_append(record, d->raw.data, d->raw.length);
    }
    return generator_add(&g->answerer.generator, g->answerer.ids.data, (int64_t)g->answerer.ids.count, g->done++, record, err);
}

int generate_documents(Generate *g, DocumentReader *r, const char *what, Error *err)
{
    g->out = writer_open(g->common.output, err);
    if (!g->out)
        return -1;
    g->progress = progress_begin(&g->common, what, 0);
    Common plain = g->common;
    plain.threads = 1;
    plain.progress = "never";
    r->common = &plain;
    int status = document_run(r, err);
    if ((status == 0 || r->input_failed) && generator_finish(&g->answerer.generator, status == 0 ? err : NULL) < 0)
        status = -1;
    progress_end(g->progress);
    document_report(r);
    if (status < 0)
        writer_abandon(g->out);
    else
        status = writer_close(g->out, err);
    return status;
}

static int answer_files(Generate *g, OptionSet *set, Error *err)
{
    g->answerer.generator.emit = take_answers;
    g->answerer.generator.context = g;
    DocumentReader r = {.files = set->operands, .text_optional = true, .emit = take_prompt, .context = g};
    return generate_documents(g, &r, "prompts", err);
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "generate", .synopsis = "generate --model DIR [--prompt TEXT] [OPTION]… [FILE]…",
                     .summary = "Answer prompts from files or a pipe, or chat at a terminal.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (!self.model)
        return message_usage("--model DIR is needed");
    if (self.given && (self.prompt || self.common.text))
        return message_usage("--given takes records with answers: no --prompt and no --text");
    if (self.prompt && set.operand_count)
        return message_usage("--prompt is the one that is answered: no '%s' beside it", set.operands[0]);
    bool terminal = set.operand_count == 0 && isatty(STDIN_FILENO) && !self.prompt && !self.given;
    AnswerOptions answer = self.answer;
    answer.conversation = terminal;
    if (terminal || self.given)
        answer.samples = 1;
    if (terminal || self.given || self.prompt) /* no room for prompts that never come */
        answer.batch = answer.batch < answer.samples ? answer.batch : answer.samples;
    if (terminal && self.raw)
        return message_usage("a chat at a terminal goes through the chat template: --raw takes --prompt or files");
    if (self.system && (self.raw || (!terminal && !self.prompt)))
        return message_usage("--system goes with a chat or --prompt, without --raw; records have messages for it");
    Error err;
    double begin = clock_seconds();
    Device *d = device_open(self.common.device, (int)self.common.threads, &err);
    if (!d || answerer_open(&self.answerer, self.model, &answer, self.raw, (uint64_t)self.common.seed, dtype_of_option(self.common.dtype), d, &err) < 0) {
        device_close(d);
        option_free(&set);
        return message_failed(&err);
    }
    double ready = clock_seconds();
    status = self.given ? generate_given(&self, set.operands, &err) : self.prompt ? generate_prompt(&self, &err) : terminal ? generate_chat(&self, &err) : answer_files(&self, &set, &err);
    if (status == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        status = error_set(&err, "standard output:");
    StatsItem items[ANSWER_STATS + 1] = {[ANSWER_STATS] = {"loading_seconds", ready - begin}};
    answerer_stats(&self.answerer, items);
    if (status == 0)
        status = stats_write(self.common.stats, items, ANSWER_STATS + 1, begin, &err);
    if (status < 0)
        status = message_failed(&err);
    answerer_close(&self.answerer);
    device_close(d);
    option_free(&set);
    return status;
}
