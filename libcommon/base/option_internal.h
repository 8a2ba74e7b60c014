/* What option.c, option_help.c and the reader of --config share; tools include option.h. */
#ifndef BASE_OPTION_INTERNAL_H
#define BASE_OPTION_INTERNAL_H

#include "base/option.h"

/* Rows of a table that are no options. */
static inline bool option_is_heading(const Option *o)
{
    return o->type == OPTION_HEADING || o->type == OPTION_MORE;
}

static inline bool option_is_last(const Option *o)
{
    return !o->name && !option_is_heading(o);
}

/* Parses a value's text into the option's variable; the text must outlive the options. */
int option_store(const Option *o, const char *text, Error *err);
void option_note(OptionSet *set, const Option *o);
int option_print_help(const OptionSet *set, bool all, Error *err);
int option_print_version(const OptionSet *set, Error *err);
int option_read_config(OptionSet *set, const char *path, Error *err);

#endif
