#include "mix.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "io/json.h"
#include "io/stream.h"

static double *weights_read(const Sources *sources, const JsonValue *object, const char *name, Error *err)
{
    double *weights = memory_zalloc(sources->count, sizeof *weights), sum = 0;
    int status = json_is(object, JSON_OBJECT) ? 0 : error_set(err, "%s: not an object of weights by source", name);
    for (size_t i = 0; status == 0 && i < object->count; i++) {
        const char *key = object->keys[i].data;
        double weight = json_is(&object->items[i], JSON_NUMBER) ? object->items[i].number : -1;
        int64_t k = sources_find(sources, (Span){key, object->keys[i].length});
        if (k < 0)
            status = error_set(err, "%s: '%s' is the name of no --data", name, key);
        else if (!(weight >= 0) || weight > 1e12)
            status = error_set(err, "%s: the weight of '%s' is no number from 0", name, key);
        else
            sum += weights[k] = weight;
    }
    if (status == 0 && !(sum > 0))
        status = error_set(err, "%s: no source has a weight", name);
    if (status == 0)
        return weights;
    free(weights);
    return NULL;
}

/* What stands in the file now. */
static double *weights_of_file(Mix *m, Error *err)
{
    if (stat(m->file, &m->seen) != 0)
        memset(&m->seen, 0, sizeof m->seen);
    JsonTree tree = {0};
    double *weights = json_parse_file(&tree, m->file, err) == 0 ? weights_read(m->sources, tree.root, m->file, err) : NULL;
    json_free(&tree);
    return weights;
}

static void change_add(Mix *m, int64_t step, double *weights)
{
    m->changes = memory_realloc(m->changes, m->count + 1, sizeof *m->changes);
    m->changes[m->count++] = (MixChange){step, weights};
}

/* {"step":N,"mix":{…}} */
static int line_read(Mix *m, int64_t number, Span line, Error *err)
{
    JsonTree tree = {0};
    char *name = memory_format("%s:%" PRId64, m->record, number);
    int status = json_parse(&tree, name, line, err);
    const JsonValue *step = status == 0 ? json_get(tree.root, "step") : NULL, *mix = status == 0 ? json_get(tree.root, "mix") : NULL;
    if (status == 0 && (!json_is(step, JSON_INTEGER) || step->integer < 0 || (m->count && step->integer < m->changes[m->count - 1].step)))
        status = error_set(err, "%s: no steps in their order", name);
    double *weights = status == 0 ? weights_read(m->sources, mix, name, err) : NULL;
    if (weights)
        change_add(m, step->integer, weights);
    json_free(&tree);
    free(name);
    return weights ? 0 : -1;
}

int mix_open(Mix *m, const char *file, const char *run, const Sources *sources, Error *err)
{
    *m = (Mix){.file = file, .record = memory_format("%s/mix.jsonl", run), .sources = sources};
    if (access(m->record, F_OK) != 0) {
        /* Nothing has been trained by it yet: what is wrong with the file is mended now, not after a day with another mix. */
        m->first = file ? weights_of_file(m, err) : NULL;
        return !file || m->first ? 0 : -1;
    }
    if (file && access(file, R_OK) != 0) {
        error_set(err, "%s:", file);
        message_warning("%s; the mix stays as it is", err->text);
    }
    Reader *r = reader_open(m->record, err);
    if (!r)
        return -1;
    int64_t end = 0, number = 0;
    Span line;
    int got, status = 0;
    /* A last line that a kill cut off has ruled no step. */
    while ((got = reader_line(r, &line, err)) > 0 && reader_line_ended(r) && (status = line_read(m, ++number, line, err)) == 0)
        end += (int64_t)line.length + 1;
    reader_close(r);
    if (got > 0 && status == 0 && truncate(m->record, end) != 0) /* never without need: the folder is not locked yet */
        status = error_set(err, "%s:", m->record);
    return got < 0 || status < 0 ? -1 : 0;
}

void mix_close(Mix *m)
{
    for (size_t i = 0; i < m->count; i++)
        free(m->changes[i].weights);
    free(m->changes);
    free(m->first);
    free(m->record);
    *m = (Mix){0};
}

static int record_write(const Mix *m, int64_t step, const double *weights, const char *why, Error *err)
{
    Buffer line = {0};
    buffer_format(&line, "{\"step\":%" PRId64 ",\"mix\":{", step);
    for (size_t i = 0; i < m->sources->count; i++) {
        buffer_string(&line, i ? "," : "");
        json_write_string(&line, (Span){m->sources->items[i].name, strlen(m->sources->items[i].name)});
        buffer_byte(&line, ':');
        json_write_number(&line, weights[i]);
    }
    buffer_format(&line, "}%s}\n", why);
    int d = open(m->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    off_t before = d >= 0 ? lseek(d, 0, SEEK_END) : -1;
    int status = d >= 0 && write(d, line.data, line.length) == (ssize_t)line.length && fsync(d) == 0 ? 0 : error_set(err, "%s:", m->record);
    if (status < 0 && before >= 0 && ftruncate(d, before) != 0)
        error_set(err, "%s:", m->record);
    if (d >= 0)
        close(d);
    buffer_free(&line);
    return status;
}

/* The file's weights where it has changed since it was last read and they are new. */
static double *file_look(Mix *m, Error *err)
{
    struct stat st;
    if (stat(m->file, &st) != 0)
        memset(&st, 0, sizeof st);
    if (st.st_mtim.tv_sec == m->seen.st_mtim.tv_sec && st.st_mtim.tv_nsec == m->seen.st_mtim.tv_nsec && st.st_size == m->seen.st_size && st.st_ino == m->seen.st_ino)
        return NULL;
    double *weights = weights_of_file(m, err);
    if (!weights)
        message_warning("%s; the mix stays as it is", err->text);
    if (weights && m->count && memcmp(weights, m->changes[m->count - 1].weights, m->sources->count * sizeof *weights) == 0) {
        free(weights);
        weights = NULL;
    }
    return weights;
}

bool mix_change(Mix *m, int64_t step, double *weights, const char *why)
{
    Error err;
    if (record_write(m, step, weights, why, &err) < 0) {
        message_warning("%s; the mix stays as it is", err.text);
        free(weights);
        return false;
    }
    change_add(m, step, weights);
    message("the mix changes with step %" PRId64, step + 1);
    return true;
}

const MixChange *mix_next(Mix *m, int64_t step)
{
    if (m->file && m->done == m->count) {
        Error err;
        double *weights = m->first ? m->first : file_look(m, &err);
        m->first = NULL;
        if (weights && !mix_change(m, step, weights, ""))
            memset(&m->seen, 0, sizeof m->seen); /* tried again */
    }
    return m->done < m->count && m->changes[m->done].step <= step ? &m->changes[m->done++] : NULL;
}
