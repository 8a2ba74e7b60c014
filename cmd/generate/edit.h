/* A line from the terminal: edited and with a history where the build found libedit or readline, else as the terminal gives it. */
#ifndef GENERATE_EDIT_H
#define GENERATE_EDIT_H

#include <signal.h>
#include <stdbool.h>

typedef enum Edited { EDITED_END, EDITED_INTERRUPTED, EDITED_LINE } Edited;

/* *line (without its newline) is the caller's to free. *interrupted is set by the caller's handler of SIGINT, which throws the line away. */
Edited edit_line(const char *prompt, const volatile sig_atomic_t *interrupted, char **line);

#endif
