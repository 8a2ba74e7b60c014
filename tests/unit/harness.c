/* What lm-evaluation-harness's pieces make of texts (tests/data/harness.json, by tests/reference/harness_golden.py): templates, Python's
 * random numbers, regular expressions; and YAML. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/mersenne.h"
#include "io/stream.h"
#include "io/yaml.h"
#include "tap.h"
#include "text/jinja.h"
#include "text/python_re.h"

static bool text_is(const Buffer *b, Span want)
{
    return b->length == want.length && memcmp(b->data ? b->data : "", want.data, want.length) == 0;
}

static void templates(const JsonValue *cases, const JsonValue *doc)
{
    JinjaOutput out = {0};
    JinjaVariable variables[32];
    for (size_t n = 0; n < doc->count; n++)
        variables[n] = (JinjaVariable){.name = doc->keys[n].data, .value = &doc->items[n], .origin = 1};
    for (size_t i = 0; i < cases->count; i++) {
        Error err = {{0}};
        Span text = cases->items[i].items[0].string;
        const JsonValue *want = &cases->items[i].items[1];
        Jinja *j = jinja_compile(text, JINJA_TASK, &err);
        int status = j ? jinja_render(j, variables, doc->count, &out, &err) : -1;
        bool same = want->type == JSON_NULL ? j && status < 0 : status == 0 && text_is(&out.text, want->string) && out.origins.length == out.text.length;
        ok(same, "template %zu: %.30s", i, strchr(text.data, '\n') ? "…" : text.data);
        if (!same)
            printf("# %s\n# got:    %.*s\n# wanted: %s\n", err.text, (int)out.text.length, out.text.data ? out.text.data : "", want->type == JSON_NULL ? "an error" : want->string.data);
        jinja_free(j);
    }
    jinja_output_free(&out);
}

static void random_numbers(const JsonValue *samples, const JsonValue *choices)
{
    Mersenne m;
    bool same = true;
    for (size_t i = 0; i < samples->count; i++) {
        mersenne_seed(&m, (uint64_t)samples->items[i].items[0].integer);
        const JsonValue *list = &samples->items[i].items[1];
        for (size_t k = 0; k < list->count; k++) {
            uint64_t got[64];
            const JsonValue *want = &list->items[k].items[2];
            mersenne_sample(&m, (uint64_t)list->items[k].items[0].integer, want->count, got);
            for (size_t n = 0; n < want->count; n++)
                same &= (int64_t)got[n] == want->items[n].integer;
        }
    }
    ok(same, "random.Random(seed).sample");
    same = true;
    for (size_t i = 0; i < choices->count; i++) {
        mersenne_seed(&m, (uint64_t)choices->items[i].items[0].integer);
        const JsonValue *want = &choices->items[i].items[1];
        for (size_t n = 0; n < want->count; n++)
            same &= (int64_t)floor(mersenne_uniform(&m) * 10) == want->items[n].integer;
    }
    ok(same, "random.Random(seed).choices");
}

static bool findall_is(PythonRe *re, Span text, const JsonValue *want, Error *err)
{
    PythonMatch m = {0};
    size_t n = 0, groups = python_re_groups(re);
    for (; python_re_next(re, text, &m, err) > 0; n++)
        for (size_t g = 0; g < (groups ? groups : 1); g++) {
            Span got = python_re_group(re, text, groups ? g + 1 : 0);
            if (n >= want->count || !text_is(&(Buffer){(char *)(uintptr_t)got.data, got.length, 0}, want->items[n].items[g].string))
                return false;
        }
    return n == want->count;
}

static void expressions(const JsonValue *findall, const JsonValue *sub)
{
    PythonRe *re = NULL;
    Span last = {0};
    bool same = true;
    for (size_t i = 0; i < findall->count; i++) {
        Error err = {{0}};
        Span pattern = findall->items[i].items[0].string, text = findall->items[i].items[1].string;
        if (!re || pattern.length != last.length || memcmp(pattern.data, last.data, last.length) != 0) {
            if (re)
                ok(same, "re.findall and re.sub of %s", last.data);
            python_re_free(re);
            re = python_re_compile(pattern, &err);
            last = pattern;
            same = re != NULL;
            if (!re)
                break;
        }
        Buffer out = {0};
        bool found = findall_is(re, text, &findall->items[i].items[2], &err);
        bool replaced = python_re_sub(re, (Span){"-", 1}, text, 0, &out, &err) == 0 && text_is(&out, sub->items[i].items[2].string);
        if (!found || !replaced)
            printf("# %s in '%s': %s %.*s\n", pattern.data, text.data, found ? "" : "other matches", (int)out.length, out.data);
        same &= found && replaced;
        buffer_free(&out);
    }
    ok(same, "re.findall and re.sub of %s", last.data);
    python_re_free(re);
    static const char *const bad[] = {"(", "\\Qa", "(*ANY)a", "(?a)b", "[a", "a**"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error err = {{0}};
        re = python_re_compile((Span){bad[i], strlen(bad[i])}, &err);
        ok(!re && strstr(err.text, bad[i]), "refused: %s (%s)", bad[i], err.text);
        python_re_free(re);
    }
}

static void yaml(void)
{
#ifdef HAVE_YAML
    static const char text[] = "task: t\nn: 1\nlist: [yes, No, 'no', ~, 1.5, 1e3, -0x1F, 1_000, on]\nfold: >\n  a\n  b\nkeep: |\n  a\n  b\nanchor: &x {a: 0, a: 1}\nagain: *x\nn: 012\ncode: !function x.y\n";
    static const char want[] = "{\"task\": \"t\", \"n\": 10, \"list\": [true, false, \"no\", null, 1.5, \"1e3\", -31, 1000, true], \"fold\": \"a b\\n\", \"keep\": \"a\\nb\\n\", \"anchor\": {\"a\": 1}, \"again\": {\"a\": 1}, \"code\": {\"!function\": \"x.y\"}}";
    char path[] = "/tmp/lmpipe-yaml-XXXXXX";
    close(mkstemp(path));
    Error err = {{0}};
    YamlTree tree;
    Buffer out = {0};
    ok(file_write(path, text, sizeof text - 1, &err) == 0 && yaml_parse_file(&tree, path, &err) == 0, "YAML is read %s", err.text);
    json_write_value(&out, tree.tree.root, -1);
    if (!ok(text_is(&out, (Span){want, sizeof want - 1}), "scalars are what PyYAML makes of them"))
        printf("# %.*s\n", (int)out.length, out.data);
    ok(tree.lines[1] == 12 && tree.lines[3] == 4 && tree.lines[6] == 11, "fields know their lines");
    json_free(&tree.tree);
    buffer_free(&out);
    static const char *const bad[][2] = {{"a: 1\nb: !other x.y\n", ":2: 'b' has the tag !other"}, {"a: [1\n", ":2: "}, {"a: \xff\n", "not UTF-8"},
                                         {"x: &a [1, 1]\ny: &b [*a, *a]\n? [a]\n: 1\n", ":3: a key"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (Error){{0}};
        ok(file_write(path, bad[i][0], strlen(bad[i][0]), &err) == 0 && yaml_parse_file(&tree, path, &err) < 0 && strstr(err.text, bad[i][1]), "refused:%s", strrchr(err.text, '/') ? strrchr(err.text, '/') : err.text);
    }
    unlink(path);
#else
    skip("YAML", "this build has no libyaml");
#endif
}

int main(void)
{
    JsonTree tree = {0};
    Error err;
    if (ok(json_parse_file(&tree, "tests/data/harness.json", &err) == 0, "golden values")) {
        templates(json_get(tree.root, "templates"), &json_get(tree.root, "docs")->items[0]);
        random_numbers(json_get(tree.root, "samples"), json_get(tree.root, "choices"));
        expressions(json_get(tree.root, "findall"), json_get(tree.root, "sub"));
    }
    json_free(&tree);
    yaml();
    return tap_end();
}
