/* BLEU (Papineni et al. 2002) and chrF (Popović 2015, 2017): n-grams that answer and reference have in common. */
#include "corpus.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { BLEU_ORDER = 4, CHRF_ORDER = 6, CHRF_WORDS = 2 };

size_t corpus_width(MetricKind kind)
{
    switch (kind) {
    case METRIC_BLEU:
        return 2 + 2 * BLEU_ORDER; /* words, reference's words, hits of each order, n-grams of each order */
    case METRIC_CHRF:
        return 3 * CHRF_ORDER; /* of each order: n-grams, reference's n-grams, hits */
    case METRIC_CHRF_WORDS:
        return 3 * (CHRF_ORDER + CHRF_WORDS);
    case METRIC_TER:
        return 2;
    default:
        return 0;
    }
}

/* ---- Words ---- */

void word_list_split(WordList *w, Span text)
{
    *w = (WordList){0};
    size_t capacity = 0;
    bool inside = false;
    for (size_t i = 0, n; i < text.length; i += n) {
        bool blank = unicode_is_blank(utf8_decode(text.data + i, &n));
        if (!blank && !inside) {
            buffer_string(&w->text, w->count ? " " : "");
            w->begins = memory_grow(w->begins, &capacity, w->count + 2, sizeof *w->begins);
            w->begins[w->count++] = w->text.length;
        }
        if (!blank)
            buffer_append(&w->text, text.data + i, n);
        inside = !blank;
    }
    if (w->count)
        w->begins[w->count] = w->text.length + 1;
}

void word_list_free(WordList *w)
{
    buffer_free(&w->text);
    free(w->begins);
}

Span word_list_at(const WordList *w, size_t first, size_t count)
{
    return (Span){w->text.data + w->begins[first], w->begins[first + count] - 1 - w->begins[first]};
}

/* ---- N-grams ---- */

static int compare_spans(const void *a, const void *b)
{
    const Span *x = a, *y = b;
    int order = memcmp(x->data, y->data, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* Of two lists, which are sorted: how many items they share, each as often as both have it. */
static size_t common(Span *a, size_t na, Span *b, size_t nb)
{
    size_t hits = 0;
    if (na == 0 || nb == 0)
        return 0;
    qsort(a, na, sizeof *a, compare_spans);
    qsort(b, nb, sizeof *b, compare_spans);
    for (size_t i = 0, k = 0; i < na && k < nb;) {
        int order = compare_spans(&a[i], &b[k]);
        hits += order == 0;
        i += order <= 0;
        k += order >= 0;
    }
    return hits;
}

static size_t word_grams(const WordList *w, size_t order, Span *out)
{
    size_t n = w->count >= order ? w->count - order + 1 : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = word_list_at(w, i, order);
    return n;
}

/* Adds {n-grams, reference's n-grams, hits} of one order. */
static void count_words(const WordList *a, const WordList *b, size_t order, double out[3])
{
    Span *x = memory_alloc(a->count + 1, sizeof *x), *y = memory_alloc(b->count + 1, sizeof *y);
    size_t na = word_grams(a, order, x), nb = word_grams(b, order, y);
    out[0] = (double)na;
    out[1] = (double)nb;
    out[2] = (double)common(x, na, y, nb);
    free(x);
    free(y);
}

/* ---- BLEU ---- */

static void replace(Buffer *text, const char *what, const char *by)
{
    Buffer out = {0};
    size_t n = strlen(what);
    for (size_t i = 0; i < text->length;) {
        bool found = text->length - i >= n && memcmp(text->data + i, what, n) == 0;
        if (found)
            buffer_string(&out, by);
        else
            buffer_byte(&out, text->data[i]);
        i += found ? n : 1;
    }
    buffer_free(text);
    *text = out;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char marks[] = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

static bool is_mark(char c)
{
    return memchr(marks, c, sizeof marks - 1) != NULL;
}

static bool is_point(char c)
{
    return c == '.' || c == ',';
}

/* Punctuation that stands alone wherever it is. */
static bool stands_alone(char c)
{
    return is_mark(c) && !memchr("',-.", c, 4);
}

/* One pass of a rule about neighbours: 0: a point behind what is no digit, 1: a point before what is no digit, 2: a dash behind a digit. */
static void part(Buffer *text, int rule)
{
    Buffer out = {0};
    for (size_t i = 0; i < text->length; i++) {
        char a = text->data[i], b = i + 1 < text->length ? text->data[i + 1] : '0';
        bool pair = i + 1 < text->length && (rule == 0 ? !is_digit(a) && is_point(b) : rule == 1 ? is_point(a) && !is_digit(b) : is_digit(a) && b == '-');
        if (!pair)
            buffer_byte(&out, a);
        else
            buffer_format(&out, rule == 1 ? " %c %c" : "%c %c ", a, b);
        i += pair;
    }
    buffer_free(text);
    *text = out;
}

/* The words of mteval-v13a. */
static void words_13a(WordList *w, Span sentence)
{
    Buffer text = {0}, parted = {0};
    sentence = filter_strip(sentence); /* blanks before it part words too */
    buffer_append(&text, sentence.data, sentence.length);
    static const char *const rules[][2] = {{"<skipped>", ""}, {"-\n", ""}, {"\n", " "}, {"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        replace(&text, rules[i][0], rules[i][1]);
    buffer_byte(&parted, ' ');
    for (size_t i = 0; i < text.length; i++)
        buffer_format(&parted, stands_alone(text.data[i]) ? " %c " : "%c", text.data[i]);
    buffer_byte(&parted, ' ');
    for (int rule = 0; rule < 3; rule++)
        part(&parted, rule);
    word_list_split(w, (Span){parted.data, parted.length});
    buffer_free(&text);
    buffer_free(&parted);
}

static void bleu_numbers(Span answer, Span wanted, double *out)
{
    WordList a, b;
    words_13a(&a, answer);
    words_13a(&b, wanted);
    out[0] = (double)a.count;
    out[1] = (double)b.count;
    for (size_t n = 1; n <= BLEU_ORDER; n++) {
        double counts[3];
        count_words(&a, &b, n, counts);
        out[1 + n] = counts[2];
        out[1 + BLEU_ORDER + n] = counts[0];
    }
    word_list_free(&a);
    word_list_free(&b);
}

/* Orders without a hit count as 1/2, 1/4 … of one (NIST's smoothing, sacrebleu's "exp"). */
static double bleu_score(const double *sums)
{
    double shorter = sums[0] < sums[1] ? sums[0] > 0 ? exp(1 - sums[1] / sums[0]) : 0 : 1, smooth = 1, logs = 0, hits = 0;
    for (int n = 0; n < BLEU_ORDER; n++)
        hits += sums[2 + n];
    if (hits == 0)
        return 0;
    for (int n = 0; n < BLEU_ORDER; n++) {
        double hit = sums[2 + n], total = sums[2 + BLEU_ORDER + n];
        if (total == 0) /* the corpus has no n-gram of this order */
            return 0;
        smooth *= hit == 0 ? 2 : 1;
        logs += log(hit == 0 ? 100 / (smooth * total) : 100 * hit / total);
    }
    return shorter * exp(logs / BLEU_ORDER);
}

/* ---- chrF ---- */

/* A text's characters without white space; where each begins. */
typedef struct Characters {
    Buffer text;
    size_t *begins, count;
} Characters;

static void characters_split(Characters *c, Span text)
{
    *c = (Characters){.begins = memory_alloc(text.length + 1, sizeof *c->begins)};
    for (size_t i = 0, n; i < text.length; i += n)
        if (!unicode_is_blank(utf8_decode(text.data + i, &n))) {
            c->begins[c->count++] = c->text.length;
            buffer_append(&c->text, text.data + i, n);
        }
    c->begins[c->count] = c->text.length;
}

static size_t character_grams(const Characters *c, size_t order, Span *out)
{
    size_t n = c->count >= order ? c->count - order + 1 : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (Span){c->text.data + c->begins[i], c->begins[i + order] - c->begins[i]};
    return n;
}

/* The words, punctuation at one end parted (at the end, else at the beginning). */
static void words_chrf(WordList *w, Span text)
{
    WordList plain;
    Buffer parted = {0};
    word_list_split(&plain, text);
    for (size_t i = 0; i < plain.count; i++) {
        Span s = word_list_at(&plain, i, 1);
        bool several = utf8_count(s) > 1, behind = several && is_mark(s.data[s.length - 1]), before = several && !behind && is_mark(s.data[0]);
        size_t cut = behind ? s.length - 1 : before ? 1 : s.length;
        buffer_append(&parted, s.data, cut);
        buffer_byte(&parted, ' ');
        buffer_append(&parted, s.data + cut, s.length - cut);
        buffer_byte(&parted, ' ');
    }
    word_list_split(w, (Span){parted.data ? parted.data : "", parted.length});
    word_list_free(&plain);
    buffer_free(&parted);
}

static void chrf_numbers(Span answer, Span wanted, size_t word_orders, double *out)
{
    Characters a, b;
    characters_split(&a, answer);
    characters_split(&b, wanted);
    Span *x = memory_alloc(a.count + 1, sizeof *x), *y = memory_alloc(b.count + 1, sizeof *y);
    for (size_t n = 1; n <= CHRF_ORDER; n++) {
        size_t na = character_grams(&a, n, x), nb = character_grams(&b, n, y);
        double *counts = out + 3 * (n - 1);
        counts[0] = (double)na;
        counts[1] = (double)nb;
        counts[2] = (double)common(x, na, y, nb);
    }
    WordList v, w;
    words_chrf(&v, answer);
    words_chrf(&w, wanted);
    for (size_t n = 1; n <= word_orders; n++)
        count_words(&v, &w, n, out + 3 * (CHRF_ORDER + n - 1));
    for (size_t n = 0; n < CHRF_ORDER + word_orders; n++) /* an order that the reference lacks counts for nothing */
        out[3 * n] *= out[3 * n + 1] > 0;
    word_list_free(&v);
    word_list_free(&w);
    free(x);
    free(y);
    free(a.begins);
    free(b.begins);
    buffer_free(&a.text);
    buffer_free(&b.text);
}

static double chrf_score(const double *sums, size_t orders)
{
    enum { BETA_SQUARED = 4 };
    double precision = 0, recall = 0;
    size_t n = 0;
    for (size_t i = 0; i < orders; i++, sums += 3)
        if (sums[0] > 0 && sums[1] > 0) {
            precision += sums[2] / sums[0];
            recall += sums[2] / sums[1];
            n++;
        }
    if (n == 0 || precision + recall == 0)
        return 0;
    precision /= (double)n;
    recall /= (double)n;
    return 100 * ((1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall));
}

int corpus_numbers(MetricKind kind, Span answer, Span wanted, double *out, Error *err)
{
    if (kind == METRIC_TER)
        return ter_numbers(answer, wanted, out, err);
    if (kind == METRIC_BLEU)
        bleu_numbers(answer, wanted, out);
    else
        chrf_numbers(answer, wanted, kind == METRIC_CHRF ? 0 : CHRF_WORDS, out);
    return 0;
}

double corpus_score(MetricKind kind, const double *sums)
{
    if (kind == METRIC_BLEU)
        return bleu_score(sums);
    if (kind == METRIC_TER)
        return sums[1] > 0 ? 100 * (sums[0] / sums[1]) : sums[0] > 0 ? 100 : 0;
    return chrf_score(sums, corpus_width(kind) / 3);
}
