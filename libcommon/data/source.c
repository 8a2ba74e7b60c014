#include "data/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number from 0 to 1e12 that ends where it should. */
static bool number_read(const char *text, const char *end, double *number)
{
    char *stop;
    *number = strtod(text, &stop);
    return stop != text && stop == end && isfinite(*number) && *number >= 0 && *number <= 1e12;
}

int source_parse(SourceOperand *s, const char *text, Error *err)
{
    const char *colon = strchr(text, ':'), *slash = strchr(text, '/');
    if (!colon || (slash && slash < colon)) {
        const char *last = strrchr(text, '/'), *name = last ? last + 1 : text;
        *s = (SourceOperand){.name = {name, strlen(name)}, .weight = 1, .prefix = text};
        return 0;
    }
    const char *equals = memchr(text, '=', (size_t)(colon - text)), *end = equals ? equals : colon;
    *s = (SourceOperand){.name = {text, (size_t)(end - text)}, .weight = 1, .named = true, .weighted = equals != NULL, .prefix = colon + 1};
    if (equals && !number_read(equals + 1, colon, &s->weight))
        return error_set(err, "%s: the weight is no number from 0 to 1e12", text);
    if (end == text)
        return error_set(err, "%s: there is no name before the %c", text, equals ? '=' : ':');
    return *s->prefix ? 0 : error_set(err, "%s: there is nothing behind the colon", text);
}

int source_number(const char **list, Span *name, double *number, Error *err)
{
    const char *text = *list, *equals = strchr(text, '='), *comma = equals ? strchr(equals, ',') : NULL, *end = comma ? comma : text + strlen(text);
    if (!equals || equals == text || !number_read(equals + 1, end, number))
        return error_set(err, "not NAME=NUMBER");
    *name = (Span){text, (size_t)(equals - text)};
    *list = comma ? comma + 1 : end;
    return 0;
}
