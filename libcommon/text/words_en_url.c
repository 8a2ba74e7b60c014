/* Addresses that the English rules keep whole: [scheme://][user@]host[:port][/path]. The host is dotted labels with a last one of
 * 2 to 63 small letters, or four numbers that are no private network's. */
#include <string.h>
#include "text/unicode.h"
#include "text/utf8.h"
#include "text/words_en.h"

static bool is_digit(uint32_t c)
{
    return unicode_class(c) & UNICODE_DIGIT;
}

/* Labels with a dot behind each and the last one, over all of [b, e). */
static bool is_domain(const char *b, const char *e)
{
    size_t n, labels = 0, length = 0;
    bool lower = true, host = true, first = true, last = false;
    for (const char *p = b; p < e; p += n) {
        uint32_t c = utf8_decode(p, &n);
        if (c == '.') {
            if (!host || !last || length == 0 || length > 64)
                return false;
            labels++;
            length = 0;
            lower = first = true;
            continue;
        }
        unsigned class = english_class(c);
        lower &= (class & EN_LOWER) != 0;
        last = class & EN_HOST;
        host &= last || (!first && (c == '_' || c == '-'));
        if (!host && !lower)
            return false;
        length++;
        first = false;
    }
    return labels > 0 && lower && length >= 2 && length <= 63;
}

/* Numbers with dots between, as the pattern allows them: 1-223, two of 0-255, 1-254, without a leading zero but for two digits in the
 * middle ones; 10, 127, 169.254, 192.168, 172.16-31 are left out. */
static bool is_ip(const char *b, const char *e)
{
    int value[4];
    size_t n;
    for (int k = 0; k < 4; k++) {
        int digits = 0, v = 0;
        bool zero = b < e && *b == '0';
        uint32_t first = 0;
        for (; b < e && is_digit(utf8_decode(b, &n)) && digits < 4; b += n, digits++) {
            uint32_t c = utf8_decode(b, &n);
            first = digits ? first : c;
            /* Digits of other scripts match \d; what they count is only asked in the first places, which are ASCII. */
            v = v * 10 + (c < 0x80 ? (int)(c - '0') : 0);
        }
        bool fine = digits >= 1 && digits <= 3;
        if (k == 0)
            fine = fine && first >= '1' && first <= '9' && v <= 223;
        else if (k == 3)
            fine = fine && first >= '1' && first <= '9' && v <= 254;
        else
            fine = fine && (digits < 3 || (!zero && first < 0x80 && v <= 255));
        if (!fine || (k < 3 && (b == e || *b++ != '.')))
            return false;
        value[k] = v;
    }
    if (b != e || value[0] == 10 || value[0] == 127)
        return false;
    return !((value[0] == 169 && value[1] == 254) || (value[0] == 192 && value[1] == 168) || (value[0] == 172 && value[1] >= 16 && value[1] <= 31));
}

/* Host, port and path from b to e. */
static bool is_host_on(const char *b, const char *e)
{
    const char *p = b;
    while (p < e && !(*p && strchr(":/?#@", *p)))
        p++;
    if ((p < e && *p == '@') || !(is_domain(b, p) || is_ip(b, p)))
        return false;
    if (p < e && *p == ':') {
        size_t n, digits = 0;
        for (p++; p < e && is_digit(utf8_decode(p, &n)); p += n)
            digits++;
        if (digits < 2 || digits > 5)
            return false;
    }
    return p == e || *p == '/' || *p == '?' || *p == '#';
}

bool address_is_whole(const char *b, const char *e)
{
    if (!memchr(b, '.', (size_t)(e - b)))
        return false;
    if (is_host_on(b, e))
        return true;
    /* A scheme: two or more of \w + - . before the first colon. */
    size_t n, length = 0;
    const char *p = b;
    for (uint32_t c; p < e && ((c = utf8_decode(p, &n)) == '+' || c == '-' || c == '.' || unicode_is_word(c)); p += n)
        length++;
    if (length >= 2 && e - p > 3 && memcmp(p, "://", 3) == 0 && is_host_on(p + 3, e))
        return true;
    /* What stands before an @ is the user's, whatever it is. */
    for (p = b + 1; p < e && (p = memchr(p, '@', (size_t)(e - p))); p++)
        if (is_host_on(p + 1, e))
            return true;
    return false;
}
