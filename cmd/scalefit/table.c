/* Tables of runs in memory: TSV, CSV, JSON Lines and training logs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/memory.h"
#include "base/message.h"
#include "io/json.h"
#include "io/stream.h"
#include "scalefit.h"

static size_t column_find(Table *t, const char *name, bool add)
{
    size_t i = 0;
    while (i < t->column_count && strcmp(t->columns[i], name) != 0)
        i++;
    if (i == t->column_count && add) {
        t->columns = memory_realloc(t->columns, i + 1, sizeof *t->columns);
        t->columns[t->column_count++] = memory_string(name);
        for (size_t r = 0; r < t->row_count; r++) {
            t->cells[r] = memory_realloc(t->cells[r], i + 1, sizeof **t->cells);
            t->cells[r][i] = NULL;
        }
    }
    return i;
}

static void row_add(Table *t, Reader *r)
{
    if (t->row_count == t->row_capacity) {
        t->cells = memory_grow(t->cells, &t->row_capacity, t->row_count + 1, sizeof *t->cells);
        t->places = memory_realloc(t->places, t->row_capacity, sizeof *t->places);
    }
    t->places[t->row_count] = memory_format("%s:%lld", reader_name(r), (long long)reader_line_number(r));
    t->cells[t->row_count++] = memory_zalloc(t->column_count + 1, sizeof **t->cells);
}

static void row_drop(Table *t)
{
    t->row_count--;
    for (size_t i = 0; i < t->column_count; i++)
        free(t->cells[t->row_count][i]);
    free(t->cells[t->row_count]);
    free(t->places[t->row_count]);
}

const char *table_text(const Table *t, size_t row, const char *column)
{
    size_t i = 0;
    while (i < t->column_count && strcmp(t->columns[i], column) != 0)
        i++;
    return i < t->column_count ? t->cells[row][i] : NULL;
}

const char *table_place(const Table *t, size_t row)
{
    return t->places[row];
}

int table_number(const Table *t, size_t row, const char *column, double *out, Error *err)
{
    static const char *const missing[] = {"", "nan", "na", "n/a", "null", "none", "-"};
    const char *text = table_text(t, row, column);
    char *end;
    *out = NAN;
    for (size_t i = 0; text && i < sizeof missing / sizeof *missing; i++)
        if (strcasecmp(text, missing[i]) == 0)
            text = NULL;
    if (!text)
        return 0;
    *out = strtod(text, &end);
    return *end == 0 ? 0 : error_set(err, "%s: %s is '%s', not a number", t->places[row], column, text);
}

int table_positive(const Table *t, size_t row, const char *column, double value, Error *err)
{
    if (value > 0 && isfinite(value))
        return 0;
    return isnan(value) ? error_set(err, "%s: no %s", t->places[row], column) : error_set(err, "%s: %s is %g, not a positive number", t->places[row], column, value);
}

bool table_has(const Table *t, const char *column)
{
    for (size_t i = 0; i < t->column_count; i++)
        if (strcmp(t->columns[i], column) == 0)
            return true;
    return false;
}

static const char *renamed(const OptionList *renames, const char *name, size_t length)
{
    for (size_t i = 0; i < renames->count; i++) {
        const char *equals = strchr(renames->values[i], '=');
        if (equals && (size_t)(equals - renames->values[i]) == length && memcmp(renames->values[i], name, length) == 0)
            return equals + 1;
    }
    return NULL;
}

static char *column_name(const OptionList *renames, const char *name, size_t length)
{
    const char *other = renamed(renames, name, length);
    return other ? memory_string(other) : memory_copy(name, length);
}

/* Where a cell of a separated line ends; separators within CSV's quotes do not count. */
static size_t cell_end(Span line, size_t at, char separator)
{
    while (at < line.length && line.data[at] == ' ')
        at++;
    bool quoted = at < line.length && line.data[at] == '"';
    for (size_t i = at + quoted; i < line.length; i++) {
        if (quoted && line.data[i] == '"')
            quoted = false;
        else if (!quoted && line.data[i] == separator)
            return i;
    }
    return line.length;
}

static char *cell_text(Span line, size_t begin, size_t end)
{
    while (end > begin && (line.data[end - 1] == '\r' || line.data[end - 1] == ' '))
        end--;
    while (begin < end && line.data[begin] == ' ')
        begin++;
    bool quoted = end - begin >= 2 && line.data[begin] == '"' && line.data[end - 1] == '"';
    char *text = memory_copy(line.data + begin + quoted, end - begin - 2 * quoted), *to = text;
    for (const char *from = text; quoted && (*to = *from) != 0; to++)
        from += from[0] == '"' && from[1] == '"' ? 2 : 1; /* a doubled quote stands for one */
    return text;
}

/* The line with null for each NaN and Infinity, which are no JSON but what Python's json.dumps writes; false: it has none. */
static bool without_nan(Span line, Buffer *out)
{
    static const char *const words[] = {"-Infinity", "Infinity", "NaN"};
    bool quoted = false, any = false;
    for (size_t i = 0; i < line.length;) {
        size_t k = 0, length = 0;
        while (!quoted && k < 3 && (length = strlen(words[k]), i + length > line.length || memcmp(line.data + i, words[k], length) != 0))
            k++;
        if (!quoted && k < 3) {
            buffer_string(out, "null");
            i += length;
            any = true;
            continue;
        }
        if (line.data[i] == '\\' && quoted && i + 1 < line.length)
            buffer_byte(out, line.data[i++]);
        else if (line.data[i] == '"')
            quoted = !quoted;
        buffer_byte(out, line.data[i++]);
    }
    return any;
}

/* The tree of a line; `plain` keeps what it was parsed from, where that is not the line itself. */
static const JsonValue *json_line(JsonParser *p, Span line, Buffer *plain, Error *err)
{
    JsonField whole = {.type = JSON_OBJECT, .raw = line};
    const JsonValue *v = json_field_tree(p, &whole, err);
    if (v || !without_nan(line, plain))
        return v;
    size_t length = plain->length;
    for (int i = 0; i < READER_PADDING; i++)
        buffer_byte(plain, 0);
    whole.raw = (Span){plain->data, length};
    return json_field_tree(p, &whole, err);
}

static int json_row(Table *t, JsonParser *p, Reader *r, Span line, const OptionList *renames, Error *err)
{
    Buffer plain = {0};
    const JsonValue *v = json_line(p, line, &plain, err);
    if (!v || v->type != JSON_OBJECT) {
        buffer_free(&plain);
        return v ? error_set(err, "not a JSON object") : -1;
    }
    row_add(t, r);
    for (size_t i = 0; i < v->count; i++) {
        const JsonValue *x = &v->items[i];
        if (x->type == JSON_ARRAY || x->type == JSON_OBJECT || x->type == JSON_NULL)
            continue;
        char *name = column_name(renames, v->keys[i].data, v->keys[i].length);
        size_t c = column_find(t, name, true);
        Buffer b = {0};
        if (x->type == JSON_STRING)
            buffer_append(&b, x->string.data, x->string.length);
        else
            json_write_value(&b, x, -1);
        buffer_byte(&b, 0);
        free(t->cells[t->row_count - 1][c]);
        t->cells[t->row_count - 1][c] = b.data;
        free(name);
    }
    buffer_free(&plain);
    return 0;
}

/* "COL=VAL" compares text; "COL<X", "COL<=X", "COL>X", "COL>=X" compare numbers. */
bool where_split(const char *where, size_t *name, char op[3], const char **value)
{
    *name = strcspn(where, "=<>");
    bool two = (where[*name] == '<' || where[*name] == '>') && where[*name + 1] == '=';
    if (*name == 0 || where[*name] == 0)
        return false;
    memcpy(op, where + *name, 2);
    op[two ? 2 : 1] = 0;
    *value = where + *name + (two ? 2 : 1);
    char *end;
    return op[0] == '=' || (**value && (strtod(*value, &end), *end == 0));
}

static bool condition_holds(const char *text, const char *op, const char *value)
{
    if (op[0] == '=')
        return strcmp(text, value) == 0;
    char *end;
    double x = strtod(text, &end), y = strtod(value, NULL);
    return end > text && *end == 0 && (op[0] == '<' ? x < y : x > y) + (op[1] && x == y) > 0;
}

bool table_row_is(const Table *t, size_t row, const OptionList *wheres)
{
    for (size_t i = 0; i < wheres->count; i++) {
        size_t length;
        char op[3];
        const char *value;
        if (!where_split(wheres->values[i], &length, op, &value))
            return false;
        char *name = memory_copy(wheres->values[i], length);
        const char *text = table_text(t, row, name);
        free(name);
        if (!text || !condition_holds(text, op, value))
            return false;
    }
    return true;
}

int table_require(const Table *t, const char *column, Error *err)
{
    if (table_has(t, column))
        return 0;
    Buffer names = {0};
    for (size_t i = 0; i < t->column_count && names.length < 160; i++)
        buffer_format(&names, "%s%s", i ? " " : "", t->columns[i]);
    buffer_byte(&names, 0);
    error_set(err, "%s: the table has no column '%s' (it has: %s); --columns renames", t->places[0], column, names.data);
    buffer_free(&names);
    return -1;
}

/* How a file's lines are read, known from its first one. */
typedef struct Layout {
    char separator; /* 0 until then */
    bool json, log; /* log: lines of a training, of which the final ones count */
    size_t *order, fields; /* column of each cell */
} Layout;

static int header_read(Table *t, Layout *f, Reader *r, Span line, const OptionList *renames, Error *err)
{
    static const char separators[] = "\t,;";
    f->json = line.data[0] == '{';
    if (line.data[0] == '[')
        return error_set(err, "%s:%lld: a JSON array; one object a line is wanted (jq -c '.[]')", reader_name(r), (long long)reader_line_number(r));
    f->separator = ',';
    for (int i = 2; i >= 0; i--)
        if (memchr(line.data, separators[i], line.length))
            f->separator = separators[i];
    int status = 0;
    for (size_t at = 0, end; !f->json && status == 0 && at <= line.length; at = end + 1) {
        end = cell_end(line, at, f->separator);
        char *text = cell_text(line, at, end), *name = column_name(renames, text, strlen(text));
        f->order = memory_realloc(f->order, f->fields + 1, sizeof *f->order);
        f->order[f->fields] = column_find(t, name, true);
        for (size_t i = 0; i < f->fields && status == 0; i++)
            if (f->order[i] == f->order[f->fields])
                status = error_set(err, "%s:%lld: two columns are called '%s'", reader_name(r), (long long)reader_line_number(r), name);
        f->fields++;
        free(text);
        free(name);
    }
    return status;
}

static int cells_row(Table *t, const Layout *f, Reader *r, Span line, Error *err)
{
    row_add(t, r);
    size_t n = 0;
    for (size_t at = 0, end; at <= line.length; at = end + 1, n++) {
        end = cell_end(line, at, f->separator);
        if (n < f->fields)
            t->cells[t->row_count - 1][f->order[n]] = cell_text(line, at, end);
    }
    return n == f->fields ? 0 : error_set(err, "%zu cells, the header has %zu", n, f->fields);
}

/* A run's loss is valid where its schedule ended: of a log's rows from `first` on the final ones stay. */
static void log_keep_final(Table *t, size_t first)
{
    size_t kept = first;
    for (size_t i = first; i < t->row_count; i++) {
        const char *final = table_text(t, i, "final");
        if (final && strcmp(final, "true") == 0) {
            char **row = t->cells[kept], *place = t->places[kept];
            t->cells[kept] = t->cells[i];
            t->cells[i] = row;
            t->places[kept] = t->places[i];
            t->places[i] = place;
            kept++;
        }
    }
    while (t->row_count > kept)
        row_drop(t);
}

static int file_table(Table *t, const char *path, const OptionList *wheres, const OptionList *renames, Error *err)
{
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    JsonParser *p = json_parser_new();
    Layout f = {0};
    size_t first_row = t->row_count;
    Span line;
    int got;
    while ((got = reader_line(r, &line, err)) > 0) {
        static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8, which spreadsheets put in front */
        size_t skip = !f.separator && line.length >= 3 && memcmp(line.data, mark, 3) == 0 ? 3 : 0;
        line = (Span){line.data + skip, line.length - skip};
        if (line.length == 0 || line.data[0] == '#')
            continue;
        if (!f.separator) {
            if (header_read(t, &f, r, line, renames, err) < 0) {
                got = -1;
                break;
            }
            if (!f.json)
                continue;
        }
        if ((f.json ? json_row(t, p, r, line, renames, err) : cells_row(t, &f, r, line, err)) < 0) {
            got = error_prefix(err, "%s:%lld", reader_name(r), (long long)reader_line_number(r));
            break;
        }
        f.log |= f.json && (table_text(t, t->row_count - 1, "final") || table_text(t, t->row_count - 1, "step"));
        t->rows_read++;
        if (!table_row_is(t, t->row_count - 1, wheres))
            row_drop(t);
    }
    size_t read = t->row_count;
    if (f.log)
        log_keep_final(t, first_row);
    if (got == 0 && f.log && t->row_count == first_row && read > first_row)
        message_warning("%s: no line is final: a run that has not ended is left out", reader_name(r));
    free(f.order);
    json_parser_free(p);
    reader_close(r);
    return got < 0 ? -1 : 0;
}

/* Why no row was left, as far as --where explains it. */
static int nothing_wanted(const Table *t, const char *file, const OptionList *wheres, Error *err)
{
    for (size_t i = 0; i < wheres->count && t->rows_read > 0; i++) {
        char *name = memory_copy(wheres->values[i], strcspn(wheres->values[i], "=<>"));
        bool known = table_has(t, name);
        if (!known)
            error_set(err, "--where %s: the table has no column '%s'", wheres->values[i], name);
        free(name);
        if (!known)
            return -1;
    }
    return wheres->count && t->rows_read ? error_set(err, "%s: no rows to fit: none of %zu has what --where says", file, t->rows_read)
                                        : error_set(err, "%s: no rows to fit", file);
}

int table_read(Table *t, const char *const *files, const OptionList *wheres, const OptionList *renames, Error *err)
{
    memset(t, 0, sizeof *t);
    static const char *const standard[] = {"-", NULL};
    const char *first = *files ? *files : standard[0];
    for (files = *files ? files : standard; *files; files++)
        if (file_table(t, *files, wheres, renames, err) < 0)
            return -1;
    for (size_t i = 0; i < renames->count && t->rows_read > 0; i++) {
        const char *rename = renames->values[i];
        if (!table_has(t, strchr(rename, '=') + 1))
            return error_set(err, "--columns %s: the table has no column '%.*s'", rename, (int)strcspn(rename, "="), rename);
    }
    return t->row_count ? 0 : nothing_wanted(t, strcmp(first, "-") == 0 ? "standard input" : first, wheres, err);
}

void table_free(Table *t)
{
    while (t->row_count)
        row_drop(t);
    for (size_t i = 0; i < t->column_count; i++)
        free(t->columns[i]);
    free(t->columns);
    free(t->cells);
    free(t->places);
    memset(t, 0, sizeof *t);
}
