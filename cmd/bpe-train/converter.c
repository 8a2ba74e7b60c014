#include "converter.h"

#include <string.h>
#include "base/message.h"
#include "base/sha256.h"

/* The text whose ids are hashed: `chktxt` of its get_vocab_base_pre. Another text has another hash, so it must be this one. */
static const char probe[] =
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n\U0001F680 (normal) \U0001F636\u200D\U0001F32B\uFE0F (multiple emojis concatenated) \u2705 \U0001F999\U0001F999"
    " 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "\u1780\u17B6\u1793\u17CB\u178F\u17C2\u1796\u17B7\u179F\u17C1\u179F\u17A2\u17B6\u1785\U0001F601 ?\u6211\u60F3\u5728apple\u5DE5\u4F5C1314151\u5929\uFF5E"
    " ------======= \u043D\u0435\u0449\u043E \u043D\u0430 \u0411\u044A\u043B\u0433\u0430\u0440\u0441\u043A\u0438 ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's"
    " there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL";

/* Its name for what cuts text alike. */
static const char *name_of(const char *pattern)
{
    static const char *const names[][2] = {{"llama3", "dbrx"}, {"cl100k", "dbrx"}, {"gpt2", "gpt-2"}, {"qwen2", "qwen2"}, {"o200k", "gpt-4o"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(pattern, names[i][0]) == 0)
            return names[i][1];
    return NULL;
}

int converter_report(const Tokenizer *t, const char *pattern, Error *err)
{
    Encoder *e = encoder_new(t);
    Ids ids = {0};
    int status = encoder_encode(e, (Span){probe, sizeof probe - 1}, NULL, &ids, err);
    if (status == 0) {
        /* str() of a Python list. */
        Buffer list = {0};
        for (size_t i = 0; i < ids.count; i++)
            buffer_format(&list, "%s%d", i ? ", " : "[", ids.data[i]);
        buffer_byte(&list, ']');
        char hash[65];
        sha256_hex(list.data, list.length, hash);
        buffer_free(&list);
        const char *name = name_of(pattern);
        if (name)
            message("for llama.cpp's converter, in get_vocab_base_pre: if chkhsh == \"%s\": res = \"%s\"", hash, name);
        else
            message("for llama.cpp's converter: chkhsh is %s; none of its names is known to cut text like this --pattern", hash);
    }
    ids_free(&ids);
    encoder_free(e);
    return status;
}
