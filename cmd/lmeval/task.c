/* Reads a task's definition. Whatever it says that is not done here is refused by the name of its field: a number that leaves
 * part of a definition out would look like the harness's and be another. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "definition.h"

static int take_split(Definition *d, const char *name, char **out)
{
    const char *text = NULL;
    if (definition_string(d, name, &text) < 0)
        return -1;
    *out = text ? memory_string(text) : NULL;
    return 0;
}

static int take_field(Definition *d, const char *name, Field *f)
{
    return field_set(f, name, definition_take(d, name), d->err) < 0 ? definition_place(d, name) : 0;
}

static int take_shots(Definition *d)
{
    Task *t = d->t;
    Shots *s = &t->shots;
    const JsonValue *v = definition_take(d, "fewshot_config");
    static const char *const known[] = {"sampler", "split", "samples", "process_docs", "doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix", "fewshot_delimiter", "target_delimiter", NULL};
    if (v && v->type != JSON_OBJECT)
        return definition_complain(d, "fewshot_config", "must be a mapping");
    for (size_t i = 0; v && i < v->count; i++) {
        bool found = false;
        for (const char *const *k = known; *k; k++)
            found |= strcmp(*k, v->keys[i].data) == 0;
        if (!found && v->items[i].type != JSON_NULL) {
            char *reason = memory_format("has '%s', which is not known here", v->keys[i].data);
            definition_complain(d, "fewshot_config", reason);
            free(reason);
            return -1;
        }
    }
    const JsonValue *sampler = json_get(v, "sampler"), *split = json_get(v, "split"), *text = json_get(v, "doc_to_text"), *choice = json_get(v, "doc_to_choice");
    const JsonValue *target = json_get(v, "doc_to_target"), *prefix = json_get(v, "gen_prefix"), *between = json_get(v, "fewshot_delimiter"), *before = json_get(v, "target_delimiter");
    if (sampler && (sampler->type != JSON_STRING || (strcmp(sampler->string.data, "default") != 0 && strcmp(sampler->string.data, "first_n") != 0)))
        return definition_complain(d, "fewshot_config", "has a sampler that is neither 'default' nor 'first_n'");
    if ((split && split->type != JSON_STRING && split->type != JSON_NULL) || (between && between->type != JSON_STRING) || (before && before->type != JSON_STRING))
        return definition_complain(d, "fewshot_config", "has a 'split' or a delimiter that is no text");
    s->first_n = sampler && strcmp(sampler->string.data, "first_n") == 0;
    if (split) {
        free(t->fewshot);
        t->fewshot = split->type == JSON_STRING ? memory_string(split->string.data) : NULL;
    }
    s->samples = json_get(v, "samples");
    if (s->samples && (s->samples->type != JSON_ARRAY || s->samples->count == 0))
        return definition_complain(d, "fewshot_config", "has 'samples' that are no list");
    s->delimiter = between ? between->string.data : t->delimiter;
    s->target_delimiter = before ? before->string.data : t->target_delimiter;
    const JsonValue *none = NULL;
    if (field_set(&s->text, text ? "fewshot_config.doc_to_text" : "doc_to_text", text ? text : t->text.value, d->err) < 0 || field_set(&s->choice, choice ? "fewshot_config.doc_to_choice" : "doc_to_choice", choice ? choice : t->choice.value, d->err) < 0 ||
        field_set(&s->target, target ? "fewshot_config.doc_to_target" : "doc_to_target", target ? target : t->target.value, d->err) < 0 ||
        field_set(&s->prefix, "gen_prefix", prefix ? prefix : t->prefix.value ? t->prefix.value : none, d->err) < 0)
        return definition_place(d, "fewshot_config");
    return 0;
}

/* The file's place, else beside the definition. */
static int read_file(Definition *d, Split *s, const char *file)
{
    char *other = access(file, F_OK) == 0 ? memory_string(file) : definition_beside(d->t->path, file);
    int status = split_read(s, access(other, F_OK) == 0 ? other : file, d->err);
    free(other);
    return status;
}

static int read_files(Definition *d, Split *s, const JsonValue *v)
{
    size_t n;
    const JsonValue *files = json_list(v, &n);
    for (size_t i = 0; i < n; i++) {
        if (files[i].type != JSON_STRING)
            return definition_complain(d, "dataset_kwargs", "has 'data_files' that are no texts");
        if (read_file(d, s, files[i].string.data) < 0)
            return -1;
    }
    return 0;
}

/* Documents of a split: of --data, else of the definition's data_files, whose files without a split are `train`. */
static int read_split(Definition *d, Split *s, const char *name, const OptionList *data)
{
    Task *t = d->t;
    bool found = false;
    s->name = memory_string(name);
    for (size_t i = 0; i < data->count; i++) {
        const char *text = data->values[i], *equal = strchr(text, '='), *colon = memchr(text, ':', equal ? (size_t)(equal - text) : 0);
        const char *split = colon ? colon + 1 : text;
        bool ours = !colon || (strlen(t->name) == (size_t)(colon - text) && memcmp(t->name, text, (size_t)(colon - text)) == 0);
        if (!equal || !ours || strlen(name) != (size_t)(equal - split) || memcmp(name, split, strlen(name)) != 0)
            continue;
        found = true;
        if (split_read(s, equal + 1, d->err) < 0)
            return -1;
    }
    const JsonValue *arguments = definition_take(d, "dataset_kwargs"), *files = json_get(arguments, "data_files"), *path = definition_take(d, "dataset_path");
    if (found)
        return 0;
    for (size_t i = 0; arguments && i < arguments->count; i++)
        if (strcmp(arguments->keys[i].data, "data_files") != 0 && strcmp(arguments->keys[i].data, "trust_remote_code") != 0)
            return definition_complain(d, "dataset_kwargs", "has more than 'data_files'");
    if (!json_is(path, JSON_STRING) || strcmp(path->string.data, "json") != 0 || !files) {
        char *reason = memory_format("is not fetched: name local files by --data %s=FILE (or dataset_path: json with data_files)", name);
        definition_complain(d, "dataset_path", reason);
        free(reason);
        return -1;
    }
    const JsonValue *these = files->type == JSON_OBJECT ? json_get(files, name) : strcmp(name, "train") == 0 ? files : NULL;
    if (these)
        return read_files(d, s, these);
    char *reason = memory_format("has no 'data_files' for the split '%s'", name);
    definition_complain(d, "dataset_kwargs", reason);
    free(reason);
    return -1;
}

static int take_kind(Definition *d)
{
    static const char *const kinds[] = {"generate_until", "multiple_choice", "loglikelihood", "loglikelihood_rolling"};
    const char *kind = kinds[0];
    if (definition_string(d, "output_type", &kind) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (strcmp(kind, kinds[i]) == 0) {
            d->t->kind = (TaskKind)i;
            return 0;
        }
    return definition_complain(d, "output_type", "is none of generate_until, multiple_choice, loglikelihood, loglikelihood_rolling");
}

/* fewshot_split, samples, the training, validation or test split, the first there is. */
const char *task_pool(const Task *t)
{
    return t->fewshot ? t->fewshot : t->shots.samples ? NULL : t->training ? t->training : t->validation ? t->validation : t->test;
}

static int read_pool(Definition *d, const OptionList *data)
{
    Task *t = d->t;
    const char *name = task_pool(t);
    if (name)
        return read_split(d, &t->pool, name, data);
    for (size_t i = 0; i < t->shots.samples->count; i++)
        split_add_value(&t->pool, &t->shots.samples->items[i]);
    return 0;
}

static int bind_all(Definition *d)
{
    Task *t = d->t;
    Field *own[] = {&t->text, &t->target, &t->choice, &t->prefix, &t->description}, *shots[] = {&t->shots.text, &t->shots.target, &t->shots.choice, &t->shots.prefix};
    for (int i = 0; i < 5; i++)
        if (field_bind(own[i], &t->docs, d->err) < 0)
            return definition_place(d, own[i]->name);
    for (int i = 0; i < 4 && t->num_fewshot > 0; i++)
        if (field_bind(shots[i], i < 3 && !shots[i]->function ? &t->docs : &t->pool, d->err) < 0)
            return definition_place(d, "fewshot_config");
    return 0;
}

/* A document says whether the texts are choices and whether there are several answers. */
static int learn_from(Task *t, size_t at, Error *err)
{
    Doc first;
    JsonValue text, target;
    Arena arena = {0};
    int status = split_doc(&t->docs, at, &first, err);
    if (status == 0)
        status = field_text(t, &t->text, &first, &arena, &text, err) < 0 || field_target(t, &t->target, &first, &arena, &target, err) < 0 ? -1 : 0;
    if (status == 0) {
        t->multiple_input = text.type == JSON_INTEGER;
        t->multiple_target = target.type == JSON_ARRAY;
        if (t->multiple_input && (t->kind != TASK_CHOICE || !t->choice.value))
            status = error_set(err, "'doc_to_text' gives a number, and there are no choices");
        for (size_t i = 0; i < t->metric_count && t->multiple_target && t->kind == TASK_GENERATE && status == 0; i++)
            if (!metric_takes_several(t->pipelines->metrics[i].kind))
                status = error_set(err, "'doc_to_target' gives a list, and the metric '%s' takes one right answer", metric_names[t->pipelines->metrics[i].kind]);
    }
    if (status < 0)
        error_prefix(err, "%s:%" PRId64, t->docs.lines[at].file, t->docs.lines[at].line);
    free(first.variables);
    arena_free(&arena);
    return status;
}

static int learn_from_first(Task *t, Error *err)
{
    int status = -1;
    for (size_t at = 0; at < t->docs.count && status < 0 && (at == 0 || t->docs.skip); at++)
        status = learn_from(t, at, err);
    return status;
}

static int read_all(Definition *d, const OptionList *data, int64_t num_fewshot)
{
    Task *t = d->t;
    const char *name = NULL;
    if (definition_load(d, t->path, 0) < 0 || definition_python(d, d->processed) < 0 || definition_string(d, "task", &name) < 0 || take_kind(d) < 0)
        return -1;
    t->name = name ? memory_string(name) : task_name(t->path);
    t->target_delimiter = " ";
    t->delimiter = "\n\n";
    if (definition_string(d, "target_delimiter", &t->target_delimiter) < 0 || definition_string(d, "fewshot_delimiter", &t->delimiter) < 0 || take_split(d, "test_split", &t->test) < 0 ||
        take_split(d, "validation_split", &t->validation) < 0 || take_split(d, "training_split", &t->training) < 0 || take_split(d, "fewshot_split", &t->fewshot) < 0 ||
        take_field(d, "doc_to_text", &t->text) < 0 || take_field(d, "doc_to_target", &t->target) < 0 || take_field(d, "doc_to_choice", &t->choice) < 0 ||
        take_field(d, "gen_prefix", &t->prefix) < 0 || take_field(d, "description", &t->description) < 0 || take_shots(d) < 0 || generation_take(d) < 0 || pipelines_take(d) < 0)
        return -1;
    const JsonValue *shots = definition_take(d, "num_fewshot"), *repeats = definition_take(d, "repeats");
    if (shots && (shots->type != JSON_INTEGER || shots->integer < 0))
        return definition_complain(d, "num_fewshot", "must be a whole number");
    if (repeats && (repeats->type != JSON_INTEGER || repeats->integer != 1))
        return definition_complain(d, "repeats", "other than 1 is not known here: answers are written greedily");
    /* A definition's 0 stands against the option, as in the harness. */
    t->num_fewshot = num_fewshot >= 0 && !(shots && shots->integer == 0) ? num_fewshot : shots ? shots->integer : 0;
    if (t->kind == TASK_CHOICE && !t->choice.value)
        return definition_complain(d, "output_type", "multiple_choice needs 'doc_to_choice'");
    const char *split = t->test ? t->test : t->validation;
    if (!split)
        return error_set(d->err, "%s: no 'test_split' and no 'validation_split'", t->path);
    if (d->without_documents)
        return definition_take(d, "dataset_path"), definition_take(d, "dataset_kwargs"), definition_finish(d) < 0 ? -1 : bind_all(d);
    if (read_split(d, &t->docs, split, data) < 0 || (t->num_fewshot > 0 && read_pool(d, data) < 0) || definition_finish(d) < 0)
        return -1;
    if (t->docs.count == 0)
        return error_set(d->err, "%s: no records", t->docs.file_count ? t->docs.files[0] : t->path);
    return bind_all(d) < 0 || learn_from_first(t, d->err) < 0 ? -1 : 0;
}

int task_open(Task *t, const char *path, const Eval *e, Error *err)
{
    *t = (Task){.path = path};
    t->docs.skip = t->pool.skip = strcmp(e->common.on_error, "skip") == 0;
    mersenne_seed(&t->random, (uint64_t)e->fewshot_seed);
    Definition d = {.t = t, .without_documents = e->check, .processed = e->processed, .err = err};
    return read_all(&d, &e->data, e->num_fewshot);
}

static JsonValue text_value(const char *text)
{
    return (JsonValue){.type = JSON_STRING, .string = {text, strlen(text)}};
}

int task_open_choices(Task *t, const char *path, const Eval *e, Error *err)
{
    static JsonValue columns[3];
    static const MetricKind kinds[] = {METRIC_ACC, METRIC_ACC_NORM, METRIC_ACC_BYTES};
    columns[0] = text_value("context");
    columns[1] = text_value("answer");
    columns[2] = text_value("choices");
    *t = (Task){.path = path, .name = task_name(path), .kind = TASK_CHOICE, .target_delimiter = " ", .delimiter = "\n\n", .pipeline_count = 1, .metric_count = 3};
    t->pipelines = memory_zalloc(1, sizeof *t->pipelines);
    t->pipelines->name = memory_string("none");
    t->pipelines->metrics = memory_zalloc(3, sizeof *t->pipelines->metrics);
    for (int i = 0; i < 3; i++)
        t->pipelines->metrics[i] = metric_new(kinds[i]);
    field_set(&t->text, "context", &columns[0], err);
    field_set(&t->target, "answer", &columns[1], err);
    field_set(&t->choice, "choices", &columns[2], err);
    t->text.column = t->target.column = t->choice.column = true;
    t->docs.skip = strcmp(e->common.on_error, "skip") == 0;
    if (split_read(&t->docs, path, err) < 0)
        return -1;
    return t->docs.count ? 0 : error_set(err, "%s: no records", path);
}

void task_close(Task *t)
{
    Field *fields[] = {&t->text, &t->target, &t->choice, &t->prefix, &t->description, &t->shots.text, &t->shots.target, &t->shots.choice, &t->shots.prefix};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        jinja_free(fields[i]->template);
    for (size_t i = 0; i < t->pipeline_count && t->pipelines; i++) {
        Pipeline *p = &t->pipelines[i];
        for (size_t k = 0; k < p->count; k++) {
            python_re_free(p->filters[k].pattern);
            for (size_t n = 0; n < p->filters[k].ignored_count; n++)
                python_re_free(p->filters[k].ignored[n]);
            free(p->filters[k].ignored);
        }
        for (size_t k = 0; k < t->metric_count && p->metrics; k++) {
            for (size_t n = 0; n < p->metrics[k].ignored_count; n++)
                python_re_free(p->metrics[k].ignored[n]);
            free(p->metrics[k].ignored);
            free(p->metrics[k].items);
            free(p->metrics[k].weights);
        }
        free(p->name);
        free(p->filters);
        free(p->metrics);
    }
    free(t->pipelines);
    free(t->until);
    split_free(&t->docs);
    split_free(&t->pool);
    for (size_t i = 0; i < t->tree_count; i++)
        json_free(&t->trees[i]);
    free(t->trees);
    char *owned[] = {t->name, t->test, t->validation, t->training, t->fewshot};
    for (int i = 0; i < 5; i++)
        free(owned[i]);
    arena_free(&t->arena);
    *t = (Task){0};
}
