/* C4QualityFilter (datatrove pipeline/filters/c4_filters.py): it rewrites the text to the lines that stay. Sentences are counted
 * as runs that end in . ! or ? (with closing marks) before white space or the end. */
#include <string.h>
#include "rules.h"
#include "text/unicode.h"
#include "text/utf8.h"

const C4 c4_default = {1, 1, 1, 5, 3, 1000, 1, 1, 1, 1};

static bool ends_line(Span s)
{
    if (s.length == 0 || (s.length >= 3 && memcmp(s.data + s.length - 3, "...", 3) == 0))
        return false;
    return strchr(".?!\"'", s.data[s.length - 1]) != NULL;
}

/* Deletes [digits], [edit] and [citation needed]. */
static Span without_citations(Span s, Buffer *out)
{
    out->length = 0;
    for (size_t i = 0; i < s.length;) {
        size_t n = 0;
        if (s.data[i] == '[') {
            Span rest = {s.data + i, s.length - i};
            if (rest.length >= 6 && memcmp(rest.data, "[edit]", 6) == 0)
                n = 6;
            else if (rest.length >= 17 && memcmp(rest.data, "[citation needed]", 17) == 0)
                n = 17;
            else {
                size_t k = 1;
                while (k < rest.length && rest.data[k] >= '0' && rest.data[k] <= '9')
                    k++;
                n = k < rest.length && rest.data[k] == ']' ? k + 1 : 0;
            }
        }
        if (n == 0)
            buffer_byte(out, s.data[i++]);
        i += n;
    }
    return (Span){out->data ? out->data : "", out->length};
}

static size_t sentences(Span s)
{
    size_t n = 0;
    bool open = false;
    for (size_t i = 0; i < s.length; i++) {
        char c = s.data[i];
        if (c != '.' && c != '!' && c != '?') {
            open |= !strchr(" \t\r\n\"')]", c);
            continue;
        }
        while (i + 1 < s.length && strchr(".!?\"')]", s.data[i + 1]))
            i++;
        if (open && (i + 1 == s.length || strchr(" \t\r\n", s.data[i + 1]))) {
            n++;
            open = false;
        }
    }
    return n + open;
}

static bool has_policy(Span lower)
{
    static const char *const terms[] = {"terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"};
    for (int i = 0; i < 6; i++)
        if (find_text(lower, terms[i]) < lower.length)
            return true;
    return false;
}

const char *c4(const C4 *r, Page *p)
{
    Buffer line = {0}, lower = {0};
    Words words = {0};
    size_t at = 0, count = 0;
    const char *reason = NULL;
    p->rewritten.length = 0;
    for (Span raw; !reason && split_line(p->text, &at, &raw);) {
        Span s = strip(raw);
        words_split(&words, WORDS_SPACE, s);
        bool drop = false;
        for (size_t i = 0; r->max_word_length >= 0 && i < words.count && !drop; i++)
            drop = (double)utf8_count(words.items[i]) > r->max_word_length;
        if (drop)
            continue;
        if (r->remove_citations > 0)
            s = without_citations(s, &line);
        if (r->filter_no_terminal_punct > 0 && !ends_line(s))
            continue;
        if (r->min_words_per_line >= 0 && (double)words.count < r->min_words_per_line)
            continue;
        lower.length = 0;
        buffer_append(&lower, s.data, s.length);
        for (size_t i = 0; i < lower.length; i++)
            if (lower.data[i] >= 'A' && lower.data[i] <= 'Z')
                lower.data[i] = (char)(lower.data[i] + 32);
        Span l = {lower.data ? lower.data : "", lower.length};
        if (r->filter_lorem_ipsum > 0 && find_text(l, "lorem ipsum") < l.length) {
            reason = "lorem_ipsum";
        } else if (r->filter_javascript > 0 && find_text(l, "javascript") < l.length) {
            continue;
        } else if (r->filter_curly_bracket > 0 && find_text(s, "{") < s.length) {
            reason = "curly_bracket";
        } else if (!(r->filter_policy > 0 && has_policy(l))) {
            count += sentences(s);
            if (p->rewritten.length)
                buffer_byte(&p->rewritten, '\n');
            buffer_append(&p->rewritten, s.data, s.length);
        }
    }
    if (!reason && r->min_num_sentences >= 0 && (double)count < r->min_num_sentences)
        reason = "too_few_sentences";
    Span kept = strip((Span){p->rewritten.data ? p->rewritten.data : "", p->rewritten.length});
    if (p->rewritten.length) {
        memmove(p->rewritten.data, kept.data, kept.length);
        p->rewritten.length = kept.length;
    }
    words_free(&words);
    buffer_free(&line);
    buffer_free(&lower);
    return reason;
}
