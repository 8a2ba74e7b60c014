#include "train/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <inttypes.h>
#include "io/json.h"
#include "io/stream.h"

struct Metrics {
    FILE *file; /* NULL: off */
    char *path;
    Buffer line;
};

/* Rewrites the log without the lines of steps that will be run again, and without a last line cut off by a kill. */
static int metrics_trim(const char *path, int64_t resume_step, Error *err)
{
    if (access(path, F_OK) != 0)
        return 0;
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    static const char *const names[] = {"step"};
    JsonParser *parser = json_parser_new();
    Buffer kept = {0};
    Span line;
    int got;
    while ((got = reader_line(r, &line, err)) > 0) {
        JsonField step;
        if (json_record(parser, line, names, 1, &step, NULL) == 0 && step.type == JSON_INTEGER &&
            step.integer <= resume_step) {
            buffer_append(&kept, line.data, line.length);
            buffer_byte(&kept, '\n');
        }
    }
    reader_close(r);
    json_parser_free(parser);
    int status = got < 0 ? -1 : file_write(path, kept.data ? kept.data : "", kept.length, err);
    buffer_free(&kept);
    return status;
}

Metrics *metrics_open(const char *path, int64_t resume_step, Error *err)
{
    Metrics *m = memory_zalloc(1, sizeof *m);
    if (!path)
        return m;
    if (resume_step >= 0 && metrics_trim(path, resume_step, err) < 0) {
        free(m);
        return NULL;
    }
    m->file = fopen(path, resume_step >= 0 ? "a" : "w");
    if (!m->file) {
        error_set(err, "%s:", path);
        free(m);
        return NULL;
    }
    m->path = memory_string(path);
    return m;
}

void metrics_begin(Metrics *m, int64_t step)
{
    m->line.length = 0;
    buffer_format(&m->line, "{\"step\":%" PRId64, step);
}

void metrics_number(Metrics *m, const char *key, double value)
{
    buffer_format(&m->line, ",\"%s\":", key);
    json_write_number(&m->line, value);
}

void metrics_integer(Metrics *m, const char *key, int64_t value)
{
    buffer_format(&m->line, ",\"%s\":%" PRId64, key, value);
}

void metrics_flag(Metrics *m, const char *key, bool value)
{
    buffer_format(&m->line, ",\"%s\":%s", key, value ? "true" : "false");
}

int metrics_end(Metrics *m, Error *err)
{
    buffer_string(&m->line, "}\n");
    if (!m->file)
        return 0;
    if (fwrite(m->line.data, 1, m->line.length, m->file) != m->line.length || fflush(m->file) != 0)
        return error_set(err, "%s:", m->path);
    return 0;
}

int metrics_close(Metrics *m, Error *err)
{
    if (!m)
        return 0;
    int status = m->file && fclose(m->file) != 0 ? error_set(err, "%s:", m->path) : 0;
    free(m->path);
    buffer_free(&m->line);
    free(m);
    return status;
}
