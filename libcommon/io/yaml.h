/* YAML files as JSON trees, through libyaml: plain scalars become null, truth values and numbers as PyYAML's loaders read them
 * (YAML 1.1), aliases are copied. `!function NAME` becomes {YAML_FUNCTION: NAME}; other tags are refused by name. A build without libyaml reads JSON files alone. */
#ifndef IO_YAML_H
#define IO_YAML_H

#include "io/json.h"

#define YAML_FUNCTION "!function"

typedef struct YamlTree {
    JsonTree tree;   /* json_free(&tree) frees all */
    int64_t *lines;  /* where each member of a root that is a mapping stands, from 1 */
} YamlTree;

/* One document. Errors name the file and the line. */
int yaml_parse_file(YamlTree *out, const char *path, Error *err);

#endif
