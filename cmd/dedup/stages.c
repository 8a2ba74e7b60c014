/* The row of stages: url, exact and fuzzy that follow one another are one stage, lines and paragraphs, which rewrite texts, are
 * one each. Between two stages documents and their numbers wait in temporary files. */
#include <stdlib.h>
#include <string.h>
#include "dedup.h"

int source_number(Dedup *d, Source *s, const Document *document, uint64_t *number, Error *err)
{
    *number = s->at++;
    if (s->numbers)
        return spool_read(s->numbers, number, sizeof *number, *number * sizeof *number, err);
    return d->removed ? removed_name(d->removed, document->id, err) : 0;
}

int sink_write(Dedup *d, Sink *s, uint64_t number, Span line, Error *err)
{
    if (s->out) {
        d->documents_out++;
        d->bytes_out += line.length + 1;
        return writer_write(s->out, line.data, line.length, err) < 0 ? -1 : writer_write(s->out, "\n", 1, err);
    }
    if (spool_append(s->lines, line.data, line.length, err) < 0 || spool_append(s->lines, "\n", 1, err) < 0)
        return -1;
    return spool_append(s->numbers, &number, sizeof number, err);
}

int document_remove(Dedup *d, Method m, uint64_t number, Span line, uint64_t match, double similarity, Error *err)
{
    d->removed_count[m]++;
    return d->removed ? removed_add(d->removed, (Removal){number, match, method_names[m], similarity}, line, err) : 0;
}

static bool rewrites(Method m)
{
    return m == METHOD_LINES || m == METHOD_PARAGRAPHS;
}

/* Standard input can be read once; a first stage that looks twice reads a copy. */
static int spool_standard(Spool *copy, Error *err)
{
    Reader *r = reader_open(NULL, err);
    if (!r)
        return -1;
    char piece[1 << 16];
    ssize_t n;
    while ((n = reader_read(r, piece, sizeof piece, err)) > 0)
        if (spool_append(copy, piece, (size_t)n, err) < 0) {
            n = -1;
            break;
        }
    reader_close(r);
    return n < 0 ? -1 : 0;
}

/* The files with a copy in place of standard input; *copy is NULL if none is needed. */
static int copy_standard(const Dedup *d, const char *const *files, const char **copied, const char **names, Spool **copy, Error *err)
{
    *copy = NULL;
    for (size_t i = 0; files[i]; i++) {
        copied[i] = files[i];
        names[i] = files[i];
        if (strcmp(files[i], "-") != 0)
            continue;
        names[i] = "stdin";
        if (*copy)
            return error_set(err, "standard input is named twice");
        if (!(*copy = spool_open(d->common.tmp, err)) || spool_standard(*copy, err) < 0 || !(copied[i] = spool_path(*copy, err)))
            return -1;
    }
    return 0;
}

static int stage_run(Dedup *d, const Method *methods, int count, Source *from, Sink *to, Error *err)
{
    return rewrites(methods[0]) ? cut_run(d, methods[0], from, to, err) : match_run(d, methods, count, from, to, err);
}

int stages_run(Dedup *d, const Method *methods, int count, const char *const *files, Writer *out, Error *err)
{
    static const char *const standard[] = {"-", NULL};
    files = *files ? files : standard;
    size_t n = 0;
    while (files[n])
        n++;
    const char **copied = memory_zalloc(n + 1, sizeof *copied), **names = memory_zalloc(n + 1, sizeof *names);
    Source from = {.files = files};
    Spool *copy = NULL;
    int status = 0;
    if (rewrites(methods[0])) {
        status = copy_standard(d, files, copied, names, &copy, err);
        from.files = copied;
        from.names = names;
    }
    Sink waiting = {0}; /* what `from` reads, behind the first stage */
    const char *path[2] = {NULL, NULL};
    for (int begin = 0, end; begin < count && status == 0; begin = end) {
        end = begin + 1;
        while (end < count && !rewrites(methods[begin]) && !rewrites(methods[end]))
            end++;
        Sink to = {.out = end == count ? out : NULL};
        if (!to.out && (!(to.lines = spool_open(d->common.tmp, err)) || !(to.numbers = spool_open(d->common.tmp, err))))
            status = -1;
        if (status == 0)
            status = stage_run(d, methods + begin, end - begin, &from, &to, err);
        spool_close(waiting.lines);
        spool_close(waiting.numbers);
        waiting = to;
        if (status == 0 && !to.out) {
            path[0] = spool_path(to.lines, err);
            status = path[0] ? 0 : -1;
            from = (Source){.files = path, .numbers = to.numbers};
        }
    }
    spool_close(waiting.lines);
    spool_close(waiting.numbers);
    spool_close(copy);
    free(copied);
    free(names);
    return status;
}
