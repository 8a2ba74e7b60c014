/* E-mail and IPv4 addresses as datatrove's PIIFormatter finds them (pipeline/formatters/pii.py). Its replacements rotate with a
 * counter of the whole run; here the counter begins anew with each document, so that threads change nothing. */
#include <stdio.h>
#include <string.h>
#include "rules.h"
#include "text/unicode.h"
#include "text/utf8.h"

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_atom(char c)
{
    return is_alnum(c) || (c && strchr("!#$%&'*+/=?^_`{|}~-", c));
}

static bool is_word_char(Span s, size_t at)
{
    if (at >= s.length)
        return false;
    size_t n;
    return unicode_is_word(utf8_decode(s.data + at, &n));
}

static bool word_before(Span s, size_t at)
{
    if (at == 0)
        return false;
    at--;
    while (at > 0 && ((unsigned char)s.data[at] & 0xc0) == 0x80)
        at--;
    return is_word_char(s, at);
}

/* A label: alphanumerics with hyphens inside; its end, or at. */
static size_t label_end(Span s, size_t at)
{
    if (at >= s.length || !is_alnum(s.data[at]))
        return at;
    size_t end = at;
    for (size_t i = at; i < s.length && (is_alnum(s.data[i]) || s.data[i] == '-'); i++)
        if (is_alnum(s.data[i]))
            end = i + 1;
    return end;
}

/* A number of one to three digits, at most 255 (or, of three, with a leading 0): its end, or at. */
static size_t octet_end(Span s, size_t at)
{
    size_t n = 0;
    int v = 0;
    while (at + n < s.length && n < 4 && s.data[at + n] >= '0' && s.data[at + n] <= '9')
        v = v * 10 + s.data[at + n++] - '0';
    return n <= 3 && v <= 255 ? at + n : at;
}

/* A literal in brackets: three numbers with dots, then a fourth or a tag with a colon; its end, or 0. */
static size_t literal_end(Span s, size_t at)
{
    size_t end = at + 1;
    for (int k = 0; k < 3; k++) {
        size_t next = octet_end(s, end);
        if (next == end || next >= s.length || s.data[next] != '.')
            return 0;
        end = next + 1;
    }
    size_t next = octet_end(s, end);
    if (next > end && next < s.length && s.data[next] == ']')
        return next + 1;
    next = end;
    while (next < s.length && (is_alnum(s.data[next]) || s.data[next] == '-'))
        next++;
    return next > end && is_alnum(s.data[next - 1]) && next + 1 < s.length && s.data[next] == ':' && s.data[next + 1] == ']' ? next + 2 : 0;
}

/* Two or more dotted labels from at: the end, or 0. */
static size_t host_end(Span s, size_t at)
{
    size_t end = label_end(s, at), labels = end > at;
    while (labels && end < s.length && s.data[end] == '.') {
        size_t next = label_end(s, end + 1);
        if (next == end + 1)
            break;
        end = next;
        labels++;
    }
    return labels >= 2 ? end : 0;
}

/* An e-mail address whose @ stands at `at`: from *begin (not before `least`) to the returned end, or 0. */
static size_t email_at(Span s, size_t at, size_t least, size_t *begin)
{
    size_t b = at;
    while (b > least && (is_atom(s.data[b - 1]) || (s.data[b - 1] == '.' && b > least + 1 && is_atom(s.data[b - 2]) && b < at)))
        b--;
    /* It begins with an atom at a \b: a border between a word character and something else. */
    while (b < at && (s.data[b] == '.' || word_before(s, b) == is_word_char(s, b)))
        b++;
    if (b == at)
        return 0;
    *begin = b;
    return at + 1 < s.length && s.data[at + 1] == '[' ? literal_end(s, at + 1) : host_end(s, at + 1);
}

/* Is the address globally reachable? The reserved blocks of Python's ipaddress. */
static bool is_global(const int o[4])
{
    if (o[0] == 0 || o[0] == 10 || o[0] == 127 || o[0] >= 240)
        return false;
    if ((o[0] == 100 && (o[1] & 0xc0) == 64) || (o[0] == 169 && o[1] == 254) || (o[0] == 172 && (o[1] & 0xf0) == 16) || (o[0] == 192 && o[1] == 168))
        return false;
    if (o[0] == 192 && o[1] == 0 && o[2] == 0)
        return o[3] == 9 || o[3] == 10;
    if (o[0] == 192 && o[1] == 0 && o[2] == 2)
        return false;
    if ((o[0] == 198 && (o[1] & 0xfe) == 18) || (o[0] == 198 && o[1] == 51 && o[2] == 100) || (o[0] == 203 && o[1] == 0 && o[2] == 113))
        return false;
    return true;
}

/* Four octets at `at`: the end, or 0. Greedy octets of up to three digits, at most 255. */
static size_t ip_at(Span s, size_t at, bool *valid)
{
    int o[4];
    *valid = true;
    for (int k = 0; k < 4; k++) {
        int v = 0, n = 0;
        while (n < 3 && at + (size_t)n < s.length && s.data[at + (size_t)n] >= '0' && s.data[at + (size_t)n] <= '9' && v * 10 + s.data[at + (size_t)n] - '0' <= 255)
            v = v * 10 + s.data[at + (size_t)n++] - '0';
        if (n == 0)
            return 0;
        *valid &= n == 1 || s.data[at] != '0';
        o[k] = v;
        at += (size_t)n;
        if (k < 3 && (at >= s.length || s.data[at++] != '.'))
            return 0;
    }
    *valid &= is_global(o);
    return at;
}

size_t pii_mask(Span s, Buffer *out)
{
    static const char *const emails[] = {"email@example.com", "firstname.lastname@example.org"};
    static const char *const ips[] = {"22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168"};
    size_t email_count = 0, ip_count = 0, done = 0;
    Buffer first = {0};
    for (size_t i = 0; i < s.length; i++) {
        size_t begin, end = s.data[i] == '@' ? email_at(s, i, done, &begin) : 0;
        if (!end)
            continue;
        buffer_append(&first, s.data + done, begin - done);
        buffer_string(&first, emails[email_count++ % 2]);
        done = end;
        i = end - 1;
    }
    buffer_append(&first, s.data + done, s.length - done);
    Span t = {first.data ? first.data : "", first.length};
    done = 0;
    for (size_t i = 0; i < t.length;) {
        bool valid;
        size_t end = t.data[i] >= '0' && t.data[i] <= '9' ? ip_at(t, i, &valid) : 0;
        if (!end) {
            i++;
            continue;
        }
        if (valid && out) {
            buffer_append(out, t.data + done, i - done);
            buffer_string(out, ips[ip_count % 6]);
            done = end;
        }
        ip_count += valid;
        i = end;
    }
    if (out)
        buffer_append(out, t.data + done, t.length - done);
    buffer_free(&first);
    return email_count + ip_count;
}
