/* FineWebQualityFilter (datatrove pipeline/filters/fineweb_quality_filter.py). */
#include <string.h>
#include "lineset.h"
#include "rules.h"
#include "text/punctuation.h"
#include "text/utf8.h"

const FineWeb fineweb_default = {0.12, 0, 0.67, 30, 0.01, 0.3};

const char *fineweb(const FineWeb *r, Page *p)
{
    size_t lines = 0, ended = 0, shorter = 0, newlines = 0, repeated = 0;
    LineSet seen;
    lineset_open(&seen);
    for (size_t at = 0; at <= p->text.length;) {
        const char *newline = at < p->text.length ? memchr(p->text.data + at, '\n', p->text.length - at) : NULL;
        size_t end = newline ? (size_t)(newline - p->text.data) : p->text.length;
        Span line = {p->text.data + at, end - at};
        newlines += newline != NULL;
        if (strip(line).length > 0) {
            size_t n, last = line.length - 1, length = utf8_count(line);
            while (last > 0 && ((unsigned char)line.data[last] & 0xc0) == 0x80)
                last--;
            lines++;
            ended += punctuation_ends_line(utf8_decode(line.data + last, &n));
            shorter += (double)length <= r->short_line_length;
            if (lineset_add(&seen, line))
                repeated += length;
        }
        if (!newline)
            break;
        at = end + 1;
    }
    lineset_close(&seen);
    if (lines == 0)
        return "empty";
    double share = (double)ended / (double)lines;
    if (share < r->line_punct_thr && !(share == 0 && r->line_punct_exclude_zero > 0))
        return "line_punct_ratio";
    if ((double)shorter / (double)lines > r->short_line_thr)
        return "short_line_ratio";
    if ((double)repeated / (double)(p->length - newlines) > r->char_duplicates_ratio)
        return "char_dup_ratio";
    page_split(p);
    if (p->words.count > 0 && (double)newlines / (double)p->words.count > r->new_line_ratio)
        return "list_ratio";
    return NULL;
}
