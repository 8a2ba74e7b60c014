#include "base/option.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/option_internal.h"

/* Looks a long name up; `negated` is set for --no-NAME of a flag. */
static const Option *option_find(const OptionSet *set, const char *name, size_t length, bool *negated)
{
    *negated = false;
    for (const Option *o = set->options; !option_is_last(o); o++) {
        if (!o->name)
            continue;
        if (strlen(o->name) == length && memcmp(o->name, name, length) == 0)
            return o;
        if (o->type == OPTION_FLAG && length == strlen(o->name) + 3 && memcmp(name, "no-", 3) == 0 &&
            memcmp(name + 3, o->name, length - 3) == 0) {
            *negated = true;
            return o;
        }
    }
    return NULL;
}

/* A number with a power of `base` behind it: 4k, 1.5M, 2G, 1T. */
static int number_parse(const char *text, double base, double *out)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || !isfinite(x) || strpbrk(text, "xXpPnN"))
        return -1;
    if (*end) {
        const char *units = "kKMGT", *u = strchr(units, *end);
        if (!u || base == 0)
            return -1;
        int power = u - units == 0 ? 1 : (int)(u - units);
        x *= pow(base, power);
        end++;
        if (base == 1024 && (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0))
            end += strlen(end);
    }
    *out = x;
    return *end ? -1 : 0;
}

static bool choice_is_listed(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, value, n) == 0 && (c[n] == 0 || c[n] == '|'))
            return n > 0;
    return false;
}

int option_whole(const char *text, double base, int64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end != text && *end == 0 && errno == 0)
        return 0;
    double x;
    if (number_parse(text, base, &x) < 0 || fabs(x) > 9.2e18 || x != floor(x))
        return -1;
    *out = (int64_t)x;
    return 0;
}

static int store_integer(const Option *o, const char *text, Error *err)
{
    int64_t exact;
    if (option_whole(text, o->type == OPTION_SIZE ? 1024 : 1000, &exact) < 0)
        return error_set(err, "--%s takes a whole number%s, not '%s'", o->name, o->type == OPTION_SIZE ? " of bytes" : "", text);
    double x = (double)exact;
    if ((o->minimum != 0 || o->maximum != 0) && (x < o->minimum || x > o->maximum))
        return error_set(err, "--%s must lie in %.15g … %.15g, not %s", o->name, o->minimum, o->maximum, text);
    if (o->type == OPTION_SIZE && exact < 0)
        return error_set(err, "--%s must not be negative", o->name);
    *(int64_t *)o->value = exact;
    return 0;
}

int option_store(const Option *o, const char *text, Error *err)
{
    double x;
    OptionList *list;
    switch (o->type) {
    case OPTION_FLAG:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return error_set(err, "--%s takes no value but true or false", o->name);
        *(bool *)o->value = strcmp(text, "true") == 0;
        return 0;
    case OPTION_INTEGER:
    case OPTION_SIZE:
        return store_integer(o, text, err);
    case OPTION_NUMBER:
        if (number_parse(text, 0, &x) < 0)
            return error_set(err, "--%s takes a number, not '%s'", o->name, text);
        if ((o->minimum != 0 || o->maximum != 0) && (x < o->minimum || x > o->maximum))
            return error_set(err, "--%s must lie in %.15g … %.15g, not %s", o->name, o->minimum, o->maximum, text);
        *(double *)o->value = x;
        return 0;
    case OPTION_CHOICE:
        if (!choice_is_listed(o->choices, text))
            return error_set(err, "--%s takes %s, not '%s'", o->name, o->choices, text);
        *(const char **)o->value = text;
        return 0;
    case OPTION_STRING:
    case OPTION_OPTIONAL:
        *(const char **)o->value = text;
        return 0;
    case OPTION_LIST:
        list = o->value;
        list->values = memory_realloc(list->values, list->count + 1, sizeof *list->values);
        list->values[list->count++] = text;
        return 0;
    case OPTION_HEADING:
    case OPTION_MORE:
        break;
    }
    return error_set(err, "--%s takes no value", o->name);
}

void option_note(OptionSet *set, const Option *o)
{
    set->given = memory_realloc(set->given, set->given_count + 1, sizeof *set->given);
    set->given[set->given_count++] = o;
}

/* One "--name[=value]"; *next is the following argument, taken (and advanced over) where a value is needed. */
static int parse_long(OptionSet *set, const char *argument, char **argv, int argc, int *i, Error *err)
{
    const char *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
    bool negated;
    const Option *o = option_find(set, argument, length, &negated);
    if (!o)
        return error_set(err, "unknown option '--%.*s'", (int)length, argument);
    const char *value = equals ? equals + 1 : NULL;
    if (o->type == OPTION_FLAG) {
        if (negated && value)
            return error_set(err, "--no-%s takes no value", o->name);
        value = value ? value : negated ? "false" : "true";
    } else if (o->type == OPTION_OPTIONAL) {
        value = value ? value : o->choices;
    } else if (!value) {
        if (*i + 1 >= argc)
            return error_set(err, "--%s needs a value", o->name);
        value = argv[++*i];
    }
    if (option_store(o, value, err) < 0)
        return -1;
    option_note(set, o);
    return 0;
}

static const Option *letter_find(const OptionSet *set, char letter)
{
    for (const Option *o = set->options; !option_is_last(o); o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

static int parse_letters(OptionSet *set, const char *letters, char **argv, int argc, int *i, Error *err)
{
    for (const char *l = letters; *l; l++) {
        const Option *o = letter_find(set, *l);
        if (!o)
            return error_set(err, "unknown option '-%c'", *l);
        if (o->type == OPTION_FLAG) {
            *(bool *)o->value = true;
            option_note(set, o);
            continue;
        }
        const char *value = l[1] ? l + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        if (!value)
            return error_set(err, "-%c needs a value", *l);
        if (option_store(o, value, err) < 0)
            return -1;
        option_note(set, o);
        return 0;
    }
    return 0;
}

bool option_given(const OptionSet *set, const void *value)
{
    for (size_t i = 0; i < set->given_count; i++)
        if (set->given[i]->value == value)
            return true;
    return false;
}

static const void *value_of(const OptionSet *set, const char *name)
{
    bool negated;
    const Option *o = option_find(set, name, strlen(name), &negated);
    return o ? o->value : NULL;
}

int option_parse(OptionSet *set, int argc, char **argv, Error *err)
{
    set->operands = memory_zalloc((size_t)argc + 1, sizeof *set->operands);
    set->operand_count = 0;
    set->given = NULL;
    set->given_count = 0;
    message_begin(set->tool, false, false);
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (only_operands || a[0] != '-' || a[1] == 0) {
            set->operands[set->operand_count++] = a;
        } else if (strcmp(a, "--") == 0) {
            only_operands = true;
        } else if (strcmp(a, "-h") == 0 || strcmp(a, "--help") == 0) {
            return option_print_help(set, false, err) < 0 ? OPTIONS_FAILED : OPTIONS_DONE;
        } else if (strcmp(a, "--help=all") == 0) {
            return option_print_help(set, true, err) < 0 ? OPTIONS_FAILED : OPTIONS_DONE;
        } else if (strcmp(a, "--version") == 0) {
            return option_print_version(set, err) < 0 ? OPTIONS_FAILED : OPTIONS_DONE;
        } else if (a[1] == '-') {
            if (parse_long(set, a + 2, argv, argc, &i, err) < 0)
                return OPTIONS_USAGE;
        } else if (parse_letters(set, a + 1, argv, argc, &i, err) < 0) {
            return OPTIONS_USAGE;
        }
    }
    const char *const *config = value_of(set, "config");
    if (config && *config && option_read_config(set, *config, err) < 0)
        return OPTIONS_USAGE;
    const bool *quiet = value_of(set, "quiet"), *verbose = value_of(set, "verbose");
    message_begin(set->tool, quiet && *quiet, verbose && *verbose);
    return OPTIONS_RUN;
}

/* Where the parent closed a standard descriptor, the next file would get its number: a tool would read its own output as its
 * input, or write messages into it. What stands in its place fails when it is used. */
static void hold_standard_descriptors(void)
{
    for (int d = STDIN_FILENO; d <= STDERR_FILENO; d++)
        if (fcntl(d, F_GETFD) < 0 && open("/dev/null", d == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return;
}

int option_main(OptionSet *set, int argc, char **argv)
{
    Error err;
    hold_standard_descriptors();
    signal(SIGPIPE, SIG_DFL); /* a closed pipe ends a tool quietly, also where its parent ignores the signal (services do) */
    int status = option_parse(set, argc, argv, &err);
    if (status == OPTIONS_RUN)
        return -1;
    option_free(set);
    return status == OPTIONS_DONE ? 0 : status == OPTIONS_FAILED ? message_failed(&err) : message_usage("%s", err.text);
}

void option_free(OptionSet *set)
{
    for (const Option *o = set->options; !option_is_last(o); o++)
        if (o->type == OPTION_LIST) {
            OptionList *list = o->value;
            free(list->values);
            *list = (OptionList){0};
        }
    for (size_t i = 0; i < set->text_count; i++)
        free(set->texts[i]);
    free(set->texts);
    free(set->operands);
    free(set->given);
    set->operands = NULL;
    set->given = NULL;
    set->texts = NULL;
    set->operand_count = set->given_count = set->text_count = set->text_capacity = 0;
}
