#include "write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/json.h"
#include "io/stream.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

static void put_string(Buffer *b, const char *s)
{
    json_write_string(b, (Span){s, strlen(s)});
}

/* A token's bytes as byte-level characters, in quotes. */
static void put_token(Buffer *b, const BpeResult *r, int32_t id)
{
    Buffer bytes = {0}, text = {0};
    bpe_token_bytes(r, id, &bytes);
    for (size_t i = 0; i < bytes.length; i++) {
        char c[4];
        buffer_append(&text, c, utf8_encode(bytelevel_char((unsigned char)bytes.data[i]), c));
    }
    json_write_string(b, (Span){text.data, text.length});
    buffer_free(&bytes);
    buffer_free(&text);
}

static void put_added(Buffer *b, const VocabularyFiles *v, int64_t first)
{
    buffer_string(b, "  \"added_tokens\": [");
    for (size_t i = 0; i < v->special_count; i++) {
        buffer_format(b, "%s\n    {\"id\": %lld, \"content\": ", i ? "," : "", (long long)(first + (int64_t)i));
        put_string(b, v->specials[i]);
        buffer_string(b, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}");
    }
    buffer_string(b, v->special_count ? "\n  ],\n" : "],\n");
}

static void put_tokenizer(Buffer *b, const VocabularyFiles *v)
{
    const BpeResult *r = v->result;
    int32_t size = r->alphabet_size + (int32_t)r->merge_count;
    buffer_string(b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(b, v, size);
    buffer_string(b, "  \"normalizer\": null,\n  \"pre_tokenizer\": ");
    if (v->regex) {
        buffer_string(b, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        put_string(b, v->regex);
        buffer_string(b, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    buffer_string(b, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}");
    buffer_string(b, v->regex ? "]},\n" : ",\n");
    buffer_string(b, "  \"post_processor\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false, \"use_regex\": true},\n"
                     "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
                     "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                     "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
                     "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {");
    for (int32_t id = 0; id < size; id++) {
        buffer_string(b, id ? ",\n      " : "\n      ");
        put_token(b, r, id);
        buffer_format(b, ": %d", id);
    }
    buffer_string(b, "\n    },\n    \"merges\": [");
    for (size_t i = 0; i < r->merge_count; i++) {
        buffer_string(b, i ? ",\n      [" : "\n      [");
        put_token(b, r, r->merges[i].left);
        buffer_string(b, ", ");
        put_token(b, r, r->merges[i].right);
        buffer_byte(b, ']');
    }
    buffer_string(b, "\n    ]\n  }\n}\n");
}

static void put_named(Buffer *b, const char *key, const char *token)
{
    buffer_format(b, "  \"%s\": ", key);
    if (token)
        put_string(b, token);
    else
        buffer_string(b, "null");
    buffer_string(b, ",\n");
}

static void put_config(Buffer *b, const VocabularyFiles *v)
{
    int64_t first = v->result->alphabet_size + (int64_t)v->result->merge_count;
    buffer_string(b, "{\n  \"added_tokens_decoder\": {");
    for (size_t i = 0; i < v->special_count; i++) {
        buffer_format(b, "%s\n    \"%lld\": {\"content\": ", i ? "," : "", (long long)(first + (int64_t)i));
        put_string(b, v->specials[i]);
        buffer_string(b, ", \"lstrip\": false, \"normalized\": false, \"rstrip\": false, \"single_word\": false, \"special\": true}");
    }
    buffer_string(b, "\n  },\n");
    put_named(b, "bos_token", v->bos);
    if (v->chat_template)
        put_named(b, "chat_template", v->chat_template);
    buffer_string(b, "  \"clean_up_tokenization_spaces\": false,\n");
    put_named(b, "eos_token", v->eos);
    put_named(b, "pad_token", v->eos);
    buffer_string(b, "  \"model_input_names\": [\"input_ids\", \"attention_mask\"],\n  \"model_max_length\": 1000000000000000019884624838656,\n"
                     "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

static int put_file(const char *folder, const char *name, Buffer *b, Error *err)
{
    char *path = memory_format("%s/%s", folder, name);
    int status = file_write(path, b->data, b->length, err);
    free(path);
    b->length = 0;
    return status;
}

/* Takes a file of an older vocabulary away, and waits for the disk to know it. */
static int take_away(const char *folder, const char *name, Error *err)
{
    char *path = memory_format("%s/%s", folder, name);
    int status = unlink(path) == 0 || errno == ENOENT ? folder_sync(folder, err) : error_set(err, "%s:", path);
    free(path);
    return status;
}

int vocabulary_begin(const char *folder, bool *made, Error *err)
{
    *made = access(folder, F_OK) != 0;
    if (folder_create(folder, err) < 0)
        return -1;
    return access(folder, W_OK) == 0 ? 0 : error_set(err, "%s:", folder);
}

int vocabulary_write(const VocabularyFiles *v, const char *folder, Error *err)
{
    Buffer b = {0};
    /* Without tokenizer.json the folder is no vocabulary: a kill leaves none, never one vocabulary with another's names. */
    int status = take_away(folder, "tokenizer.json", err);
    put_config(&b, v);
    if (status == 0)
        status = put_file(folder, "tokenizer_config.json", &b, err);
    b.length = 0;
    if (status == 0 && v->chat_template) {
        buffer_string(&b, v->chat_template);
        status = put_file(folder, "chat_template.jinja", &b, err);
    } else if (status == 0) {
        status = take_away(folder, "chat_template.jinja", err); /* it would be taken for this vocabulary's */
    }
    b.length = 0;
    put_tokenizer(&b, v);
    if (status == 0)
        status = put_file(folder, "tokenizer.json", &b, err); /* last: Make may take it as the target */
    buffer_free(&b);
    return status;
}
