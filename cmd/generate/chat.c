/* Conversations: at a terminal, or of the one message of --prompt. An answer is printed as it comes. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "edit.h"
#include "generate.h"
#include "text/utf8.h"

/* Prints an answer as it grows; bytes of an unfinished character wait, and what may become a stop text. */
typedef struct Watch {
    Answerer *answerer;
    Buffer text;
    size_t printed;
} Watch;

static volatile sig_atomic_t interrupted; /* Ctrl-C in a chat: the answer ends, the program does not */

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Prints the text up to `end`. */
static void watch_print(Watch *w, size_t end)
{
    Buffer shown = {0};
    buffer_append(&shown, w->text.data + w->printed, end - w->printed);
    utf8_repair(&shown);
    fwrite(shown.data, 1, shown.length, stdout);
    fflush(stdout);
    buffer_free(&shown);
    w->printed = end;
}

static bool watch_token(void *context, int32_t token)
{
    Watch *w = context;
    Span bytes = tokenizer_bytes(w->answerer->tokenizer, token);
    if (tokenizer_is_special(w->answerer->tokenizer, token))
        return !interrupted;
    buffer_append(&w->text, bytes.data, bytes.length);
    size_t settled = answerer_settled(w->answerer, (Span){w->text.data, w->text.length}), end = settled;
    while (end > w->printed && !json_utf8_valid((Span){w->text.data + w->printed, end - w->printed}) && settled - end < 4)
        end--;
    if (settled - end >= 4)
        end = settled;
    if (end > w->printed)
        watch_print(w, end);
    return !interrupted;
}

static void message_add(Buffer *messages, const char *role, Span content)
{
    messages->length -= messages->length > 1; /* the closing bracket */
    buffer_string(messages, messages->length > 1 ? "," : "");
    buffer_format(messages, "{\"role\":\"%s\",\"content\":", role);
    json_write_string(messages, content);
    buffer_string(messages, "}]");
}

/* The conversation as the model's prompt. */
static int read_messages(Generate *g, Buffer *messages, Error *err)
{
    JsonTree tree = {0};
    buffer_reserve(messages, READER_PADDING);
    memset(messages->data + messages->length, 0, READER_PADDING);
    int status = json_parse(&tree, "prompt", (Span){messages->data, messages->length}, err);
    if (status == 0)
        status = answerer_prompt(&g->answerer, tree.root, NULL, err);
    json_free(&tree);
    if (status == 0 && (int64_t)g->answerer.ids.count > g->answer.max_prompt)
        status = error_set(err, "the conversation is longer than --max-prompt %" PRId64 " tokens", g->answer.max_prompt);
    return status;
}

/* One answer, printed as it comes, and appended to the conversation where `keep`. */
static int answer_turn(Generate *g, Buffer *messages, bool keep, Error *err)
{
    Watch w = {.answerer = &g->answerer};
    Answer answer = {0};
    const int32_t *prompt = g->answerer.ids.data;
    int64_t length = (int64_t)g->answerer.ids.count;
    int status = generator_run(&g->answerer.generator, &prompt, &length, 1, g->done++, &answer, watch_token, &w, err);
    Buffer text = {0};
    if (status == 0)
        status = answerer_text(&g->answerer, &answer, &text, err);
    w.text.length = answerer_end(&g->answerer, (Span){w.text.data, w.text.length});
    if (w.printed < w.text.length)
        watch_print(&w, w.text.length);
    putchar('\n');
    if (status == 0 && keep)
        message_add(messages, "assistant", (Span){text.data ? text.data : "", text.length});
    free(answer.tokens);
    buffer_free(&text);
    buffer_free(&w.text);
    return status;
}

/* A conversation's beginning. */
static void chat_reset(Buffer *messages, const char *system)
{
    messages->length = 0;
    buffer_string(messages, "[");
    if (system && *system)
        message_add(messages, "system", (Span){system, strlen(system)});
}

typedef enum Typed { TYPED_END, TYPED_NOTHING, TYPED_MESSAGE } Typed;

/* Reads a line, which is the caller's to free, and carries out a command. */
static Typed read_line(char **line, char **system, Buffer *messages)
{
    interrupted = 0;
    Edited edited = edit_line("> ", &interrupted, line);
    if (edited == EDITED_INTERRUPTED) { /* Ctrl-C throws the line away */
        putchar('\n');
        return TYPED_NOTHING;
    }
    if (edited == EDITED_END)
        return TYPED_END;
    if (!json_utf8_valid((Span){*line, strlen(*line)})) {
        message("that is not UTF-8");
        return TYPED_NOTHING;
    }
    size_t end = strlen(*line);
    while (end > 0 && strchr(" \t", (*line)[end - 1]))
        end--;
    if (end == 0)
        return TYPED_NOTHING;
    if (**line == '/')
        (*line)[end] = 0;
    if (strcmp(*line, "/reset") == 0 || strcmp(*line, "/system") == 0 || strncmp(*line, "/system ", 8) == 0) {
        if ((*line)[1] == 's') {
            free(*system);
            *system = memory_string(*line + 7 + strspn(*line + 7, " "));
        }
        chat_reset(messages, *system);
        message("a new conversation%s%s", **system ? ", begun by: " : "", *system);
        return TYPED_NOTHING;
    }
    if (**line == '/') {
        message("commands are /reset and /system TEXT; Ctrl-C ends an answer, Ctrl-D the chat");
        return TYPED_NOTHING;
    }
    return TYPED_MESSAGE;
}

int generate_chat(Generate *g, Error *err)
{
    Buffer messages = {0};
    char *system = memory_string(g->system ? g->system : "");
    int status = 0;
    chat_reset(&messages, system);
    struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART: reading a line ends */
    sigaction(SIGINT, &action, NULL);
    message("type a message; /reset begins again, /system TEXT too, Ctrl-C ends an answer, Ctrl-D the chat");
    while (status == 0) {
        char *line = NULL;
        Typed typed = read_line(&line, &system, &messages);
        size_t before = messages.length;
        if (typed == TYPED_MESSAGE) {
            message_add(&messages, "user", (Span){line, strlen(line)});
            if (read_messages(g, &messages, err) == 0) {
                status = answer_turn(g, &messages, true, err);
            } else {
                message("%s (/reset begins again)", err->text);
                messages.length = before;
                if (before > 1)
                    messages.data[before - 1] = ']';
            }
        }
        free(line);
        if (typed == TYPED_END)
            break;
    }
    putchar('\n');
    free(system);
    buffer_free(&messages);
    return status;
}

/* Several answers are drawn together, as they are for prompts from files. */
static int answer_samples(Generate *g, Error *err)
{
    g->out = writer_open(g->common.output, err);
    if (!g->out)
        return -1;
    int64_t samples = g->answer.samples, length = (int64_t)g->answerer.ids.count;
    Answer *answers = memory_zalloc((size_t)samples, sizeof *answers);
    const int32_t *prompt = g->answerer.ids.data;
    int status = generator_run(&g->answerer.generator, &prompt, &length, 1, g->done++, answers, NULL, NULL, err);
    Buffer text = {0};
    for (int64_t k = 0; k < samples; k++) {
        text.length = 0;
        if (status == 0 && (status = answerer_text(&g->answerer, &answers[k], &text, err)) == 0) {
            buffer_byte(&text, '\n');
            status = writer_write(g->out, text.data, text.length, err);
        }
        free(answers[k].tokens);
    }
    buffer_free(&text);
    free(answers);
    if (status == 0)
        return writer_close(g->out, err);
    writer_abandon(g->out);
    return -1;
}

int generate_prompt(Generate *g, Error *err)
{
    Buffer messages = {0};
    Span prompt = {g->prompt, strlen(g->prompt)};
    if (!json_utf8_valid(prompt))
        return error_set(err, "--prompt is not UTF-8");
    if (g->raw) {
        json_write_string(&messages, prompt);
    } else {
        chat_reset(&messages, g->system);
        message_add(&messages, "user", prompt);
    }
    int status = read_messages(g, &messages, err);
    if (status == 0)
        status = g->answer.samples > 1 || g->common.output ? answer_samples(g, err) : answer_turn(g, &messages, false, err);
    buffer_free(&messages);
    return status;
}
