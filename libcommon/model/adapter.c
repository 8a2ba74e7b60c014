#include "model/adapter.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/stream.h"

static bool has_file(const char *folder, const char *name)
{
    char *path = memory_format("%s/%s", folder, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

bool adapter_is(const char *folder)
{
    return has_file(folder, "adapter_config.json") && !has_file(folder, "config.json");
}

/* What is not false, null, empty or zero under these keys makes another adapter than ours. */
static const char *const refused_keys[] = {"use_dora", "fan_in_fan_out", "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices",
                                           "alora_invocation_tokens", "use_qalora", "use_bdlora", "velora_config", "kasa_config", "monteclora_config",
                                           "arrow_config", "megatron_config", "lora_ga_config", NULL};

/* The others that PEFT 0.21 writes: read below, or without a word in how the tensors are used. */
static const char *const known_keys[] = {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
                                         "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "bias", "use_rslora", "modules_to_save",
                                         "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core",
                                         "loftq_config", "eva_config", "corda_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", NULL};

static bool says_something(const JsonValue *v)
{
    return v && v->type != JSON_NULL && !(v->type == JSON_BOOL && !v->boolean) && !((v->type == JSON_ARRAY || v->type == JSON_OBJECT) && v->count == 0);
}

static int read_number(const JsonValue *root, const char *key, double absent, double *out, const char *path, Error *err)
{
    const JsonValue *v = json_get(root, key);
    bool number = json_is(v, JSON_NUMBER) || json_is(v, JSON_INTEGER);
    *out = number ? v->number : absent;
    return !v || number ? 0 : error_set(err, "%s: %s must be a number", path, key);
}

static bool string_is(const JsonValue *v, const char *text)
{
    return json_is(v, JSON_STRING) && v->string.length == strlen(text) && memcmp(v->string.data, text, v->string.length) == 0;
}

/* base_model.model.model.layers.N.MODULE.lora_A.weight (or lora_B): true, the layer and the module. */
static bool name_parse(const char *name, int64_t *layer, LoraModule *module, char *which)
{
    const char *start = ADAPTER_PREFIX "model.layers.";
    if (strncmp(name, start, strlen(start)) != 0)
        return false;
    char *end;
    *layer = strtoll(name + strlen(start), &end, 10);
    if (*end++ != '.' || *layer < 0 || *layer >= CONFIG_MAX_LAYERS)
        return false;
    for (int k = 0; k < LORA_MODULES; k++) {
        size_t n = strlen(lora_module_name((LoraModule)k));
        if (strncmp(end, lora_module_name((LoraModule)k), n) == 0 && strncmp(end + n, ".lora_", 6) == 0 && (end[n + 6] == 'A' || end[n + 6] == 'B') &&
            strcmp(end + n + 7, ".weight") == 0) {
            *module = (LoraModule)k;
            *which = end[n + 6];
            return true;
        }
    }
    return false;
}

static char *tensor_name(int64_t layer, LoraModule module, char which)
{
    return memory_format(ADAPTER_PREFIX "model.layers.%" PRId64 ".%s.lora_%c.weight", layer, lora_module_name(module), which);
}

/* α of a module: the first key of alpha_pattern that is the end of its name, else lora_alpha. */
static double alpha_of(const JsonValue *pattern, const char *module, double otherwise)
{
    size_t n = strlen(module);
    for (size_t i = 0; pattern && i < pattern->count; i++) {
        Span key = pattern->keys[i];
        if (key.length <= n && memcmp(module + n - key.length, key.data, key.length) == 0 && (key.length == n || module[n - key.length - 1] == '.'))
            return pattern->items[i].number;
    }
    return otherwise;
}

static int config_take(Adapter *a, const JsonValue *root, const char *path, Error *err)
{
    const JsonValue *task = json_get(root, "task_type"), *base = json_get(root, "base_model_name_or_path"), *start = json_get(root, "init_lora_weights");
    if (!string_is(json_get(root, "peft_type"), "LORA"))
        return error_set(err, "%s: peft_type is not LORA", path);
    for (int i = 0; refused_keys[i]; i++)
        if (says_something(json_get(root, refused_keys[i])))
            return error_set(err, "%s: %s is not supported", path, refused_keys[i]);
    for (size_t i = 0; i < root->count; i++) {
        int k = 0;
        while (known_keys[k] && strcmp(known_keys[k], root->keys[i].data) != 0)
            k++;
        if (!known_keys[k] && says_something(&root->items[i]))
            return error_set(err, "%s: the field '%s' is not known, and might change the adapter", path, root->keys[i].data);
    }
    /* Those starts change the base model's weights too. */
    if (json_is(start, JSON_STRING) && !string_is(start, "gaussian") && !string_is(start, "orthogonal") && !string_is(start, "eva"))
        return error_set(err, "%s: init_lora_weights '%s' is not supported", path, start->string.data);
    if (says_something(task) && !string_is(task, "CAUSAL_LM") && !string_is(task, "SEQ_CLS"))
        return error_set(err, "%s: the task_type is neither CAUSAL_LM nor SEQ_CLS", path);
    a->classifies = string_is(task, "SEQ_CLS");
    a->plan.base = json_is(base, JSON_STRING) ? memory_string(base->string.data) : NULL;
    double rank;
    if (read_number(root, "r", 8, &rank, path, err) < 0 || read_number(root, "lora_alpha", 8, &a->plan.alpha, path, err) < 0 ||
        read_number(root, "lora_dropout", 0, &a->plan.dropout, path, err) < 0)
        return -1;
    if (!(rank >= 1 && rank <= INT32_MAX && rank == (double)(int64_t)rank))
        return error_set(err, "%s: r is %g, which is no rank", path, rank);
    a->plan.rank = (int64_t)rank;
    const JsonValue *rslora = json_get(root, "use_rslora"), *pattern = json_get(root, "alpha_pattern");
    a->plan.rslora = json_is(rslora, JSON_BOOL) && rslora->boolean;
    if (says_something(rslora) && rslora->type != JSON_BOOL)
        return error_set(err, "%s: use_rslora must be true or false", path);
    if (says_something(pattern) && pattern->type != JSON_OBJECT)
        return error_set(err, "%s: alpha_pattern must be an object", path);
    for (size_t i = 0; json_is(pattern, JSON_OBJECT) && i < pattern->count; i++)
        if (strcspn(pattern->keys[i].data, "*+?[](){}|^$\\") != pattern->keys[i].length || (pattern->items[i].type != JSON_NUMBER && pattern->items[i].type != JSON_INTEGER))
            return error_set(err, "%s: alpha_pattern '%s' is not the end of a name with a number", path, pattern->keys[i].data);
    return 0;
}

/* Ranks are those of the tensors, so that no pattern of names has to be understood. */
static int plan_take(Adapter *a, const JsonValue *root, Error *err)
{
    const JsonValue *pattern = json_get(root, "alpha_pattern");
    bool even = !says_something(json_get(root, "rank_pattern"));
    for (size_t i = 0; i < a->file.count; i++) {
        const SafetensorsEntry *e = &a->file.entries[i];
        int64_t layer;
        LoraModule module;
        char which;
        if (e->dtype != DTYPE_F32 && e->dtype != DTYPE_BF16 && e->dtype != DTYPE_F16)
            return error_set(err, "%s: '%s' has the dtype %s", a->file.path, e->name, dtype_name(e->dtype));
        if (!name_parse(e->name, &layer, &module, &which))
            continue;
        char *other = tensor_name(layer, module, which == 'A' ? 'B' : 'A'), *name = memory_format("model.layers.%" PRId64 ".%s", layer, lora_module_name(module));
        int status = 0;
        if (!safetensors_find(&a->file, other))
            status = error_set(err, "%s: '%s' is missing beside '%s'", a->file.path, other, e->name);
        else if (e->ndim != 2 || e->shape[0] < 1 || e->shape[1] < 1)
            status = error_set(err, "%s: '%s' is no matrix", a->file.path, e->name);
        else if (which == 'A' && even && e->shape[0] != a->plan.rank)
            status = error_set(err, "%s: '%s' has the rank %" PRId64 ", adapter_config.json says %" PRId64, a->file.path, e->name, e->shape[0], a->plan.rank);
        else if (which == 'A') {
            lora_plan_extend(&a->plan, layer + 1);
            a->plan.ranks[layer * LORA_MODULES + module] = e->shape[0];
            a->plan.alphas[layer * LORA_MODULES + module] = alpha_of(pattern, name, a->plan.alpha);
        }
        free(other);
        free(name);
        if (status < 0)
            return -1;
    }
    return a->plan.layers > 0 ? 0 : error_set(err, "%s: no adapter of a linear layer", a->file.path);
}

char *adapter_resolve(const char *path, Error *err)
{
    for (int i = 0; i < 3; i++) {
        char *folder = i == 0 ? memory_format("%s/final", path) : i == 1 ? memory_format("%s/latest", path) : memory_string(path);
        if (has_file(folder, "adapter_config.json"))
            return folder;
        free(folder);
    }
    error_set(err, "%s: neither an adapter's folder (no adapter_config.json) nor a run with one", path);
    return NULL;
}

int adapter_open(Adapter *a, const char *path, Error *err)
{
    memset(a, 0, sizeof *a);
    a->folder = adapter_resolve(path, err);
    if (!a->folder)
        return -1;
    char *config = memory_format("%s/adapter_config.json", a->folder), *weights = memory_format("%s/adapter_model.safetensors", a->folder);
    JsonTree tree = {0};
    int status = json_parse_file(&tree, config, err);
    if (status == 0)
        status = config_take(a, tree.root, config, err);
    if (status == 0)
        status = safetensors_open(&a->file, weights, err);
    if (status == 0)
        status = plan_take(a, tree.root, err);
    json_free(&tree);
    free(config);
    free(weights);
    if (status < 0)
        adapter_close(a);
    return status;
}

void adapter_close(Adapter *a)
{
    if (a->file.path)
        safetensors_close(&a->file);
    lora_plan_free(&a->plan);
    free(a->folder);
    memset(a, 0, sizeof *a);
}

int adapter_check(const Adapter *a, const ParameterTable *t, bool trained, Error *err)
{
    size_t prefix = strlen(ADAPTER_PREFIX);
    for (size_t i = 0; i < a->file.count; i++) {
        const SafetensorsEntry *e = &a->file.entries[i];
        const char *own = strncmp(e->name, ADAPTER_PREFIX, prefix) == 0 ? e->name + prefix : "";
        int64_t layer;
        LoraModule module;
        char which;
        if (!name_parse(e->name, &layer, &module, &which)) {
            if (param_find(t, own) < 0)
                return error_set(err, "%s: the tensor '%s' has no place in this model", a->file.path, e->name);
            if (trained && strcmp(own, "score.weight") != 0)
                return error_set(err, "%s: '%s' takes the place of the model's, and can't be trained on with --lora", a->file.path, e->name);
            continue;
        }
        char *name = memory_format("model.layers.%" PRId64 ".%s.weight", layer, lora_module_name(module));
        int at = param_find(t, name);
        const Parameter *p = at >= 0 ? &t->items[at] : NULL;
        free(name);
        int64_t r = lora_rank(&a->plan, layer, module);
        bool fits = p && (which == 'A' ? e->shape[0] == r && e->shape[1] == p->shape[1] : e->shape[0] == p->shape[0] && e->shape[1] == r);
        if (!fits)
            return error_set(err, "%s: '%s' [%" PRId64 ", %" PRId64 "] does not fit the model", a->file.path, e->name, e->shape[0], e->shape[1]);
    }
    return 0;
}

const SafetensorsEntry *adapter_find(const Adapter *a, const char *name)
{
    if (strncmp(name, ADAPTER_PREFIX, strlen(ADAPTER_PREFIX)) == 0)
        return safetensors_find(&a->file, name);
    char *replaced = memory_format(ADAPTER_PREFIX "%s", name);
    const SafetensorsEntry *e = safetensors_find(&a->file, replaced);
    free(replaced);
    return e;
}

static float *matrix_read(const Adapter *a, const char *weight, char which)
{
    char *name = memory_format(ADAPTER_PREFIX "%.*s.lora_%c.weight", (int)(strlen(weight) - strlen(".weight")), weight, which);
    const SafetensorsEntry *e = safetensors_find(&a->file, name);
    free(name);
    if (!e)
        return NULL;
    size_t n = (size_t)(e->shape[0] * e->shape[1]);
    float *values = memory_alloc(n, sizeof *values);
    dtype_convert(values, DTYPE_F32, a->file.data + e->begin, e->dtype, n);
    return values;
}

static void add_product(float *values, const Parameter *p, const float *a, const float *b, int64_t rank, float scale, int threads)
{
    const int64_t rows = p->extent[0], cols = p->extent[1], whole = p->shape[1];
    a += p->begin[1];
    b += p->begin[0] * rank;
#pragma omp parallel for schedule(static) num_threads(threads > 0 ? threads : 1)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < rank; k++) {
            float factor = scale * b[i * rank + k];
            for (int64_t j = 0; j < cols; j++)
                values[i * cols + j] += factor * a[k * whole + j];
        }
}

void adapter_add(const Adapter *a, const Parameter *p, float *values, int threads)
{
    int64_t layer;
    LoraModule module;
    char which, *name = p->ndim == 2 ? memory_format(ADAPTER_PREFIX "%.*s.lora_A.weight", (int)(strlen(p->name) - strlen(".weight")), p->name) : NULL;
    bool adapted = name && name_parse(name, &layer, &module, &which) && safetensors_find(&a->file, name);
    free(name);
    if (!adapted)
        return;
    int64_t r = lora_rank(&a->plan, layer, module);
    float *wa = matrix_read(a, p->name, 'A'), *wb = matrix_read(a, p->name, 'B');
    add_product(values, p, wa, wb, r, (float)lora_scale(&a->plan, layer, module), threads);
    free(wa);
    free(wb);
}

/* Does every layer have this module's adapter (or none), with the plan's rank and α? */
static bool is_even(const LoraPlan *p, int64_t layers, LoraModule m)
{
    bool some = false, all = true;
    for (int64_t i = 0; i < layers; i++) {
        some |= lora_rank(p, i, m) > 0;
        all &= lora_rank(p, i, m) > 0;
    }
    return some == all;
}

static void targets_write(Buffer *b, const LoraPlan *p, int64_t layers)
{
    int n = 0;
    for (int k = 0; k < LORA_MODULES; k++) {
        const char *module = lora_module_name((LoraModule)k);
        for (int64_t i = 0; i < layers; i++) {
            if (lora_rank(p, i, (LoraModule)k) == 0)
                continue;
            buffer_string(b, n++ ? ",\n    " : "\n    ");
            if (is_even(p, layers, (LoraModule)k)) {
                buffer_format(b, "\"%s\"", strchr(module, '.') + 1);
                break;
            }
            buffer_format(b, "\"model.layers.%" PRId64 ".%s\"", i, module);
        }
    }
    buffer_string(b, n ? "\n  " : "");
}

/* The modules whose rank, or α, is another than the plan's. */
static void pattern_write(Buffer *b, const LoraPlan *p, int64_t layers, bool alpha)
{
    int n = 0;
    for (int64_t i = 0; i < layers; i++)
        for (int k = 0; k < LORA_MODULES; k++) {
            int64_t r = lora_rank(p, i, (LoraModule)k);
            if (r == 0 || (alpha ? lora_alpha(p, i, (LoraModule)k) == p->alpha : r == p->rank))
                continue;
            buffer_format(b, "%s    \"model.layers.%" PRId64 ".%s\": ", n++ ? ",\n" : "\n", i, lora_module_name((LoraModule)k));
            json_write_number(b, alpha ? lora_alpha(p, i, (LoraModule)k) : (double)r);
        }
    buffer_string(b, n ? "\n  " : "");
}

void adapter_config_write(const Model *m, Buffer *b)
{
    const LoraPlan *p = m->config.lora;
    int64_t layers = m->config.num_hidden_layers;
    buffer_string(b, "{\n  \"alpha_pattern\": {");
    pattern_write(b, p, layers, true);
    buffer_string(b, "},\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": ");
    if (p->base)
        json_write_string(b, (Span){p->base, strlen(p->base)});
    else
        buffer_string(b, "null");
    buffer_string(b, ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n"
                     "  \"layers_pattern\": null,\n  \"layers_to_transform\": null,\n  \"lora_alpha\": ");
    json_write_number(b, p->alpha);
    buffer_string(b, ",\n  \"lora_dropout\": ");
    json_write_number(b, p->dropout);
    buffer_format(b, ",\n  \"modules_to_save\": %s,\n  \"peft_type\": \"LORA\",\n  \"r\": %" PRId64 ",\n  \"rank_pattern\": {",
                  m->config.num_labels ? "[\n    \"score\"\n  ]" : "null", p->rank);
    pattern_write(b, p, layers, false);
    buffer_string(b, "},\n  \"revision\": null,\n  \"target_modules\": [");
    targets_write(b, p, layers);
    buffer_format(b, "],\n  \"task_type\": \"%s\",\n  \"use_dora\": false,\n  \"use_rslora\": %s\n}\n", m->config.num_labels ? "SEQ_CLS" : "CAUSAL_LM",
                  p->rslora ? "true" : "false");
}
