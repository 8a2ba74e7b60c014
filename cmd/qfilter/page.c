/* A document's text as the rules look at it, and Python's ways of cutting texts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "rules.h"
#include "text/unicode.h"
#include "text/utf8.h"

void page_set(Page *p, Span text, WordKind kind)
{
    p->text = text;
    p->kind = kind;
    p->length = utf8_count(text);
    p->split = p->placed = false;
}

void page_split(Page *p)
{
    if (!p->split)
        words_split(&p->words, p->kind, p->text);
    p->split = true;
}

void page_free(Page *p)
{
    words_free(&p->words);
    buffer_free(&p->rewritten);
    buffer_free(&p->line);
    buffer_free(&p->lower);
    words_free(&p->sentences);
    words_free(&p->tokens);
    free(p->table);
    free(p->places);
    free(p->powers);
    memset(p, 0, sizeof *p);
}

static bool is_line_end(uint32_t c)
{
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool split_line(Span text, size_t *at, Span *line)
{
    if (*at >= text.length)
        return false;
    size_t i = *at, n = 1;
    /* What begins no line end is passed byte by byte. */
    for (unsigned char c; i < text.length; i += n) {
        c = (unsigned char)text.data[i];
        n = 1;
        if ((c < 0x20 || c == 0xc2 || c == 0xe2) && is_line_end(utf8_decode(text.data + i, &n)))
            break;
    }
    *line = (Span){text.data + *at, i - *at};
    if (i < text.length && text.data[i] == '\r' && i + 1 < text.length && text.data[i + 1] == '\n')
        n = 2;
    *at = i < text.length ? i + n : i;
    return true;
}

Span strip(Span s)
{
    size_t n;
    while (s.length && unicode_is_blank(utf8_decode(s.data, &n))) {
        s.data += n;
        s.length -= n;
    }
    while (s.length) {
        size_t back = 1;
        while (back < s.length && ((unsigned char)s.data[s.length - back] & 0xc0) == 0x80)
            back++;
        if (!unicode_is_blank(utf8_decode(s.data + s.length - back, &n)))
            break;
        s.length -= back;
    }
    return s;
}

Span lower_case(Span s, Buffer *out)
{
    out->length = 0;
    buffer_reserve(out, s.length * 3 + 1);
    size_t n, length = 0;
    for (size_t i = 0; i < s.length; i += n) {
        unsigned char c = (unsigned char)s.data[i];
        n = 1;
        if (c < 0x80) {
            out->data[length++] = (char)(c + (c >= 'A' && c <= 'Z') * 32);
            continue;
        }
        uint32_t to[2];
        int count = unicode_to_lower(utf8_decode(s.data + i, &n), to);
        for (int k = 0; k < count; k++)
            length += utf8_encode(to[k], out->data + length);
    }
    out->length = length;
    return (Span){out->data, length};
}

size_t find_text(Span s, const char *what)
{
    const char *p = s.length ? memmem(s.data, s.length, what, strlen(what)) : NULL;
    return p ? (size_t)(p - s.data) : s.length;
}
