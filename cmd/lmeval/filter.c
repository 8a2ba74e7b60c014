/* Filters of generated answers (lm_eval/filters) and exact_match (lm_eval/api/metrics.py, exact_match_hf_evaluate). One answer a
 * document, so that those which choose among answers (take_first, majority_vote) leave it as it is. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "task.h"
#include "text/unicode.h"
#include "text/utf8.h"

int filter_patterns(const JsonValue *v, PythonRe ***out, size_t *count, Error *err)
{
    if (v && v->type != JSON_ARRAY && v->type != JSON_NULL)
        return error_set(err, "'regexes_to_ignore' must be a list");
    *out = memory_zalloc((v ? v->count : 0) + 1, sizeof **out);
    for (size_t i = 0; v && v->type == JSON_ARRAY && i < v->count; i++) {
        if (v->items[i].type != JSON_STRING)
            return error_set(err, "'regexes_to_ignore' must hold texts");
        (*out)[i] = python_re_compile(v->items[i].string, err);
        if (!(*out)[i])
            return -1;
        (*count)++;
    }
    return 0;
}

static int read_regex(Filter *f, const JsonValue *v, Error *err)
{
    static const char standard[] = "#### (\\-?[0-9\\.\\,]+)";
    const JsonValue *pattern = json_get(v, "regex_pattern"), *group = json_get(v, "group_select"), *fallback = json_get(v, "fallback");
    if ((pattern && pattern->type != JSON_STRING) || (group && group->type != JSON_INTEGER) || (fallback && fallback->type != JSON_STRING))
        return error_set(err, "the filter 'regex' needs a text, a whole number and a text");
    f->pattern = python_re_compile(pattern ? pattern->string : (Span){standard, sizeof standard - 1}, err);
    f->group = group ? group->integer : 0;
    f->fallback = fallback ? fallback->string : (Span){"[invalid]", 9};
    const JsonValue *letters = json_get(v, "ignore_case"), *marks = json_get(v, "ignore_punctuation");
    if ((letters && letters->type != JSON_BOOL) || (marks && marks->type != JSON_BOOL))
        return error_set(err, "'ignore_case' and 'ignore_punctuation' are true or false");
    f->ignore_case = letters && letters->boolean;
    f->ignore_punctuation = marks && marks->boolean;
    return f->pattern ? filter_patterns(json_get(v, "regexes_to_ignore"), &f->ignored, &f->ignored_count, err) : -1;
}

static int allow(const JsonValue *v, const char *const *keys, Error *err)
{
    for (size_t i = 0; i < v->count; i++) {
        bool known = strcmp(v->keys[i].data, "function") == 0;
        for (const char *const *k = keys; *k; k++)
            known |= strcmp(v->keys[i].data, *k) == 0;
        if (!known)
            return error_set(err, "the argument '%s' of the filter '%s' is not known here", v->keys[i].data, json_get(v, "function")->string.data);
    }
    return 0;
}

int filter_read(Filter *f, const JsonValue *v, Error *err)
{
    static const struct {
        const char *name;
        FilterKind kind;
        const char *keys[7];
    } known[] = {{"regex", FILTER_REGEX, {"regex_pattern", "group_select", "fallback", NULL}}, {"remove_whitespace", FILTER_STRIP, {NULL}}, {"lowercase", FILTER_LOWER, {NULL}},
                 {"multi_choice_regex", FILTER_CHOICE, {"regex_pattern", "group_select", "fallback", "ignore_case", "ignore_punctuation", "regexes_to_ignore", NULL}},
                 {"uppercase", FILTER_UPPER, {NULL}}, {"map", FILTER_MAP, {"mapping_dict", "default_value", NULL}}, {"take_first", FILTER_NONE, {NULL}},
                 {"take_first_k", FILTER_NONE, {"k", NULL}}, {"majority_vote", FILTER_NONE, {NULL}}};
    const JsonValue *function = json_get(v, "function");
    if (!json_is(function, JSON_STRING))
        return error_set(err, "a filter needs a 'function'");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, function->string.data) != 0)
            continue;
        *f = (Filter){.kind = known[i].kind, .map = json_get(v, "mapping_dict"), .otherwise = json_get(v, "default_value")};
        if (allow(v, known[i].keys, err) < 0)
            return -1;
        const JsonValue *k = json_get(v, "k");
        if (k && (k->type != JSON_INTEGER || k->integer != 1))
            return error_set(err, "'take_first_k' of more than the one answer that is written");
        if (f->map && f->map->type != JSON_OBJECT)
            return error_set(err, "'mapping_dict' is no mapping");
        return f->kind == FILTER_REGEX || f->kind == FILTER_CHOICE ? read_regex(f, v, err) : 0;
    }
    return error_set(err, "the filter '%s' is not known here", function->string.data);
}

Span filter_strip(Span s)
{
    size_t n;
    while (s.length > 0 && unicode_is_blank(utf8_decode(s.data, &n))) {
        s.data += n;
        s.length -= n;
    }
    while (s.length > 0) {
        for (n = 1; n < s.length && ((unsigned char)s.data[s.length - n] & 0xc0) == 0x80; n++)
            ;
        size_t length;
        if (!unicode_is_blank(utf8_decode(s.data + s.length - n, &length)))
            break;
        s.length -= n;
    }
    return s;
}

/* The chosen match; of several groups the first that holds something. `empty` stands for a match whose groups hold nothing. */
static int chosen_match(const Filter *f, Span text, Span empty, Span *out, Error *err)
{
    size_t groups = python_re_groups(f->pattern), count = 0, capacity = 0;
    Span *found = NULL;
    PythonMatch m = {0};
    int more;
    while ((more = python_re_next(f->pattern, text, &m, err)) > 0) {
        Span s = python_re_group(f->pattern, text, groups > 0);
        for (size_t g = 2; g <= groups && s.length == 0; g++)
            s = python_re_group(f->pattern, text, g);
        if (groups > 1 && s.length == 0)
            s = empty;
        found = memory_grow(found, &capacity, count + 1, sizeof *found);
        found[count++] = s;
    }
    int64_t at = f->group < 0 ? f->group + (int64_t)count : f->group;
    int status = more;
    if (status == 0 && count > 0 && (at < 0 || at >= (int64_t)count))
        status = error_set(err, "'group_select' wants match %lld of %zu", (long long)f->group, count);
    if (status == 0 && count > 0)
        *out = found[at].length ? filter_strip(found[at]) : (Span){"", 0};
    free(found);
    return status < 0 ? -1 : count > 0;
}

static int apply_regex(const Filter *f, Span text, Span *out, Error *err)
{
    int found = chosen_match(f, text, f->fallback, out, err);
    if (found == 0)
        *out = f->fallback;
    return found < 0 ? -1 : 0;
}

int filter_find(const Filter *f, Span text, Span *out, Error *err)
{
    *out = (Span){"", 0};
    return chosen_match(f, text, (Span){"", 0}, out, err) < 0 ? -1 : 0;
}

int filter_case(Span s, Arena *arena, bool upper, Span *out, Error *err)
{
    Buffer b = {0};
    if (!upper)
        unicode_lower_text(s, &b);
    for (size_t i = 0, n; i < s.length && upper; i += n) {
        uint32_t c = utf8_decode(s.data + i, &n);
        if (c >= 0x80 && (unicode_class(c) & UNICODE_LOWER)) {
            buffer_free(&b);
            return error_set(err, "the filter 'uppercase' beyond ASCII is not known here");
        }
        buffer_append(&b, s.data + i, n);
        if (c >= 'a' && c <= 'z')
            b.data[b.length - 1] &= ~32;
    }
    *out = (Span){arena_copy(arena, b.data ? b.data : "", b.length), b.length};
    buffer_free(&b);
    return 0;
}

int filters_apply(const Pipeline *p, Span answer, const Span *choices, size_t choice_count, Arena *arena, Span *out, Error *err)
{
    *out = answer;
    int status = 0;
    for (size_t i = 0; i < p->count && status == 0; i++) {
        const Filter *f = &p->filters[i];
        if (f->kind == FILTER_REGEX) {
            status = apply_regex(f, *out, out, err);
        } else if (f->kind == FILTER_CHOICE) {
            status = filter_choose(f, *out, choices, choice_count, arena, out, err);
        } else if (f->kind == FILTER_STRIP) {
            *out = filter_strip(*out);
        } else if (f->kind == FILTER_LOWER || f->kind == FILTER_UPPER) {
            status = filter_case(*out, arena, f->kind == FILTER_UPPER, out, err);
        } else if (f->kind == FILTER_MAP) {
            const JsonValue *to = f->map ? json_get(f->map, arena_copy(arena, out->data, out->length)) : NULL;
            static const JsonValue none = {.type = JSON_NULL};
            status = value_string_of(to ? to : f->otherwise ? f->otherwise : &none, arena, out, err);
        }
    }
    return status;
}

/* One side: regexes_to_ignore, ignore_case, ignore_punctuation, ignore_numbers, in this order. */
static int prepare(const Metric *m, Span text, Arena *arena, Span *out, Error *err)
{
    static const char punctuation[] = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    *out = text;
    for (size_t i = 0; i < m->ignored_count; i++) {
        Buffer b = {0};
        int status = python_re_sub(m->ignored[i], (Span){"", 0}, *out, 0, &b, err);
        *out = (Span){arena_copy(arena, b.data ? b.data : "", b.length), b.length};
        buffer_free(&b);
        if (status < 0)
            return -1;
    }
    if (m->ignore_case && filter_case(*out, arena, false, out, err) < 0)
        return -1;
    char *kept = arena_copy(arena, out->length ? out->data : "", out->length);
    size_t n = 0;
    for (size_t i = 0; i < out->length; i++) {
        char c = kept[i];
        bool dropped = (m->ignore_punctuation && c && strchr(punctuation, c)) || (m->ignore_numbers && c >= '0' && c <= '9');
        if (!dropped)
            kept[n++] = c;
    }
    while (n > 0 && kept[n - 1] == 0) /* NumPy's strings end before their last NULs */
        n--;
    *out = (Span){kept, n};
    return 0;
}

int metric_match(const Metric *m, Span answer, Span wanted, bool *equal, Error *err)
{
    Arena arena = {0};
    Span a, b;
    int status = prepare(m, answer, &arena, &a, err);
    if (status == 0)
        status = prepare(m, wanted, &arena, &b, err);
    *equal = status == 0 && a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
    arena_free(&arena);
    return status;
}
