#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/json.h"
#include "io/stream.h"
#include "train/tensorboard.h"

struct Metrics {
    int file; /* descriptor, -1: off */
    char *path;
    Buffer line;
    Buffer unwritten; /* lines, or the rest of one, that the disk has not taken yet */
    bool failing;
    TensorBoard *board; /* NULL: none */
    int64_t step;       /* of the open line, or that the run resumes from */
};

/* Cuts the log behind the line of the step that is resumed from. Lines come in the order of steps, so what goes is the end:
 * steps that will be run again, and a last line that a kill cut off. */
static int metrics_trim(const char *path, int64_t resume_step, Error *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return 0;
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    static const char *const names[] = {"step"};
    JsonParser *parser = json_parser_new();
    int64_t end = 0;
    Span line;
    int got;
    while ((got = reader_line(r, &line, err)) > 0) {
        JsonField step;
        if (json_record(parser, line, names, 1, &step, NULL) < 0 || step.type != JSON_INTEGER || step.integer > resume_step || !reader_line_ended(r))
            break;
        end += (int64_t)line.length + 1;
    }
    reader_close(r);
    json_parser_free(parser);
    if (got < 0)
        return -1;
    return end < st.st_size && truncate(path, end) != 0 ? error_set(err, "%s:", path) : 0;
}

static int log_file(const char *path, int64_t resume_step, Error *err)
{
    int file;
    if (strcmp(path, "-") == 0) {
        file = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
        return file >= 0 ? file : error_set(err, "standard output:");
    }
    if (resume_step >= 0 && metrics_trim(path, resume_step, err) < 0)
        return -1;
    file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (resume_step < 0 ? O_TRUNC : 0), 0666);
    return file >= 0 ? file : error_set(err, "%s:", path);
}

Metrics *metrics_open(const char *path, int64_t resume_step, Error *err)
{
    Metrics *m = memory_zalloc(1, sizeof *m);
    m->file = path ? log_file(path, resume_step, err) : -1;
    if (!path)
        return m;
    if (m->file < 0) {
        free(m);
        return NULL;
    }
    m->path = memory_string(path);
    m->step = resume_step;
    buffer_reserve(&m->line, 4096); /* a line never has to grow in the middle of training */
    return m;
}

int metrics_board(Metrics *m, const char *folder, Error *err)
{
    struct stat st;
    bool again = strcmp(m->path, "-") != 0 && fstat(m->file, &st) == 0 && S_ISREG(st.st_mode); /* a pipe's lines are gone */
    m->board = tensorboard_open(folder, again ? m->path : NULL, m->step, err);
    return m->board ? 0 : -1;
}

void metrics_begin(Metrics *m, int64_t step)
{
    m->step = step;
    m->line.length = 0;
    buffer_format(&m->line, "{\"step\":%" PRId64, step);
}

void metrics_number(Metrics *m, const char *key, double value)
{
    buffer_byte(&m->line, ',');
    json_write_string(&m->line, (Span){key, strlen(key)}); /* it may hold the name of a shard */
    buffer_byte(&m->line, ':');
    json_write_number(&m->line, value);
    if (m->board)
        tensorboard_add(m->board, key, value);
}

void metrics_integer(Metrics *m, const char *key, int64_t value)
{
    buffer_format(&m->line, ",\"%s\":%" PRId64, key, value);
    if (m->board)
        tensorboard_add(m->board, key, (double)value);
}

void metrics_numbers(Metrics *m, const char *key, const double *values, size_t n)
{
    buffer_format(&m->line, ",\"%s\":[", key);
    for (size_t i = 0; i < n; i++)
        buffer_format(&m->line, "%s%.4g", i ? "," : "", values[i]);
    buffer_byte(&m->line, ']');
}

void metrics_flag(Metrics *m, const char *key, bool value)
{
    buffer_format(&m->line, ",\"%s\":%s", key, value ? "true" : "false");
}

/* As much of the unwritten as the disk takes. */
static int metrics_write(Metrics *m, Error *err)
{
    size_t done = 0;
    ssize_t n = 0;
    while (done < m->unwritten.length && (n = write(m->file, m->unwritten.data + done, m->unwritten.length - done)) >= 0)
        done += (size_t)n;
    if (n < 0)
        error_set(err, "%s:", m->path);
    memmove(m->unwritten.data, m->unwritten.data + done, m->unwritten.length - done);
    m->unwritten.length -= done;
    return n < 0 ? -1 : 0;
}

int metrics_end(Metrics *m, Error *err)
{
    buffer_string(&m->line, "}\n");
    if (m->file < 0)
        return 0;
    buffer_append(&m->unwritten, m->line.data, m->line.length);
    bool failed_before = m->failing;
    m->failing = metrics_write(m, err) < 0;
    int status = m->failing && !failed_before ? -1 : 0;
    Error of_board;
    if (m->board && tensorboard_step(m->board, m->step, status < 0 ? &of_board : err) < 0) {
        /* The log has it all: the next start writes the events anew. */
        tensorboard_close(m->board);
        m->board = NULL;
        status = -1;
    }
    return status;
}

bool metrics_whole(const Metrics *m)
{
    return m->unwritten.length == 0;
}

int metrics_sync(Metrics *m, Error *err)
{
    if (m->file >= 0 && fsync(m->file) != 0 && errno != EINVAL && errno != EROFS)
        return error_set(err, "%s:", m->path);
    return 0;
}

int metrics_close(Metrics *m, Error *err)
{
    if (!m)
        return 0;
    int status = m->unwritten.length ? metrics_write(m, err) : 0;
    if (m->file >= 0 && close(m->file) != 0 && status == 0)
        status = error_set(err, "%s:", m->path);
    tensorboard_close(m->board);
    free(m->path);
    buffer_free(&m->line);
    buffer_free(&m->unwritten);
    free(m);
    return status;
}
