#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "text/unicode.h"

/* A class is what has any of `some` and none of `none`. */
typedef struct Class {
    const char *name;
    unsigned some, none;
    bool word; /* and what word_extra lists */
} Class;

/* What Oniguruma's \w takes beside letters, marks and decimal digits: connectors, letter numbers, circled letters, and of Latin-1
 * the superscripts and fractions (probed in Hugging Face tokenizers 0.23.3). */
static const uint32_t word_extra[][2] = {
    {0x5f, 0x5f}, {0xb2, 0xb3}, {0xb9, 0xb9}, {0xbc, 0xbe}, {0x16ee, 0x16f0}, {0x203f, 0x2040}, {0x2054, 0x2054}, {0x2160, 0x2182}, {0x2185, 0x2188},
    {0x24b6, 0x24e9}, {0x3007, 0x3007}, {0x3021, 0x3029}, {0x3038, 0x303a}, {0xa6e6, 0xa6ef}, {0xfe33, 0xfe34}, {0xfe4d, 0xfe4f}, {0xff3f, 0xff3f},
    {0x10140, 0x10174}, {0x10341, 0x10341}, {0x1034a, 0x1034a}, {0x103d1, 0x103d5}, {0x12400, 0x1246e}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169},
    {0x1f170, 0x1f189},
};

static bool is_extra(uint32_t c)
{
    for (size_t i = 0; i < sizeof word_extra / sizeof *word_extra; i++)
        if (c >= word_extra[i][0] && c <= word_extra[i][1])
            return true;
    return false;
}

static const Class *class_named(const char *name, size_t length)
{
    static const Class classes[] = {{"s", UNICODE_SPACE, 0, false}, {"w", UNICODE_L | UNICODE_M | UNICODE_DIGIT, 0, true}, {"L", UNICODE_L, 0, false}, {"N", UNICODE_N, 0, false}, {"M", UNICODE_M, 0, false},
                                    {"Ll", UNICODE_LOWER, 0, false}, {"Lu", UNICODE_UPPER, UNICODE_LT, false}, {"Lt", UNICODE_LT, 0, false},
                                    {"Lm", UNICODE_LM, 0, false}, {"Lo", UNICODE_OTHER, UNICODE_LM, false}, {"Nd", UNICODE_DIGIT, 0, false},
                                    {"P", UNICODE_P, 0, false}, {"S", UNICODE_S, 0, false}, {"Mn", UNICODE_MN, 0, false}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strlen(classes[i].name) == length && memcmp(classes[i].name, name, length) == 0)
            return &classes[i];
    return NULL;
}

/* The ranges of code points that have (or lack) a class, as the inside of a bracket expression. */
static void write_ranges(Buffer *out, const Class *class, bool wanted)
{
    uint32_t first = 0;
    bool inside = false;
    for (uint32_t c = 0; c <= 0x110000; c++) {
        unsigned bits = unicode_class(c);
        bool has = ((bits & class->some) && !(bits & class->none)) || (class->word && is_extra(c));
        bool in = c < 0x110000 && (c < 0xd800 || c >= 0xe000) && has == wanted;
        if (in && !inside)
            first = c;
        if (!in && inside)
            buffer_format(out, first == c - 1 ? "\\x{%x}" : "\\x{%x}-\\x{%x}", first, c - 1);
        inside = in;
    }
}

/* One escape at p (behind the backslash): its class, sense and length, or 0. */
static size_t escape_class(const char *p, const Class **class, bool *wanted)
{
    static const char *const letters[] = {"s", "w", "d"}, *const names[] = {"s", "w", "Nd"};
    for (int i = 0; i < 3; i++)
        if ((*p | 32) == *letters[i]) { /* the capital is what lacks it */
            *class = class_named(names[i], strlen(names[i]));
            *wanted = *p == *letters[i];
            return 1;
        }
    if ((*p == 'p' || *p == 'P') && p[1] == '{') {
        const char *end = strchr(p, '}');
        *wanted = *p == 'p';
        *class = end ? class_named(p + 2, (size_t)(end - p - 2)) : NULL;
        return *class ? (size_t)(end - p + 1) : 0;
    }
    return 0;
}

/* The length of {n}, {n,} or {n,m} at p, or 0. */
static size_t interval(const char *p)
{
    size_t n = 1 + strspn(p + 1, "0123456789");
    if (*p != '{' || n == 1)
        return 0;
    if (p[n] == ',')
        n += 1 + strspn(p + n + 1, "0123456789");
    return p[n] == '}' ? n + 1 : 0;
}

/* The length of the escape at p, with the name or number in braces behind it. */
static size_t escape_length(const char *p)
{
    const char *end = p[1] && strchr("pPxogkN", p[1]) && p[2] == '{' ? strchr(p, '}') : NULL;
    return end ? (size_t)(end - p + 1) : p[1] ? 2 : 1;
}

/* Writes the escape at p. A script's name: Oniguruma takes characters whose own script it is, PCRE2 since 10.40 also those that are
 * used with it, such as the marks of Japanese with Han, unless it says sc. */
static void write_escape(Buffer *out, const char *p, size_t length)
{
    Buffer script = {0};
    if (length > 4 && (p[1] == 'p' || p[1] == 'P') && p[2] == '{') {
        int code;
        PCRE2_SIZE offset;
        buffer_format(&script, "\\%c{sc:%.*s", p[1], (int)length - 3, p + 3);
        pcre2_code *known = pcre2_compile((PCRE2_SPTR)script.data, script.length, PCRE2_UTF, &code, &offset, NULL);
        if (known)
            buffer_append(out, script.data, script.length);
        else
            script.length = 0;
        pcre2_code_free(known);
    }
    if (script.length == 0)
        buffer_append(out, p, length);
    buffer_free(&script);
}

/* {n,m}+ at p, of `length` with its +, which repeats the interval: the same as one of these, or NULL where it takes a group to say. */
static const char *repeated(const char *p, size_t length)
{
    if (p[1] == '0' || p[1] == '1')
        return p[2] != ',' && p[2] != '}' ? NULL : p[1] == '0' ? "*" : "+";
    return p[length - 3] == ',' ? "" : NULL; /* {n,} */
}

/* Hugging Face's library gives these expressions to Oniguruma, whose syntax is Ruby's. What PCRE2 reads otherwise: {n,m}+ is no
 * possessive interval but one that repeats, and brackets hold sets of sets, which are refused. */
static int expand(Buffer *out, const char *pattern, Error *err)
{
    bool bracket = false;
    for (const char *p = pattern; *p;) {
        const Class *class;
        bool wanted;
        size_t n = *p == '\\' ? escape_class(p + 1, &class, &wanted) : 0, whole = 1;
        if (n) {
            buffer_string(out, bracket ? "" : "[");
            write_ranges(out, class, wanted);
            buffer_string(out, bracket ? "" : "]");
            p += n + 1;
            continue;
        }
        if (*p == '\\') {
            whole = escape_length(p);
            write_escape(out, p, whole);
            p += whole;
            continue;
        }
        if (bracket && p[0] == '[' && p[1] == ':' && strstr(p, ":]")) {
            whole = (size_t)(strstr(p, ":]") + 2 - p);
        } else if (bracket && (*p == '[' || (p[0] == '&' && p[1] == '&'))) {
            return error_set(err, "regular expression '%.100s': a set within a set is not supported", pattern);
        } else if (*p == '[') {
            bracket = true;
            whole += p[whole] == '^';
            whole += p[whole] == ']'; /* the first is a character */
        } else if (*p == ']') {
            bracket = false;
        } else if (!bracket && (n = interval(p)) > 0 && p[n] == '+') {
            const char *same = repeated(p, n + 1);
            if (!same)
                return error_set(err, "regular expression '%.100s': %.*s is not supported", pattern, (int)n + 1, p);
            buffer_append(out, *same ? same : p, *same ? 1 : n);
            p += n + 1;
            continue;
        }
        buffer_append(out, p, whole);
        p += whole;
    }
    return 0;
}

void *regex_compile(const char *pattern, Error *err)
{
    Buffer text = {0};
    if (expand(&text, pattern, err) < 0) {
        buffer_free(&text);
        return NULL;
    }
    int code;
    PCRE2_SIZE offset;
    /* In Ruby ^ and $ stand at lines. */
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.length, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset, NULL);
    buffer_free(&text);
    if (!compiled) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        error_set(err, "regular expression '%.100s': %s", pattern, (char *)reason);
        return NULL;
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    return compiled;
}

void regex_free(void *code)
{
    pcre2_code_free(code);
}

/* A group that repeats takes room for each time: 32 kilobytes, PCRE2's own stack, are gone after a thousand letters. What this one
 * does not hold goes to the heap, without compiled code. */
enum { STACK_FIRST = 1 << 15, STACK_MOST = 1 << 26 };

typedef struct Scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} Scratch;

void *regex_scratch(void *code)
{
    Scratch *s = memory_zalloc(1, sizeof *s);
    s->data = pcre2_match_data_create_from_pattern(code, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(STACK_FIRST, STACK_MOST, NULL);
    if (s->context && s->stack)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void regex_scratch_free(void *scratch)
{
    Scratch *s = scratch;
    if (!s)
        return;
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    free(s);
}

static int match_from(void *code, const Scratch *s, Span text, size_t at)
{
    int n = pcre2_match(code, (PCRE2_SPTR)text.data, text.length, at, PCRE2_NO_UTF_CHECK, s->data, s->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(code, (PCRE2_SPTR)text.data, text.length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->data, s->context);
    return n;
}

/* Oniguruma's way through a text: a match of nothing is one, and parts what stands around it, but not where the last match ended. */
int regex_split(void *code, void *scratch, bool matches_only, Span text, int (*emit)(void *context, Span piece), void *context, Error *err)
{
    const Scratch *s = scratch;
    size_t at = 0, searched = 0, last = SIZE_MAX;
    while (at < text.length) {
        int n = searched > text.length ? PCRE2_ERROR_NOMATCH : match_from(code, s, text, searched);
        if (n < 0 && n != PCRE2_ERROR_NOMATCH)
            return error_set(err, "the regular expression fails on a text (PCRE2 error %d)", n);
        const PCRE2_SIZE *match = pcre2_get_ovector_pointer(s->data);
        size_t begin = n < 0 ? text.length : match[0], end = n < 0 ? text.length : match[1];
        if (n >= 0 && begin == end && end == last) {
            searched = end + 1;
            while (searched < text.length && ((unsigned char)text.data[searched] & 0xc0) == 0x80)
                searched++;
            continue;
        }
        if (begin > at && !matches_only && emit(context, (Span){text.data + at, begin - at}) < 0)
            return -1;
        if (end > begin && emit(context, (Span){text.data + begin, end - begin}) < 0)
            return -1;
        at = searched = last = end;
    }
    return 0;
}
