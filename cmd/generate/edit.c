#include "edit.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(LMPIPE_LIBEDIT)
#include <editline/readline.h>
#elif defined(LMPIPE_READLINE)
#include <readline/history.h>
#include <readline/readline.h>
#endif

static Edited plain_line(const char *prompt, const volatile sig_atomic_t *interrupted, char **line)
{
    size_t capacity = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    ssize_t n = getline(line, &capacity, stdin);
    bool broken = n < 0 && (*interrupted || errno == EINTR);
    if (n < 0) {
        clearerr(stdin);
        free(*line);
        *line = NULL;
        return broken ? EDITED_INTERRUPTED : EDITED_END;
    }
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r'))
        (*line)[--n] = 0;
    return EDITED_LINE;
}

#if defined(LMPIPE_LIBEDIT) || defined(LMPIPE_READLINE)
#include <locale.h>

/* What the library's callback leaves; it is given no context. */
static struct {
    char *line;
    bool done;
} got;

static void take_line(char *line)
{
    got.line = line;
    got.done = true;
    rl_callback_handler_remove();
}

/* The library reads what is there, so that a signal between two keys is seen here and nowhere else. */
static Edited edited_line(const char *prompt, const volatile sig_atomic_t *interrupted, char **line)
{
    sigset_t only, before;
    sigemptyset(&only);
    sigaddset(&only, SIGINT);
    sigprocmask(SIG_BLOCK, &only, &before);
    rl_catch_signals = 0;
    got.line = NULL;
    got.done = false;
    rl_callback_handler_install(prompt, take_line);
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!got.done && !*interrupted)
        if (ppoll(&keys, 1, NULL, &before) > 0)
            rl_callback_read_char();
    if (!got.done)
        rl_callback_handler_remove();
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (!got.done)
        return EDITED_INTERRUPTED;
    if (!got.line)
        return EDITED_END;
    if (*got.line)
        add_history(got.line);
    *line = got.line;
    return EDITED_LINE;
}
#endif

Edited edit_line(const char *prompt, const volatile sig_atomic_t *interrupted, char **line)
{
    *line = NULL;
#if defined(LMPIPE_LIBEDIT) || defined(LMPIPE_READLINE)
    static bool begun;
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        if (!begun)
            setlocale(LC_CTYPE, ""); /* characters of more than a byte are edited whole */
        begun = true;
        return edited_line(prompt, interrupted, line);
    }
#endif
    return plain_line(prompt, interrupted, line);
}
