/* smoke: random numbers, number types, packing, blends and schedules against known values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/dtype.h"
#include "base/random.h"
#include "base/sha256.h"
#include "base/thread.h"
#include "data/batch.h"
#include "data/blend.h"
#include "tests/unit/tap.h"
#include "train/schedule.h"

static void test_sha256(void)
{
    static const struct {
        size_t count; /* times 'a', behind "" or "abc" */
        const char *text, *hex;
    } known[] = {{0, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                 {0, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                 {0, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
                 {1000000, "", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
    static char many[1000000];
    memset(many, 'a', sizeof many);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char hex[65];
        sha256_hex(known[i].count ? many : known[i].text, known[i].count ? known[i].count : strlen(known[i].text), hex);
        ok(strcmp(hex, known[i].hex) == 0, "SHA-256 of FIPS 180's example %zu", i);
    }
}

static void test_random(void)
{
    uint32_t r[4];
    random_block(0, 0, 0, r); /* Random123's kat_vectors, philox4x32 10 rounds, zeros */
    ok(r[0] == 0x6627e8d5 && r[1] == 0xe169c58d && r[2] == 0xbc57ac4c && r[3] == 0x9b00dbd8, "Philox's published vector");
    char seen[1000] = {0};
    int distinct = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t j = random_permute(7, RANDOM_SHUFFLE, i, 1000);
        distinct += j < 1000 && !seen[j]++;
    }
    ok(distinct == 1000, "random_permute is a permutation");
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double x = random_normal(1, RANDOM_INIT, i);
        sum += x;
        squares += x * x;
    }
    ok(fabs(sum / 1e5) < 0.02 && fabs(squares / 1e5 - 1) < 0.02, "random_normal has mean 0 and variance 1");
}

static float bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static void test_dtype(void)
{
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = {{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80}, {0x7f800001, 0x7fc0}, {0x80008000, 0x8000}};
    int good = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        good &= f32_to_bf16(bits(cases[i].from)) == cases[i].to;
    ok(good, "f32 to bf16, the corner cases");
    ok(f32_to_f16(0.1f) == 0x2e66 && f32_to_f16(1.0f / 3) == 0x3555 && f32_to_f16(65519.99f) == 0x7bff &&
           f32_to_f16(0x1p-24f) == 1 && f32_to_f16(6.1e-5f) == 0x03ff && f32_to_f16(65520.0f) == 0x7c00,
       "f32 to f16, the corner cases");
    good = 1;
    for (uint32_t h = 0; h < 0x10000; h++)
        good &= (h & 0x7fff) > 0x7c00 || f32_to_f16(f16_to_f32((uint16_t)h)) == h;
    ok(good, "every f16 comes back from f32");
}

static void test_data(void)
{
    int64_t lengths[] = {3, 7, 5, 5, 10, 2, 8};
    size_t bin[7];
    int64_t offset[7], used[7] = {0};
    size_t bins = batch_pack_bfd(lengths, 7, 10, bin, offset);
    for (int i = 0; i < 7; i++)
        used[bin[i]] += lengths[i];
    ok(bins == 4 && used[0] == 10 && used[1] == 10 && used[2] == 10 && used[3] == 10, "best-fit decreasing fills four bins");
    double weights[] = {.5, .3, .2};
    Blend b;
    blend_new(&b, weights, 3);
    char got[14] = {0};
    uint64_t index;
    for (int i = 0; i < 13; i++)
        got[i] = (char)('0' + blend_next(&b, &index));
    ok(strcmp(got, "0120102010012") == 0, "Megatron's blend: %s", got);
    blend_seek(&b, 5);
    ok(blend_next(&b, &index) == 0 && index == 2, "a blend finds its place again");
    blend_free(&b);
}

static void test_schedule(void)
{
    Schedule s;
    Error err;
    ok(schedule_make(&s, "cosine", 100, 10, 0, 1, 0.1, &err) == 0 && schedule_rate(&s, 0) == 0.1 && schedule_rate(&s, 9) == 1 &&
           fabs(schedule_rate(&s, 54) - 0.55) < 1e-12 && fabs(schedule_rate(&s, 99) - 0.1) < 1e-12,
       "cosine: warm-up, half way, end");
    ok(schedule_make(&s, "wsd", 100, 10, 0.2, 1, 0, &err) == 0 && schedule_rate(&s, 79) == 1 && schedule_rate(&s, 80) < 1 &&
           schedule_rate(&s, 99) == 0,
       "wsd: stable, then falling to its end");
    ok(schedule_make(&s, "wsd", 100, 3, 0.07, 1, 0, &err) == 0 && schedule_rate(&s, 92) == 1 && schedule_rate(&s, 93) < 1 && schedule_decay(0.071, 100) == 8,
       "wsd: 0.07 of 100 steps are the last seven");
    ok(schedule_make(&s, "linear", 20, 40, 0.2, 1, 0, &err) == 0 && schedule_rate(&s, 0) == 1.0 / 40 && schedule_rate(&s, 19) == 0.5,
       "a warm-up longer than the run is not made shorter");
    ok(schedule_make(&s, "steps", 1, 0, 0, 1, 0, &err) < 0 && schedule_make(&s, "cosine", 1, 0, 0, NAN, 0, &err) < 0,
       "unknown names and NaN are refused");
}

static int sum_work(void *context, size_t index, int thread, Error *err)
{
    (void)thread;
    __atomic_fetch_add((size_t *)context, index, __ATOMIC_RELAXED);
    return index == 700 ? error_set(err, "item 700") : 0;
}

int main(void)
{
    test_sha256();
    test_random();
    test_dtype();
    test_data();
    test_schedule();
    size_t sum = 0;
    Error err;
    ok(thread_parallel(4, 500, sum_work, &sum, &err) == 0 && sum == 500 * 499 / 2, "thread_parallel does every item once");
    ok(thread_parallel(4, 1000, sum_work, &sum, &err) < 0 && strcmp(err.text, "item 700") == 0, "and returns the error");
    return tap_end();
}
