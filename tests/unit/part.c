/* smoke: a model split over ranks: every element of every tensor has one owner, and the initial values of one rank, whatever the grid. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/model.h"
#include "tests/unit/tap.h"

static const ModelConfig small = {.model_type = "llama", .vocab_size = 259, .hidden_size = 48, .intermediate_size = 75, .num_hidden_layers = 5,
                                  .num_attention_heads = 12, .num_key_value_heads = 3, .head_dim = 4, .max_position_embeddings = 64,
                                  .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.1};

/* The parts of a grid: layers dealt to stages as evenly as they go, `virtual` ranges a stage. */
static ModelPart part_of(const ModelConfig *c, int tp, int tp_size, int stage, int stages, int virtual)
{
    ModelPart p = {.tp_rank = tp, .tp_size = tp_size, .ranges = virtual};
    for (int v = 0; v < virtual; v++) {
        int64_t chunk = v * stages + stage, chunks = (int64_t)stages * virtual;
        int64_t first = chunk * c->num_hidden_layers / chunks, end = (chunk + 1) * c->num_hidden_layers / chunks;
        p.range[v] = (LayerRange){first, end - first, chunk == 0, chunk == chunks - 1};
    }
    return p;
}

static int place_of(const ParameterTable *whole, const char *name)
{
    for (size_t i = 0; i < whole->count; i++)
        if (strcmp(whole->items[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Counts owners (and holders) of each element in arenas of the whole model's layout; false where a value differs from the whole's. */
static bool lay_over(const Model *whole, const Model *m, int *owners, int *holders)
{
    const ParameterTable *t = &m->params.table;
    bool same = true;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        int at = place_of(&whole->params.table, p->name);
        if (at < 0)
            return false;
        const Parameter *w = &whole->params.table.items[at];
        int64_t columns = w->ndim == 2 ? w->shape[1] : 1, width = p->ndim == 2 ? p->extent[1] : 1, first = p->ndim == 2 ? p->begin[1] : 0;
        for (int64_t r = 0; r < p->extent[0]; r++)
            for (int64_t j = 0; j < width; j++) {
                size_t to = w->offset + (size_t)((p->begin[0] + r) * columns + first + j);
                owners[to] += p->owner;
                holders[to] += p->tied && !p->owner ? 0 : p->replicas * 1000 + 1;
                same &= t->weights[p->offset + (size_t)(r * width + j)] == whole->params.table.weights[to];
            }
    }
    return same;
}

static void test_grid(const char *what, const ModelConfig *c, int tp, int stages, int virtual, Device *d)
{
    Error err = {{0}};
    Model whole;
    if (!ok(model_open(&whole, c, NULL, d, &err) == 0, "%s, one rank %s", what, err.text))
        return;
    param_initialise(&whole.params.table, 7);
    int *owners = memory_zalloc(whole.params.table.total, sizeof *owners), *holders = memory_zalloc(whole.params.table.total, sizeof *holders);
    bool same = true;
    for (int r = 0; r < tp * stages && same; r++) {
        ModelPart p = part_of(c, r % tp, tp, r / tp, stages, virtual);
        Model m;
        same = model_open(&m, c, &p, d, &err) == 0;
        if (!same)
            break;
        param_initialise(&m.params.table, 7);
        same = lay_over(&whole, &m, owners, holders);
        model_close(&m);
    }
    bool once = true, replicas = true;
    for (size_t i = 0; i < whole.params.table.count; i++) {
        const Parameter *p = &whole.params.table.items[i];
        for (size_t k = 0; k < p->count; k++) {
            once &= owners[p->offset + k] == 1;
            int copies = holders[p->offset + k] % 1000;
            replicas &= holders[p->offset + k] == copies * (copies * 1000 + 1);
        }
    }
    ok(same, "%s, tp %d pp %d virtual stages %d: the initial values of one rank %s", what, tp, stages, virtual, err.text);
    ok(once && replicas, "%s, tp %d pp %d virtual stages %d: every element has one owner, and as many holders as its entry says", what, tp, stages, virtual);
    free(owners);
    free(holders);
    model_close(&whole);
}

static void test_refused(ModelConfig c, int tp, const char *reason, Device *d)
{
    Error err = {{0}};
    Model m;
    ModelPart p = part_of(&c, 0, tp, 0, 1, 1);
    ok(model_open(&m, &c, &p, d, &err) < 0 && strstr(err.text, reason), "tp %d: %s", tp, err.text);
}

/* Every layer once and in order over any pipeline, stages that differ by one layer but for the two ends. */
static void test_stages(void)
{
    int cases = 0, wrong = 0;
    for (int64_t layers = 1; layers <= 40; layers++)
        for (int stages = 1; stages <= 8; stages++)
            for (int chunks = 1; chunks <= (stages > 1 ? 3 : 1); chunks++)
                for (int64_t fewer = 0; fewer <= (stages > 1 ? 2 : 0); fewer++, cases++) {
                    ModelConfig c = small;
                    Grid g;
                    ModelPart p[8];
                    Error err;
                    int status = 0;
                    grid_one(&g);
                    c.num_hidden_layers = layers;
                    g.extent[GRID_PP] = stages;
                    for (int r = 0; r < stages; r++) {
                        g.place[GRID_PP] = r;
                        status |= part_of_grid(&p[r], &c, &g, &(PartStages){chunks, fewer}, &err);
                    }
                    int64_t at = 0, least = INT64_MAX, most = 0, all = (int64_t)stages * chunks, whole = layers + 2 * fewer;
                    if (status < 0) {
                        wrong += whole / all - fewer >= (chunks > 1 && fewer > 0 ? 0 : 1);
                        continue;
                    }
                    for (int64_t i = 0; i < all; i++) {
                        LayerRange range = p[i % stages].range[i / stages];
                        int64_t count = range.count + (i == 0 || i == all - 1 ? fewer : 0);
                        wrong += range.first != at || range.embedding != (i == 0) || range.head != (i == all - 1);
                        wrong += range.count < (chunks > 1 && fewer > 0 && (i == 0 || i == all - 1) ? 0 : 1);
                        at += range.count;
                        least = count < least ? count : least;
                        most = count > most ? count : most;
                    }
                    wrong += at != layers || most - least > 1;
                }
    ok(wrong == 0, "%d pipelines have every layer once, in stages as even as can be (%d have not)", cases, wrong);
    ModelConfig llama = small;
    Grid g;
    ModelPart p;
    Error err;
    grid_one(&g);
    ok(part_of_grid(&p, &llama, &g, &(PartStages){1, 1}, &err) < 0 && strstr(err.text, "no pipeline"), "a layer fewer at the ends of no pipeline: %s", err.text);
    llama.num_hidden_layers = 126;
    g.extent[GRID_PP] = 16;
    bool right = true;
    for (int r = 0; r < 16; r++) {
        g.place[GRID_PP] = r;
        right &= part_of_grid(&p, &llama, &g, &(PartStages){1, 1}, &err) == 0 && p.range[0].count == (r % 15 ? 8 : 7);
    }
    ok(right, "126 layers over 16 stages whose ends have one fewer: 7, 14 times 8, 7");
}

int main(void)
{
    Device *d = device_open("cpu", 1, NULL);
    ModelConfig tied = small, odd = small, reward = small;
    tied.tie_word_embeddings = tied.qk_norm = true;
    odd.qkv_bias = odd.output_bias = odd.mlp_bias = true;
    reward.num_labels = 1;
    for (int tp = 1; tp <= 3; tp++) {
        test_grid("untied", &small, tp, 1, 1, d);
        test_grid("tied, QK-norm", &tied, tp, 5, 1, d);
        test_grid("biases", &odd, tp, 2, 2, d);
    }
    test_grid("untied", &small, 6, 2, 1, d);
    test_grid("tied, QK-norm", &tied, 12, 1, 1, d);
    test_grid("biases", &odd, 9, 1, 5, d);
    test_grid("reward model", &reward, 3, 3, 1, d);
    test_refused(small, 13, "12 attention heads", d);
    test_refused(small, 5, "3 key-value heads", d);
    odd.intermediate_size = 2;
    test_refused(odd, 3, "MLP columns", d);
    test_stages();
    device_close(d);
    return tap_end();
}
