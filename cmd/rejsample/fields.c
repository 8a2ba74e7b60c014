#include "fields.h"

#include <string.h>

static bool listed(const char *const *names, Span key)
{
    for (; *names; names++)
        if (strlen(*names) == key.length && memcmp(*names, key.data, key.length) == 0)
            return true;
    return false;
}

/* name: its key without escapes. */
static void put_value(Buffer *b, Span line, const char *name, const JsonValue *v)
{
    Span value;
    if (json_record_find(line, name, &value))
        buffer_append(b, value.data, value.length);
    else /* a key with escapes */
        json_write_value(b, v, -1);
}

void field_value(Buffer *b, Span line, const JsonValue *record, const char *name)
{
    put_value(b, line, name, json_get(record, name));
}

void fields_pass(Buffer *b, Span line, const JsonValue *record, const char *const *own)
{
    for (size_t i = 0; i < record->count; i++) {
        if (listed(own, record->keys[i]))
            continue;
        json_write_string(b, record->keys[i]);
        buffer_byte(b, ':');
        put_value(b, line, record->keys[i].data, &record->items[i]);
        buffer_byte(b, ',');
    }
}
