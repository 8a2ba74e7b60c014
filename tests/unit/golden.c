/* smoke: grids of ranks (as threads) give the logits that transformers computes on PyTorch (tests/reference/model_golden.py), for the
 * families of tests/data/models: tensor, context and pipeline parallel, alone and together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/safetensors.h"
#include "model/folder.h"
#include "model/head.h"
#include "tests/unit/distance.h"
#include "tests/unit/tap.h"
#include "train/passes.h"

enum { SEQUENCES = 2, LENGTH = 20, ROWS = SEQUENCES * LENGTH };

typedef struct Case {
    char folder[128];
    ModelConfig config;
    const int32_t *tokens; /* [SEQUENCES, LENGTH] */
    const float *golden;   /* [ROWS, V] */
    double worst;
    int compared; /* rows, over all ranks that have them */
    Error error;
} Case;

typedef struct Worker {
    Case *c;
    Grid *g;
    Model model;
    Batch whole, part;
} Worker;

static int load(void *context, int64_t micro_batch, Slot *s, Error *err)
{
    Worker *w = context;
    (void)micro_batch;
    batch_clear(&w->whole);
    for (int i = 0; i < SEQUENCES; i++)
        batch_place(&w->whole, i * LENGTH, w->c->tokens + i * LENGTH, NULL, NULL, LENGTH, -1, 0, i);
    batch_deal(&w->part, &w->whole, w->g->place[GRID_CP], w->g->extent[GRID_CP]);
    return slot_load(s, &w->part, err);
}

/* One rank after the other has its rows compared. */
static int head(void *context, int64_t micro_batch, Slot *s, Error *err)
{
    Worker *w = context;
    Case *c = w->c;
    (void)micro_batch, (void)err;
    int64_t v = c->config.vocab_size, rows = w->part.rows;
    float *logits = memory_alloc((size_t)(rows * v), sizeof *logits), *want = memory_alloc((size_t)(rows * v), sizeof *want);
    int32_t dealt[ROWS], whole[ROWS];
    batch_orders(SEQUENCES, LENGTH, w->g->extent[GRID_CP], dealt, whole);
    head_logits_all(&w->model, s, logits);
    for (int64_t r = 0; r < rows; r++)
        memcpy(want + r * v, c->golden + whole[w->g->place[GRID_CP] * rows + r] * v, (size_t)v * sizeof *want);
    double d = distance(logits, want, (size_t)(rows * v));
#pragma omp critical
    {
        c->worst = isnan(d) ? INFINITY : fmax(c->worst, d);
        c->compared += (int)rows;
    }
    free(logits);
    free(want);
    return 0;
}

static int rank_run(void *context, Grid *g)
{
    Worker w = {.c = context, .g = g};
    Error err = {{0}};
    Device *d = device_open("cpu", 1, &err);
    const PartStages stages = {1, 0};
    const PassWork work = {.context = &w, .load = load, .head = head};
    ModelPart part;
    Passes p;
    batch_new(&w.whole, SEQUENCES, LENGTH);
    batch_new(&w.part, SEQUENCES, LENGTH / g->extent[GRID_CP]);
    if (part_of_grid(&part, &w.c->config, g, &stages, &err) < 0 || folder_load(&w.model, w.c->folder, &(FolderLoad){.part = &part}, d, &err) < 0 ||
        passes_open(&p, &w.model, g, w.part.rows, MODE_SCORE, &err) < 0 || passes_run(&p, 1, w.part.rows, false, &work, &err) < 0) {
        w.c->error = err;
        return grid_failed(g, &err);
    }
    passes_close(&p);
    batch_free(&w.whole);
    batch_free(&w.part);
    model_close(&w.model);
    device_close(d);
    return 0;
}

static void test(const char *family)
{
    static const int grids[][GRID_DIMENSIONS] = {{1, 1, 1, 1}, {2, 1, 1, 1}, {4, 1, 1, 1}, {1, 2, 1, 1}, {1, 1, 2, 1}, {2, 1, 2, 1}, {1, 2, 2, 1}, {2, 2, 1, 1}, {2, 2, 2, 1}, {4, 2, 2, 1}};
    Case c = {.folder = ""};
    Safetensors file;
    char path[192];
    snprintf(c.folder, sizeof c.folder, "tests/data/models/%s", family);
    snprintf(path, sizeof path, "%s/config.json", c.folder);
    if (!ok(config_read(&c.config, path, &c.error) == 0, "%s: its configuration is read %s", family, c.error.text))
        return;
    snprintf(path, sizeof path, "%s/golden.safetensors", c.folder);
    if (!ok(safetensors_open(&file, path, &c.error) == 0, "%s: transformers' logits are there %s", family, c.error.text))
        return;
    c.tokens = (const int32_t *)(const void *)(file.data + safetensors_find(&file, "tokens")->begin);
    c.golden = (const float *)(const void *)(file.data + safetensors_find(&file, "logits")->begin);
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        const int *e = grids[i];
        c.worst = c.compared = 0;
        int status = grid_run(e, rank_run, &c, &c.error);
        ok(status == 0 && c.compared == ROWS * e[GRID_TP] && c.worst <= 1e-5, "%s, tp %d cp %d pp %d: transformers' logits, within %.2g %s", family, e[GRID_TP],
           e[GRID_CP], e[GRID_PP], c.worst, c.error.text);
    }
    safetensors_close(&file);
}

int main(void)
{
    static const char *const families[] = {"llama3", "qwen2", "qwen3", "mistral"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        test(families[i]);
    return tap_end();
}
