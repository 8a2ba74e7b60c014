#include "model/folder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/safetensors.h"
#include "io/stream.h"
#include "model/folder_parts.h"

char *folder_resolve(const char *path, Error *err)
{
    for (int i = 0; i < 3; i++) {
        char *folder = i == 0 ? memory_format("%s/final", path) : i == 1 ? memory_format("%s/latest", path) : memory_string(path);
        char *config = memory_format("%s/config.json", folder);
        bool found = access(config, F_OK) == 0;
        free(config);
        if (found)
            return folder;
        free(folder);
    }
    error_set(err, "%s: neither a model folder (no config.json) nor a run with one", path);
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

static int shards_add(Shards *s, const char *folder, const char *name, Error *err)
{
    char *path = memory_format("%s/%s", folder, name);
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->files[i].path, path) == 0) {
            free(path);
            return 0;
        }
    s->files = memory_realloc(s->files, s->count + 1, sizeof *s->files);
    int status = safetensors_open(&s->files[s->count], path, err);
    free(path);
    s->count += status == 0;
    return status;
}

static int shards_open(Shards *s, const char *folder, Error *err)
{
    char *index = memory_format("%s/model.safetensors.index.json", folder), *single = memory_format("%s/model.safetensors", folder);
    int status = 0;
    if (access(single, F_OK) == 0 || access(index, F_OK) != 0) {
        status = shards_add(s, folder, "model.safetensors", err);
    } else {
        JsonTree tree = {0};
        status = json_parse_file(&tree, index, err);
        const JsonValue *map = status == 0 ? json_get(tree.root, "weight_map") : NULL;
        if (status == 0 && !json_is(map, JSON_OBJECT))
            status = error_set(err, "%s: no weight_map", index);
        for (size_t i = 0; status == 0 && i < map->count; i++) {
            const JsonValue *file = &map->items[i];
            if (!json_is(file, JSON_STRING) || file->string.length == 0 || strchr(file->string.data, '/') ||
                file->string.data[0] == '.')
                status = error_set(err, "%s: '%s' is not in a plain file of this folder", index, map->keys[i].data);
            else
                status = shards_add(s, folder, file->string.data, err);
        }
        json_free(&tree);
    }
    free(index);
    free(single);
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

static int shape_check(const Parameter *p, const SafetensorsEntry *e, const char *path, Error *err)
{
    bool equal = e->ndim == p->ndim && e->shape[0] == p->shape[0] && (p->ndim == 1 || e->shape[1] == p->shape[1]);
    if (equal)
        return 0;
    return error_set(err, "%s: '%s' has %d dimensions, the first %" PRId64 "; the configuration implies [%" PRId64 ", %" PRId64 "]", path,
                     p->name, e->ndim, e->ndim ? e->shape[0] : 1, p->shape[0], p->ndim == 2 ? p->shape[1] : 1);
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

static int parameter_load(Model *m, const Parameter *p, const SafetensorsEntry *e, const Safetensors *file, Error *err)
{
    if (e->dtype != DTYPE_F32 && e->dtype != DTYPE_BF16 && e->dtype != DTYPE_F16)
        return error_set(err, "%s: '%s' has the dtype %s", file->path, p->name, dtype_name(e->dtype));
    if (shape_check(p, e, file->path, err) < 0)
        return -1;
    float *values = memory_alloc(p->count, sizeof *values);
    box_read(values, p, e, file);
    int status = 0;
    for (size_t i = 0; i < p->count && status == 0; i++)
        if (!isfinite(values[i]))
            status = error_set(err, "%s: '%s' holds a NaN or an infinity (element %zu)", file->path, p->name, i);
    ParameterTable *t = &m->params.table;
    m->device->copy(m->stream, t->weights + p->offset, values, p->count * sizeof *values, COPY_TO_DEVICE);
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

static int unknown_check(const Model *m, const Shards *s, Error *err)
{
    ModelParameters whole;
    ModelPart all = part_whole(&m->config);
    int status = param_open(&whole, &m->config, &all, NULL, NULL, err);
    const ParameterTable *t = &whole.table;
    for (size_t f = 0; f < s->count && status == 0; f++)
        for (size_t i = 0; i < s->files[f].count && status == 0; i++) {
            const char *name = s->files[f].entries[i].name;
            size_t k = 0;
            while (k < t->count && strcmp(t->items[k].name, name) != 0)
                k++;
            if (k == t->count && !may_be_ignored(m, name))
                status = error_set(err, "%s: the tensor '%s' has no place in this model", s->files[f].path, name);
        }
    param_close(&whole);
    return status;
}

static int weights_load(Model *m, const char *folder, bool fresh_score, uint64_t seed, Error *err)
{
    Shards s = {0};
    if (shards_open(&s, folder, err) < 0)
        return -1;
    ParameterTable *t = &m->params.table;
    if (fresh_score)
        param_initialise(t, seed);
    int status = tied_check(m, &s, err);
    if (status == 0)
        status = unknown_check(m, &s, err);
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Safetensors *file = NULL;
        const SafetensorsEntry *e = shards_find(&s, t->items[i].name, &file);
        if (e)
            status = parameter_load(m, &t->items[i], e, file, err);
        else if (!(fresh_score && (int)i == m->params.score))
            status = error_set(err, "%s: the tensor '%s' is missing", folder, t->items[i].name);
    }
    shards_close(&s);
    return status;
}

int folder_load(Model *m, const char *path, int num_labels, uint64_t seed, const ModelPart *part, Device *d, Error *err)
{
    char *config_path = memory_format("%s/config.json", path);
    ModelConfig c;
    int status = config_read(&c, config_path, err);
    free(config_path);
    if (status < 0)
        return -1;
    bool fresh = num_labels == 1 && c.num_labels == 0;
    if (fresh)
        c.num_labels = 1;
    if (model_open(m, &c, part, d, err) < 0)
        return error_prefix(err, "%s", path);
    if (weights_load(m, path, fresh, seed, err) < 0) {
        model_close(m);
        return -1;
    }
    char *tokenizer = memory_format("%s/tokenizer.json", path);
    if (access(tokenizer, F_OK) == 0)
        m->tokenizer_folder = memory_string(path);
    free(tokenizer);
    return 0;
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

int folder_begin(const Model *m, Dtype type, const char *path, Error *err)
{
    int status = parts_begin(m, type, path, err);
    Buffer b = {0};
    config_write(&m->config, type, &b);
    if (status == 0)
        status = write_text(path, "config.json", &b, err);
    b.length = 0;
    generation_config(&m->config, &b);
    if (status == 0)
        status = write_text(path, "generation_config.json", &b, err);
    buffer_free(&b);
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "tokenizer.model"};
    for (size_t i = 0; m->tokenizer_folder && status == 0 && i < sizeof files / sizeof *files; i++)
        status = copy_file(m->tokenizer_folder, path, files[i], err);
    return status;
}

int folder_save(Model *m, Dtype type, const char *path, Error *err)
{
    ParameterTable *t = &m->params.table;
    float *host = m->device->is_host ? t->weights : memory_alloc(t->total, sizeof *host);
    int status = 0;
    if (!m->device->is_host) {
        m->device->copy(m->stream, host, t->weights, t->total * sizeof *host, COPY_TO_HOST);
        status = m->device->stream_wait(m->stream, err);
    }
    if (status == 0)
        status = folder_begin(m, type, path, err);
    if (status == 0)
        status = parts_write(m, host + t->frozen, &(ArenaStretch){0, param_trained_total(t)}, 1, type, path, NULL, err);
    if (!m->device->is_host)
        free(host);
    return status;
}

int folder_reload(Model *m, const char *path, Error *err)
{
    ParameterTable *t = &m->params.table;
    Shards s = {0};
    if (shards_open(&s, path, err) < 0)
        return -1;
    int status = 0;
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Parameter *p = &t->items[i];
        const Safetensors *file = NULL;
        if (!p->trainable)
            continue;
        const SafetensorsEntry *e = shards_find(&s, p->name, &file);
        status = e ? parameter_load(m, p, e, file, err) : error_set(err, "%s: the tensor '%s' is missing", path, p->name);
    }
    shards_close(&s);
    return status;
}
