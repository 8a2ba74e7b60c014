#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Keys that are read, and keys that change nothing in the forward pass. */
static const char *const known_keys[] = {
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "initializer_range", "rope_scaling", "rope_parameters", "tie_word_embeddings", "attention_bias", "mlp_bias",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "bos_token_id", "eos_token_id",
    "pad_token_id", "hidden_act", "num_labels", "id2label", "label2id", "problem_type", "rope_interleaved",
    "torch_dtype", "dtype", "use_cache", "pretraining_tp", "transformers_version", "_name_or_path", "attention_dropout",
    "partial_rotary_factor", "quantization_config", "is_llama_config", "transformers.js_config", "return_dict", "output_attentions",
    "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder", "add_cross_attention", "tokenizer_class", "attn_implementation",
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "name_or_path", "finetuning_task", "task_specific_params", "prefix",
    "model_max_length", "gradient_checkpointing", "torchscript", "use_bfloat16", "is_decoder", "max_length", "min_length", "do_sample",
    "num_beams", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "num_return_sequences", "num_beam_groups", "diversity_penalty", "early_stopping", "encoder_no_repeat_ngram_size",
    "is_causal", "remove_invalid_values", "output_scores", "return_dict_in_generate", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "decoder_start_token_id", "begin_suppress_tokens",
    "suppress_tokens", "exponential_decay_length_penalty", "neftune_noise_alpha", "unsloth_version", "unsloth_fixed", NULL};

/* Present and not null or false means another model than we compute. */
static const char *const refused_keys[] = {
    "quantization_config", "num_experts", "num_local_experts", "final_logit_softcapping", "attn_logit_softcapping",
    "query_pre_attn_scalar", "embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling",
    "logit_scale", "no_rope_layers", "clip_qkv", "n_routed_experts", "rope_interleaved", NULL};

static bool matters(const JsonValue *v)
{
    return v && v->type != JSON_NULL && !(v->type == JSON_BOOL && !v->boolean);
}

typedef struct Source {
    const JsonValue *root;
    const char *name;
    Error *err;
    int failed;
} Source;

static int64_t get_integer(Source *s, const char *key, int64_t absent, int64_t null)
{
    const JsonValue *v = json_get(s->root, key);
    if (!v || s->failed)
        return absent;
    if (v->type == JSON_NULL)
        return null;
    if (v->type != JSON_INTEGER)
        s->failed = error_set(s->err, "%s: %s must be a whole number", s->name, key);
    return v->integer;
}

static int64_t need_integer(Source *s, const char *key)
{
    if (!s->failed && !json_is(json_get(s->root, key), JSON_INTEGER))
        s->failed = error_set(s->err, "%s: %s is missing or not a whole number", s->name, key);
    return get_integer(s, key, 0, 0);
}

static double number_of(Source *s, const JsonValue *object, const char *key, double absent)
{
    const JsonValue *v = json_get(object, key);
    if (!v || v->type == JSON_NULL || s->failed)
        return absent;
    if (!json_is(v, JSON_NUMBER))
        s->failed = error_set(s->err, "%s: %s must be a number", s->name, key);
    return v->number;
}

static bool get_flag(Source *s, const char *key, bool absent)
{
    const JsonValue *v = json_get(s->root, key);
    if (!v || v->type == JSON_NULL || s->failed)
        return absent;
    if (v->type != JSON_BOOL)
        s->failed = error_set(s->err, "%s: %s must be true or false", s->name, key);
    return v->boolean;
}

static double need_number(Source *s, const JsonValue *object, const char *key)
{
    if (!s->failed && !json_is(json_get(object, key), JSON_NUMBER))
        s->failed = error_set(s->err, "%s: the rope type needs a %s, a number", s->name, key);
    return number_of(s, object, key, 0);
}

/* The fields of rope_scaling or rope_parameters: what is not among them might change the frequencies. */
static void check_rope_fields(Source *s, const JsonValue *rope)
{
    static const char *const known[] = {"rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
                                        "original_max_position_embeddings"};
    static const char *const neutral[] = {"partial_rotary_factor", "attention_factor"}; /* 1 changes nothing */
    for (size_t i = 0; i < rope->count && !s->failed; i++) {
        const JsonValue *v = &rope->items[i];
        const char *key = rope->keys[i].data;
        bool fits = !matters(v);
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            fits |= strcmp(known[k], key) == 0;
        for (size_t k = 0; k < sizeof neutral / sizeof *neutral; k++)
            fits |= strcmp(neutral[k], key) == 0 && json_is(v, JSON_NUMBER) && v->number == 1;
        if (v->type == JSON_OBJECT)
            s->failed = error_set(s->err, "%s: RoPE by layer type ('%s') is not supported", s->name, key);
        else if (!fits)
            s->failed = error_set(s->err, "%s: the rope field '%s' is not supported", s->name, key);
    }
}

/* Old files have rope_theta beside rope_scaling, new ones all in rope_parameters. Where several stand transformers takes
 * rope_scaling before rope_parameters, and the theta in it before the one beside it. */
static void read_rope(Source *s, ModelConfig *c)
{
    const JsonValue *scaling = json_get(s->root, "rope_scaling"), *parameters = json_get(s->root, "rope_parameters");
    c->rope_theta = number_of(s, s->root, "rope_theta", 10000);
    for (int i = 0; i < 2; i++)
        if (matters(i ? parameters : scaling) && !json_is(i ? parameters : scaling, JSON_OBJECT))
            s->failed = error_set(s->err, "%s: %s must be an object", s->name, i ? "rope_parameters" : "rope_scaling");
    const JsonValue *v = json_is(scaling, JSON_OBJECT) && scaling->count ? scaling : parameters;
    if (!json_is(v, JSON_OBJECT) || s->failed)
        return;
    check_rope_fields(s, v);
    c->rope_theta = number_of(s, v, "rope_theta", c->rope_theta);
    const JsonValue *type = json_get(v, "rope_type") ? json_get(v, "rope_type") : json_get(v, "type");
    if (s->failed || (type && !json_is(type, JSON_STRING))) {
        if (!s->failed)
            s->failed = error_set(s->err, "%s: the rope type must be a string", s->name);
        return;
    }
    const char *kind = type ? type->string.data : "default";
    RopeScaling *r = &c->rope_scaling;
    r->factor = 1;
    if (strcmp(kind, "linear") == 0) {
        r->kind = ROPE_LINEAR;
        r->factor = need_number(s, v, "factor");
    } else if (strcmp(kind, "llama3") == 0) {
        r->kind = ROPE_LLAMA3;
        r->factor = need_number(s, v, "factor");
        r->low_freq_factor = need_number(s, v, "low_freq_factor");
        r->high_freq_factor = need_number(s, v, "high_freq_factor");
        double original = number_of(s, v, "original_max_position_embeddings", (double)c->max_position_embeddings);
        if (!s->failed && !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor && original >= 1 && original <= INT32_MAX))
            s->failed = error_set(s->err, "%s: the rope factors must be positive and rise, the original length must be a size", s->name);
        r->original_max_position_embeddings = s->failed ? 0 : (int64_t)original;
    } else if (strcmp(kind, "default") != 0) {
        s->failed = error_set(s->err, "%s: rope type '%s' is not supported", s->name, kind);
    }
    if (!s->failed && !(r->factor > 0 && isfinite(r->factor)))
        s->failed = error_set(s->err, "%s: the rope factor must be positive", s->name);
}

/* The families' defaults say from which layer on the window holds; layer_types overrides them layer by layer. */
static void read_window(Source *s, ModelConfig *c)
{
    bool qwen = strncmp(c->model_type, "qwen", 4) == 0;
    int64_t from = 0;
    if (strcmp(c->model_type, "mistral") == 0 || (qwen && get_flag(s, "use_sliding_window", false))) {
        c->sliding_window = get_integer(s, "sliding_window", 4096, 0);
        if (!s->failed && c->sliding_window < 1 && matters(json_get(s->root, "sliding_window")))
            s->failed = error_set(s->err, "%s: sliding_window is %" PRId64 ", which is no size", s->name, c->sliding_window);
        from = qwen ? get_integer(s, "max_window_layers", 28, 28) : 0;
    }
    for (int64_t i = from < 0 ? 0 : from; c->sliding_window > 0 && i < CONFIG_MAX_LAYERS; i++)
        c->sliding_layers[i / 64] |= UINT64_C(1) << (i % 64);
    const JsonValue *types = json_get(s->root, "layer_types");
    if (matters(types) && !json_is(types, JSON_ARRAY) && !s->failed)
        s->failed = error_set(s->err, "%s: layer_types must be a list", s->name);
    if (!json_is(types, JSON_ARRAY) || s->failed)
        return;
    if ((int64_t)types->count != c->num_hidden_layers) {
        s->failed = error_set(s->err, "%s: layer_types has %zu entries for %" PRId64 " layers", s->name, types->count, c->num_hidden_layers);
        return;
    }
    if (qwen)
        memset(c->sliding_layers, 0, sizeof c->sliding_layers);
    for (size_t i = 0; i < types->count && i < CONFIG_MAX_LAYERS && !s->failed; i++) {
        const JsonValue *t = &types->items[i];
        const char *kind = json_is(t, JSON_STRING) ? t->string.data : "";
        if (strcmp(kind, "sliding_attention") == 0) {
            c->sliding_layers[i / 64] |= UINT64_C(1) << (i % 64);
            if (c->sliding_window <= 0)
                s->failed = error_set(s->err, "%s: layer_types asks for a sliding window, but there is none", s->name);
        } else if (strcmp(kind, "full_attention") != 0 || config_window(c, (int64_t)i) > 0) {
            s->failed = error_set(s->err, "%s: layer type '%s' is not supported%s", s->name, kind, qwen ? "" : " beside a sliding window for all layers");
        }
    }
}

/* A window that no layer has is none, as the file that is written will say. */
static void drop_idle_window(ModelConfig *c)
{
    for (int64_t i = 0; i < c->num_hidden_layers && i < CONFIG_MAX_LAYERS; i++)
        if (config_window(c, i) > 0)
            return;
    c->sliding_window = 0;
}

/* -1: none, which some files say too. */
static int64_t get_token(Source *s, const char *key, int64_t absent)
{
    int64_t id = get_integer(s, key, absent, -1);
    if (!s->failed && (id < -1 || id > INT32_MAX))
        s->failed = error_set(s->err, "%s: %s is %" PRId64 ", which is no id", s->name, key, id);
    return id;
}

/* An id or a list of ids; those that are known already are not told twice. */
static void add_eos(Source *s, ModelConfig *c, const JsonValue *eos)
{
    if (!eos || eos->type == JSON_NULL || s->failed)
        return;
    bool list = eos->type == JSON_ARRAY;
    size_t count = list ? eos->count : 1;
    for (size_t i = 0; i < count && !s->failed; i++) {
        const JsonValue *id = list ? &eos->items[i] : eos;
        bool known = false;
        if (id->type != JSON_INTEGER || id->integer < -1 || id->integer > INT32_MAX) {
            s->failed = error_set(s->err, "%s: eos_token_id must be an id or a list of ids", s->name);
            return;
        }
        for (int k = 0; k < c->eos_count; k++)
            known |= c->eos_token_id[k] == id->integer;
        if (known || id->integer < 0)
            continue;
        if (c->eos_count == CONFIG_MAX_EOS)
            s->failed = error_set(s->err, "%s: eos_token_id has more than %d ids", s->name, CONFIG_MAX_EOS);
        else
            c->eos_token_id[c->eos_count++] = id->integer;
    }
}

static void read_tokens(Source *s, ModelConfig *c)
{
    bool llama = strcmp(c->model_type, "llama") == 0 || strcmp(c->model_type, "mistral") == 0;
    c->bos_token_id = get_token(s, "bos_token_id", llama ? 1 : -1);
    c->pad_token_id = get_token(s, "pad_token_id", -1);
    const JsonValue *eos = json_get(s->root, "eos_token_id");
    if (!eos && llama)
        c->eos_token_id[c->eos_count++] = 2;
    add_eos(s, c, eos);
}

static int refuse_unknown(const JsonValue *root, const char *name, Error *err)
{
    for (int i = 0; refused_keys[i]; i++)
        if (matters(json_get(root, refused_keys[i])))
            return error_set(err, "%s: %s is not supported", name, refused_keys[i]);
    const JsonValue *partial = json_get(root, "partial_rotary_factor");
    if (matters(partial) && !(json_is(partial, JSON_NUMBER) && partial->number == 1))
        return error_set(err, "%s: partial_rotary_factor is not supported", name);
    const JsonValue *causal = json_get(root, "is_causal");
    if (causal && causal->type != JSON_NULL && !(causal->type == JSON_BOOL && causal->boolean))
        return error_set(err, "%s: is_causal must be true: attention to what follows is not supported", name);
    const JsonValue *act = json_get(root, "hidden_act");
    if (matters(act) && !(json_is(act, JSON_STRING) && (strcmp(act->string.data, "silu") == 0 || strcmp(act->string.data, "swish") == 0)))
        return error_set(err, "%s: hidden_act '%s' is not supported", name, json_is(act, JSON_STRING) ? act->string.data : "");
    for (size_t i = 0; i < root->count; i++) {
        int k = 0;
        while (known_keys[k] && strcmp(known_keys[k], root->keys[i].data) != 0)
            k++;
        if (!known_keys[k] && matters(&root->items[i]))
            return error_set(err, "%s: the field '%s' is not known, and might change the model", name, root->keys[i].data);
    }
    return 0;
}

int config_parse(ModelConfig *c, const JsonValue *root, const char *name, Error *err)
{
    memset(c, 0, sizeof *c);
    if (!json_is(root, JSON_OBJECT))
        return error_set(err, "%s: not a JSON object", name);
    const JsonValue *type = json_get(root, "model_type");
    static const char *const types[] = {"llama", "mistral", "qwen2", "qwen3", NULL};
    int t = 0;
    while (types[t] && !(json_is(type, JSON_STRING) && strcmp(types[t], type->string.data) == 0))
        t++;
    if (!types[t])
        return error_set(err, "%s: model_type '%s' is not supported", name, json_is(type, JSON_STRING) ? type->string.data : "");
    strcpy(c->model_type, types[t]);
    if (refuse_unknown(root, name, err) < 0)
        return -1;
    Source s = {root, name, err, 0};
    c->vocab_size = need_integer(&s, "vocab_size");
    c->hidden_size = need_integer(&s, "hidden_size");
    c->intermediate_size = need_integer(&s, "intermediate_size");
    c->num_hidden_layers = need_integer(&s, "num_hidden_layers");
    c->num_attention_heads = need_integer(&s, "num_attention_heads");
    c->max_position_embeddings = need_integer(&s, "max_position_embeddings");
    int64_t heads = c->num_attention_heads;
    c->num_key_value_heads = get_integer(&s, "num_key_value_heads", t == 0 ? heads : t == 1 ? 8 : 32, heads);
    int64_t usual = heads > 0 ? c->hidden_size / heads : 0;
    c->head_dim = get_integer(&s, "head_dim", t == 3 ? 128 : usual, usual);
    c->rms_norm_eps = number_of(&s, root, "rms_norm_eps", 1e-6);
    c->initializer_range = number_of(&s, root, "initializer_range", 0.02);
    c->attention_dropout = number_of(&s, root, "attention_dropout", 0);
    c->tie_word_embeddings = get_flag(&s, "tie_word_embeddings", false);
    bool attention_bias = get_flag(&s, "attention_bias", false);
    c->qkv_bias = t == 2 || (attention_bias && t != 1);
    c->output_bias = attention_bias && (t == 0 || t == 3);
    c->mlp_bias = t == 0 && get_flag(&s, "mlp_bias", false);
    c->qk_norm = t == 3;
    read_rope(&s, c);
    read_window(&s, c);
    drop_idle_window(c);
    read_tokens(&s, c);
    const JsonValue *architecture = json_get(root, "architectures");
    if (json_is(architecture, JSON_ARRAY) && architecture->count == 1 && json_is(&architecture->items[0], JSON_STRING) &&
        strstr(architecture->items[0].string.data, "ForSequenceClassification")) {
        const JsonValue *labels = json_get(root, "id2label");
        c->num_labels = json_is(labels, JSON_OBJECT) ? (int64_t)labels->count : get_integer(&s, "num_labels", 2, 2);
    }
    return s.failed ? -1 : config_check(c, name, err);
}

int config_check(const ModelConfig *c, const char *name, Error *err)
{
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"vocab_size", c->vocab_size}, {"hidden_size", c->hidden_size}, {"intermediate_size", c->intermediate_size},
                 {"num_hidden_layers", c->num_hidden_layers}, {"num_attention_heads", c->num_attention_heads},
                 {"num_key_value_heads", c->num_key_value_heads}, {"head_dim", c->head_dim},
                 {"max_position_embeddings", c->max_position_embeddings}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > INT32_MAX)
            return error_set(err, "%s: %s is %" PRId64 ", which is no size", name, sizes[i].key, sizes[i].value);
    if (c->num_attention_heads % c->num_key_value_heads != 0)
        return error_set(err, "%s: %" PRId64 " attention heads cannot share %" PRId64 " key-value heads", name,
                         c->num_attention_heads, c->num_key_value_heads);
    if (c->head_dim % 2 != 0 || c->head_dim > 256)
        return error_set(err, "%s: head_dim %" PRId64 " is odd or over 256", name, c->head_dim);
    if (c->num_hidden_layers > CONFIG_MAX_LAYERS || c->num_attention_heads > 65536)
        return error_set(err, "%s: absurd numbers of layers or heads", name);
    /* Their number and their bytes stay within 64 bits in every sum that follows. */
    double h = (double)c->hidden_size, width = (double)c->head_dim * (double)(c->num_attention_heads + c->num_key_value_heads);
    double weights = 2 * h * (double)c->vocab_size + (double)c->num_hidden_layers * h * (2 * width + 3 * (double)c->intermediate_size);
    if (weights > 1e16)
        return error_set(err, "%s: absurd sizes: %.3g parameters", name, weights);
    if (c->num_attention_heads / c->num_key_value_heads > 64)
        return error_set(err, "%s: more than 64 query heads share a key head, which is not supported", name);
    if (!(c->rms_norm_eps > 0) || !isfinite(c->rms_norm_eps) || !(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return error_set(err, "%s: rms_norm_eps and rope_theta must be positive", name);
    if (!(c->initializer_range >= 0) || c->sliding_window < 0)
        return error_set(err, "%s: initializer_range and sliding_window must not be negative", name);
    if (c->num_labels > 1)
        return error_set(err, "%s: a classifier of %" PRId64 " labels is not a reward model", name, c->num_labels);
    return 0;
}

int64_t config_window(const ModelConfig *c, int64_t layer)
{
    return c->sliding_layers[layer / 64] >> (layer % 64) & 1 ? c->sliding_window : 0;
}

/* Qwen's windows: max_window_layers is the first layer that has one, where the others follow; layer_types says it for all. */
static void write_windows(const ModelConfig *c, Buffer *out)
{
    int64_t from = 0;
    while (from < c->num_hidden_layers && !config_window(c, from))
        from++;
    buffer_format(out, ",\n  \"max_window_layers\": %" PRId64 ",\n  \"use_sliding_window\": %s", from, from < c->num_hidden_layers ? "true" : "false");
    if (from == c->num_hidden_layers)
        return;
    buffer_string(out, ",\n  \"layer_types\": [");
    for (int64_t i = 0; i < c->num_hidden_layers; i++)
        buffer_format(out, "%s\n    \"%s_attention\"", i ? "," : "", config_window(c, i) ? "sliding" : "full");
    buffer_string(out, "\n  ]");
}

void config_write(const ModelConfig *c, Dtype weights, Buffer *out)
{
    static const struct {
        const char *type, *architecture;
    } families[] = {{"llama", "Llama"}, {"mistral", "Mistral"}, {"qwen2", "Qwen2"}, {"qwen3", "Qwen3"}};
    int f = 0;
    while (strcmp(families[f].type, c->model_type) != 0)
        f++;
    buffer_format(out, "{\n  \"architectures\": [\n    \"%sFor%s\"\n  ],\n", families[f].architecture,
                  c->num_labels ? "SequenceClassification" : "CausalLM");
    if (f == 0 || f == 3)
        buffer_format(out, "  \"attention_bias\": %s,\n", c->qkv_bias ? "true" : "false");
    if (c->bos_token_id >= 0)
        buffer_format(out, "  \"bos_token_id\": %" PRId64 ",\n", c->bos_token_id);
    else
        buffer_string(out, "  \"bos_token_id\": null,\n");
    buffer_string(out, "  \"eos_token_id\": ");
    if (c->eos_count == 0)
        buffer_string(out, "null");
    for (int i = 0; i < c->eos_count; i++)
        buffer_format(out, "%s%" PRId64, i ? ", " : c->eos_count > 1 ? "[" : "", c->eos_token_id[i]);
    buffer_format(out, "%s,\n  \"head_dim\": %" PRId64 ",\n  \"hidden_act\": \"silu\",\n", c->eos_count > 1 ? "]" : "", c->head_dim);
    buffer_format(out, "  \"hidden_size\": %" PRId64 ",\n", c->hidden_size);
    if (c->num_labels)
        buffer_string(out, "  \"id2label\": {\n    \"0\": \"LABEL_0\"\n  },\n  \"label2id\": {\n    \"LABEL_0\": 0\n  },\n");
    buffer_string(out, "  \"initializer_range\": ");
    json_write_number(out, c->initializer_range);
    buffer_format(out, ",\n  \"intermediate_size\": %" PRId64 ",\n  \"max_position_embeddings\": %" PRId64 ",\n",
                  c->intermediate_size, c->max_position_embeddings);
    if (f == 0)
        buffer_format(out, "  \"mlp_bias\": %s,\n", c->mlp_bias ? "true" : "false");
    buffer_format(out, "  \"model_type\": \"%s\",\n  \"num_attention_heads\": %" PRId64 ",\n  \"num_hidden_layers\": %" PRId64
                       ",\n  \"num_key_value_heads\": %" PRId64 ",\n",
                  c->model_type, c->num_attention_heads, c->num_hidden_layers, c->num_key_value_heads);
    if (c->pad_token_id >= 0)
        buffer_format(out, "  \"pad_token_id\": %" PRId64 ",\n", c->pad_token_id);
    buffer_string(out, "  \"rms_norm_eps\": ");
    json_write_number(out, c->rms_norm_eps);
    const RopeScaling *r = &c->rope_scaling;
    buffer_string(out, ",\n  \"rope_scaling\": ");
    if (r->kind == ROPE_DEFAULT)
        buffer_string(out, "null");
    else {
        buffer_string(out, "{\n    \"factor\": ");
        json_write_number(out, r->factor);
        if (r->kind == ROPE_LLAMA3) {
            buffer_string(out, ",\n    \"high_freq_factor\": ");
            json_write_number(out, r->high_freq_factor);
            buffer_string(out, ",\n    \"low_freq_factor\": ");
            json_write_number(out, r->low_freq_factor);
            buffer_format(out, ",\n    \"original_max_position_embeddings\": %" PRId64, r->original_max_position_embeddings);
        }
        buffer_format(out, ",\n    \"rope_type\": \"%s\"\n  }", r->kind == ROPE_LINEAR ? "linear" : "llama3");
    }
    /* transformers 5 checks types: a theta of 10000 must be written as a float. */
    buffer_string(out, ",\n  \"rope_theta\": ");
    size_t begin = out->length;
    json_write_number(out, c->rope_theta);
    if (!memchr(out->data + begin, '.', out->length - begin) && !memchr(out->data + begin, 'e', out->length - begin))
        buffer_string(out, ".0");
    if (f > 0) {
        if (c->sliding_window)
            buffer_format(out, ",\n  \"sliding_window\": %" PRId64, c->sliding_window);
        else
            buffer_string(out, ",\n  \"sliding_window\": null");
    }
    if (f > 1)
        write_windows(c, out);
    buffer_format(out, ",\n  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\",\n  \"use_cache\": true,\n"
                       "  \"vocab_size\": %" PRId64 "\n}\n",
                  c->tie_word_embeddings ? "true" : "false", weights == DTYPE_BF16 ? "bfloat16" : "float32", c->vocab_size);
}

static int64_t layer_parameters(const ModelConfig *c)
{
    int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, h = c->hidden_size;
    int64_t n = h * (q + 2 * kv) + q * h + 3 * h * c->intermediate_size + 2 * h;
    n += c->qkv_bias ? q + 2 * kv : 0;
    n += c->output_bias ? h : 0;
    n += c->mlp_bias ? 2 * c->intermediate_size + h : 0;
    return n + (c->qk_norm ? 2 * c->head_dim : 0);
}

int64_t config_parameters(const ModelConfig *c)
{
    int64_t n = c->num_hidden_layers * layer_parameters(c) + c->hidden_size + c->vocab_size * c->hidden_size;
    return n + (c->num_labels ? c->num_labels * c->hidden_size : c->tie_word_embeddings ? 0 : c->vocab_size * c->hidden_size);
}

int64_t config_parameters_compute(const ModelConfig *c)
{
    int64_t output = c->num_labels ? c->num_labels * c->hidden_size : c->vocab_size * c->hidden_size;
    return c->num_hidden_layers * layer_parameters(c) + c->hidden_size + output;
}

double config_flops_per_token(const ModelConfig *c, int64_t sequence_length)
{
    return 6.0 * (double)config_parameters_compute(c) +
           6.0 * (double)c->num_hidden_layers * (double)(c->num_attention_heads * c->head_dim) * (double)sequence_length;
}

int config_read(ModelConfig *c, const char *path, Error *err)
{
    JsonTree tree = {0};
    int status = json_parse_file(&tree, path, err);
    if (status == 0)
        status = config_parse(c, tree.root, path, err);
    json_free(&tree);
    return status;
}

int config_read_generation(ModelConfig *c, const char *path, Error *err)
{
    JsonTree tree = {0};
    if (json_parse_file(&tree, path, err) < 0)
        return -1;
    Source s = {tree.root, path, err, 0};
    if (!json_is(tree.root, JSON_OBJECT))
        s.failed = error_set(err, "%s: not a JSON object", path);
    add_eos(&s, c, json_get(tree.root, "eos_token_id"));
    json_free(&tree);
    return s.failed;
}
