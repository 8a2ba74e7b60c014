/* What one grid has saved another reads: weights, both moments and the average have the same bits, whatever the two grids, and a
 * checkpoint of which one rank's part is damaged is passed over by all. */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/random.h"
#include "io/safetensors.h"
#include "model/folder.h"
#include "tests/unit/tap.h"
#include "train/checkpoint.h"

typedef struct Grids {
    int tp, cp, pp, dp, shard;
} Grids;

typedef struct Case {
    ModelConfig config;
    const char *folder;
    int shard;
    int64_t step; /* to save, or that must be found */
    int wrong;
    char what[224];
} Case;

static void complain(Case *c, const char *what, const char *detail)
{
    if (__atomic_fetch_add(&c->wrong, 1, __ATOMIC_RELAXED) == 0)
        snprintf(c->what, sizeof c->what, "%.40s %.160s", what, detail);
}

/* The value of an element of a tensor in an arena, by its place in the whole: what must come back. */
static float value_of(const char *name, int arena, int64_t step, uint64_t index)
{
    return (float)random_normal((uint64_t)(arena + 10 * step), XXH64(name, strlen(name), 0) & ~UINT64_C(0xff), index);
}

/* Where a rank keeps an element of an arena of what is trained, or of the optimiser's states; NULL: nowhere. */
static float *cell(const Optimizer *o, float *arena, bool states, const Parameter *p, size_t k)
{
    if (!states || o->shard == 0)
        return param_trained(o->table, arena, p) + k;
    for (int u = 0; u < o->table->unit_count; u++) {
        size_t begin, end;
        optimizer_slice(o, u, &begin, &end);
        if (p->offset + k >= begin && p->offset + k < end)
            return arena + optimizer_place(o, u) + (p->offset + k - begin);
    }
    return NULL;
}

/* Fills a rank's arena, or counts elements that differ. */
static size_t walk(const Optimizer *o, float *arena, int number, int64_t step, bool fill)
{
    const ParameterTable *t = o->table;
    size_t differ = 0;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        int64_t columns = p->ndim == 2 ? p->shape[1] : 1, width = p->ndim == 2 ? p->extent[1] : 1, first = p->ndim == 2 ? p->begin[1] : 0;
        for (int64_t r = 0; r < p->extent[0]; r++)
            for (int64_t j = 0; j < width; j++) {
                float v = value_of(p->name, number, step, (uint64_t)((p->begin[0] + r) * columns + first + j));
                float *here = cell(o, arena, number == 1 || number == 2, p, (size_t)(r * width + j));
                if (fill && here)
                    *here = v;
                else if (here)
                    differ += memcmp(here, &v, sizeof v) != 0;
            }
    }
    return differ;
}

typedef struct Rank {
    Device *device;
    Model model;
    Optimizer optimizer;
    Average average;
    Run run;
    Checkpoints checkpoints;
} Rank;

static int rank_open(Rank *r, Case *c, Grid *g, Error *err)
{
    memset(r, 0, sizeof *r);
    ModelPart part;
    r->device = device_open("cpu", 1, err);
    if (!r->device || part_of_grid(&part, &c->config, g, &(PartStages){.chunks = 1}, err) < 0 || model_open(&r->model, &c->config, &part, r->device, err) < 0 ||
        optimizer_open(&r->optimizer, &r->model, g, c->shard, &(AdamW){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}, err) < 0 || average_need(&r->average, &r->model.params.table, err) < 0)
        return -1;
    if (g->rank > 0)
        run_follow(&r->run, c->folder);
    else if (run_open(&r->run, c->folder, "{}", NULL, err) < 0)
        return -1;
    r->checkpoints = (Checkpoints){.run = &r->run, .grid = g, .model = &r->model, .optimizer = &r->optimizer, .average = &r->average, .keep = 0};
    r->checkpoints.log = metrics_open(NULL, -1, err);
    return r->checkpoints.log ? 0 : -1;
}

static void rank_close(Rank *r)
{
    checkpoint_close(&r->checkpoints);
    metrics_close(r->checkpoints.log, NULL);
    average_close(&r->average, r->device);
    optimizer_close(&r->optimizer);
    model_close(&r->model);
    run_close(&r->run);
    device_close(r->device);
}

static float **arenas(Rank *r, float *out[4])
{
    out[0] = r->model.params.table.weights;
    out[1] = r->optimizer.first;
    out[2] = r->optimizer.second;
    out[3] = r->average.weights;
    return out;
}

static int save(void *context, Grid *g)
{
    Case *c = context;
    Rank r;
    Error err = {{0}};
    float *all[4];
    if (rank_open(&r, c, g, &err) < 0)
        return grid_failed(g, &err);
    for (int i = 0; i < 4; i++)
        walk(&r.optimizer, arenas(&r, all)[i], i, c->step, true);
    r.optimizer.steps = 77;
    r.average.count = 3;
    TrainState s = {.step = c->step, .tokens = 123, .flops = 4.5, .best = 0.25, .stale = 2};
    if (checkpoint_begin(&r.checkpoints, &s, &err) < 0 || checkpoint_settle(&r.checkpoints, &err) < 0 ||
        checkpoint_keep(&r.checkpoints, r.model.params.table.weights, DTYPE_BF16, "average", &err) < 0)
        complain(c, "saving:", err.text);
    rank_close(&r);
    return 0;
}

static int load(void *context, Grid *g)
{
    Case *c = context;
    Rank r;
    Error err = {{0}};
    float *all[4];
    static const char *const names[] = {"weights", "first moments", "second moments", "averages"};
    if (rank_open(&r, c, g, &err) < 0)
        return grid_failed(g, &err);
    TrainState s = {0};
    if (checkpoint_resume(&r.checkpoints, &s, &err) < 0)
        complain(c, "loading:", err.text);
    for (int i = 0; i < 4; i++)
        if (walk(&r.optimizer, arenas(&r, all)[i], i, c->step, false) > 0)
            complain(c, names[i], "differ");
    if (s.step != c->step || s.tokens != 123 || s.flops != 4.5 || s.best != 0.25 || s.stale != 2 || r.optimizer.steps != 77 || r.average.count != 3)
        complain(c, "counters", "differ");
    rank_close(&r);
    return 0;
}

static int run_on(const Grids *g, int (*work)(void *, Grid *), Case *c)
{
    const int extent[GRID_DIMENSIONS] = {g->tp, g->cp, g->pp, g->dp};
    Error err = {{0}};
    int status = grid_run(extent, work, c, &err);
    if (status != 0)
        complain(c, "grid:", err.text);
    return status;
}

static char folder[] = "/tmp/lmpipe-checkpoint-XXXXXX";

static char *grid_name(const Grids *g)
{
    return memory_format("tp %d cp %d pp %d dp %d%s", g->tp, g->cp, g->pp, g->dp, g->shard ? " sharded" : "");
}

/* Everything in the folder is gone afterwards. */
static void empty(void)
{
    folder_remove(folder, NULL);
    mkdir(folder, 0777);
}

static void test_reshard(const char *what, const ModelConfig *config, const Grids *from, const Grids *to, int count)
{
    char *a = grid_name(from);
    for (int i = 0; i < count; i++) {
        Case c = {.config = *config, .folder = folder, .step = 3};
        char *b = grid_name(&to[i]);
        if (i == 0)
            run_on(from, save, &c);
        run_on(&to[i], load, &c);
        ok(c.wrong == 0, "%s: %s reads what %s has saved %s", what, b, a, c.what);
        free(b);
    }
    free(a);
}

/* The folder of the whole model on one rank and of a grid have the same bytes. */
static void test_model_file(const ModelConfig *config, const Grids *from)
{
    Case c = {.config = *config, .folder = folder, .step = 3};
    char *path = memory_format("%s/average", folder), *name = grid_name(from), *file = memory_format("%s/average/model.safetensors", folder);
    Error err = {{0}};
    Device *d = device_open("cpu", 1, &err);
    Model m;
    Safetensors s;
    empty();
    run_on(from, save, &c);
    int status = folder_load(&m, path, NULL, d, &err);
    size_t differ = 0;
    for (size_t i = 0; status == 0 && i < m.params.table.count; i++) {
        const Parameter *p = &m.params.table.items[i];
        for (size_t k = 0; k < p->count; k++)
            differ += m.params.table.weights[p->offset + k] != bf16_to_f32(f32_to_bf16(value_of(p->name, 0, 3, k)));
    }
    ok(c.wrong == 0 && status == 0 && differ == 0, "%s: one model in bf16 comes of all ranks' parts %s%s", name, c.what, err.text);
    status = safetensors_open(&s, file, &err);
    ok(status == 0 && s.count == m.params.table.count, "%s: in one file, %zu tensors", name, s.count);
    safetensors_close(&s);
    model_close(&m);
    device_close(d);
    free(path);
    free(file);
    free(name);
}

/* A bit flips in a part of the newest checkpoint: the one before is taken, by all. */
static void test_damage(const ModelConfig *config, const Grids *g)
{
    static const char *const files[] = {"model.safetensors", "trainer/optimizer-00003.safetensors", "trainer/average-00001.safetensors", "trainer/checksums-00002.json",
                                        "trainer/state.json", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        Case c = {.config = *config, .folder = folder, .step = 3};
        empty();
        run_on(g, save, &c);
        c.step = 5;
        run_on(g, save, &c);
        char *path = memory_format("%s/step-00000005/%s", folder, files[i]), byte = 0;
        int f = open(path, O_RDWR);
        struct stat st;
        bool flipped = f >= 0 && fstat(f, &st) == 0 && pread(f, &byte, 1, st.st_size * 2 / 3) == 1;
        byte ^= 4;
        flipped &= pwrite(f, &byte, 1, st.st_size * 2 / 3) == 1;
        close(f);
        c.step = 3;
        run_on(g, load, &c);
        ok(flipped && c.wrong == 0, "a flipped bit in %s is found, and the checkpoint before taken %s", files[i], c.what);
        free(path);
    }
}

int main(void)
{
    ModelConfig config = {.model_type = "llama", .vocab_size = 67, .hidden_size = 24, .intermediate_size = 35, .num_hidden_layers = 5,
                          .num_attention_heads = 6, .num_key_value_heads = 2, .head_dim = 4, .max_position_embeddings = 64, .rms_norm_eps = 1e-5,
                          .rope_theta = 1e4, .initializer_range = 0.1, .tie_word_embeddings = true, .qk_norm = true};
    static const Grids to[] = {{1, 1, 1, 1, 0}, {2, 1, 1, 2, 0}, {1, 1, 4, 1, 0}, {1, 2, 1, 2, 1}, {4, 1, 2, 1, 0}, {2, 2, 2, 2, 1}, {1, 1, 1, 7, 1}, {2, 1, 1, 3, 1}};
    const int count = sizeof to / sizeof *to;
    if (!mkdtemp(folder))
        return 1;
    for (int i = 0; i < count; i++) {
        empty();
        test_reshard("tied, QK-norm", &config, &to[i], to, count);
    }
    config.tie_word_embeddings = config.qk_norm = false;
    config.qkv_bias = config.mlp_bias = config.output_bias = true;
    for (int i = 0; i < count; i += 5) {
        empty();
        test_reshard("untied, biases", &config, &to[i], to, count);
    }
    test_model_file(&config, &to[0]);
    test_model_file(&config, &to[5]);
    test_damage(&config, &to[1]);
    folder_remove(folder, NULL);
    return tap_end();
}
