#include "train/posttrain.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/stop.h"
#include "model/folder.h"

int posttrain_check(const PostTrain *p)
{
    if (!p->common.output)
        return message_usage("-o DIR is needed");
    if (!p->model_path)
        return message_usage("--model DIR is needed");
    if (p->train.patience > 0 && (!p->val || p->train.eval_every == 0))
        return message_usage("--patience goes with --val and --eval-every");
    if (train_finished(p->common.output)) {
        message("%s: this run has finished", p->common.output);
        return 0;
    }
    return -1;
}

static int read_records(PostTrain *p, ExampleKind kind, const char *const *files, Error *err)
{
    if (examples_read(&p->examples, &p->coder, kind, &p->common, files, p->max_length, err) < 0)
        return -1;
    const char *held_out[] = {p->val, NULL};
    if (p->val && examples_read(&p->held_out, &p->coder, kind, &p->common, held_out, p->max_length, err) < 0)
        return -1;
    /* Sequences no longer than the longest example, so that short chats are not packed into long stretches of padding. */
    int64_t longest = 64;
    for (size_t i = 0; i < p->examples.count; i++)
        longest = p->examples.items[i].count > longest ? p->examples.items[i].count : longest;
    for (size_t i = 0; i < p->held_out.count; i++)
        longest = p->held_out.items[i].count > longest ? p->held_out.items[i].count : longest;
    int64_t length = longest * 2 < p->max_length ? longest * 2 : p->max_length > longest ? p->max_length : longest;
    if (length > p->rows && longest <= p->rows)
        length = p->rows;
    plan_open(&p->plan, &p->examples, p->epochs, p->batch_size, length, p->rows, (uint64_t)p->common.seed);
    if (p->val)
        plan_open(&p->held_out_plan, &p->held_out, 1, p->batch_size, length, p->rows, 0);
    p->train.steps = p->plan.steps;
    return 0;
}

int posttrain_open(PostTrain *p, ExampleKind kind, int num_labels, const char *const *files, Error *err)
{
    stop_install(); /* a signal while things are loaded is answered after the first step */
    char *folder = folder_resolve(p->model_path, err);
    p->device = folder ? device_open(p->common.device, (int)p->common.threads, err) : NULL;
    int status = p->device ? 0 : -1;
    if (status == 0)
        status = chat_coder_open(&p->coder, folder, err);
    if (status == 0)
        status = folder_load(&p->model, folder, num_labels, (uint64_t)p->common.seed, NULL, p->device, err);
    if (status == 0)
        status = train_prepare(&p->model, &p->train, &p->common, err);
    if (status == 0 && tokenizer_size(p->coder.tokenizer) > p->model.config.vocab_size)
        status = error_set(err, "%s: the tokenizer has %" PRId64 " tokens, the model %" PRId64, folder, tokenizer_size(p->coder.tokenizer), p->model.config.vocab_size);
    free(folder);
    if (status == 0)
        status = read_records(p, kind, files, err);
    if (status == 0)
        status = slot_new(&p->slot, &p->model, p->plan.rows, MODE_TRAIN, err);
    if (status < 0)
        return -1;
    /* Generation must stop where an answer ends. */
    ModelConfig *c = &p->model.config;
    bool known = false;
    for (int i = 0; i < c->eos_count; i++)
        known |= c->eos_token_id[i] == p->coder.end_of_turn;
    if (!known && c->eos_count < CONFIG_MAX_EOS)
        c->eos_token_id[c->eos_count++] = p->coder.end_of_turn;
    return 0;
}

void posttrain_close(PostTrain *p)
{
    slot_free(&p->slot);
    if (p->plan.examples)
        plan_close(&p->plan);
    if (p->held_out_plan.examples)
        plan_close(&p->held_out_plan);
    examples_free(&p->examples);
    examples_free(&p->held_out);
    if (p->coder.tokenizer)
        chat_coder_close(&p->coder);
    model_close(&p->model);
    device_close(p->device);
}
