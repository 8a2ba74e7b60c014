/* smoke: records and trees of io/json.h. */
#include <stdlib.h>
#include <string.h>
#include "io/json.h"
#include "io/stream.h"
#include "tests/unit/tap.h"

static const char *const names[] = {"id", "text", "n"};

/* The parser wants padding behind the line. */
static Span padded(Buffer *b, const char *text, size_t length)
{
    b->length = 0;
    buffer_append(b, text, length);
    buffer_reserve(b, READER_PADDING);
    memset(b->data + length, 0, READER_PADDING);
    return (Span){b->data, length};
}

static int equal(Span s, const char *text)
{
    return s.length == strlen(text) && memcmp(s.data, text, s.length) == 0;
}

static void test_record(JsonParser *p, Buffer *b)
{
    JsonField f[3];
    Error err;
    const char *text = "{\"meta\":{\"a\":[1,\"}\",{}]} , \"text\" : \"a\\u00e9\\ud83d\\ude00\\\"\\\\\", \"n\":-12,\"id\":\"x\"}";
    Span line = padded(b, text, strlen(text));
    ok(json_record(p, line, names, 3, f, &err) == 0, "a record with fields in any order");
    ok(equal(f[1].string, "a\xc3\xa9\xf0\x9f\x98\x80\"\\"), "escapes and surrogate pairs are undone");
    ok(f[2].type == JSON_INTEGER && f[2].integer == -12 && equal(f[2].raw, "-12"), "an integer and its raw text");
    Buffer out = {0};
    json_record_set(&out, line, &f[1], "text", (Span){"\"b\"", 3});
    ok(equal((Span){out.data, out.length}, "{\"meta\":{\"a\":[1,\"}\",{}]} , \"text\" : \"b\", \"n\":-12,\"id\":\"x\"}"),
       "a replaced value leaves every other byte");
    JsonField absent = {0};
    out.length = 0;
    json_record_set(&out, padded(b, "{}", 2), &absent, "k", (Span){"1", 1});
    ok(equal((Span){out.data, out.length}, "{\"k\":1}"), "a member is added to an empty object");
    out.length = 0;
    json_record_set(&out, padded(b, "{\"a\":{\"k\":1},\"k\" : [2],\"b\":3}", 29), &absent, "k", (Span){"1", 1});
    ok(equal((Span){out.data, out.length}, "{\"a\":{\"k\":1},\"k\" : 1,\"b\":3}"), "one that is there already is replaced");
    static const char *const whole[] = {"{\"k\":1}", "{ \"k\" : [2] , \"b\":3}", "{\"a\":{\"k\":1} , \"k\":\"}\", \"b\":3}", "{\"a\":1,\"k\":null}", "{\"a\":\"k\"}"};
    static const char *const without[] = {"{}", "{ \"b\":3}", "{\"a\":{\"k\":1} , \"b\":3}", "{\"a\":1}", "{\"a\":\"k\"}"};
    for (int i = 0; i < 5; i++) {
        out.length = 0;
        json_record_remove(&out, padded(b, whole[i], strlen(whole[i])), "k");
        ok(out.length == strlen(without[i]) && memcmp(out.data, without[i], out.length) == 0, "%s without k", whole[i]);
    }
    buffer_free(&out);
}

static void test_bad(JsonParser *p, Buffer *b)
{
    static const struct {
        const char *text, *what;
    } bad[] = {{"{\"text\":\"a\"", "an unclosed object"}, {"{\"text\":\"\\ud83d\"}", "a lone surrogate"},
               {"{\"text\":\"a\tb\"}", "a raw control character"}, {"{\"text\":\"\xff\"}", "invalid UTF-8"},
               {"{\"x\":{\"y\":}}", "a hole in a field nobody reads"}, {"{\"text\":\"a\",\"text\":\"b\"}", "a duplicate"},
               {"[1]", "an array"}, {"{} {}", "two values"}, {"", "nothing"}, {"{\"n\":NaN}", "NaN"},
               {"{\"n\":01}", "a leading zero"}, {"{\"n\":1e999}", "a number out of range"},
               {"1e999", "one that is no object"}};
    JsonField f[3];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error err = {{0}};
        int status = json_record(p, padded(b, bad[i].text, strlen(bad[i].text)), names, 3, f, &err);
        ok(status < 0 && err.text[0], "%s is refused: %s", bad[i].what, err.text);
    }
    Buffer deep = {0};
    for (int i = 0; i < 300; i++)
        buffer_string(&deep, "{\"a\":");
    Error err;
    ok(json_record(p, padded(b, deep.data, deep.length), names, 3, f, &err) < 0, "300 levels are refused");
    buffer_free(&deep);
}

static void test_tree(Buffer *b)
{
    JsonTree t = {0};
    Error err;
    const char *text = "{\"a\":[1,2.5,true,null,\"\\u0000x\"],\"b\":{\"c\":9223372036854775807}}";
    ok(json_parse(&t, "t", padded(b, text, strlen(text)), &err) == 0, "a tree");
    const JsonValue *a = json_get(t.root, "a");
    ok(a && a->count == 5 && a->items[1].number == 2.5 && a->items[4].string.length == 2, "array, number, string with NUL");
    ok(json_get(json_get(t.root, "b"), "c")->integer == INT64_MAX, "the largest integer is exact");
    Buffer out = {0};
    json_write_value(&out, t.root, -1);
    ok(equal((Span){out.data, out.length}, "{\"a\": [1, 2.5, true, null, \"\\u0000x\"], \"b\": {\"c\": 9223372036854775807}}"),
       "written as Python writes it");
    out.length = 0;
    json_write_number(&out, 0.1);
    buffer_byte(&out, ' ');
    json_write_number(&out, 1.0 / 3);
    ok(equal((Span){out.data, out.length}, "0.1 0.3333333333333333"), "shortest numbers");
    buffer_free(&out);
    ok(json_parse(&t, "t", padded(b, "{\"a\":1,\"a\":2}", 13), &err) < 0 && strstr(err.text, "twice"), "duplicate keys are refused");
    json_free(&t);
}

int main(void)
{
    JsonParser *p = json_parser_new();
    Buffer b = {0};
    test_record(p, &b);
    test_bad(p, &b);
    test_tree(&b);
    buffer_free(&b);
    json_parser_free(p);
    return tap_end();
}
