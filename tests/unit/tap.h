/* Test Anything Protocol for C: ok(condition, "name"), then `return tap_end();`. */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdio.h>

static int tap_count, tap_failed;

static inline int ok(int condition, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline int ok(int condition, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%sok %d - ", condition ? "" : "not ", ++tap_count);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    tap_failed += !condition;
    return condition;
}

static inline int skip(const char *name, const char *reason)
{
    printf("ok %d - %s # SKIP %s\n", ++tap_count, name, reason);
    return 1;
}

static inline int tap_end(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed != 0;
}

#endif
