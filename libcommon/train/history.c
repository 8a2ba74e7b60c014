#include "train/history.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/stream.h"

static const char *const names[] = {"step", "tokens", "loss", "val_loss", "lr", "grad_norm", "tokens_per_second", "mfu", "final"};
enum { FINAL = HISTORY_COLUMNS };

static void row_add(History *h, size_t *capacity, const JsonField *fields)
{
    if (h->count == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 1024;
        for (int c = 0; c < HISTORY_COLUMNS; c++)
            h->column[c] = memory_realloc(h->column[c], *capacity, sizeof(double));
    }
    for (int c = 0; c < HISTORY_COLUMNS; c++)
        h->column[c][h->count] = fields[c].type == JSON_INTEGER || fields[c].type == JSON_NUMBER ? fields[c].number : NAN;
    h->final = fields[FINAL].type == JSON_BOOL && fields[FINAL].boolean;
    h->count++;
}

int history_read(History *h, const char *log, Error *err)
{
    *h = (History){0};
    struct stat st;
    bool run = stat(log, &st) == 0 && S_ISDIR(st.st_mode);
    char *path = run ? memory_format("%s/log.jsonl", log) : memory_string(log);
    h->absent = access(path, F_OK) != 0;
    Reader *r = reader_open(path, err);
    free(path);
    if (!r)
        return -1;
    JsonParser *parser = json_parser_new();
    size_t capacity = 0;
    Span line;
    int got;
    while ((got = reader_line(r, &line, err)) > 0) {
        JsonField fields[FINAL + 1];
        if (json_record(parser, line, names, FINAL + 1, fields, NULL) == 0 && fields[HISTORY_STEP].type == JSON_INTEGER)
            row_add(h, &capacity, fields);
    }
    json_parser_free(parser);
    reader_close(r);
    if (got == 0)
        return 0;
    history_free(h);
    return -1;
}

void history_free(History *h)
{
    for (int c = 0; c < HISTORY_COLUMNS; c++)
        free(h->column[c]);
    *h = (History){0};
}
