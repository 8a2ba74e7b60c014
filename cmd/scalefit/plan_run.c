/* plan of a run of pretrain: its options and its model, as pretrain --dry-run counts them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/json.h"
#include "scalefit.h"
#include "train/cost.h"

/* A number among the options, which are kept as numbers or as text. */
static double number(const JsonValue *options, const char *key, double missing)
{
    const JsonValue *v = json_get(options, key);
    if (json_is(v, JSON_INTEGER) || json_is(v, JSON_NUMBER))
        return v->number;
    return json_is(v, JSON_STRING) && v->string.length ? strtod(v->string.data, NULL) : missing;
}

static const char *text(const JsonValue *options, const char *key, const char *missing)
{
    const JsonValue *v = json_get(options, key);
    return json_is(v, JSON_STRING) ? v->string.data : missing;
}

int plan_run(Settings *s, Error *err)
{
    char *path = memory_format("%s/options.json", s->model_config);
    JsonTree tree = {0};
    ModelConfig config;
    int status = json_parse_file(&tree, path, err);
    if (status == 0)
        status = plan_model(s, &config, err);
    if (status == 0) {
        const JsonValue *o = tree.root;
        double length = number(o, "seq-len", 1024), batch = number(o, "batch-tokens", 0), dp = number(o, "dp", 1);
        batch = batch > 0 ? batch : 8 * length;
        CostRun r = {.config = &config, .extent = {(int)number(o, "tp", 1), (int)number(o, "cp", 1), (int)number(o, "pp", 1), dp > 0 ? (int)dp : 1},
                     .stages = {(int)number(o, "virtual-stages", 1), (int64_t)number(o, "ends-fewer", 0)}, .sequence_length = (int64_t)length,
                     .samples = (int64_t)(batch / length), .shard = (int)number(o, "shard", 1),
                     .dtype = strcmp(text(o, "dtype", "f32"), "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32, .threads = (int)number(o, "threads", 0),
                     .gpu = strcmp(text(o, "device", "auto"), "cuda") == 0, .saves = number(o, "save-every", 1000) > 0,
                     .averages = number(o, "average-every", 0) > 0, .lends = true};
        const char *again = text(o, "recompute", "none");
        r.recompute = strcmp(again, "layer") == 0 ? RECOMPUTE_LAYER : strcmp(again, "norms") == 0 ? RECOMPUTE_NORMS : RECOMPUTE_NONE;
        r.micro_batch = cost_micro_batch(r.sequence_length, r.samples, (int64_t)number(o, "micro-batch", 0), r.extent);
        if (!(s->tokens > 0))
            s->tokens = number(o, "tokens", 0) > 0 ? number(o, "tokens", 0) : number(o, "steps", 0) * (double)(r.samples * r.sequence_length);
        s->sequence = r.sequence_length;
        if (config.max_position_embeddings < r.sequence_length)
            config.max_position_embeddings = r.sequence_length;
        CostRow rows[COST_ROWS];
        int n = cost_rows(&r, NULL, rows, err);
        for (int i = 0; i < n; i++)
            plan_row(s->json, rows[i].key, rows[i].value, rows[i].unit, rows[i].text);
        status = n < 0 ? -1 : 0;
    }
    json_free(&tree);
    free(path);
    return status;
}
