#include "annotate.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/random.h"
#include "fields.h"
#include "io/stream.h"
#include "rankings.h"

enum { MOST_ANSWERS = 26 }; /* a letter each */

/* What is to be ranked: a record with different, not empty answers. */
typedef struct Question {
    Buffer line;
    JsonTree tree;
    Span answers[MOST_ANSWERS];
    size_t count;
    uint64_t item;
    off_t saved; /* where its ranking stands in the file, -1: not ranked in this session */
} Question;

typedef struct Session {
    const Annotate *a;
    const char *annotator;
    int file;
    Question *questions;
    size_t count, capacity, few, done;
    Rankings before;
} Session;

static void question_free(Question *q)
{
    json_free(&q->tree);
    buffer_free(&q->line);
}

static int add_question(Session *s, Span line, Error *err)
{
    Question q = {.saved = -1};
    if (json_parse(&q.tree, "record", line, err) < 0)
        return -1;
    const JsonValue *prompt = json_get(q.tree.root, "prompt"), *responses = json_get(q.tree.root, "responses");
    int status = 0;
    if (!prompt || !json_is(responses, JSON_ARRAY))
        status = error_set(err, "needs 'prompt' and a list 'responses'");
    for (size_t i = 0; status == 0 && i < responses->count; i++) {
        Span text = responses->items[i].string;
        size_t k = 0;
        if (!json_is(&responses->items[i], JSON_STRING)) {
            status = error_set(err, "'responses' must hold strings");
            break;
        }
        while (k < q.count && (q.answers[k].length != text.length || memcmp(q.answers[k].data, text.data, text.length) != 0))
            k++;
        if (text.length == 0 || k < q.count)
            continue;
        if (q.count == MOST_ANSWERS)
            status = error_set(err, "more than %d different answers", MOST_ANSWERS);
        else
            q.answers[q.count++] = text;
    }
    if (status == 0 && q.count >= 2) {
        buffer_append(&q.line, line.data, line.length);
        q.item = ranking_item(prompt, q.answers, q.count);
        s->questions = memory_grow(s->questions, &s->capacity, s->count + 1, sizeof *s->questions);
        s->questions[s->count++] = q;
        return 0;
    }
    s->few += status == 0;
    question_free(&q);
    return status;
}

static int read_questions(Session *s, const char *path, Error *err)
{
    Reader *in = reader_open(path, err);
    if (!in)
        return -1;
    Span line;
    Error reason = {{0}};
    int more = 0, status = 0;
    while (status == 0 && (more = reader_line(in, &line, err)) > 0)
        if (line.length > 0 && add_question(s, line, &reason) < 0)
            status = error_set(err, "%s:%" PRId64 ": %s", reader_name(in), reader_line_number(in), reason.text);
    reader_close(in);
    return more < 0 ? -1 : status;
}

/* order[i]: the answer shown as letter i; another for each annotator, so that places favour no answer. */
static void shuffle(const Session *s, const Question *q, size_t *order)
{
    uint64_t stream = RANDOM_SHUFFLE + (XXH3_64bits(s->annotator, strlen(s->annotator)) ^ q->item) * 8;
    for (size_t i = 0; i < q->count; i++)
        order[i] = i;
    for (size_t i = q->count; i > 1; i--) {
        size_t k = (size_t)random_below(s->a->seed, stream, i, i), x = order[k];
        order[k] = order[i - 1];
        order[i - 1] = x;
    }
}

static void show(const Session *s, const Question *q, const size_t *order)
{
    const JsonValue *prompt = json_get(q->tree.root, "prompt");
    printf("\n----- %zu of %zu -----\n", (size_t)(q - s->questions) + 1, s->count);
    if (json_is(prompt, JSON_STRING))
        printf("%.*s\n", (int)prompt->string.length, prompt->string.data);
    for (size_t i = 0; json_is(prompt, JSON_ARRAY) && i < prompt->count; i++) {
        const JsonValue *role = json_get(&prompt->items[i], "role"), *content = json_get(&prompt->items[i], "content");
        if (json_is(role, JSON_STRING) && json_is(content, JSON_STRING))
            printf("%s: %.*s\n", role->string.data, (int)content->string.length, content->string.data);
    }
    for (size_t i = 0; i < q->count; i++)
        printf("\n[%c] %.*s\n", (char)('a' + i), (int)q->answers[order[i]].length, q->answers[order[i]].data);
}

/* "b a=c": every letter once, best first, = between equals. ranks[answer] from 1; false where that is no order. */
static bool parse_order(const char *line, const Question *q, const size_t *order, double *ranks)
{
    bool seen[MOST_ANSWERS] = {false}, equal = true;
    size_t given = 0;
    double rank = 1;
    for (; *line; line++) {
        int letter = tolower((unsigned char)*line);
        if (letter == '=' && !equal) {
            equal = true;
        } else if (letter >= 'a' && letter < 'a' + (int)q->count && !seen[letter - 'a']) {
            rank += given && !equal;
            equal = false;
            seen[letter - 'a'] = true;
            ranks[order[letter - 'a']] = rank;
            given++;
        } else if (!strchr(" \t>,", letter)) {
            return false;
        }
    }
    return given == q->count && !equal;
}

/* The ranking goes to the disk before the next question comes. */
static int save(Session *s, Question *q, const double *ranks, Error *err)
{
    static const char *const own[] = {"prompt", "responses", "scores", "finish_reasons", "ranks", "annotator", NULL};
    Buffer line = {0}, list = {0}, *b = &line;
    buffer_byte(b, '{');
    fields_pass(b, (Span){q->line.data, q->line.length}, q->tree.root, own);
    buffer_string(b, "\"prompt\":");
    field_value(b, (Span){q->line.data, q->line.length}, q->tree.root, "prompt");
    buffer_string(b, ",\"responses\":[");
    for (size_t rank = 1, given = 0; rank <= q->count; rank++)
        for (size_t i = 0; i < q->count; i++)
            if (ranks[i] == (double)rank) {
                buffer_string(b, given ? "," : "");
                json_write_string(b, q->answers[i]);
                buffer_format(&list, "%s%zu", given ? "," : "", rank);
                given++;
            }
    buffer_format(b, "],\"ranks\":[%.*s],\"annotator\":", (int)list.length, list.data);
    json_write_string(b, (Span){s->annotator, strlen(s->annotator)});
    buffer_string(b, "}\n");
    q->saved = lseek(s->file, 0, SEEK_END);
    ssize_t n = write(s->file, b->data, b->length);
    int status = n == (ssize_t)b->length && fsync(s->file) == 0 ? 0 : error_set(err, "%s:", s->a->path);
    if (status < 0 && n > 0 && ftruncate(s->file, q->saved) < 0) /* half a line would not be read again */
        message("%s: its last line is cut", s->a->path);
    buffer_free(&line);
    buffer_free(&list);
    return status;
}

static int ask_all(Session *s, Error *err)
{
    char *line = NULL;
    size_t capacity = 0, at = 0, last = SIZE_MAX;
    int status = 0;
    puts("Type the letters best first, with = between equals: b a=c   (/back, /skip, /quit)");
    while (at < s->count && status == 0) {
        Question *q = &s->questions[at];
        if (rankings_find(&s->before, q->item, s->annotator)) {
            at++;
            continue;
        }
        size_t order[MOST_ANSWERS];
        double ranks[MOST_ANSWERS];
        shuffle(s, q, order);
        show(s, q, order);
        fputs("\n> ", stdout);
        fflush(stdout);
        ssize_t n = getline(&line, &capacity, stdin);
        while (n > 0 && isspace((unsigned char)line[n - 1]))
            line[--n] = 0;
        if (n < 0 || strcmp(line, "/quit") == 0)
            break;
        if (strcmp(line, "/skip") == 0) {
            at++;
        } else if (strcmp(line, "/back") == 0 && last != SIZE_MAX && s->questions[last].saved >= 0) {
            if (ftruncate(s->file, s->questions[last].saved) < 0)
                status = error_set(err, "%s:", s->a->path);
            s->questions[last].saved = -1;
            s->done--;
            at = last;
            for (last = at; last != SIZE_MAX && s->questions[last].saved < 0;)
                last--; /* past the first it becomes SIZE_MAX */
        } else if (*line != '/' && parse_order(line, q, order, ranks)) {
            status = save(s, q, ranks, err);
            last = at++;
            s->done++;
        } else {
            printf("that is no order of %zu answers; %s\n", q->count, *line == '/' ? "commands are /back, /skip and /quit" : "each letter once, as in: b a=c");
        }
    }
    putchar('\n');
    free(line);
    return status;
}

/* What was ranked before, if anything; a last line without its newline was cut by a crash and goes. */
static int open_rankings(Session *s, Error *err)
{
    s->file = open(s->a->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    off_t end = s->file < 0 ? -1 : lseek(s->file, 0, SEEK_END);
    if (end < 0)
        return error_set(err, "%s:", s->a->path);
    off_t whole = end;
    for (char c = 0; whole > 0 && pread(s->file, &c, 1, whole - 1) == 1 && c != '\n';)
        whole--;
    if (whole < end && ftruncate(s->file, whole) < 0)
        return error_set(err, "%s:", s->a->path);
    return whole > 0 ? rankings_read(&s->before, s->a->path, err) : 0;
}

static int annotate_session(Session *s, const char *const *files, Error *err)
{
    for (; *files; files++)
        if (read_questions(s, *files, err) < 0)
            return -1;
    if (open_rankings(s, err) < 0 || ask_all(s, err) < 0)
        return -1;
    size_t left = 0;
    for (size_t i = 0; i < s->count; i++)
        left += s->questions[i].saved < 0 && !rankings_find(&s->before, s->questions[i].item, s->annotator);
    message("%zu ranked by %s, %zu left, %zu with less than two different answers", s->done, s->annotator, left, s->few);
    rankings_free(&s->before);
    return s->done || lseek(s->file, 0, SEEK_END) > 0 ? rankings_read(&s->before, s->a->path, err) : 0;
}

int annotate_run(const Annotate *a, const char *const *files, Error *err)
{
    const char *user = getenv("USER");
    Session s = {.a = a, .annotator = a->annotator ? a->annotator : user && *user ? user : "anonymous", .file = -1};
    int status = 0;
    if (a->path)
        status = annotate_session(&s, files, err);
    else if (!*files)
        status = rankings_read(&s.before, NULL, err);
    for (; !a->path && status == 0 && *files; files++)
        status = rankings_read(&s.before, *files, err);
    if (status == 0 && (a->report || s.before.count))
        rankings_report(&s.before);
    if (s.file >= 0 && close(s.file) < 0 && status == 0)
        status = error_set(err, "%s:", a->path);
    for (size_t i = 0; i < s.count; i++)
        question_free(&s.questions[i]);
    free(s.questions);
    rankings_free(&s.before);
    return status;
}
