/* shape: the Llama model of legal shape whose parameters come closest to a number. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include "base/message.h"
#include "scalefit.h"
#include "text/tokenizer.h"

/* 2/3 of four times the width, or what brings the parameters closest to those wanted, in steps of 32 and between 2 and 4
 * times the width. */
static void shape_make(const Settings *s, double params, ModelConfig *c, int64_t layers, int64_t width)
{
    int64_t d = s->head_dim, heads = width / d;
    *c = (ModelConfig){.model_type = "llama", .vocab_size = s->vocab, .hidden_size = width, .num_hidden_layers = layers, .num_attention_heads = heads,
                       .head_dim = d, .max_position_embeddings = s->sequence, .rms_norm_eps = 1e-5, .rope_theta = 10000, .initializer_range = 0.02,
                       .tie_word_embeddings = s->tied, .bos_token_id = s->bos, .pad_token_id = -1, .num_key_value_heads = heads % 2 == 0 ? heads / 2 : heads};
    double each = 3.0 * (double)width * (double)layers, rest = (double)config_parameters_compute(c);
    double wanted = fmin(fmax((params - rest) / each, 2.0 * (double)width), 4.0 * (double)width);
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
int shape_find(const Settings *s, double params, ModelConfig *best, Error *err)
{
    ModelConfig c;
    double least = INFINITY;
    for (int64_t heads = 1; heads <= 512; heads++)
        for (int64_t layers = 1; layers <= 200; layers++) {
            int64_t width = heads * s->head_dim;
            double ratio = (double)width / (double)layers / (double)s->aspect;
            if (ratio < 0.5 || ratio > 2)
                continue;
            shape_make(s, params, &c, layers, width);
            double off = fabs(log((double)config_parameters_compute(&c) / params)) + 0.02 * fabs(log(ratio)) +
                         0.02 * fabs(log((double)c.intermediate_size / (double)width * 3 / 8));
            if (off < least) {
                least = off;
                *best = c;
            }
        }
    if (!isfinite(least))
        return error_set(err, "no shape has about %g parameters", params);
    return config_check(best, "shape", err);
}

int shape_vocabulary(Settings *s, Error *err)
{
    if (!s->tokenizer)
        return 0;
    Tokenizer *t = tokenizer_open(s->tokenizer, err);
    if (!t)
        return -1;
    if (s->vocab < 1)
        s->vocab = tokenizer_size(t);
    if (s->eos < 0)
        s->eos = tokenizer_eos(t);
    tokenizer_close(t);
    return 0;
}

int command_shape(const Settings *s, Error *err)
{
    ModelConfig c;
    if (shape_find(s, s->params, &c, err) < 0)
        return -1;
    double params = (double)config_parameters_compute(&c);
    message("%" PRId64 " parameters without the input embedding (%+.2f %%), %" PRId64 " in all: %" PRId64 " layers of %" PRId64, config_parameters_compute(&c),
            100 * (params / s->params - 1), config_parameters(&c), c.num_hidden_layers, c.hidden_size);
    if (params > 1.25 * s->params || params < 0.8 * s->params)
        message_warning("no shape of head size %" PRId64 " and vocabulary %" PRId64 " comes near %g parameters", s->head_dim, s->vocab, s->params);
    Buffer b = {0};
    config_write(&c, DTYPE_F32, &b);
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
    return 0;
}
