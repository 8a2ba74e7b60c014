/* Python's re over valid UTF-8, through PCRE2: findall and sub, as lm-evaluation-harness's filters and the template filter
 * regex_replace use them. \w, \s and \d mean what they mean for Python's str. What PCRE2 reads otherwise (flags a, L and u,
 * callbacks of PCRE2 itself) is refused. */
#ifndef TEXT_PYTHON_RE_H
#define TEXT_PYTHON_RE_H

#include <stdbool.h>
#include "base/error.h"
#include "base/memory.h"

typedef struct PythonRe PythonRe; /* for one thread */

PythonRe *python_re_compile(Span pattern, Error *err);
void python_re_free(PythonRe *re);

/* One match after the other, as finditer gives them: empty ones too, but none where the one before was empty. {0} begins. */
typedef struct PythonMatch {
    size_t begin, end;
    bool started, was_empty;
} PythonMatch;

/* The next match: 1, 0 at the end, -1 where matching was given up. */
int python_re_next(PythonRe *re, Span text, PythonMatch *m, Error *err);
size_t python_re_groups(const PythonRe *re);                     /* brackets in the pattern */
Span python_re_group(const PythonRe *re, Span text, size_t group); /* of the last match; data NULL: took no part */

/* re.sub(pattern, replacement, text, count), appended to out; count 0: all. The replacement may name groups (\1, \g<1>). */
int python_re_sub(PythonRe *re, Span replacement, Span text, int64_t count, Buffer *out, Error *err);

#endif
