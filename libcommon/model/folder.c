#include "model/folder.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/safetensors.h"
#include "io/stream.h"
#include "model/adapter.h"
#include "model/folder_parts.h"

static bool has_name(const char *folder, const char *name)
{
    char *path = memory_format("%s/%s", folder, name);
    struct stat st;
    bool there = lstat(path, &st) == 0;
    free(path);
    return there;
}

/* A pipe in the place of a folder's file would be waited for without end; a link that was copied without what it leads to (the files of
 * Hugging Face's cache are links) would count as a file that the model does not have. */
static int texts_are_files(const char *folder, Error *err)
{
    int status = 0;
    for (int i = 0; folder_texts[i] && status == 0; i++) {
        char *path = memory_format("%s/%s", folder, folder_texts[i]);
        struct stat st;
        if (stat(path, &st) == 0)
            status = S_ISREG(st.st_mode) ? 0 : error_set(err, "%s: not a regular file", path);
        else if (lstat(path, &st) == 0)
            status = error_set(err, "%s: a link whose end can't be reached:", path);
        free(path);
    }
    return status;
}

char *folder_resolve(const char *path, Error *err)
{
    for (int i = 0; i < 3; i++) {
        char *folder = i == 0 ? memory_format("%s/final", path) : i == 1 ? memory_format("%s/latest", path) : memory_string(path);
        bool found = has_name(folder, "config.json") || has_name(folder, "adapter_config.json");
        if (found && texts_are_files(folder, err) == 0)
            return folder;
        free(folder);
        if (found)
            return NULL;
    }
    char *config = memory_format("%s/config.json", path);
    bool hidden = access(config, F_OK) != 0 && errno == EACCES;
    if (hidden)
        error_set(err, "%s:", config);
    free(config);
    if (hidden)
        return NULL;
    error_set(err, "%s: neither a folder of a model (config.json) or an adapter (adapter_config.json) nor a run with one", path);
    return NULL;
}

/* The files that hold the weights: one, or those that an index names. */
typedef struct Shards {
    Safetensors *files;
    size_t count;
} Shards;

static void shards_close(Shards *s)
{
    for (size_t i = 0; i < s->count; i++)
        safetensors_close(&s->files[i]);
    free(s->files);
    *s = (Shards){0};
}

/* The file of this name, opened where it is not yet; valid until the next call. NULL: err says why not. */
static const Safetensors *shards_add(Shards *s, const char *folder, const char *name, Error *err)
{
    char *path = memory_format("%s/%s", folder, name);
    size_t i = 0;
    while (i < s->count && strcmp(s->files[i].path, path) != 0)
        i++;
    if (i == s->count) {
        s->files = memory_realloc(s->files, s->count + 1, sizeof *s->files);
        s->count += safetensors_open(&s->files[i], path, err) == 0;
    }
    free(path);
    return i < s->count ? &s->files[i] : NULL;
}

/* An entry of the index: the file that it names must have the tensor. */
static int shards_add_entry(Shards *s, const char *folder, const char *index, const char *tensor, const JsonValue *file, Error *err)
{
    if (!json_is(file, JSON_STRING) || file->string.length == 0 || strchr(file->string.data, '/') || file->string.data[0] == '.')
        return error_set(err, "%s: '%s' is not in a plain file of this folder", index, tensor);
    const Safetensors *f = shards_add(s, folder, file->string.data, err);
    if (!f)
        return -1;
    return safetensors_find(f, tensor) ? 0 : error_set(err, "%s: '%s' should be in %s, but is not", index, tensor, f->path);
}

/* No tensor in two files: which one counts would depend on who reads. */
static int shards_check(const Shards *s, Error *err)
{
    for (size_t f = 1; f < s->count; f++)
        for (size_t i = 0; i < s->files[f].count; i++)
            for (size_t before = 0; before < f; before++)
                if (safetensors_find(&s->files[before], s->files[f].entries[i].name))
                    return error_set(err, "%s: the tensor '%s' stands in %s too", s->files[f].path, s->files[f].entries[i].name, s->files[before].path);
    return 0;
}

static int shards_open(Shards *s, const char *folder, Error *err)
{
    char *index = memory_format("%s/model.safetensors.index.json", folder), *single = memory_format("%s/model.safetensors", folder);
    int status = 0;
    if (access(single, F_OK) == 0 || access(index, F_OK) != 0) {
        status = shards_add(s, folder, "model.safetensors", err) ? 0 : -1;
    } else {
        JsonTree tree = {0};
        status = json_parse_file(&tree, index, err);
        const JsonValue *map = status == 0 ? json_get(tree.root, "weight_map") : NULL;
        if (status == 0 && !json_is(map, JSON_OBJECT))
            status = error_set(err, "%s: no weight_map", index);
        for (size_t i = 0; status == 0 && i < map->count; i++)
            status = shards_add_entry(s, folder, index, map->keys[i].data, &map->items[i], err);
        json_free(&tree);
    }
    free(index);
    free(single);
    if (status == 0)
        status = shards_check(s, err);
    if (status < 0)
        shards_close(s);
    return status;
}

static const SafetensorsEntry *shards_find(const Shards *s, const char *name, const Safetensors **file)
{
    for (size_t i = 0; i < s->count; i++) {
        const SafetensorsEntry *e = safetensors_find(&s->files[i], name);
        if (e) {
            *file = &s->files[i];
            return e;
        }
    }
    return NULL;
}

/* Where a tied model's file has the output layer's name alone, as safetensors' save_model leaves it, that is the embedding. */
static const SafetensorsEntry *shards_find_parameter(const Shards *s, const ModelConfig *c, const char *name, const Safetensors **file)
{
    const SafetensorsEntry *e = shards_find(s, name, file);
    return e || !c->tie_word_embeddings || strcmp(name, "model.embed_tokens.weight") != 0 ? e : shards_find(s, "lm_head.weight", file);
}

enum { SHAPE_TEXT = 24 * SAFETENSORS_MAX_DIMS };

static const char *shape_text(char text[SHAPE_TEXT], const int64_t *shape, int dimensions)
{
    int n = snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < dimensions; i++)
        n += snprintf(text + n, (size_t)(SHAPE_TEXT - n), "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + n, (size_t)(SHAPE_TEXT - n), "]");
    return text;
}

static int shape_check(const Parameter *p, const SafetensorsEntry *e, const char *path, Error *err)
{
    bool equal = e->ndim == p->ndim && e->shape[0] == p->shape[0] && (p->ndim == 1 || e->shape[1] == p->shape[1]);
    if (equal)
        return 0;
    char has[SHAPE_TEXT], wants[SHAPE_TEXT];
    return error_set(err, "%s: '%s' has the shape %s, the configuration implies %s", path, p->name, shape_text(has, e->shape, e->ndim),
                     shape_text(wants, p->shape, p->ndim));
}

/* The box of p from a whole tensor in the file. */
static void box_read(float *values, const Parameter *p, const SafetensorsEntry *e, const Safetensors *file)
{
    size_t size = dtype_size(e->dtype), columns = p->ndim == 2 ? (size_t)p->shape[1] : 1, width = p->ndim == 2 ? (size_t)p->extent[1] : 1;
    const unsigned char *from = file->data + e->begin + ((size_t)p->begin[0] * columns + (p->ndim == 2 ? (size_t)p->begin[1] : 0)) * size;
    if (width == columns) {
        dtype_convert(values, DTYPE_F32, from, e->dtype, p->count);
        return;
    }
    for (int64_t r = 0; r < p->extent[0]; r++)
        dtype_convert(values + (size_t)r * width, DTYPE_F32, from + (size_t)r * columns * size, e->dtype, width);
}

static int finite_check(const float *values, const Parameter *p, const char *path, Error *err)
{
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(values[i]))
            return error_set(err, "%s: '%s' holds a NaN or an infinity (element %zu)", path, p->name, i);
    return 0;
}

/* `merged`: the adapter that is added on the way; NULL: none. */
static int parameter_load(Model *m, const Parameter *p, const SafetensorsEntry *e, const Safetensors *file, const Adapter *merged, Error *err)
{
    if (e->dtype != DTYPE_F32 && e->dtype != DTYPE_BF16 && e->dtype != DTYPE_F16)
        return error_set(err, "%s: '%s' has the dtype %s", file->path, p->name, dtype_name(e->dtype));
    if (shape_check(p, e, file->path, err) < 0)
        return -1;
    float *values = memory_alloc(p->count, sizeof *values);
    box_read(values, p, e, file);
    safetensors_forget(file, e);
    int status = finite_check(values, p, file->path, err);
    if (merged && status == 0) {
        adapter_add(merged, p, values, m->device->threads);
        status = finite_check(values, p, merged->file.path, err);
    }
    ParameterTable *t = &m->params.table;
    param_store(t, p, values);
    param_changed(t);
    if (m->device->stream_wait(m->stream, err) < 0)
        status = -1;
    free(values);
    return status;
}

/* lm_head beside a tied embedding is fine if both say the same. */
static int tied_check(const Model *m, const Shards *s, Error *err)
{
    const Safetensors *a, *b;
    const SafetensorsEntry *head = shards_find(s, "lm_head.weight", &a), *embed = shards_find(s, "model.embed_tokens.weight", &b);
    if (!m->config.tie_word_embeddings || !head || !embed)
        return 0;
    if (head->end - head->begin == embed->end - embed->begin &&
        memcmp(a->data + head->begin, b->data + embed->begin, head->end - head->begin) == 0)
        return 0;
    return error_set(err, "%s: tie_word_embeddings is true, but lm_head.weight differs from the embedding", a->path);
}

static bool may_be_ignored(const Model *m, const char *name)
{
    size_t n = strlen(name);
    if (n > 8 && strcmp(name + n - 8, "inv_freq") == 0)
        return true;
    return strcmp(name, "lm_head.weight") == 0 && (m->config.num_labels || m->config.tie_word_embeddings);
}

static int unknown_check(const Model *m, const Shards *s, const Adapter *a, Error *err)
{
    ModelParameters whole;
    ModelPart all = part_whole(&m->config);
    int status = param_open(&whole, &m->config, &all, NULL, NULL, err);
    const ParameterTable *t = &whole.table;
    for (size_t f = 0; f < s->count && status == 0; f++)
        for (size_t i = 0; i < s->files[f].count && status == 0; i++) {
            const char *name = s->files[f].entries[i].name;
            if (param_find(t, name) < 0 && !may_be_ignored(m, name))
                status = error_set(err, "%s: the tensor '%s' has no place in this model", s->files[f].path, name);
        }
    if (status == 0 && a)
        status = adapter_check(a, t, m->config.lora != NULL, err);
    param_close(&whole);
    return status;
}

/* Every entry from the adapter where that has it, else from the model's files, else fresh if `fresh` or an adapter's own. */
static int weights_load(Model *m, const char *folder, const Adapter *a, bool fresh_score, uint64_t seed, Error *err)
{
    Shards s = {0};
    if (shards_open(&s, folder, err) < 0)
        return -1;
    ParameterTable *t = &m->params.table;
    int status = tied_check(m, &s, err);
    if (status == 0)
        status = unknown_check(m, &s, a, err);
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Parameter *p = &t->items[i];
        const SafetensorsEntry *e = a ? adapter_find(a, p->name) : NULL;
        const Safetensors *file = e ? &a->file : NULL;
        if (!e)
            e = shards_find_parameter(&s, &m->config, p->name, &file);
        if (e)
            status = parameter_load(m, p, e, file, m->config.lora ? NULL : a, err);
        else if (strncmp(p->name, ADAPTER_PREFIX, strlen(ADAPTER_PREFIX)) == 0 || (fresh_score && (int)i == m->params.score))
            param_initialise_one(t, i, seed);
        else
            status = error_set(err, "%s: the tensor '%s' is missing", folder, p->name);
    }
    shards_close(&s);
    return status;
}

static bool has_tokenizer(const char *folder)
{
    char *path = memory_format("%s/tokenizer.json", folder);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* The model in `path` with an adapter, which may be NULL. */
static int load_both(Model *m, const char *path, const Adapter *a, const FolderLoad *how, Device *d, Error *err)
{
    char *config_path = memory_format("%s/config.json", path), *generation_path = memory_format("%s/generation_config.json", path);
    ModelConfig c;
    int status = config_read(&c, config_path, err);
    if (status == 0 && access(generation_path, F_OK) == 0)
        status = config_read_generation(&c, generation_path, err);
    free(config_path);
    free(generation_path);
    if (status < 0)
        return -1;
    bool fresh = (how->num_labels == 1 || (a && a->classifies)) && c.num_labels == 0;
    if (fresh)
        c.num_labels = 1;
    c.lora = how->lora;
    if (model_open(m, &c, how->part, d, err) < 0)
        return error_prefix(err, "%s", path);
    if (weights_load(m, path, a, fresh, how->seed, err) < 0) {
        model_close(m);
        return -1;
    }
    const char *tokenizer = a && has_tokenizer(a->folder) ? a->folder : path;
    if (has_tokenizer(tokenizer))
        m->tokenizer_folder = memory_string(tokenizer);
    return 0;
}

int folder_base(const char *path, const char *adapter, char **base, char **adapter_path, Error *err)
{
    *adapter_path = NULL;
    *base = folder_resolve(path, err);
    if (!*base)
        return -1;
    if (!adapter_is(*base)) {
        *adapter_path = adapter ? adapter_resolve(adapter, err) : NULL;
        return !adapter || (*adapter_path && texts_are_files(*adapter_path, err) == 0) ? 0 : -1;
    }
    *adapter_path = *base;
    *base = NULL;
    Adapter a;
    if (adapter)
        return error_set(err, "%s: an adapter already; give its base model and one --adapter", *adapter_path);
    if (adapter_open(&a, *adapter_path, err) < 0)
        return -1;
    if (a.plan.base && access(a.plan.base, F_OK) == 0)
        *base = folder_resolve(a.plan.base, err);
    else
        error_set(err, "%s: its base model '%s' is not a folder here; give that as --model and this as --adapter", *adapter_path, a.plan.base ? a.plan.base : "");
    adapter_close(&a);
    return *base ? 0 : -1;
}

int folder_load(Model *m, const char *path, const FolderLoad *how, Device *d, Error *err)
{
    static const FolderLoad plain = {0};
    if (!how)
        how = &plain;
    char *base, *adapter_path;
    Adapter a = {0};
    int status = folder_base(path, how->adapter, &base, &adapter_path, err);
    if (status == 0 && adapter_path)
        status = adapter_open(&a, adapter_path, err);
    if (status == 0)
        status = load_both(m, base, adapter_path ? &a : NULL, how, d, err);
    if (a.folder)
        adapter_close(&a);
    free(base);
    free(adapter_path);
    return status;
}

int folder_reload(Model *m, const char *path, Error *err)
{
    ParameterTable *t = &m->params.table;
    Shards s = {0};
    Adapter a = {0};
    int status = m->config.lora ? adapter_open(&a, path, err) : shards_open(&s, path, err);
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Parameter *p = &t->items[i];
        const Safetensors *file = &a.file;
        if (!p->trainable)
            continue;
        const SafetensorsEntry *e = a.folder ? adapter_find(&a, p->name) : shards_find_parameter(&s, &m->config, p->name, &file);
        status = e ? parameter_load(m, p, e, file, NULL, err) : error_set(err, "%s: the tensor '%s' is missing", path, p->name);
    }
    shards_close(&s);
    if (a.folder)
        adapter_close(&a);
    return status;
}

static int copy_file(const char *from_folder, const char *to_folder, const char *name, Error *err)
{
    char *from = memory_format("%s/%s", from_folder, name), *to = memory_format("%s/%s", to_folder, name);
    Buffer text = {0};
    int status = 0;
    if (access(from, F_OK) == 0) {
        status = file_read(from, &text, 0, err);
        if (status == 0)
            status = file_write(to, text.data, text.length, err);
    }
    buffer_free(&text);
    free(from);
    free(to);
    return status;
}

static void generation_config(const ModelConfig *c, Buffer *b)
{
    buffer_string(b, "{\n  \"_from_model_config\": true");
    if (c->bos_token_id >= 0)
        buffer_format(b, ",\n  \"bos_token_id\": %" PRId64, c->bos_token_id);
    if (c->eos_count > 0) {
        buffer_string(b, ",\n  \"eos_token_id\": ");
        for (int i = 0; i < c->eos_count; i++)
            buffer_format(b, "%s%" PRId64, i ? ", " : c->eos_count > 1 ? "[" : "", c->eos_token_id[i]);
        buffer_string(b, c->eos_count > 1 ? "]" : "");
    }
    if (c->pad_token_id >= 0)
        buffer_format(b, ",\n  \"pad_token_id\": %" PRId64, c->pad_token_id);
    buffer_string(b, "\n}\n");
}

static int write_text(const char *folder, const char *name, Buffer *b, Error *err)
{
    char *path = memory_format("%s/%s", folder, name);
    int status = file_write(path, b->data, b->length, err);
    free(path);
    return status;
}

enum { OWN_TEXTS = 3 };
const char *const folder_texts[] = {"config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                    "chat_template.jinja", "special_tokens_map.json", "tokenizer.model", NULL};

static int copy_tokenizer(const Model *m, const char *path, Error *err)
{
    int status = 0;
    for (size_t i = OWN_TEXTS; m->tokenizer_folder && status == 0 && folder_texts[i]; i++)
        status = copy_file(m->tokenizer_folder, path, folder_texts[i], err);
    return status;
}

int folder_begin(const Model *m, Dtype type, const char *path, Error *err)
{
    int status = parts_begin(m, type, path, err);
    Buffer b = {0};
    if (m->config.lora) {
        adapter_config_write(m, &b);
        if (status == 0)
            status = write_text(path, "adapter_config.json", &b, err);
    } else {
        config_write(&m->config, type, &b);
        if (status == 0)
            status = write_text(path, "config.json", &b, err);
        b.length = 0;
        generation_config(&m->config, &b);
        if (status == 0)
            status = write_text(path, "generation_config.json", &b, err);
    }
    buffer_free(&b);
    return status == 0 ? copy_tokenizer(m, path, err) : -1;
}
