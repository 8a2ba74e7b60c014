#include "text/words_uax29.h"

#include "text/unicode.h"
#include "text/utf8.h"

static bool is_letter(unsigned c)
{
    return c == BREAK_LETTER || c == BREAK_HEBREW;
}

static bool is_newline(unsigned c)
{
    return c == BREAK_CR || c == BREAK_LF || c == BREAK_NEWLINE;
}

/* Extend, Format and joiners belong to what they follow (WB4). */
static bool is_attached(unsigned c)
{
    return c == BREAK_EXTEND || c == BREAK_FORMAT || c == BREAK_ZWJ;
}

static bool joins_letters(unsigned c)
{
    return c == BREAK_MIDLETTER || c == BREAK_MIDNUMLET || c == BREAK_SINGLE_QUOTE;
}

static bool joins_numbers(unsigned c)
{
    return c == BREAK_MIDNUM || c == BREAK_MIDNUMLET || c == BREAK_SINGLE_QUOTE;
}

static bool takes_underscore(unsigned c)
{
    return is_letter(c) || c == BREAK_NUMERIC || c == BREAK_KATAKANA;
}

/* The class of the first character from p that is not attached to the one before. */
static unsigned class_after(const char *p, const char *end)
{
    size_t n;
    for (; p < end; p += n) {
        unsigned c = unicode_break(utf8_decode(p, &n)) & BREAK_CLASS;
        if (!is_attached(c))
            return c;
    }
    return BREAK_OTHER;
}

/* No break between `before` and c (WB5 to WB13b), where `earlier` stands before them and the text goes on at rest. */
static bool holds(unsigned earlier, unsigned before, unsigned c, const char *rest, const char *end)
{
    if (is_letter(before)) {
        if (is_letter(c) || c == BREAK_NUMERIC || (before == BREAK_HEBREW && c == BREAK_SINGLE_QUOTE))
            return true;
        if (joins_letters(c) && is_letter(class_after(rest, end)))
            return true;
        if (before == BREAK_HEBREW && c == BREAK_DOUBLE_QUOTE && class_after(rest, end) == BREAK_HEBREW)
            return true;
    }
    if (is_letter(c) && ((is_letter(earlier) && joins_letters(before)) || before == BREAK_NUMERIC))
        return true;
    if (c == BREAK_HEBREW && before == BREAK_DOUBLE_QUOTE && earlier == BREAK_HEBREW)
        return true;
    if (c == BREAK_NUMERIC && (before == BREAK_NUMERIC || (earlier == BREAK_NUMERIC && joins_numbers(before))))
        return true;
    if (before == BREAK_NUMERIC && joins_numbers(c) && class_after(rest, end) == BREAK_NUMERIC)
        return true;
    if (before == BREAK_KATAKANA && c == BREAK_KATAKANA)
        return true;
    if (c == BREAK_EXTENDNUMLET)
        return takes_underscore(before) || before == BREAK_EXTENDNUMLET;
    return before == BREAK_EXTENDNUMLET && takes_underscore(c);
}

void uax29_split(Words *w, Span text)
{
    const char *p = text.data, *end = text.data + text.length, *begin = p;
    /* The class just before, and of the last two characters that are not attached; flags seen in a row. */
    unsigned last = BREAK_OTHER, before = BREAK_OTHER, earlier = BREAK_OTHER, flags = 0;
    bool blank = true;
    size_t n = 0;
    for (;; p += n) {
        uint32_t u = p < end ? utf8_decode(p, &n) : 0;
        unsigned both = p < end ? unicode_break(u) : 0, c = both & BREAK_CLASS;
        bool hold;
        if (p == begin && p < end)
            hold = true;
        else if (p == end)
            hold = false;
        else if (last == BREAK_CR && c == BREAK_LF)
            hold = true;
        else if (is_newline(last) || is_newline(c))
            hold = false;
        else if ((last == BREAK_ZWJ && both & BREAK_PICTURE) || (last == BREAK_SPACE && c == BREAK_SPACE) || is_attached(c))
            hold = true;
        else if (c == BREAK_REGIONAL && before == BREAK_REGIONAL)
            hold = flags % 2 == 1;
        else
            hold = holds(earlier, before, c, p + n, end);
        if (!hold) {
            if (!blank && p > begin) {
                w->items = memory_grow(w->items, &w->capacity, w->count + 1, sizeof *w->items);
                w->items[w->count++] = (Span){begin, (size_t)(p - begin)};
            }
            begin = p;
            blank = true;
        }
        if (p == end)
            break;
        blank = blank && unicode_is_blank(u);
        last = c;
        if (!is_attached(c) || p == text.data) {
            flags = c == BREAK_REGIONAL ? (before == BREAK_REGIONAL ? flags + 1 : 1) : 0;
            earlier = before;
            before = c;
        }
    }
}
