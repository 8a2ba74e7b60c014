/* --help, --version and the saved form of the options. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/memory.h"
#include "base/option_internal.h"
#include "io/json.h"

enum { HELP_WIDTH = 80, HELP_COLUMN = 25 };

/* Prints text from `column` on, wrapped at blanks to HELP_WIDTH. */
static void print_wrapped(const char *text, int column, int at)
{
    while (*text) {
        size_t n = strlen(text), room = (size_t)(HELP_WIDTH - column);
        if (n > room) {
            n = room;
            while (n > 0 && text[n] != ' ')
                n--;
            if (n == 0)
                n = strcspn(text, " ");
        }
        printf("%*s%.*s\n", at < column ? column - at : 0, "", (int)n, text);
        at = 0;
        text += n;
        text += strspn(text, " ");
    }
}

static void print_option(const Option *o)
{
    char left[96];
    int n = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "  --%s", o->name);
    if (o->argument)
        n += snprintf(left + n, sizeof left - (size_t)n, o->type == OPTION_OPTIONAL ? "[=%s]" : " %s", o->argument);
    printf("%s", left);
    if (n >= HELP_COLUMN - 1) {
        putchar('\n');
        n = 0;
    }
    print_wrapped(o->help, HELP_COLUMN, n);
}

/* "heading --name ARG, --name ARG" of the options from `o` to the next heading, wrapped; returns the row after them. */
static const Option *print_names(const Option *o)
{
    int at = printf("%s", o->help);
    for (o++; !option_is_last(o) && !option_is_heading(o); o++) {
        int n = (int)strlen(o->name) + 3 + (o->argument ? (int)strlen(o->argument) + 1 : 0) + (o->letter ? 4 : 0);
        if (at + n > HELP_WIDTH)
            at = printf("\n    ") - 1;
        putchar(' ');
        if (o->letter)
            printf("-%c, ", o->letter);
        printf("--%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        at += n;
    }
    putchar('\n');
    return o;
}

int option_print_help(const OptionSet *set, bool all, Error *err)
{
    bool shortened = false;
    const char *line = set->synopsis;
    for (int first = 1; *line; first = 0) {
        size_t n = strcspn(line, "\n");
        printf("%s %.*s\n", first ? "usage:" : "      ", (int)n, line);
        line += n + (line[n] == '\n');
    }
    if (set->summary)
        print_wrapped(set->summary, 0, 0);
    putchar('\n');
    for (const Option *o = set->options; !option_is_last(o);) {
        if (o->type == OPTION_MORE && !all) {
            o = print_names(o);
            shortened = true;
            continue;
        }
        if (option_is_heading(o))
            printf("%s\n", o->help);
        else
            print_option(o);
        o++;
    }
    if (shortened)
        printf("--help=all and %s(1) explain the options that are only named here.\n", set->tool);
    if (set->footer)
        printf("%s\n", set->footer);
    return fflush(stdout) != 0 || ferror(stdout) ? error_set(err, "standard output:") : 0;
}

int option_print_version(const OptionSet *set, Error *err)
{
    printf("%s (lmpipe) %s\n", set->tool, LMPIPE_VERSION);
    return fflush(stdout) != 0 || ferror(stdout) ? error_set(err, "standard output:") : 0;
}

static void write_text(Buffer *b, const char *text)
{
    if (text)
        json_write_string(b, (Span){text, strlen(text)});
    else
        buffer_string(b, "null");
}

char *option_json(const OptionSet *set)
{
    Buffer b = {0};
    buffer_string(&b, "{");
    bool first = true;
    for (const Option *o = set->options; !option_is_last(o); o++) {
        if (option_is_heading(o))
            continue;
        buffer_format(&b, "%s\n  \"%s\": ", first ? "" : ",", o->name);
        first = false;
        const OptionList *list = o->value;
        switch (o->type) {
        case OPTION_FLAG:
            buffer_string(&b, *(const bool *)o->value ? "true" : "false");
            break;
        case OPTION_INTEGER:
        case OPTION_SIZE:
            buffer_format(&b, "%" PRId64, *(const int64_t *)o->value);
            break;
        case OPTION_NUMBER:
            json_write_number(&b, *(const double *)o->value);
            break;
        case OPTION_LIST:
            buffer_byte(&b, '[');
            for (size_t i = 0; i < list->count; i++) {
                buffer_string(&b, i ? ", " : "");
                write_text(&b, list->values[i]);
            }
            buffer_byte(&b, ']');
            break;
        default:
            write_text(&b, *(const char *const *)o->value);
        }
    }
    buffer_string(&b, "\n}\n");
    buffer_byte(&b, 0);
    return b.data;
}

/* A value of --config as the text that the command line would have had; the set keeps it, for options' strings point to it. */
static char *value_text(OptionSet *set, const JsonValue *v)
{
    Buffer b = {0};
    if (v->type == JSON_STRING)
        buffer_append(&b, v->string.data, v->string.length);
    else if (v->type == JSON_BOOL)
        buffer_string(&b, v->boolean ? "true" : "false");
    else if (v->type == JSON_INTEGER)
        buffer_format(&b, "%" PRId64, v->integer);
    else
        json_write_number(&b, v->number);
    buffer_byte(&b, 0);
    set->texts = memory_grow(set->texts, &set->text_capacity, set->text_count + 1, sizeof *set->texts);
    return set->texts[set->text_count++] = b.data;
}

/* A run's options.json also holds what was not given, such as a 0 that stands for "as many as fit" and lies outside the bounds. */
static bool number_is_default(const Option *o, const JsonValue *v)
{
    if (o->type == OPTION_INTEGER || o->type == OPTION_SIZE)
        return v->type == JSON_INTEGER && v->integer == *(const int64_t *)o->value;
    return o->type == OPTION_NUMBER && (v->type == JSON_INTEGER || v->type == JSON_NUMBER) && v->number == *(const double *)o->value;
}

static int config_member(OptionSet *set, const char *path, const char *key, const JsonValue *v, Error *err)
{
    const Option *o = set->options;
    while (!option_is_last(o) && (option_is_heading(o) || strcmp(o->name, key) != 0))
        o++;
    if (!o->name)
        return error_set(err, "%s: unknown option '%s'", path, key);
    if (option_given(set, o->value) || v->type == JSON_NULL || number_is_default(o, v))
        return 0;
    size_t count = v->type == JSON_ARRAY && o->type == OPTION_LIST ? v->count : 1;
    for (size_t i = 0; i < count; i++) {
        const JsonValue *one = v->type == JSON_ARRAY && o->type == OPTION_LIST ? &v->items[i] : v;
        bool text = o->type == OPTION_STRING || o->type == OPTION_CHOICE || o->type == OPTION_LIST || o->type == OPTION_OPTIONAL;
        if (one->type == JSON_ARRAY || one->type == JSON_OBJECT || one->type == JSON_NULL)
            return error_set(err, "%s: '%s' must be a plain value", path, key);
        if (text && one->type != JSON_STRING)
            return error_set(err, "%s: '%s' must be a string", path, key);
        if (one->type == JSON_STRING && memchr(one->string.data, 0, one->string.length))
            return error_set(err, "%s: '%s' holds a NUL", path, key);
        if (o->type == OPTION_FLAG && one->type != JSON_BOOL)
            return error_set(err, "%s: '%s' must be true or false", path, key);
        if (option_store(o, value_text(set, one), err) < 0)
            return error_prefix(err, "%s", path);
    }
    option_note(set, o);
    return 0;
}

int option_read_config(OptionSet *set, const char *path, Error *err)
{
    JsonTree tree = {0};
    if (json_parse_file(&tree, path, err) < 0)
        return -1;
    int status = json_is(tree.root, JSON_OBJECT) ? 0 : error_set(err, "%s: not a JSON object", path);
    for (size_t i = 0; status == 0 && i < tree.root->count; i++)
        status = strlen(tree.root->keys[i].data) != tree.root->keys[i].length
                     ? error_set(err, "%s: a key holds a NUL", path)
                     : config_member(set, path, tree.root->keys[i].data, &tree.root->items[i], err);
    json_free(&tree);
    return status;
}
