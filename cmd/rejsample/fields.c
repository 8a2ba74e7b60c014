#include "fields.h"

#include <string.h>

static bool listed(const char *const *names, Span key)
{
    for (; *names; names++)
        if (strlen(*names) == key.length && memcmp(*names, key.data, key.length) == 0)
            return true;
    return false;
}

void fields_pass(Buffer *b, Span line, const JsonValue *record, const char *const *own)
{
    for (size_t i = 0; i < record->count; i++) {
        if (listed(own, record->keys[i]))
            continue;
        json_write_string(b, record->keys[i]);
        buffer_byte(b, ':');
        Span value;
        if (json_record_find(line, record->keys[i].data, &value))
            buffer_append(b, value.data, value.length);
        else /* a key with escapes */
            json_write_value(b, &record->items[i], -1);
        buffer_byte(b, ',');
    }
}
