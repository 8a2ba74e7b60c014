/* Post-training records as tokens: chats, preference pairs, rankings. Rendered by the model's own chat template, control
 * tokens by id, contents as ordinary text (chat.h). */
#ifndef TRAIN_EXAMPLES_H
#define TRAIN_EXAMPLES_H

#include "base/option.h"
#include "data/batch.h"
#include "text/chat.h"
#include "text/tokenizer.h"

/* A model's tokenizer and template; one encoder, so for one thread. */
typedef struct ChatCoder {
    Tokenizer *tokenizer;
    ChatRenderer *renderer;
    Encoder *encoder;
    ChatText text;
    int32_t end_of_turn; /* id of the token that ends an answer */
} ChatCoder;

int chat_coder_open(ChatCoder *c, const char *folder, Error *err);
void chat_coder_close(ChatCoder *c);

enum { TOKEN_TRAINED = 1, TOKEN_ENDING = 2 }; /* an assistant's token; the end of its turn */

typedef struct Example {
    int32_t *tokens;
    unsigned char *flags; /* of each token */
    int64_t count, trained;
    int64_t answer;       /* where the answer's tokens begin; count: nowhere */
    int64_t source;       /* number of the record */
    int32_t rank;         /* in a group: 0 best, or chosen 0, rejected 1; of a split chat the piece */
    double level;         /* equal for answers of a ranking that are tied (its field `ranks`) */
    double margin;
} Example;

/* Examples of one record stand together: a chat 1 (split: a piece each), a pair 2, a ranking as many as responses. */
typedef struct Examples {
    Example *items;
    size_t count, capacity;
    size_t *group_first, groups, group_capacity; /* first example of each record; [groups] = count */
    uint64_t truncated, dropped;                 /* cut at max_length; without a trained token after that */
    uint64_t too_long;                           /* answers of rankings that were left out instead, as TRL leaves out their pairs */
    uint64_t split, pieces, silent;              /* chats cut into pieces instead; into how many; how many more without a trained token */
} Examples;

/* Renders a chat into ids and flags, which are emptied first. */
int chat_tokens(ChatCoder *c, const ChatInput *in, Ids *ids, Buffer *flags, Error *err);

typedef enum ExampleKind { EXAMPLES_CHAT, EXAMPLES_PREFERENCE, EXAMPLES_RANKING /* pairs too */ } ExampleKind;

typedef struct ExampleOptions {
    ExampleKind kind;
    int64_t max_length; /* the end of longer examples is cut off; a longer answer of a ranking is left out, since its end bears the score */
    bool split;         /* longer chats become pieces of max_length, each a document of its own whose first token has no label (TRL's bfd_split) */
} ExampleOptions;

/* Reads files (none: standard input). */
int examples_read(Examples *e, ChatCoder *c, const ExampleOptions *o, const Common *common, const char *const *files, Error *err);
void examples_free(Examples *e);
/* Of what is trained on: XXH3 of all examples' tokens and which of them are learned. */
uint64_t examples_number(const Examples *e);
/* The record that an example belongs to. */
size_t examples_group(const Examples *e, size_t example);
/* Tokens that a ranking's answers take one behind the other after their prompt; 0: they have not the same tokens before them. */
int64_t examples_row(const Examples *e, size_t group);

#endif
