#include "text/punctuation.h"

#include <stddef.h>
#include "punctuation.inc"

static bool is_in(const uint32_t *list, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && list[low] == c;
}

bool punctuation_is_mark(uint32_t c)
{
    if (c < 0x80) /* all but letters, digits, tab, newline and blank */
        return !((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '\t' || c == '\n' || c == ' ');
    return is_in(punctuation, sizeof punctuation / sizeof *punctuation, c);
}

bool punctuation_ends_line(uint32_t c)
{
    if (c < 0x80)
        return c == '.' || c == '!' || c == '?';
    return is_in(terminal_punctuation, sizeof terminal_punctuation / sizeof *terminal_punctuation, c);
}

bool punctuation_ends_sentence(uint32_t c)
{
    return punctuation_ends_line(c) && (c < 0x80 || !is_in(younger_ends, sizeof younger_ends / sizeof *younger_ends, c));
}
