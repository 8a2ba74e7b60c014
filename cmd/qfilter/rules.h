/* Quality rules after datatrove (pipeline/filters/): a verdict is a reason, or NULL to keep. Lengths are code points. Thresholds
 * bear datatrove's names with hyphens. */
#ifndef QFILTER_RULES_H
#define QFILTER_RULES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "text/words.h"

/* The text of a document and what several rules need of it. */
typedef struct Page {
    Span text;
    size_t length; /* code points */
    Words words;   /* once page_split was called */
    bool split, placed;
    Buffer rewritten;         /* c4 writes the kept lines here */
    Buffer line, lower;       /* c4's line as it is worked on */
    Words sentences, tokens;  /* and its sentences */
    WordKind kind;
    /* gopher_repetition.c: a hash table and the hashes of the words so far, grown as needed. */
    void *table;
    size_t table_capacity, table_mask;
    struct GramPlace *places;
    size_t place_capacity;
    uint64_t *powers;
} Page;

void page_set(Page *p, Span text, WordKind kind);
/* Fills words, for rules that count them. */
void page_split(Page *p);
void page_free(Page *p);

typedef struct GopherQuality {
    double min_doc_words, max_doc_words, min_avg_word_length, max_avg_word_length, max_symbol_word_ratio, max_bullet_lines_ratio,
        max_ellipsis_lines_ratio, max_non_alpha_words_ratio, min_stop_words;
} GopherQuality;
typedef struct GopherRepetition {
    double dup_para_frac, dup_para_char_frac, dup_line_frac, dup_line_char_frac, top_n_grams[3] /* 2 3 4 */, dup_n_grams[6] /* 5 … 10 */;
} GopherRepetition;
typedef struct C4 {
    double split_paragraph, remove_citations, filter_no_terminal_punct, min_num_sentences, min_words_per_line, max_word_length, filter_lorem_ipsum,
        filter_javascript, filter_curly_bracket, filter_policy;
} C4;
typedef struct Llama3 {
    double dup_n_grams[6] /* 5 … 10 */, max_dirty_words, max_kl, kl_percentile;
} Llama3;
typedef struct FineWeb {
    double line_punct_thr, line_punct_exclude_zero, short_line_thr, short_line_length, char_duplicates_ratio, new_line_ratio;
} FineWeb;

extern const GopherQuality gopher_quality_default;
extern const GopherRepetition gopher_repetition_default;
extern const C4 c4_default;
extern const FineWeb fineweb_default;
extern const Llama3 llama3_default;

const char *gopher_quality(const GopherQuality *r, Page *p);
const char *gopher_repetition(const GopherRepetition *r, Page *p);
/* Leaves the kept lines in p->rewritten. */
const char *c4(const C4 *r, Page *p);
const char *fineweb(const FineWeb *r, Page *p);

/* More than limits[n - 5] of the characters of a text that is not empty stand in n-grams of words that stood before, n = 5 … 10. */
const char *duplicated_grams(const double limits[6], Page *p);

/* Python's str.splitlines: the next line from *at, without its end; false at the end. */
bool split_line(Span text, size_t *at, Span *line);
Span strip(Span s); /* Python's str.strip */
/* Python's str.lower but for the final sigma, in place of what out held. */
Span lower_case(Span s, Buffer *out);
/* First place of what in s, or length. */
size_t find_text(Span s, const char *what);

/* Lists: a domain a line (hosts files too), bad words a line. */
typedef struct List List;
List *list_read(const char *const *files, size_t count, bool domains, Error *err);
void list_free(List *l);
/* The host of url, or a parent domain of it, is listed. */
bool list_has_domain(const List *l, Span url);
/* A listed word or phrase stands in the lower-cased text between characters that are no \w (C4's bad words). */
bool list_has_word(const List *l, Span text);
size_t list_count_words(const List *l, Span text); /* places where one does */

/* Leaves the divergence of tokens to distribution.h. dirty_words may be NULL. */
const char *llama3(const Llama3 *r, Page *p, const List *dirty_words);

/* E-mail and IPv4 addresses (datatrove's PIIFormatter, its replacements chosen by position in the document): how many; out (NULL:
 * only count) gets the masked text. */
size_t pii_mask(Span text, Buffer *out);

#endif
