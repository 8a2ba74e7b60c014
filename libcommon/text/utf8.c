#include "text/utf8.h"

#include <stdbool.h>
#include "io/json.h"

/* Bytes of the character at p, or of the longest beginning of one if it is not whole; *valid says which (Unicode 3.9: the
 * maximal subpart that one U+FFFD stands for, as in Python and in Rust's from_utf8_lossy). */
static size_t utf8_step(const unsigned char *p, size_t left, bool *valid)
{
    unsigned char c = p[0], low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    size_t wanted = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0, n = 1;
    while (n < wanted && n < left && p[n] >= (n == 1 ? low : 0x80) && p[n] <= (n == 1 ? high : 0xbf))
        n++;
    *valid = n == wanted;
    return n;
}

void utf8_repair(Buffer *b)
{
    if (json_utf8_valid((Span){b->data ? b->data : "", b->length}))
        return;
    Buffer out = {0};
    bool valid;
    for (size_t i = 0, n; i < b->length; i += n) {
        n = utf8_step((const unsigned char *)b->data + i, b->length - i, &valid);
        if (valid)
            buffer_append(&out, b->data + i, n);
        else
            buffer_string(&out, "\xef\xbf\xbd");
    }
    buffer_free(b);
    *b = out;
}
