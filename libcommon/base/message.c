#include "base/message.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/memory.h"

/* The one thing a process has one of: its name, how much its user wants to hear, and what stands in the terminal's line. */
static struct {
    const char *tool;
    char prefix[32];
    bool quiet, verbose;
    atomic_bool bar;
} voice = {.tool = "lmpipe"};

void message_begin(const char *tool, bool quiet, bool verbose)
{
    const char *called = program_invocation_short_name;
    size_t name = strcspn(tool, " "), n = strlen(called), lead = n > name ? n - name : 0;
    bool prefixed = lead < sizeof voice.prefix && strncmp(called + lead, tool, name) == 0;
    snprintf(voice.prefix, sizeof voice.prefix, "%.*s", prefixed ? (int)lead : 0, called);
    voice.tool = tool;
    voice.quiet = quiet;
    voice.verbose = verbose;
}

const char *message_prefix(void)
{
    return voice.prefix;
}

void message_bar(bool drawn)
{
    atomic_store(&voice.bar, drawn);
}

/* One write a message, so that lines of several processes do not mix. */
static void say(const char *before, const char *format, va_list args)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "%s%s%s: %s", atomic_exchange(&voice.bar, false) ? "\r\033[K" : "", voice.prefix, voice.tool, before);
    int m = vsnprintf(text + n, sizeof text - (size_t)n - 1, format, args);
    size_t length = (size_t)n + (size_t)(m < 0 ? 0 : m);
    if (length > sizeof text - 2)
        length = sizeof text - 2;
    text[length] = '\n';
    fwrite(text, 1, length + 1, stderr);
    fflush(stderr);
}

void message(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!voice.quiet)
        say("", format, args);
    va_end(args);
}

void message_verbose(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (voice.verbose && !voice.quiet)
        say("", format, args);
    va_end(args);
}

void message_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("warning: ", format, args);
    va_end(args);
}

static void say_plain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say_plain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

int message_failed(const Error *err)
{
    say_plain("%s", err->text);
    return 1;
}

int message_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
    say_plain("try '%s%s --help'", voice.prefix, voice.tool);
    return 2;
}
