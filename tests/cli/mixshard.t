#!/bin/sh
# smoke
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/shard.sh"

# Three sources whose ids say where they are from: 1000s, 2000s, 3000s; documents of 3 to 40 tokens, the last id 0.
source_text() { # FIRST DOCUMENTS
    awk -v first="$1" -v n="$2" 'BEGIN { for (d = 0; d < n; d++) { m = 3 + (d * 7919 + first) % 38; s = "";
        for (i = 0; i + 1 < m; i++) s = s (first + (d * 31 + i * 17) % 900) " "; print s 0 } }'
}
source_text 1000 150 >"$T/a.txt"
source_text 2000 150 >"$T/b.txt"
source_text 3000 60 >"$T/c.txt"
for s in a b c; do shard_write "$T/$s" <"$T/$s.txt"; done
# ids of a mixed shard by source, beyond end-of-document ids: cut to those of token range
count() { shard_read "$1" | awk '{ for (i = 1; i <= NF; i++) if ($i) { k = int($i / 1000); break } n[k] += NF } END { print n[1] + 0, n[2] + 0, n[3] + 0 }'; }

ok "mixes three sources" mixshard -q a=0.5:"$T/a" b=0.3:"$T/b" c=0.2:"$T/c" --tokens 2000 --seq-len 16 --seed 3 --holdout 100 -o "$T/m"
# One document cut to a single end-of-document id has no source of its own.
is "the proportions are exact to a sequence" "$(count "$T/m/train" | awk '{ d = 0; split("1000 600 400", w); for (i = 1; i <= 3; i++) { e = $i - w[i]; if (e > 16 || e < -16) d++ } print d }')" 0
is "the mix has whole samples and the last one's last label" "$(wc -c <"$T/m/train.bin" | tr -d ' ')" 4002
is "a held-out shard has the tokens asked for" "$(wc -c <"$T/m/heldout-b.bin" | tr -d ' ')" 200
shard_read "$T/m/train" | sort -u >"$T/train.txt"
for s in a b c; do shard_read "$T/m/heldout-$s"; done | sort -u >"$T/heldout.txt"
is "no held-out document is trained on" "$(comm -12 "$T/train.txt" "$T/heldout.txt" | grep -c ' ')" 0
cat "$T/a.txt" "$T/b.txt" "$T/c.txt" | sort -u >"$T/all.txt"
is "whole documents come through, but for a cut one a source" "$(comm -23 "$T/train.txt" "$T/all.txt" | awk 'END { print NR <= 3 }')" 1
is "every stretch has the proportions" "$(shard_read "$T/m/train" | awk '{ k = int($1 / 1000); n[k] += NF; t += NF; if (t > 400 && (n[1] / t < .4 || n[1] / t > .6)) bad++ } END { print bad + 0 }')" 0
like "the manifest says what was used" "$(cat "$T/m/manifest.json")" '"used_tokens": 100[01]'
mixshard -q a=0.5:"$T/a" b=0.3:"$T/b" c=0.2:"$T/c" --tokens 2000 --seq-len 16 --seed 3 --holdout 100 -o "$T/m2"
same "the same seed gives the same bytes" "$T/m/train.bin" "$T/m2/train.bin"
same "and the same index" "$T/m/train.idx" "$T/m2/train.idx"
mixshard -q a=0.5:"$T/a" b=0.3:"$T/b" c=0.2:"$T/c" --tokens 2000 --seq-len 16 --seed 4 --holdout 100 -o "$T/m2"
fails 1 "differ" "another seed gives another order" sh -c 'cmp "$0" "$1" >&2' "$T/m/train.bin" "$T/m2/train.bin"

tokens=$(($(wc -c <"$T/c.bin") / 2))
mixshard -q c=1:"$T/c" --tokens $tokens --seq-len 16 -o "$T/whole"
is "a whole epoch has every document once" "$(shard_read "$T/whole/train" | sort | cksum)" "$(sort "$T/c.txt" | cksum)"
fails 1 "c: runs out" "a source that runs out is named" mixshard -q a=0.1:"$T/a" c=0.9:"$T/c" --tokens 4000 --seq-len 16 -o "$T/x"
is "and nothing is written" "$(ls "$T/x" 2>/dev/null)" ""
ok "--max-epochs allows it" mixshard -q c=1:"$T/c" --tokens $((2 * tokens)) --seq-len 16 --max-epochs c=2 -o "$T/two"
is "two epochs have every document twice" "$(shard_read "$T/two/train" | sort | uniq -c | awk '$1 != 2' | wc -l | tr -d ' ')" 0
mixshard -q c=1:"$T/c" --tokens $tokens --seq-len 16 --shuffle sequence -o "$T/sequence"
is "sequence shuffle keeps every token" "$(shard_read "$T/sequence/train" | tr ' ' '\n' | sort | cksum)" "$(tr ' ' '\n' <"$T/c.txt" | sort | cksum)"
is "sequence shuffle makes pieces of a sequence at most" "$(shard_read "$T/sequence/train" | awk 'NF > 16' | wc -l | tr -d ' ')" 0

mixshard -q a=1:"$T/a" b=0:"$T/b" --tokens 2000 --seq-len 10 --phase 0.25:a=1,b=1 --phase 0.25:b=1 -o "$T/p"
is "phases come in order, each with its weights" "$(shard_read "$T/p/train" | tr ' ' '\n' | awk '{ if ($1) k = int($1 / 1000); p = NR <= 1000 ? 1 : NR <= 1500 ? 2 : 3; if ($1) n[p, k]++; m[p] += $1 != 0 }
    END { x = n[2, 1] / m[2]; print (n[1, 1] == m[1]) (x > .45 && x < .55) (n[3, 2] == m[3]) }')" "111"
is "phases go on where the last one stopped" "$(shard_read "$T/p/train" | awk 'NF > 2' | sort | uniq -d | wc -l | tr -d ' ')" 0

echo "1 2 3" >"$T/d.txt"
cat "$T/a.txt" >>"$T/d.txt"
shard_write "$T/d" <"$T/d.txt"
mixshard -q a=0.5:"$T/a" d=0.5:"$T/d" --tokens 1000 --seq-len 16 --holdout 300 -o "$T/cross"
shard_read "$T/cross/heldout-a" | sed '$d' | sort >"$T/heldout.txt"
is "a document held out of one source is trained on in none" "$(shard_read "$T/cross/train" | sort | comm -12 - "$T/heldout.txt" | wc -l | tr -d ' ')" 0

shard_write "$T/a4" 4 <"$T/a.txt"
mixshard -q a=0.5:"$T/a" w=0.5:"$T/a4" --tokens 1000 --seq-len 16 --holdout 300 --max-epochs 2 -o "$T/widths"
is "nor where one shard has 16-bit and the other 32-bit ids" "$(shard_read "$T/widths/train" | sort | comm -12 - "$T/heldout.txt" | wc -l | tr -d ' ')" 0

echo "70000 5 6 7 0" >"$T/wide.txt"
shard_write "$T/wide" 4 <"$T/wide.txt"
ok "an int32 source makes an int32 mix" mixshard -q a=0.5:"$T/a" w=0.5:"$T/wide" --tokens 10 --seq-len 4 -o "$T/w"
is "with its ids" "$(shard_read "$T/w/train" | grep -c '^70000 5 6 7 0$')" 1
fails 1 "document 0: .*70000" "--vocab-size is checked" mixshard -q w=1:"$T/wide" --tokens 5 --seq-len 4 --vocab-size 1000 -o "$T/v"
is "and no shard appears" "$(ls "$T/v")" ""

annealed() { mixshard -q a=0.5:"$T/a" b=0.5:"$T/b" --tokens 1000 --seq-len 100 --phase "$1":b=1 -o "$T/short" 2>&1; }
like "a phase shorter than a sample is told" "$(annealed 0.02)" "^mixshard: warning: a share of 0.02 of 1001 tokens is no sample of 100"
is "one of a sample is not" "$(annealed 0.1)" ""
for j in 1 4; do mixshard -q -j $j a=0.5:"$T/a" b=0.5:"$T/b" --tokens 1000 --seq-len 16 --holdout 50 -o "$T/j$j"; done
is "-j changes nothing" "$(cd "$T/j1" && cat ./*.bin ./*.idx | cksum)" "$(cd "$T/j4" && cat ./*.bin ./*.idx | cksum)"

# Whole or not at all: the mix of a run that ends early does not appear, and an older one stays as it was.
began() { n=0; until ls "$1"/train.bin.tmp-* >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 3000 ] || return 1; sleep 0.01; done; }
files() { (cd "$1" && ls -A | grep -v '[.]tmp-' | xargs cksum); }
long="mixshard -q a=0.5:$T/a b=0.5:$T/b --tokens 1e12 --seq-len 16 --max-epochs 1e12 --holdout 50 --seed 9"
mixshard -q a=0.5:"$T/a" b=0.5:"$T/b" --tokens 1000 --seq-len 16 --holdout 50 --seed 1 -o "$T/kept"
files "$T/kept" >"$T/kept.txt"
for signal in KILL:137 TERM:75 USR1:75; do
    for folder in fresh kept; do
        $long -o "$T/$folder" 2>"$T/.err" &
        pid=$!
        began "$T/$folder"
        kill -s "${signal%:*}" $pid
        wait $pid 2>/dev/null
        is "SIG${signal%:*} in the middle: the status, $folder folder" $? "${signal#*:}"
        [ ${signal%:*} = KILL ] && { left=$(ls "$T/$folder" | grep -c '[.]tmp-'); [ "$left" -gt 0 ] && left=0; rm -f "$T/$folder"/*.tmp-*; } || left=$(ls "$T/$folder" | grep -c '[.]tmp-')
        is "SIG${signal%:*} in the middle: no unfinished file, $folder folder" "$left" 0
    done
    is "SIG${signal%:*} in the middle: nothing appears in a fresh folder" "$(ls -A "$T/fresh")" ""
    is "SIG${signal%:*} in the middle: an older mix stays" "$(files "$T/kept")" "$(cat "$T/kept.txt")"
done
printf '70000 5 6 7 0\n70000 8 9 0\n' >"$T/wider.txt"
shard_write "$T/wider" 4 <"$T/wider.txt"
fails 1 "70000" "an id that is too large, over an older mix" mixshard -q a=0.9:"$T/a" w=0.1:"$T/wider" --vocab-size 5000 --tokens 30 --seq-len 5 --holdout 2 -o "$T/kept"
is "leaves that as it was" "$(files "$T/kept")" "$(cat "$T/kept.txt")"
ok "a mix without held-out documents" mixshard -q a=0.5:"$T/a" b=0.5:"$T/b" --tokens 1000 --seq-len 16 -o "$T/kept"
is "leaves no older ones beside it" "$(ls "$T/kept" | tr '\n' ' ')" "manifest.json train.bin train.idx "
cp "$T/a.idx" "$T/kept/heldout-a.idx"
cp "$T/a.bin" "$T/kept/heldout-a.bin"
ok "a source where an older held-out shard would be" mixshard -q a=1:"$T/kept/heldout-a" --tokens 1000 --seq-len 16 -o "$T/kept"
same "stays" "$T/a.bin" "$T/kept/heldout-a.bin"
many=$(for i in $(seq 100); do echo "s$i=1:$T/a"; done)
ok "a hundred sources with held-out documents" mixshard -q $many --tokens 4000 --seq-len 16 --holdout 10 -o "$T/many"
is "have a shard each" "$(ls "$T/many" | grep -c 'heldout.*idx')" 100

fails 1 "No such file" "a missing shard" mixshard a=1:"$T/none" --tokens 10 -o "$T/x"
mkdir "$T/dir.idx"
fails 1 "regular|directory" "a folder for an index" mixshard a=1:"$T/dir" --tokens 10 -o "$T/x"
printf 'not an index at all, but long enough' >"$T/bad.idx"; : >"$T/bad.bin"
fails 1 "not a Megatron index" "another file" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy() { cp "$T/c.idx" "$T/bad.idx"; cp "$T/c.bin" "$T/bad.bin"; }
shard_copy; byte "$T/bad.idx" 18 377 377 377 377 377 377 377 177
fails 1 "claims" "an absurd number of sequences" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 26 377 377 377 377 377 377 377 377
fails 1 "claims" "an absurd number of documents" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 34 377 377 377 177
fails 1 "document 0 lies outside" "an absurd length" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 34 377 377 377 377
fails 1 "document 0 lies outside" "a negative length" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 281 200
fails 1 "document 0 lies outside" "a negative pointer" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 17 6
fails 1 "dtype" "another type" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; byte "$T/bad.idx" 9 2
fails 1 "version" "another version" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; head -c 100 "$T/c.idx" >"$T/bad.idx"
fails 1 "claims" "a truncated index" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
shard_copy; head -c 100 "$T/c.bin" >"$T/bad.bin"
fails 1 "lies outside" "truncated tokens" mixshard a=1:"$T/bad" --tokens 10 -o "$T/x"
: >"$T/empty.txt"
shard_write "$T/empty" <"$T/empty.txt"
fails 1 "e: runs out" "an empty shard" mixshard e=1:"$T/empty" --tokens 10 -o "$T/x"
fails 1 "c: --holdout" "more held out than there is" mixshard c=1:"$T/c" --tokens 10 --holdout 1e6 -o "$T/x"
fails 1 "" "an output folder that cannot be" mixshard a=1:"$T/a" --tokens 10 -o /dev/null/x
fails 2 "not NAME=WEIGHT:PREFIX" "an operand of another form" mixshard "$T/a" --tokens 10 -o "$T/x"
fails 2 "a=-1:.*: the weight is no number from 0" "a negative weight" mixshard a=-1:"$T/a" --tokens 10 -o "$T/x"
fails 2 "twice" "a name twice" mixshard a=1:"$T/a" a=1:"$T/b" --tokens 10 -o "$T/x"
fails 2 "letters" "a name with a sign" mixshard a+b=1:"$T/a" --tokens 10 -o "$T/x"
fails 2 "sum to 0" "no weight at all" mixshard a=0:"$T/a" --tokens 10 -o "$T/x"
fails 2 "no source z" "a phase of an unknown source" mixshard a=1:"$T/a" --tokens 10 --phase 0.1:z=1 -o "$T/x"
fails 2 "more than 1" "phases of more than the whole" mixshard a=1:"$T/a" --tokens 10 --phase 0.6:a=1 --phase 0.6:a=1 -o "$T/x"
fails 2 "max-epochs" "epochs that are none" mixshard a=1:"$T/a" --tokens 10 --max-epochs none -o "$T/x"
fails 2 "tokens" "no --tokens" mixshard a=1:"$T/a" -o "$T/x"
fails 2 "-o" "no -o" mixshard a=1:"$T/a" --tokens 10
fails 2 "unknown|no such" "an unknown option" mixshard --nonsense
is "--dry-run writes nothing" "$(mixshard a=1:"$T/a" --tokens 10 --dry-run -o "$T/dry" 2>/dev/null; echo $?; ls "$T/dry" 2>/dev/null)" 0
done_testing
