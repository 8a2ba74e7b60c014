/* The special cases of the English rules, written out from short lists: a blank marks a cut. */
#include <string.h>
#include "text/words_en.h"

enum { SLOTS = 4096 };
static Special table[SLOTS];
uint32_t special_lengths[256], special_ends[256];

/* Stems, each also with a capital, and endings, each also without its apostrophes ("do n't", "do nt"). */
static const char *const contractions[][2] = {
    {"i", "'m|'m a"},
    {"i you he she it we they who what when where why how there that this these those", "'ll|'ll 've|'d|'d 've"},
    {"i you we they who what when where why how there these those could might must should would", "'ve"},
    {"you we they who what when where why how there these those", "'re"},
    {"he she it who what when where why how there that this", "'s"},
    {"ca could do does did had may might must need ought sha should wo would", "n't|n't 've"},
    {"ai are is was were have has dare", "n't"},
    {"not", "'ve"},
};
/* What reads as another word without its apostrophe is left alone. */
static const char *const excluded[] = {"ill", "its", "hell", "shell", "shed", "were", "well", "whore"};

/* Also with a capital. */
static const char *const cut_words[] = {"can not", "gon na", "got ta", "let 's", "c'm on", "how 'd 'y", "doin'", "goin'", "nothin'", "nuthin'", "ol'",
                                        "somethin'", "lovin'", "havin'", "ma'am", "o'clock"};
static const char *const words[] = {"y' all", "y all", "'em", "'ll", "'nuff", "'s", "'S", "‘s", "‘S", "'re", "'d", "'Cause", "'cause", "'cos", "'Cos",
                                    "'coz", "'Coz", "'cuz", "'Cuz", "'bout", "and/or", "w/o", "C++", "<space>", "'", "''", "\\\")", "\\t", "\\n", "—"};
/* Behind each stands a full stop. */
static const char abbreviations[] =
    "Mt Ak Ala Apr Ariz Ark Aug Calif Colo Conn Dec Del Feb Fla Ga Ia Id Ill Ind Jan Jul Jun Kan Kans Ky La Mar Mass Mich Minn Miss "
    "N.C N.D N.H N.J N.M N.Y Neb Nebr Nev Nov Oct Okla Ore Pa S.C Sep Sept Tenn Va Wash Wis "
    "a.m Adm Bros co Co Corp D.C Dr e.g E.g E.G Gen Gov i.e I.e I.E Inc Jr Ltd Md Messrs Mo Mont Mr Mrs Ms p.m Ph.D Prof Rep Rev Sen St vs v.s "
    "a b c d e f g h i j k l m n o p q r s t u v w x y z ä ö ü";
/* Faces: eyes, an optional nose, mouths; others are written whole. */
static const char *const faces[][3] = {
    {":", "-", ") )) ))) ( (( ((( ] } / | P p O o 0 * > X x D 3"}, {":", "", "() 1 o) ') '( '-) '-("}, {"=", "", ") ( ] [ / | 3 D"}, {";", "-", ") D"},
    {"8", "-", ") D"},
};
static const char others[] =
    "(: (-: (= [: [-: [= (o: (-8 (; (-; ): )-: >:( ]= >:o xD XD xDD XDD "
    "^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ "
    "<3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>";

/* Of the first and the last bytes and the length. */
static inline unsigned hash(const char *b, size_t length)
{
    uint64_t x = 0, y = 0;
    uint32_t u, v;
    if (length >= 8) {
        memcpy(&x, b, 8);
        memcpy(&y, b + length - 8, 8);
    } else if (length >= 4) {
        memcpy(&u, b, 4);
        memcpy(&v, b + length - 4, 4);
        x = u | (uint64_t)v << 32;
    } else {
        x = (unsigned char)b[0] | (unsigned)(unsigned char)b[length / 2] << 8 | (unsigned)(unsigned char)b[length - 1] << 16;
    }
    return (unsigned)((x ^ (y * 3 + length) * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u >> 52);
}

static Special *slot_of(const char *b, size_t length)
{
    unsigned i = hash(b, length);
    while (table[i % SLOTS].length && !(table[i % SLOTS].length == length && memcmp(table[i % SLOTS].text, b, length) == 0))
        i++;
    return &table[i % SLOTS];
}

const Special *special_find(const char *b, const char *e)
{
    size_t length = (size_t)(e - b);
    if (length == 0 || !special_possible(b, length))
        return NULL;
    const Special *s = slot_of(b, length);
    return s->length ? s : NULL;
}

/* A text with blanks where it is cut; where it has apostrophes, the curly form too. */
static void add(const char *text)
{
    for (int curly = 0; curly < 1 + (strchr(text, '\'') != NULL); curly++) {
        Special s = {.cuts = 1};
        for (const char *p = text; *p; p++) {
            if (*p == ' ') {
                s.cuts |= 1u << s.length;
            } else if (*p == '\'' && curly) {
                memcpy(s.text + s.length, "\xe2\x80\x99", 3);
                s.length += 3;
            } else {
                s.text[s.length++] = *p;
            }
        }
        *slot_of(s.text, s.length) = s;
        special_lengths[(unsigned char)*s.text] |= 1u << s.length;
        special_ends[(unsigned char)s.text[s.length - 1]] |= 1u << s.length;
    }
}

/* The next item of a list, items parted by `between`, copied into out; false at the end. */
static bool next_item(const char **list, char between, char out[SPECIAL_BYTES * 2])
{
    if (!**list)
        return false;
    size_t n = 0;
    while (**list && **list != between)
        out[n++] = *(*list)++;
    *list += **list != 0;
    out[n] = 0;
    return true;
}

static void add_capital(const char *text, const char *end)
{
    char both[SPECIAL_BYTES * 4];
    for (int capital = 0; capital < 2; capital++) {
        both[0] = capital ? (char)(*text & ~32) : *text;
        strcpy(both + 1, text + 1);
        strcat(both, end);
        add(both);
    }
}

static void add_contractions(void)
{
    char stem[SPECIAL_BYTES * 2], end[SPECIAL_BYTES * 2], tail[SPECIAL_BYTES * 2], whole[SPECIAL_BYTES * 4];
    for (size_t i = 0; i < sizeof contractions / sizeof *contractions; i++)
        for (const char *stems = contractions[i][0]; next_item(&stems, ' ', stem);)
            for (const char *ends = contractions[i][1]; next_item(&ends, '|', end);)
                for (int bare = 0; bare < 2; bare++) {
                    size_t n = 0;
                    tail[n++] = ' ';
                    for (const char *p = end; *p; p++)
                        if (!(bare && *p == '\''))
                            tail[n++] = *p;
                    tail[n] = 0;
                    strcat(strcpy(whole, stem), tail + 1);
                    bool skip = false;
                    for (size_t k = 0; k < sizeof excluded / sizeof *excluded; k++)
                        skip |= strcmp(whole, excluded[k]) == 0;
                    if (!skip)
                        add_capital(stem, tail);
                }
}

void special_build(void)
{
    char item[SPECIAL_BYTES * 2], whole[SPECIAL_BYTES * 4];
    add_contractions();
    for (size_t i = 0; i < sizeof cut_words / sizeof *cut_words; i++)
        add_capital(cut_words[i], "");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add(words[i]);
    for (const char *p = abbreviations; next_item(&p, ' ', item);)
        add(strcat(item, "."));
    for (const char *p = others; next_item(&p, ' ', item);)
        add(item);
    for (size_t i = 0; i < sizeof faces / sizeof *faces; i++)
        for (const char *p = faces[i][2]; next_item(&p, ' ', item);)
            for (int nose = 0; nose <= (*faces[i][1] != 0); nose++)
                add(strcat(strcat(strcpy(whole, faces[i][0]), nose ? faces[i][1] : ""), item));
    for (int hour = 1; hour <= 12; hour++)
        for (int half = 0; half < 4; half++) {
            size_t n = 0;
            if (hour >= 10)
                whole[n++] = '1';
            whole[n++] = (char)('0' + hour % 10);
            strcpy(whole + n, (const char *const[]){" am", " pm", " a.m.", " p.m."}[half]);
            add(whole);
        }
    for (const char *u = "cfkCFK"; *u; u++) {
        const char degree[] = {"°"[0], "°"[1], ' ', *u, ' ', '.', 0};
        add(degree);
    }
}

void special_each(void (*visit)(Special *s))
{
    for (size_t i = 0; i < SLOTS; i++)
        if (table[i].length)
            visit(&table[i]);
}
