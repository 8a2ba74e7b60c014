/* GopherQualityFilter (datatrove pipeline/filters/gopher_quality_filter.py). A threshold of 0 turns its rule off. */
#include <math.h>
#include <string.h>
#include "rules.h"
#include "text/punctuation.h"
#include "text/unicode.h"
#include "text/utf8.h"

const GopherQuality gopher_quality_default = {50, 100000, 3, 10, 0.1, 0.9, 0.3, 0.8, 2};

/* What the rules ask of a word: code points, a character that is no mark, a letter. */
typedef struct Look {
    size_t length;
    bool real, letter;
} Look;

static inline Look look_at(Span w)
{
    Look l = {0};
    size_t n;
    for (size_t i = 0; i < w.length; i += n, l.length++) {
        unsigned char c = (unsigned char)w.data[i];
        n = 1;
        if ((c | 32) >= 'a' && (c | 32) <= 'z') {
            l.real = l.letter = true;
            continue;
        }
        uint32_t u = utf8_decode(w.data + i, &n);
        l.real = l.real || !punctuation_is_mark(u);
        l.letter = l.letter || (c >= 0x80 && unicode_class(u) & UNICODE_L);
    }
    return l;
}

static inline int stop_word(Span w)
{
    static const char words[8][4] = {"the", "be", "to", "of", "and", {'t', 'h', 'a', 't'}, {'h', 'a', 'v', 'e'}, {'w', 'i', 't', 'h'}};
    static const uint8_t lengths[8] = {3, 2, 2, 2, 3, 4, 4, 4};
    if (w.length < 2 || w.length > 4)
        return -1;
    for (int i = 0; i < 8; i++)
        if (lengths[i] == w.length && memcmp(words[i], w.data, lengths[i]) == 0)
            return i;
    return -1;
}

static size_t count_text(Span s, const char *what)
{
    size_t n = 0, m = strlen(what);
    for (size_t at; (at = find_text(s, what)) < s.length; n++) {
        s.data += at + m;
        s.length -= at + m;
    }
    return n;
}

static bool ends_with(Span s, const char *what)
{
    size_t n = strlen(what);
    return s.length >= n && memcmp(s.data + s.length - n, what, n) == 0;
}

static const char *line_rules(const GopherQuality *r, Span text)
{
    size_t at = 0, lines = 0, bullets = 0, ellipses = 0;
    for (Span line; split_line(text, &at, &line); lines++) {
        Span s = strip(line);
        bullets += s.length > 0 && (*s.data == '-' || (s.length >= 3 && memcmp(s.data, "\xe2\x80\xa2", 3) == 0));
        ellipses += ends_with(s, "...") || ends_with(s, "\xe2\x80\xa6");
    }
    if (r->max_bullet_lines_ratio > 0 && lines && (double)bullets / (double)lines > r->max_bullet_lines_ratio)
        return "gopher_too_many_bullets";
    if (r->max_ellipsis_lines_ratio > 0 && lines && (double)ellipses / (double)lines > r->max_ellipsis_lines_ratio)
        return "gopher_too_many_end_ellipsis";
    return NULL;
}

const char *gopher_quality(const GopherQuality *r, Page *p)
{
    page_split(p);
    size_t n = p->words.count, real = 0, letters = 0, length = 0;
    unsigned stops = 0;
    for (size_t i = 0; i < n; i++) {
        Span w = p->words.items[i];
        Look l = look_at(w);
        real += l.real;
        length += l.real ? l.length : 0;
        letters += l.letter;
        int stop = stop_word(w);
        stops |= stop >= 0 ? 1u << stop : 0;
    }
    double mean = real ? (double)length / (double)real : NAN, all = (double)n;
    if (r->min_doc_words > 0 && (double)real < r->min_doc_words)
        return "gopher_short_doc";
    if (r->max_doc_words > 0 && (double)real > r->max_doc_words)
        return "gopher_long_doc";
    if (r->min_avg_word_length > 0 && mean < r->min_avg_word_length)
        return "gopher_below_avg_threshold";
    if (r->max_avg_word_length > 0 && mean > r->max_avg_word_length)
        return "gopher_above_avg_threshold";
    if (r->max_symbol_word_ratio > 0 && n && (double)count_text(p->text, "#") / all > r->max_symbol_word_ratio)
        return "gopher_too_many_hashes";
    if (r->max_symbol_word_ratio > 0 && n && (double)(count_text(p->text, "...") + count_text(p->text, "\xe2\x80\xa6")) / all > r->max_symbol_word_ratio)
        return "gopher_too_many_ellipsis";
    const char *lines = line_rules(r, p->text);
    if (lines)
        return lines;
    if (r->max_non_alpha_words_ratio > 0 && n && (double)letters / all < r->max_non_alpha_words_ratio)
        return "gopher_below_alpha_threshold";
    if (r->min_stop_words > 0 && (double)__builtin_popcount(stops) < r->min_stop_words)
        return "gopher_enough_stop_words";
    return NULL;
}
