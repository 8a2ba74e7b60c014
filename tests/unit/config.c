/* smoke: what a config.json means: RoPE in old and new spelling, windows, defaults by family; and what is refused. The values are
 * those that transformers' configurations take from the same text (tests/reference/model_golden.py compares what comes of them). */
#include <string.h>
#include "io/stream.h"
#include "model/config.h"
#include "tests/unit/tap.h"

#define SIZES "\"vocab_size\":61,\"hidden_size\":24,\"intermediate_size\":40,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
#define LLAMA3 "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0"

static int parse_text(JsonTree *tree, Buffer *text, Error *err)
{
    size_t length = text->length;
    buffer_reserve(text, READER_PADDING);
    memset(text->data + length, 0, READER_PADDING);
    return json_parse(tree, "c", (Span){text->data, length}, err);
}

static int parse(ModelConfig *c, const char *family, const char *more, Error *err)
{
    Buffer text = {0};
    JsonTree tree = {0};
    buffer_format(&text, "{\"model_type\":\"%s\"," SIZES "\"max_position_embeddings\":64%s%s}", family, *more ? "," : "", more);
    int status = parse_text(&tree, &text, err);
    if (status == 0)
        status = config_parse(c, tree.root, "c", err);
    json_free(&tree);
    buffer_free(&text);
    return status;
}

static void test_rope(void)
{
    static const struct {
        const char *text;
        double theta;
        RopeKind kind;
        double factor;
        int64_t original;
    } cases[] = {
        {"", 10000, ROPE_DEFAULT, 1, 0},
        {"\"rope_theta\":500000", 500000, ROPE_DEFAULT, 1, 0},
        {"\"rope_theta\":500,\"rope_scaling\":{\"type\":\"linear\",\"factor\":3}", 500, ROPE_LINEAR, 3, 0},
        {"\"rope_theta\":500,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 ",\"original_max_position_embeddings\":16}", 500, ROPE_LLAMA3, 8, 16},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}", 10000, ROPE_LLAMA3, 8, 64},
        {"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":77000.0}", 77000, ROPE_DEFAULT, 1, 0},
        {"\"rope_parameters\":{\"rope_theta\":77000.0,\"partial_rotary_factor\":1.0}", 77000, ROPE_DEFAULT, 1, 0},
        {"\"rope_theta\":500,\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":77000," LLAMA3 "}", 77000, ROPE_LLAMA3, 8, 64},
        {"\"rope_theta\":500,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5,\"rope_theta\":77000}", 77000, ROPE_LINEAR, 2.5, 0},
        {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":3},\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":300}", 10000, ROPE_LINEAR, 3, 0},
        {"\"rope_scaling\":null,\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":300}", 300, ROPE_LINEAR, 2, 0},
        {"\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":300}", 300, ROPE_DEFAULT, 1, 0},
        {"\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":\"default\",\"factor\":4}", 10000, ROPE_DEFAULT, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig c;
        Error err = {{0}};
        int status = parse(&c, "llama", cases[i].text, &err);
        const RopeScaling *r = &c.rope_scaling;
        ok(status == 0 && c.rope_theta == cases[i].theta && r->kind == cases[i].kind && (r->kind == ROPE_DEFAULT || r->factor == cases[i].factor) &&
               r->original_max_position_embeddings == cases[i].original,
           "rope of {%s}%s", cases[i].text, err.text);
    }
}

static void test_windows(void)
{
    static const struct {
        const char *family, *text;
        int64_t first, second;
    } cases[] = {
        {"mistral", "", 4096, 4096},
        {"mistral", "\"sliding_window\":null", 0, 0},
        {"mistral", "\"sliding_window\":1", 1, 1},
        {"llama", "\"sliding_window\":4", 0, 0},
        {"qwen2", "\"sliding_window\":4", 0, 0},
        {"qwen3", "\"sliding_window\":4,\"use_sliding_window\":true,\"max_window_layers\":1", 0, 4},
        {"qwen3", "\"sliding_window\":4,\"use_sliding_window\":true", 0, 0},
        {"qwen2", "\"sliding_window\":4,\"use_sliding_window\":true,\"layer_types\":[\"sliding_attention\",\"full_attention\"]", 4, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig c;
        Error err = {{0}};
        ok(parse(&c, cases[i].family, cases[i].text, &err) == 0 && config_window(&c, 0) == cases[i].first && config_window(&c, 1) == cases[i].second,
           "windows of %s {%s}%s", cases[i].family, cases[i].text, err.text);
    }
}

/* What is written means the same. */
static void test_written(void)
{
    static const char *const cases[][2] = {
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "},\"rope_theta\":1234567.5,\"bos_token_id\":null,\"eos_token_id\":[3,5]"},
        {"llama", "\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,\"pad_token_id\":4,\"initializer_range\":0.1"},
        {"mistral", "\"sliding_window\":7,\"head_dim\":10,\"eos_token_id\":null"},
        {"qwen2", "\"sliding_window\":4,\"use_sliding_window\":true,\"max_window_layers\":1"},
        {"qwen2", "\"sliding_window\":4,\"use_sliding_window\":true,\"max_window_layers\":28"},
        {"qwen3", "\"sliding_window\":4,\"use_sliding_window\":true,\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"head_dim\":40"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig c, again;
        Error err = {{0}};
        Buffer first = {0}, second = {0};
        JsonTree tree = {0};
        int status = parse(&c, cases[i][0], cases[i][1], &err);
        if (status == 0) {
            config_write(&c, DTYPE_F32, &first);
            status = parse_text(&tree, &first, &err);
        }
        if (status == 0)
            status = config_parse(&again, tree.root, "c", &err);
        if (status == 0)
            config_write(&again, DTYPE_F32, &second);
        ok(status == 0 && first.length == second.length && memcmp(first.data, second.data, first.length) == 0, "%s {%s} is read as it is written%s", cases[i][0],
           cases[i][1], err.text);
        json_free(&tree);
        buffer_free(&first);
        buffer_free(&second);
    }
}

static void test_refused(void)
{
    static const struct {
        const char *family, *text, *reason;
    } cases[] = {
        {"llama", "\"rope_scaling\":{\"type\":\"linear\"}", "factor"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"high_freq_factor\":4}", "low_freq_factor"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8}", "'yarn'"},
        {"llama", "\"rope_parameters\":{\"rope_theta\":300,\"partial_rotary_factor\":0.5}", "'partial_rotary_factor'"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 ",\"attention_factor\":2}", "'attention_factor'"},
        {"llama", "\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 ",\"mscale\":2}", "'mscale'"},
        {"qwen3", "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":300}}", "'full_attention'"},
        {"llama", "\"is_causal\":false", "is_causal"},
        {"mistral", "\"sliding_window\":0", "sliding_window is 0"},
        {"qwen2", "\"sliding_window\":-3,\"use_sliding_window\":true", "sliding_window is -3"},
        {"mistral", "\"sliding_window\":4,\"layer_types\":[\"sliding_attention\",\"full_attention\"]", "'full_attention'"},
        {"qwen2", "\"layer_types\":[\"sliding_attention\",\"full_attention\"]", "no"},
        {"llama", "\"attention_chunk_size\":8", "'attention_chunk_size'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig c;
        Error err = {{0}};
        ok(parse(&c, cases[i].family, cases[i].text, &err) < 0 && strstr(err.text, cases[i].reason), "%s {%s} is refused: %s", cases[i].family, cases[i].text,
           err.text);
    }
}

int main(void)
{
    test_rope();
    test_windows();
    test_written();
    test_refused();
    return tap_end();
}
