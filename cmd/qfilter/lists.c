/* Lists of domains and of bad words, each a set of lower-cased strings. */
#include <stdlib.h>
#include <string.h>
#include "io/json.h"
#include "io/stream.h"
#include "lineset.h"
#include "rules.h"
#include "text/unicode.h"
#include "text/utf8.h"

struct List {
    LineSet set;
    size_t longest;  /* bytes of an entry */
    bool first[256]; /* bytes that entries begin with */
};

/* "example.com", "0.0.0.0 example.com" as hosts files have it, "||example.com^" as filter lists; # and ! begin comments. */
static Span domain_of(Span line)
{
    Span s = strip(line);
    const char *hash = s.length ? memchr(s.data, '#', s.length) : NULL;
    if (hash)
        s = strip((Span){s.data, (size_t)(hash - s.data)});
    if (s.length && *s.data == '!')
        s.length = 0;
    for (size_t i = 0; i < s.length; i++)
        if (s.data[i] == ' ' || s.data[i] == '\t') {
            s = strip((Span){s.data + i, s.length - i});
            break;
        }
    if (s.length > 2 && memcmp(s.data, "||", 2) == 0)
        s = (Span){s.data + 2, s.length - 2};
    while (s.length && (s.data[s.length - 1] == '^' || s.data[s.length - 1] == '.'))
        s.length--;
    if (s.length > 2 && memcmp(s.data, "*.", 2) == 0)
        s = (Span){s.data + 2, s.length - 2};
    return s;
}

List *list_read(const char *const *files, size_t count, bool domains, Error *err)
{
    List *l = memory_zalloc(1, sizeof *l);
    lineset_open(&l->set);
    Buffer lower = {0};
    int got = 0;
    for (size_t i = 0; i < count && got >= 0; i++) {
        Reader *r = reader_open(files[i], err);
        if (!r)
            got = -1;
        Span line;
        while (r && (got = reader_line(r, &line, err)) > 0) {
            if (!json_utf8_valid(line))
                continue;
            Span s = domains ? domain_of(line) : strip(line);
            if (s.length == 0 || (!domains && *s.data == '#'))
                continue;
            lineset_add(&l->set, lower_case(s, &lower));
            l->longest = lower.length > l->longest ? lower.length : l->longest;
            l->first[(unsigned char)*lower.data] = true;
        }
        reader_close(r);
    }
    buffer_free(&lower);
    if (got < 0) {
        list_free(l);
        return NULL;
    }
    return l;
}

void list_free(List *l)
{
    if (l)
        lineset_close(&l->set);
    free(l);
}

bool list_has_domain(const List *l, Span url)
{
    size_t begin = find_text(url, "://");
    begin = begin < url.length ? begin + 3 : 0;
    size_t end = begin;
    while (end < url.length && !strchr("/?#", url.data[end]))
        end++;
    for (size_t i = begin; i < end; i++)
        if (url.data[i] == '@')
            begin = i + 1;
    for (size_t i = begin; i < end; i++)
        if (url.data[i] == ':')
            end = i;
    Buffer host = {0};
    lower_case((Span){url.data + begin, end - begin}, &host);
    bool found = false;
    for (size_t at = 0; at < host.length && !found;) {
        found = lineset_has(&l->set, (Span){host.data + at, host.length - at});
        const char *dot = memchr(host.data + at, '.', host.length - at);
        at = dot ? (size_t)(dot - host.data) + 1 : host.length;
    }
    buffer_free(&host);
    return found;
}

/* Places, of which `most` are enough. */
static size_t count_words(const List *l, Span text, size_t most)
{
    Buffer b = {0};
    lower_case(text, &b);
    size_t n, count = 0;
    bool open = true; /* no \w stands before */
    for (size_t i = 0; i < b.length && count < most; i += n) {
        bool word = unicode_is_word(utf8_decode(b.data + i, &n));
        if (open && l->first[(unsigned char)b.data[i]]) {
            size_t m;
            bool found = false;
            for (size_t end = i; end < b.length && end - i < l->longest && !found;) {
                utf8_decode(b.data + end, &m);
                end += m;
                found = (end >= b.length || !unicode_is_word(utf8_decode(b.data + end, &m))) && lineset_has(&l->set, (Span){b.data + i, end - i});
            }
            count += found;
        }
        open = !word;
    }
    buffer_free(&b);
    return count;
}

bool list_has_word(const List *l, Span text)
{
    return count_words(l, text, 1) > 0;
}

size_t list_count_words(const List *l, Span text)
{
    return count_words(l, text, SIZE_MAX);
}
