#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/python_re.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct PythonRe {
    pcre2_code *code;
    pcre2_match_data *match;
    uint32_t groups;
};

/* Classes as Python's str has them (re documentation, "Regular Expression Syntax"), as the inside of a bracket expression. */
static const char *class_inside(char c)
{
    return c == 'w' ? "\\p{L}\\p{N}_" : c == 's' ? "\\p{Z}\\x09-\\x0d\\x1c-\\x1f\\x85" : "\\p{Nd}";
}

/* Writes the pattern as PCRE2 reads it. */
static int translate(Span pattern, Buffer *out, Error *err)
{
    bool bracket = false;
    for (size_t i = 0; i < pattern.length; i++) {
        char c = pattern.data[i], after = i + 1 < pattern.length ? pattern.data[i + 1] : 0;
        if (c == '\\' && after) {
            i++;
            bool class = strchr("wsd", after | 32) != NULL && ((after >= 'a' && after <= 'z') || (after >= 'A' && after <= 'Z'));
            if (class && (after | 32) == after && bracket)
                buffer_string(out, class_inside(after));
            else if (class && !bracket)
                buffer_format(out, (after | 32) == after ? "[%s]" : "[^%s]", class_inside((char)(after | 32)));
            else if (after == 'Z' && !bracket)
                buffer_string(out, "\\z");
            else if (strchr("QEGKRXCHhVNPpgokc", after))
                return error_set(err, "regular expression '%.*s': Python's re has no \\%c", (int)pattern.length, pattern.data, after);
            else
                buffer_append(out, &pattern.data[i - 1], 2);
            continue;
        }
        if (!bracket && c == '(' && (after == '*' || (after == '?' && i + 2 < pattern.length && strchr("aLu|&RC'", pattern.data[i + 2]))))
            return error_set(err, "regular expression '%.*s': '(%.*s' is not known here", (int)pattern.length, pattern.data, after == '*' ? 1 : 2, &pattern.data[i + 1]);
        if (!bracket && c == '{' && after == ',') {
            buffer_string(out, "{0");
            continue;
        }
        buffer_byte(out, c);
        if (!bracket && c == '[') {
            bracket = true;
            if (after == '^')
                buffer_byte(out, pattern.data[++i]);
            if (i + 1 < pattern.length && pattern.data[i + 1] == ']') { /* the first one stands for itself */
                buffer_string(out, "\\]");
                i++;
            }
        } else if (bracket && c == ']') {
            bracket = false;
        } else if (bracket && c == '[') { /* no [:alpha:] in Python */
            out->length--;
            buffer_string(out, "\\[");
        }
    }
    return 0;
}

PythonRe *python_re_compile(Span pattern, Error *err)
{
    Buffer text = {0};
    if (translate(pattern, &text, err) < 0) {
        buffer_free(&text);
        return NULL;
    }
    int code;
    PCRE2_SIZE offset;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.length, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &offset, NULL);
    buffer_free(&text);
    if (!compiled) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        error_set(err, "regular expression '%.*s': %s", pattern.length < 100 ? (int)pattern.length : 100, pattern.data, (char *)reason);
        return NULL;
    }
    PythonRe *re = memory_zalloc(1, sizeof *re);
    re->code = compiled;
    pcre2_pattern_info(compiled, PCRE2_INFO_CAPTURECOUNT, &re->groups);
    re->match = pcre2_match_data_create_from_pattern(compiled, NULL);
    return re;
}

void python_re_free(PythonRe *re)
{
    if (!re)
        return;
    pcre2_match_data_free(re->match);
    pcre2_code_free(re->code);
    free(re);
}

size_t python_re_groups(const PythonRe *re)
{
    return re->groups;
}

int python_re_next(PythonRe *re, Span text, PythonMatch *m, Error *err)
{
    uint32_t options = PCRE2_NO_UTF_CHECK | (m->started && m->was_empty ? PCRE2_NOTEMPTY_ATSTART : 0);
    size_t at = m->started ? m->end : 0;
    int n = pcre2_match(re->code, (PCRE2_SPTR)(text.data ? text.data : ""), text.length, at, options, re->match, NULL);
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    if (n < 0)
        return error_set(err, "a regular expression takes too many steps");
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(re->match);
    *m = (PythonMatch){.begin = o[0], .end = o[1], .started = true, .was_empty = o[0] == o[1]};
    return 1;
}

Span python_re_group(const PythonRe *re, Span text, size_t group)
{
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(re->match) + 2 * group;
    return group > re->groups || o[0] == PCRE2_UNSET ? (Span){NULL, 0} : (Span){text.data + o[0], o[1] - o[0]};
}

static int replacement_write(const PythonRe *re, Span replacement, Span text, Buffer *out, Error *err)
{
    for (size_t i = 0; i < replacement.length; i++) {
        char c = replacement.data[i], after = i + 1 < replacement.length ? replacement.data[i + 1] : 0;
        if (c != '\\') {
            buffer_byte(out, c);
            continue;
        }
        size_t group = 0, digits = 0;
        bool named = after == 'g' && i + 2 < replacement.length && replacement.data[i + 2] == '<';
        for (size_t k = i + (named ? 3 : 1); k < replacement.length && digits < 2 && replacement.data[k] >= '0' && replacement.data[k] <= '9'; k++, digits++)
            group = group * 10 + (size_t)(replacement.data[k] - '0');
        bool closed = named && i + 3 + digits < replacement.length && replacement.data[i + 3 + digits] == '>';
        if (digits && (closed || (!named && after != '0')) && group <= re->groups) {
            Span s = python_re_group(re, text, group);
            buffer_append(out, s.data, s.length);
            i += digits + (named ? 3 : 0);
        } else if (after == 'n' || after == 't' || after == '\\') {
            buffer_byte(out, after == 'n' ? '\n' : after == 't' ? '\t' : '\\');
            i++;
        } else {
            return error_set(err, "the replacement '%.*s' is not known here", (int)replacement.length, replacement.data);
        }
    }
    return 0;
}

int python_re_sub(PythonRe *re, Span replacement, Span text, int64_t count, Buffer *out, Error *err)
{
    PythonMatch m = {0};
    size_t copied = 0;
    int found = 0;
    for (int64_t n = 0; (count == 0 || n < count) && (found = python_re_next(re, text, &m, err)) > 0; n++) {
        buffer_append(out, text.data + copied, m.begin - copied);
        copied = m.end;
        if (replacement_write(re, replacement, text, out, err) < 0)
            return -1;
    }
    buffer_append(out, text.data + copied, text.length - copied);
    return found < 0 ? -1 : 0;
}
