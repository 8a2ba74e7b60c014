/* Files that are not whole yet, by name: a signal that ends the process (SIGINT, SIGTERM, SIGHUP, SIGPIPE, or a limit on time or
 * size) removes them first, and so does the end by lack of memory. SIGKILL can't be caught: what it leaves has ".tmp-" in its name. */
#ifndef IO_TEMPORARY_H
#define IO_TEMPORARY_H

#include "base/error.h"

/* Notes a file that is being written for `target` (copied; NULL: for nobody but this process). Returns its number, or -1 where
 * another unfinished file of this process has the same target: one of the two outputs would be lost. */
int temporary_add(const char *path, const char *target, Error *err);
/* The file has its final name, or is gone. -1 is fine. */
void temporary_forget(int number);

#endif
