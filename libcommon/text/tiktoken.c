/* Reading .tiktoken files: a line for each token, its bytes in base64 and its rank. */
#include <inttypes.h>
#include <string.h>
#include "io/stream.h"
#include "text/tokenizer_internal.h"

static int base64_digit(int c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* A rank far beyond the lines so far would make a table of ids that the file does not fill. */
static int tiktoken_line(Tokenizer *t, Span line, int64_t number, Buffer *bytes)
{
    unsigned bits = 0;
    int held = 0;
    size_t i = 0;
    bytes->length = 0;
    for (; i < line.length && line.data[i] != ' ' && line.data[i] != '='; i++) {
        int d = base64_digit(line.data[i]);
        if (d < 0)
            return -1;
        bits = bits << 6 | (unsigned)d;
        if ((held += 6) >= 8)
            buffer_byte(bytes, (char)(bits >> (held -= 8) & 0xff));
    }
    while (i < line.length && (line.data[i] == '=' || line.data[i] == ' '))
        i++;
    int64_t rank = 0;
    if (i == line.length || bytes->length == 0)
        return -1;
    for (; i < line.length; i++) {
        if (line.data[i] < '0' || line.data[i] > '9' || rank > 1 << 28)
            return -1;
        rank = rank * 10 + line.data[i] - '0';
    }
    if (rank > number + (1 << 20))
        return -1;
    vocabulary_add(&t->vocabulary, (int32_t)rank, bytes->data, bytes->length);
    return 0;
}

/* Which of tiktoken's patterns goes with the encoding that the file is named for (its openai_public.py). */
static const char *pattern_of(const char *path)
{
    static const char *const known[][2] = {{"o200k", "o200k"}, {"gpt2", "gpt2"}, {"r50k", "gpt2"}, {"p50k", "gpt2"}};
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(name, known[i][0], strlen(known[i][0])) == 0)
            return known[i][1];
    return "cl100k";
}

/* tiktoken merges the pair whose joined bytes have the lowest rank: every split of every token into two tokens is a merge. */
int tokenizer_read_tiktoken(Tokenizer *t, const char *path, Error *err)
{
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    Span line;
    Buffer bytes = {0};
    int got;
    while ((got = reader_line(r, &line, err)) > 0)
        if (line.length > 0 && tiktoken_line(t, line, reader_line_number(r), &bytes) < 0) {
            got = error_set(err, "%s:%" PRId64 ": not a line of a .tiktoken file", path, reader_line_number(r));
            break;
        }
    reader_close(r);
    buffer_free(&bytes);
    if (got < 0)
        return -1;
    Vocabulary *v = &t->vocabulary;
    if (v->size == 0)
        return error_set(err, "%s: no tokens", path);
    vocabulary_index(v);
    size_t splits = 0;
    for (int64_t id = 0; id < v->size; id++)
        splits += v->tokens[id].length;
    vocabulary_merges(v, splits);
    for (int64_t id = 0; id < v->size; id++) {
        const char *p = v->bytes.data + v->tokens[id].offset;
        for (uint32_t k = 1; k < v->tokens[id].length; k++) {
            int32_t a = vocabulary_find(v, p, k), b = vocabulary_find(v, p + k, v->tokens[id].length - k);
            if (a >= 0 && b >= 0)
                vocabulary_merge_add(v, a, b, (int32_t)id, (int32_t)id);
        }
    }
    t->ignore_merges = true;
    t->split_count = 1;
    return splitter_open(&t->splits[0], pattern_of(path), err);
}
