/* plan: what a training run needs; shape: the configuration of about so many parameters. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "model/config.h"
#include "scalefit.h"

static void row(bool json, const char *key, double value, const char *unit, const char *text)
{
    if (json) {
        Buffer b = {0};
        buffer_format(&b, "  \"%s\": ", key);
        json_write_number(&b, value);
        printf("%.*s,\n", (int)b.length, b.data);
        buffer_free(&b);
    } else {
        printf("%-44s %14.6g %s\n", text, value, unit);
    }
}

int plan_config(Settings *s, Error *err)
{
    ModelConfig c;
    if (!s->model_config)
        return 0;
    if (config_read(&c, s->model_config, err) < 0)
        return -1;
    const struct {
        int64_t *to, from;
    } sizes[] = {{&s->layers, c.num_hidden_layers}, {&s->hidden, c.hidden_size}, {&s->heads, c.num_attention_heads},
                 {&s->kv_heads, c.num_key_value_heads}, {&s->intermediate, c.intermediate_size}, {&s->vocab, c.vocab_size}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (*sizes[i].to == 0)
            *sizes[i].to = sizes[i].from;
    if (!(s->params > 0))
        s->params = (double)config_parameters(&c);
    return 0;
}

int command_plan(const Settings *s, Error *err)
{
    (void)err;
    bool j = s->json;
    double n = s->params, flops = 6 * n * s->tokens, peak = s->peak * 1e12;
    double seconds = flops / (peak * s->mfu), serving = n * 4 / (32 / s->bits) * 1.2;
    if (j)
        printf("{\n");
    row(j, "params", n, "", "parameters");
    row(j, "tokens", s->tokens, "", "tokens");
    row(j, "flops", flops, "FLOPs", "training compute, 6 N D");
    row(j, "gpu_seconds", seconds, "s", "time on one GPU");
    row(j, "gpu_hours", seconds / 3600, "h", "GPU hours");
    row(j, "wall_hours", seconds / 3600 / s->gpus / s->availability, "h", "wall time on all GPUs");
    row(j, "inference_bytes", serving, "bytes", "inference, rule: P·4/(32/Q)·1.2");
    row(j, "training_bytes_rule", 3 * serving, "bytes", "training, rule: three times that");
    const double parts[5] = {2 * n, 4 * n, 4 * n, 4 * n, 4 * n};
    static const char *const keys[5] = {"weights_bytes", "gradients_bytes", "master_bytes", "adam_m_bytes", "adam_v_bytes"};
    static const char *const texts[5] = {"weights, bf16", "gradients, f32", "master weights, f32", "AdamW first moment, f32", "AdamW second moment, f32"};
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        row(j, keys[i], parts[i], "bytes", texts[i]);
        sum += parts[i];
    }
    if (s->layers > 0 && s->hidden > 0) {
        double heads = s->heads > 0 ? (double)s->heads : (double)s->hidden / 128, d = (double)s->hidden / heads;
        double kv = (s->kv_heads > 0 ? (double)s->kv_heads : heads) * d, f = s->intermediate > 0 ? (double)s->intermediate : 8.0 / 3 * (double)s->hidden;
        double token = 12 * (double)s->hidden + 4 * kv + 6 * f + 4 * heads;
        double activations = token * (double)s->layers * (double)s->sequence * (double)s->batch;
        double logits = s->vocab > 0 ? (double)s->batch * (double)s->sequence * (double)s->vocab * 10 : 0;
        row(j, "activations_bytes", activations, "bytes", "activations, bf16, nothing recomputed");
        row(j, "logits_bytes", logits, "bytes", "logits, if they were never chunked");
        row(j, "kv_cache_bytes_per_token", 2 * (double)s->layers * kv * 2, "bytes", "KV cache a token, bf16");
        sum += activations;
    }
    row(j, "training_bytes", sum, "bytes", "training memory, the parts together");
    double checkpoint = n * s->bytes_weights;
    row(j, "checkpoint_bytes", checkpoint, "bytes", "one checkpoint (bf16 + f32 master, m, v)");
    row(j, "data_bytes", s->tokens * (s->vocab > 0 && s->vocab <= 65500 ? 2 : 4), "bytes", "token shards");
    double mtbf = s->mtbf_hours * 3600 / s->gpus, young = sqrt(2 * s->checkpoint_seconds * mtbf), x = s->checkpoint_seconds / (2 * mtbf);
    double daly = s->checkpoint_seconds < 2 * mtbf ? young * (1 + sqrt(x) / 3 + x / 9) - s->checkpoint_seconds : mtbf;
    row(j, "interruption_hours", mtbf / 3600, "h", "between interruptions, all GPUs");
    row(j, "checkpoint_interval_young", young, "s", "checkpoint interval, Young");
    row(j, "checkpoint_interval_daly", daly, "s", "checkpoint interval, Daly");
    double checkpoints = seconds / s->gpus / daly;
    if (j) {
        Buffer b = {0};
        json_write_number(&b, checkpoints);
        printf("  \"checkpoints\": %.*s\n}\n", (int)b.length, b.data);
        buffer_free(&b);
    } else {
        printf("%-44s %14.6g\n", "checkpoints in the run at that interval", checkpoints);
    }
    return 0;
}

/* 2/3 of four times the width, or what brings the parameters closest to those wanted, in steps of 32 and between 2 and 4
 * times the width. */
static void shape_make(const Settings *s, ModelConfig *c, int64_t layers, int64_t width)
{
    int64_t d = s->head_dim, heads = width / d;
    *c = (ModelConfig){.model_type = "llama", .vocab_size = s->vocab, .hidden_size = width, .num_hidden_layers = layers, .num_attention_heads = heads,
                       .head_dim = d, .max_position_embeddings = s->sequence, .rms_norm_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02,
                       .tie_word_embeddings = s->tied, .bos_token_id = s->bos, .pad_token_id = -1, .num_key_value_heads = heads % 2 == 0 ? heads / 2 : heads};
    double each = 3.0 * (double)width * (double)layers, rest = (double)config_parameters_compute(c);
    double wanted = fmin(fmax((s->params - rest) / each, 2.0 * (double)width), 4.0 * (double)width);
    c->intermediate_size = (int64_t)(floor(wanted / 32 + 0.5)) * 32;
    if (c->intermediate_size < 32)
        c->intermediate_size = 32;
    if (s->eos >= 0) {
        c->eos_token_id[0] = s->eos;
        c->eos_count = 1;
    }
}

/* Width in steps of the head size, depth so that width / layers stays near --aspect, the feed-forward width near 8/3 of the
 * width: the parameters' distance counts most, and a shape off these proportions pays for it. */
int command_shape(const Settings *s, Error *err)
{
    ModelConfig best, c;
    double least = INFINITY;
    for (int64_t heads = 1; heads <= 512; heads++)
        for (int64_t layers = 1; layers <= 200; layers++) {
            int64_t width = heads * s->head_dim;
            double ratio = (double)width / (double)layers / (double)s->aspect;
            if (ratio < 0.5 || ratio > 2)
                continue;
            shape_make(s, &c, layers, width);
            double off = fabs(log((double)config_parameters_compute(&c) / s->params)) + 0.02 * fabs(log(ratio)) +
                         0.02 * fabs(log((double)c.intermediate_size / (double)width * 3 / 8));
            if (off < least) {
                least = off;
                best = c;
            }
        }
    if (!isfinite(least))
        return error_set(err, "no shape has about %g parameters", s->params);
    if (config_check(&best, "shape", err) < 0)
        return -1;
    double params = (double)config_parameters_compute(&best);
    message("%" PRId64 " parameters without the input embedding (%+.2f %%), %" PRId64 " in all: %" PRId64 " layers of %" PRId64,
            config_parameters_compute(&best), 100 * (params / s->params - 1), config_parameters(&best), best.num_hidden_layers, best.hidden_size);
    if (params > 1.25 * s->params || params < 0.8 * s->params)
        message_warning("no shape of head size %" PRId64 " and vocabulary %" PRId64 " comes near %g parameters", s->head_dim, s->vocab, s->params);
    Buffer b = {0};
    config_write(&best, &b);
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
    return 0;
}
