/* plan: what a training run needs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/message.h"
#include "model/config.h"
#include "model/folder.h"
#include "scalefit.h"

/* Beside a number what a person reads more easily: GB, days, billions. */
static void readable(char *text, size_t size, double x, const char *unit)
{
    static const char *const bytes[] = {"kB", "MB", "GB", "TB", "PB", "EB"}, *const counts[] = {"million", "billion", "trillion"};
    double a = fabs(x);
    text[0] = 0;
    if (strcmp(unit, "bytes") == 0 && a >= 1e3 && a < 1e21) {
        int k = (int)fmin(5, floor(log10(a) / 3) - 1);
        snprintf(text, size, "%.4g %s", x / pow(10, 3 * (k + 1)), bytes[k]);
    } else if (strcmp(unit, "h") == 0 && a >= 48 && a < 1e5) {
        snprintf(text, size, "%.4g days", x / 24);
    } else if (strcmp(unit, "s") == 0 && a >= 120) {
        snprintf(text, size, a < 7200 ? "%.4g min" : a < 2 * 86400 ? "%.4g h" : a < 2 * 365.25 * 86400 ? "%.4g days" : "%.4g years",
                 x / (a < 7200 ? 60 : a < 2 * 86400 ? 3600 : a < 2 * 365.25 * 86400 ? 86400 : 365.25 * 86400));
    } else if ((unit[0] == 0 || strcmp(unit, "h") == 0) && a >= 1e6 && a < 1e15) {
        int k = (int)floor(log10(a) / 3) - 2;
        snprintf(text, size, "%.4g %s", x / pow(10, 3 * (k + 2)), counts[k]);
    }
}

void plan_row(bool json, const char *key, double value, const char *unit, const char *text)
{
    static bool first = true;
    if (json) {
        Buffer b = {0};
        buffer_format(&b, "%s  \"%s\": ", first ? "{\n" : ",\n", key);
        json_write_number(&b, value);
        fwrite(b.data, 1, b.length, stdout);
        buffer_free(&b);
        first = false;
        return;
    }
    char same[48];
    readable(same, sizeof same, value, unit);
    printf("%-44s %12.6g", text, value);
    if (same[0])
        printf(" %-5s  %s\n", unit, same);
    else
        printf("%s%s\n", unit[0] ? " " : "", unit);
}

/* Takes what --model-config says where no option does; parameters also of the sizes that options say. */
static int plan_config(Settings *s, Error *err)
{
    ModelConfig c;
    if (!s->model_config && (s->params > 0 || s->layers < 1 || s->hidden < 1 || s->vocab < 1))
        return 0;
    if (plan_model(s, &c, err) < 0)
        return -1;
    const struct {
        int64_t *to, from;
    } sizes[] = {{&s->layers, c.num_hidden_layers}, {&s->hidden, c.hidden_size}, {&s->heads, c.num_attention_heads},
                 {&s->kv_heads, c.num_key_value_heads}, {&s->intermediate, c.intermediate_size}, {&s->vocab, c.vocab_size}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (*sizes[i].to == 0)
            *sizes[i].to = sizes[i].from;
    s->plan_head_dim = c.head_dim;
    s->shared_table = c.tie_word_embeddings;
    if (!(s->params > 0))
        s->params = (double)config_parameters(&c);
    return 0;
}

int plan_model(const Settings *s, ModelConfig *c, Error *err)
{
    struct stat st;
    if (s->model_config && stat(s->model_config, &st) == 0 && S_ISDIR(st.st_mode)) {
        char *folder = folder_resolve(s->model_config, err), *path = folder ? memory_format("%s/config.json", folder) : NULL;
        int status = path ? config_read(c, path, err) : -1;
        free(folder);
        free(path);
        return status;
    }
    if (s->model_config)
        return config_read(c, s->model_config, err);
    if (s->layers < 1 || s->hidden < 1 || s->vocab < 1)
        return error_set(err, "plan --layout needs --model-config, or --layers, --hidden and --vocab");
    int64_t heads = s->heads > 0 ? s->heads : s->hidden / 128 > 0 ? s->hidden / 128 : 1;
    *c = (ModelConfig){.model_type = "llama", .vocab_size = s->vocab, .hidden_size = s->hidden, .num_hidden_layers = s->layers, .num_attention_heads = heads,
                       .num_key_value_heads = s->kv_heads > 0 ? s->kv_heads : heads, .head_dim = s->hidden / heads,
                       .intermediate_size = s->intermediate > 0 ? s->intermediate : s->hidden * 8 / 3, .max_position_embeddings = s->sequence,
                       .rms_norm_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02, .bos_token_id = -1, .pad_token_id = -1};
    return config_check(c, "the model that the options describe", err);
}

static PlanShape plan_shape(const Settings *s)
{
    PlanShape p = {.layers = (double)s->layers, .hidden = (double)s->hidden, .vocab = (double)s->vocab};
    p.heads = s->heads > 0 ? (double)s->heads : fmax(1, floor(p.hidden / 128));
    double d = s->plan_head_dim > 0 ? (double)s->plan_head_dim : p.hidden / p.heads;
    p.query = p.heads * d;
    p.kv = (s->kv_heads > 0 ? (double)s->kv_heads : p.heads) * d;
    p.feed = s->intermediate > 0 ? (double)s->intermediate : 8.0 / 3 * p.hidden;
    return p;
}

static void plan_compute(const Settings *s, bool known, const PlanShape *p)
{
    double flops = 6 * s->params * s->tokens, rate = s->peak * 1e12 * s->mfu, seconds = flops / rate;
    plan_row(s->json, "params", s->params, "", "parameters");
    plan_row(s->json, "tokens", s->tokens, "", "tokens");
    plan_row(s->json, "flops", flops, "FLOPs", "training compute, 6 N D");
    plan_row(s->json, "gpu_seconds", seconds, "s", "time on one GPU");
    plan_row(s->json, "gpu_hours", seconds / 3600, "h", "GPU hours");
    plan_row(s->json, "wall_hours", seconds / 3600 / s->gpus / s->availability, "h", "wall time on all GPUs");
    if (s->price > 0)
        plan_row(s->json, "cost", seconds / 3600 / s->availability * s->price, "", "cost of the GPU hours");
    if (s->hours > 0)
        plan_row(s->json, "mfu_of_hours", flops / (s->peak * 1e12 * s->hours * 3600), "", "MFU of a run that took --hours");
    if (known) {
        /* Looking up the input table costs nothing; causal attention costs 6·layers·width·length a token, forward and backward. */
        double used = s->params - (s->shared_table ? 0 : p->vocab * p->hidden);
        double fine = 6 * (used + p->layers * p->query * (double)s->sequence) * s->tokens;
        plan_row(s->json, "flops_attention", fine, "FLOPs", "compute with attention, no input table");
        plan_row(s->json, "gpu_hours_attention", fine / rate / 3600, "h", "GPU hours of that");
    }
}

/* Bytes. Mixed precision with AdamW keeps 18 a parameter; activations are those of a Llama layer in bf16 with attention that
 * stores no scores: 2 bytes of two norms' inputs and outputs, q, its result, k, v, gate, up and their product, 4 of the
 * log-sum-exp of each head. */
static void plan_memory(const Settings *s, bool known, const PlanShape *p)
{
    bool j = s->json;
    double n = s->params, serving = n * 4 / (32 / s->bits) * 1.2, sum = 0;
    plan_row(j, "inference_bytes", serving, "bytes", "inference, rule: P*4/(32/Q)*1.2");
    plan_row(j, "training_bytes_rule", 3 * serving, "bytes", "training, rule: three times that");
    const struct {
        const char *key, *text;
        double bytes;
    } parts[] = {{"weights_bytes", "weights, bf16", 2}, {"gradients_bytes", "gradients, f32", 4}, {"master_bytes", "master weights, f32", 4},
                 {"adam_m_bytes", "AdamW first moment, f32", 4}, {"adam_v_bytes", "AdamW second moment, f32", 4}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        plan_row(j, parts[i].key, parts[i].bytes * n, "bytes", parts[i].text);
        sum += parts[i].bytes * n;
    }
    if (known) {
        double tokens = (double)s->sequence * (double)s->batch;
        double activations = (8 * p->hidden + 4 * p->query + 4 * p->kv + 6 * p->feed + 4 * p->heads) * p->layers * tokens;
        plan_row(j, "activations_bytes", activations, "bytes", "activations, bf16, nothing recomputed");
        sum += activations;
        plan_row(j, "logits_bytes", tokens * p->vocab * 10, "bytes", "logits, were they never chunked (not added)");
        plan_row(j, "kv_cache_bytes_per_token", 2 * p->layers * p->kv * 2, "bytes", "KV cache a token, bf16");
        plan_row(j, "serving_bytes", n * s->bits / 8 + 4 * p->layers * p->kv * tokens, "bytes", "serving: weights and KV of --batch sequences");
    }
    plan_row(j, "training_bytes", sum, "bytes", known ? "training memory, the parts together" : "the parts together, without activations");
    plan_row(j, "training_bytes_spare", 1.1 * sum, "bytes", "with 10 % for fragments and buffers");
}

void interval_young_daly(double delta, double mtbf, double *young, double *daly)
{
    double x = delta / (2 * mtbf);
    *young = sqrt(2 * delta * mtbf);
    *daly = delta < 2 * mtbf ? *young * (1 + sqrt(x) / 3 + x / 9) - delta : mtbf;
}

static void plan_storage(const Settings *s)
{
    bool j = s->json;
    char text[64];
    double checkpoint = s->params * s->bytes_weights, delta = s->checkpoint_seconds;
    double wall = 6 * s->params * s->tokens / (s->peak * 1e12 * s->mfu) / s->gpus / s->availability;
    double mtbf = s->mtbf_hours * 3600 / s->gpus, young, daly;
    interval_young_daly(delta, mtbf, &young, &daly);
    snprintf(text, sizeof text, "a checkpoint of %.3g bytes a parameter", s->bytes_weights);
    plan_row(j, "checkpoint_bytes", checkpoint, "bytes", text);
    plan_row(j, "model_bytes", s->params * 2, "bytes", "the weights alone, bf16");
    bool narrow = s->vocab > 0 && s->vocab < 65500;
    plan_row(j, "data_bytes", s->tokens * (narrow ? 2 : 4), "bytes", narrow ? "token shards, uint16" : "token shards, int32");
    plan_row(j, "text_bytes", s->tokens * 4.5, "bytes", "their text, about 4.5 bytes a token");
    plan_row(j, "interruption_hours", mtbf / 3600, "h", "between interruptions, all GPUs");
    plan_row(j, "interruptions", wall / mtbf, "", "interruptions in the run");
    plan_row(j, "checkpoint_interval_young", young, "s", "checkpoint interval, Young");
    plan_row(j, "checkpoint_interval_daly", daly, "s", "checkpoint interval, Daly");
    plan_row(j, "lost_share", delta / daly + daly / (2 * mtbf) + s->restart_seconds / mtbf, "", "share of the time lost at that interval");
    plan_row(j, "checkpoints", floor(wall / daly), "", "checkpoints in the run at that interval");
    plan_row(j, "checkpoint_storage_bytes", floor(wall / daly) * checkpoint, "bytes", "storage, were all of them kept");
}

static int plan_given(const Settings *s, bool known, PlanGiven *g, Error *err)
{
    *g = (PlanGiven){.grid = {1, 1, 1, s->gpus}};
    if (s->base_hidden > 0 && !known)
        return error_set(err, "--base-hidden needs the model's sizes: --layers and --hidden, or --model-config");
    if (s->grid && !known)
        return error_set(err, "--grid needs the model's sizes: --layers and --hidden, or --model-config");
    if ((s->grid && parse_numbers("grid", s->grid, g->grid, GRID_DIMENSIONS, err) < 0) || layout_cluster(s, &g->cluster, err) < 0)
        return -1;
    return plan_gradients(s, g, err);
}

int command_plan(Settings *s, Error *err)
{
    PlanGiven given;
    if (plan_config(s, err) < 0)
        return -1;
    PlanShape p = plan_shape(s);
    bool known = s->layers > 0 && s->hidden > 0;
    if (plan_given(s, known, &given, err) < 0)
        return -1;
    char *options = s->model_config ? memory_format("%s/options.json", s->model_config) : NULL;
    bool run = options && access(options, R_OK) == 0;
    free(options);
    if (run && plan_run(s, err) < 0)
        return -1;
    if (!(s->tokens > 0))
        return error_set(err, "plan needs --tokens");
    plan_compute(s, known, &p);
    if (!run)
        plan_memory(s, known, &p);
    plan_storage(s);
    if (s->published)
        plan_published(s, known, &p, &given);
    if (s->base_hidden > 0)
        plan_width(s, &p);
    if (given.noise_scale > 0)
        plan_noise(s, &given);
    if (s->json)
        printf("\n}\n");
    return 0;
}
