#include "text/words.h"

#include <stdlib.h>
#include <string.h>
#include "text/punctuation.h"
#include "text/unicode.h"
#include "text/utf8.h"
#include "text/words_en.h"
#include "text/words_uax29.h"

static void space_split(Words *w, Span text)
{
    const char *p = text.data, *end = text.data + text.length;
    while (p < end) {
        const char *b = p;
        size_t n = 0;
        while (p < end && !unicode_is_blank(utf8_decode(p, &n)))
            p += n;
        if (p > b) {
            w->items = memory_grow(w->items, &w->capacity, w->count + 1, sizeof *w->items);
            w->items[w->count++] = (Span){b, (size_t)(p - b)};
        }
        p += p < end ? n : 0;
    }
}

void words_split(Words *w, WordKind kind, Span text)
{
    w->count = 0;
    if (kind == WORDS_SPACE) {
        space_split(w, text);
    } else if (kind == WORDS_UAX29) {
        uax29_split(w, text);
    } else {
        english_split(w, text);
        size_t kept = 0;
        for (size_t i = 0; i < w->count; i++) {
            w->items[kept] = w->items[i];
            kept += w->items[i].length > 0;
        }
        w->count = kept;
    }
}

static bool is_punctuation(Span t)
{
    size_t n;
    for (size_t i = 0; i < t.length; i += n)
        if (!(unicode_class(utf8_decode(t.data + i, &n)) & UNICODE_P))
            return false;
    return t.length > 0;
}

static bool is_end_mark(Span t)
{
    size_t n;
    return t.length > 0 && t.length <= 4 && punctuation_ends_sentence(utf8_decode(t.data, &n)) && n == t.length;
}

void words_sentences(Words *out, Words *tokens, Span text)
{
    out->count = tokens->count = 0;
    english_split(tokens, text);
    Span now = {0};
    bool ended = false;
    for (size_t i = 0; i <= tokens->count; i++) {
        Span t = i < tokens->count ? tokens->items[i] : (Span){0};
        bool mark = is_end_mark(t);
        if (i == tokens->count || (ended && !mark && !is_punctuation(t))) {
            if (now.length) {
                out->items = memory_grow(out->items, &out->capacity, out->count + 1, sizeof *out->items);
                out->items[out->count++] = now;
            }
            now.length = 0;
            ended = false;
        }
        ended |= mark;
        if (t.length)
            now = now.length ? (Span){now.data, (size_t)(t.data + t.length - now.data)} : t;
    }
}

void words_free(Words *w)
{
    free(w->items);
    *w = (Words){0};
}
