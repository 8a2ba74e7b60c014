/* The filter multi_choice_regex (lm_eval/filters/extraction.py, MultiChoiceRegexFilter): which letter an answer names. First the pattern;
 * then the texts of the document's choices, which become "(A)", "(B)" …; then a letter behind a colon. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "task.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { MOST_CHOICES = 26 };

/* regexes_to_ignore, ignore_case, ignore_punctuation (Unicode's categories P), in this order. */
static int prepared(const Filter *f, Span text, Arena *arena, Span *out, Error *err)
{
    *out = text;
    int status = 0;
    for (size_t i = 0; i < f->ignored_count && status == 0; i++) {
        Buffer b = {0};
        status = python_re_sub(f->ignored[i], (Span){"", 0}, *out, 0, &b, err);
        *out = (Span){arena_copy(arena, b.data ? b.data : "", b.length), b.length};
        buffer_free(&b);
    }
    if (status == 0 && f->ignore_case)
        status = filter_case(*out, arena, false, out, err);
    if (status < 0 || !f->ignore_punctuation)
        return status;
    char *kept = arena_copy(arena, out->length ? out->data : "", out->length);
    size_t n = 0;
    for (size_t i = 0, step; i < out->length; i += step)
        if (!(unicode_class(utf8_decode(out->data + i, &step)) & UNICODE_P)) {
            memmove(kept + n, out->data + i, step);
            n += step;
        }
    *out = (Span){kept, n};
    return 0;
}

/* re.escape, for what is not a letter or a digit of ASCII. */
static void escape(Buffer *b, Span text)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.data[i];
        if ((unsigned char)c < 0x80 && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '_')
            buffer_byte(b, '\\');
        buffer_byte(b, c);
    }
}

typedef struct Choice {
    Span text;
    size_t characters;
    char letter[4]; /* "(A)" */
} Choice;

/* Longest first, else as they stood. */
static void sort(const Choice *choices, size_t n, size_t *order)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && choices[order[at - 1]].characters < choices[i].characters; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static int find(Buffer *pattern, int64_t group, Span text, Span *out, Error *err)
{
    Filter f = {.group = group};
    f.pattern = python_re_compile((Span){pattern->data ? pattern->data : "", pattern->length}, err);
    int status = f.pattern ? filter_find(&f, text, out, err) : -1;
    python_re_free(f.pattern);
    return status;
}

int filter_choose(const Filter *f, Span answer, const Span *texts, size_t n, Arena *arena, Span *out, Error *err)
{
    Choice choices[MOST_CHOICES];
    size_t order[MOST_CHOICES];
    if (n < 1 || n > MOST_CHOICES)
        return error_set(err, "'multi_choice_regex' wants a column 'choices' of 1 to %d texts", MOST_CHOICES);
    if (filter_find(f, answer, out, err) < 0)
        return -1;
    if (out->length)
        return 0;
    Buffer words = {0}, letters = {0};
    Span plain;
    int status = prepared(f, answer, arena, &plain, err);
    for (size_t i = 0; i < n && status == 0; i++) {
        status = prepared(f, filter_strip(texts[i]), arena, &choices[i].text, err);
        choices[i].characters = utf8_count(choices[i].text);
        memcpy(choices[i].letter, (char[4]){'(', (char)('A' + i), ')', 0}, 4);
        buffer_format(&letters, "%s%c", i ? "|" : ":[\\s]*(", (char)('A' + i));
    }
    buffer_byte(&letters, ')');
    if (status == 0) {
        sort(choices, n, order);
        for (size_t i = 0; i < n; i++) {
            buffer_string(&words, i ? "|" : "");
            escape(&words, choices[order[i]].text);
        }
        status = find(&words, f->group, plain, out, err);
    }
    /* Of equal texts the last has the word, as in a Python mapping. */
    for (size_t i = n; i-- > 0 && status == 0 && out->length;)
        if (choices[i].text.length == out->length && memcmp(choices[i].text.data, out->data, out->length) == 0) {
            *out = (Span){arena_copy(arena, choices[i].letter, 3), 3};
            break;
        }
    if (status == 0 && out->length == 0) {
        status = find(&letters, f->group, answer, out, err);
        if (status == 0 && out->length == 1)
            *out = (Span){arena_copy(arena, (char[]){'(', out->data[0], ')', 0}, 3), 3};
    }
    if (status == 0 && out->length == 0)
        *out = f->fallback;
    buffer_free(&words);
    buffer_free(&letters);
    return status;
}
