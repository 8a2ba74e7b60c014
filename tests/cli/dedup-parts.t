# smoke
# dedup sign, sort, match, verify, apply: a corpus in parts has the answer of one process.
. "$(dirname "$0")/tap.sh"
P=$(cd "$(dirname "$0")/../.." && pwd)/pipelines/dedup-parts
# Documents that are copies of 30 others, with up to 12 of 100 words changed; some short, some without an address or an id.
awk 'BEGIN {
    srand(5)
    for (i = 0; i < 900; i++) {
        if (rand() < 0.2) printf "{"; else printf "{\"id\":\"d%d\",", i
        if (rand() < 0.5) printf "\"url\":\"u%d\",", int(rand() * 300)
        printf "\"text\":\""
        base = int(rand() * 30) * 1000
        words = rand() < 0.1 ? 4 : 100
        changed = int(rand() * 13)
        for (w = 0; w < words; w++) text[w] = base + w
        for (c = 0; c < changed; c++) text[int(rand() * words)] = int(rand() * 1e6)
        for (w = 0; w < words; w++) printf "%sw%d", w ? " " : "", text[w]
        print "\"}"
    }
}' >"$T/all"
cd "$T" || exit 1
split -l 300 all part.
: >part.ad
for method in --fuzzy "--fuzzy --threshold 0.65 --ngram 3" --exact --url; do
    rm -rf out
    ok "three parts and an empty one, $method" env METHOD="$method" KEYS=3 sh "$P" out part.aa part.ab part.ad part.ac
    dedup $method --removed one.removed -o one part.aa part.ab part.ad part.ac
    cat out/part.aa out/part.ab out/part.ad out/part.ac >many
    same "have what one process keeps" many one
    cat out/removed/part.aa out/removed/part.ab out/removed/part.ad out/removed/part.ac >many.removed
    same "and what it removes, for its reasons" many.removed one.removed
done
rm -rf out
ok "rounds that name one pair a key" sh -c 'sed s/most=4/most=1/ "$1" >one-by-one; sh one-by-one out part.aa part.ab' - "$P"
dedup --fuzzy -o one part.aa part.ab
cat out/part.aa out/part.ab >many
same "end with the same documents" many one

for p in aa ab ac; do dedup sign --fuzzy -o $p part.$p; done
dedup sort -o keys aa ab ac
dedup match -o pairs keys
dedup verify -o matches aa ab ac pairs
is "apply says how many are undecided" "$(dedup apply --fates fates aa ab ac matches | sed 's/[1-9][0-9]*/some/')" some
fails 1 "fates: documents are undecided; another round" "no documents leave before all are decided" dedup apply --fates fates --part 1/3 aa ab ac part.aa
fails 1 "matches: is of other parts, or of the same in another order, than ab" "parts in another order" dedup apply --fates fates ab aa ac matches
fails 1 "pairs: is of other parts" "a part that is missing" dedup verify -o x aa ab pairs
dedup sign --fuzzy --threshold 0.7 -o other part.ab
fails 1 "other: was signed with other settings than aa" "parts signed in two ways" dedup sort -o x aa other
fails 1 "keys: holds sorted keys, which this step does not take" "files of another step" dedup verify -o x aa ab ac keys
head -c 1000 keys >cut
fails 1 "cut: is no file of dedup's steps, or was cut off" "a file cut off" dedup match -o x cut
{ head -c 24 keys; tail -c 80 keys; } >less
fails 1 "less: its sizes disagree with its length" "a file with a hole" dedup match -o x less
fails 1 "holds no fates" "fates that are none" dedup match --fates pairs -o x keys
left=1 most=4
while [ "$left" != 0 ]; do
    dedup match --fates fates --most $most -o pairs keys && dedup verify -o matches aa ab ac pairs && left=$(dedup apply --fates fates aa ab ac matches) || break
    most=$((most * 4))
done
is "all are decided" "$left" 0
fails 1 "part.ab:[0-9]+: in aa another document stands here" "another part's documents" dedup apply --fates fates --part 1/3 -o x aa ab ac part.ab
sed '$d' part.aa >short
fails 1 "aa: 300 documents were signed, 299 came" "a document too few" dedup apply --fates fates --part 1/3 -o x aa ab ac short
cat part.aa part.aa >long
fails 1 "long:301: aa has no more documents" "a document too many" dedup apply --fates fates --part 1/3 -o x aa ab ac long
fails 1 "3 files of signatures" "a share of another number of parts" dedup apply --fates fates --part 1/2 -o x aa ab ac part.aa
fails 1 "not I/N" "a share that is none" dedup sort --part 4/3 -o x aa
is "nothing is written then" "$([ -e x ] || echo none)" none
is "--stats counts" "$(dedup apply --fates fates --part 1/3 --stats s -o x aa ab ac part.aa; sed 's/,"skipped.*//; s/,"bytes_in.*//' s) $(wc -l <x | tr -d ' ')" "{\"documents_in\":300 $(wc -l <x | tr -d ' ')"
fails 2 "one method at a time" "two methods at once" dedup sign --fuzzy --exact -o x part.aa
done_testing
