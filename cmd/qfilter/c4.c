/* C4QualityFilter (datatrove pipeline/filters/c4_filters.py): it rewrites the text to the lines, or sentences, that stay. A threshold
 * of -1 turns off min-num-sentences, min-words-per-line and max-word-length; 0 turns the others off. */
#include <string.h>
#include "rules.h"
#include "text/unicode.h"
#include "text/utf8.h"

const C4 c4_default = {1, 1, 1, 5, 3, 1000, 1, 1, 1, 1};

static bool ends_line(Span s)
{
    if (s.length == 0 || (s.length >= 3 && memcmp(s.data + s.length - 3, "...", 3) == 0))
        return false;
    char last = s.data[s.length - 1];
    return last == '.' || last == '?' || last == '!' || last == '"' || last == '\'';
}

/* Bytes of [digits], [edit] or [citation needed] at the front of s, or 0. */
static size_t citation_at(Span s)
{
    static const char *const words[] = {"[edit]", "[citation needed]"};
    for (int i = 0; i < 2; i++)
        if (s.length >= strlen(words[i]) && memcmp(s.data, words[i], strlen(words[i])) == 0)
            return strlen(words[i]);
    size_t k = 1, n;
    while (k < s.length && (unicode_class(utf8_decode(s.data + k, &n)) & UNICODE_DIGIT))
        k += n;
    return k < s.length && s.data[k] == ']' ? k + 1 : 0;
}

static Span without_citations(Span s, Buffer *out)
{
    const char *end = s.data + s.length, *p = s.data, *bracket = s.length ? memchr(p, '[', s.length) : NULL;
    if (!bracket)
        return s;
    out->length = 0;
    while (bracket) {
        size_t n = citation_at((Span){bracket, (size_t)(end - bracket)});
        buffer_append(out, p, (size_t)(bracket - p) + (n == 0));
        p = bracket + (n ? n : 1);
        bracket = p < end ? memchr(p, '[', (size_t)(end - p)) : NULL;
    }
    buffer_append(out, p, (size_t)(end - p));
    return (Span){out->data ? out->data : "", out->length};
}

/* Words between white space, and the code points of the longest. */
static size_t count_words(Span s, size_t *longest)
{
    size_t words = 0, length = 0, n;
    *longest = 0;
    for (size_t i = 0; i < s.length; i += n) {
        bool blank = unicode_is_blank(utf8_decode(s.data + i, &n));
        length = blank ? 0 : length + 1;
        words += length == 1;
        *longest = length > *longest ? length : *longest;
    }
    return words;
}

static bool has_policy(Span lower)
{
    static const char *const terms[] = {"terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"};
    for (int i = 0; i < 6; i++)
        if (find_text(lower, terms[i]) < lower.length)
            return true;
    return false;
}

typedef enum Fate { KEEP, DROP_LINE, DROP_LOREM, DROP_BRACKET } Fate;

/* What becomes of one stripped line; *s loses its citations. */
static Fate judge(const C4 *r, Page *p, Span *s)
{
    size_t longest, words = count_words(*s, &longest);
    if (r->max_word_length >= 0 && (double)longest > r->max_word_length)
        return DROP_LINE;
    if (r->remove_citations > 0)
        *s = without_citations(*s, &p->line);
    if (r->filter_no_terminal_punct > 0 && !ends_line(*s))
        return DROP_LINE;
    if ((double)words < r->min_words_per_line)
        return DROP_LINE;
    Span lower = lower_case(*s, &p->lower);
    if (r->filter_lorem_ipsum > 0 && find_text(lower, "lorem ipsum") < lower.length)
        return DROP_LOREM;
    if (r->filter_javascript > 0 && find_text(lower, "javascript") < lower.length)
        return DROP_LINE;
    if (r->filter_curly_bracket > 0 && find_text(*s, "{") < s->length)
        return DROP_BRACKET;
    return r->filter_policy > 0 && has_policy(lower) ? DROP_LINE : KEEP;
}

const char *c4(const C4 *r, Page *p)
{
    bool lines = r->split_paragraph > 0;
    size_t at = 0, count = 0, kept_lines = 0;
    Words sentences = {0};
    p->rewritten.length = 0;
    if (!lines)
        words_sentences(&sentences, &p->tokens, p->text);
    const char *reason = NULL;
    Span s;
    for (size_t i = 0; !reason && (lines ? split_line(p->text, &at, &s) : i < sentences.count); i++) {
        s = strip(lines ? s : sentences.items[i]);
        Fate fate = judge(r, p, &s);
        if (fate == DROP_LOREM || fate == DROP_BRACKET)
            reason = fate == DROP_LOREM ? "lorem_ipsum" : "curly_bracket";
        if (fate != KEEP)
            continue;
        /* Only whether there are enough of them matters. */
        if (!lines) {
            count++;
        } else if ((double)count < r->min_num_sentences) {
            words_sentences(&p->sentences, &p->tokens, s);
            count += p->sentences.count;
        }
        if (kept_lines++)
            buffer_byte(&p->rewritten, lines ? '\n' : ' ');
        buffer_append(&p->rewritten, s.data, s.length);
    }
    words_free(&sentences);
    if (!reason && (double)count < r->min_num_sentences)
        reason = "too_few_sentences";
    Span kept = strip((Span){p->rewritten.data ? p->rewritten.data : "", p->rewritten.length});
    if (p->rewritten.length) {
        memmove(p->rewritten.data, kept.data, kept.length);
        p->rewritten.length = kept.length;
    }
    return reason;
}
