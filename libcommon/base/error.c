#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(Error *err, const char *format, ...)
{
    int saved = errno;
    if (!err)
        return -1;
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t n = strlen(text);
    if (n > 0 && format[strlen(format) - 1] == ':')
        snprintf(text + n, sizeof text - n, " %s", strerror(saved));
    memcpy(err->text, text, sizeof text);
    return -1;
}

int error_prefix(Error *err, const char *format, ...)
{
    if (!err)
        return -1;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %.*s", (int)(sizeof err->text - n - 3), old);
    return -1;
}
