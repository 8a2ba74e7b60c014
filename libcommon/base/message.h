/* What a tool says to its user, on standard error: "tool: text". Set up once by option_parse. */
#ifndef BASE_MESSAGE_H
#define BASE_MESSAGE_H

#include <stdbool.h>
#include "base/error.h"

void message_begin(const char *tool, bool quiet, bool verbose);
void message(const char *format, ...) __attribute__((format(printf, 1, 2)));         /* silent when quiet */
void message_verbose(const char *format, ...) __attribute__((format(printf, 1, 2))); /* only with --verbose */
void message_warning(const char *format, ...) __attribute__((format(printf, 1, 2))); /* always: "tool: warning: …" */
/* A progress bar stands in the terminal's line, or no more: the next message takes its place. */
void message_bar(bool drawn);
/* Prints the error and returns 1, for `return message_failed(&err);` in main. */
int message_failed(const Error *err);
/* What PROGRAM_PREFIX put before the programs' names when they were installed, by the name this one was called by; mostly "". */
const char *message_prefix(void);
/* Usage error: prints it with a hint at --help and returns 2. */
int message_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
