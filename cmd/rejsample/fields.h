/* What a record has besides what rejsample reads and writes: `id`, `tools` and fields of the user's own go with the choice. */
#ifndef REJSAMPLE_FIELDS_H
#define REJSAMPLE_FIELDS_H

#include "io/json.h"

/* Appends the members of a record, in their order and as they stand in its line, each with a comma behind; not those named in `own`
 * (NULL-terminated). record is the line's tree. */
void fields_pass(Buffer *b, Span line, const JsonValue *record, const char *const *own);
/* Appends the value of a member that is there, as it stands in the line. */
void field_value(Buffer *b, Span line, const JsonValue *record, const char *name);

#endif
