# What reads and writes, against a hostile world: odd files in, full disks, signals, links, devices and closed pipes out.
. "$(dirname "$0")/tap.sh"
one='{"id":"a","text":"a"}'
lines() { i=0; while [ $i -lt "$1" ]; do i=$((i + 1)); printf '{"id":"%s","text":"line %s of some length to fill a block with"}\n' $i $i; done; }
mode() { stat -c %a "$1"; }
left() { ls "$1" | grep -c '\.tmp-' || true; }
lines 2000 >"$T/some.jsonl"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sed "s/\"id\":\"/&$i-/;s/\"text\":\"/&$i /" "$T/some.jsonl"; done >"$T/many.jsonl"
tagged="qfilter --rules c4 --tag -q" # one line out for each in

# ---- records ----
pass() { printf '%s\n' "$2" >"$T/in"; dedup --exact <"$T/in" >"$T/got" 2>"$T/.err"; same "passes as it stands: $1" "$T/in" "$T/got"; }
pass "an escaped key" '{"\u0074ext":"a","m":1}'
pass "a pair of surrogates" '{"text":"\ud83d\ude00"}'
pass "unknown fields that stand twice" '{"text":"a","m":1,"m":2}'
pass "a whole number of 30 digits" '{"text":"a","m":123456789012345678901234567890}'
pass "numbers past a double" "{\"text\":\"a\",\"m\":[1e400,-1e400,$(printf '9%.0s' $(seq 400))],\"s\":\"1e400 \\\\\\\" 1e400\"}"
pass "an id of 64 bits without a sign" '{"text":"a","id":18446744073709551615}'
pass "an id beside a number of 30 digits" '{"text":"a","id":1234567890123456789,"m":123456789012345678901234567890}'
pass "an escaped NUL" '{"text":"a\u0000b"}'
pass "250 levels" "{\"text\":\"a\",\"m\":$(printf '[%.0s' $(seq 250))$(printf ']%.0s' $(seq 250))}"
printf '\357\273\277%s\r\n\r\n \n%s' "$one" '{"text":"b"}' >"$T/in"
printf '%s\r\n%s\n' "$one" '{"text":"b"}' >"$T/want"
dedup --exact "$T/in" >"$T/got"
same "byte order mark, CRLF, blank lines, no newline at the end" "$T/want" "$T/got"
printf '\n' >"$T/in"
ok "a file of one blank line" dedup --exact "$T/in"
bpe-train -q --vocab-size 280 -o "$T/v" "$T/some.jsonl"
parted() { tokenize --tokenizer "$T/v" --text --ids | tokenize --tokenizer "$T/v" --decode --text | tr '\n' '|'; }
is "a first line of one letter ends at its newline" "$(echo a | parted)" "a|"
is "also where the second line comes later" "$({ echo a; sleep 0.2; echo b; } | parted)" "a|b|"
refuse() { printf "$2" >"$T/in"; fails 1 "in:2: $3" "refused with its line: $1" dedup --exact "$T/in"; }
refuse "a lone surrogate" '{"text":"a"}\n{"text":"\\ud83d"}\n' "bad escape or lone surrogate"
refuse "a lone surrogate that nobody reads" '{"text":"a"}\n{"text":"a","m":"\\ude00"}\n' "bad escape or lone surrogate"
refuse "a field twice, once escaped" '{"text":"a"}\n{"text":"a","\\u0074ext":"b"}\n' "field 'text' stands twice"
refuse "an id past a double" '{"text":"a"}\n{"text":"a","id":1e400}\n' "bad number"
refuse "a number that is none beside one past a double" '{"text":"a"}\n{"text":"a","m":01,"n":1e400}\n' "bad number"
refuse "a raw NUL" '{"text":"a"}\n{"text":"a\000b"}\n' "raw control character"
refuse "a NUL behind the record" '{"text":"a"}\n{"text":"a"}\000\n' "malformed"
refuse "an overlong form" '{"text":"a"}\n{"text":"\300\200"}\n' "invalid UTF-8"
refuse "a surrogate in UTF-8" '{"text":"a"}\n{"text":"\355\240\200"}\n' "invalid UTF-8"
refuse "two records on a line" '{"text":"a"}\n{"text":"a"}{"text":"b"}\n' "malformed"
refuse "NaN" '{"text":"a"}\n{"text":"a","m":NaN}\n' "malformed"
printf '\377\376{\000}\000' >"$T/in"
fails 1 "in:1: invalid UTF-8 .*UTF-16" "UTF-16 is named" dedup --exact "$T/in"
{ echo "$one"; printf '{"text":"\377"}\n\n[]\n'; echo '{"text":"b"}'; } >"$T/in"
is "--on-error=skip writes the others" "$(dedup --exact --on-error=skip "$T/in" 2>"$T/.err" | wc -l)" 2
like "and says how many and where the first was" "$(cat "$T/.err")" "^dedup: warning: 2 malformed records skipped, the first: .*in:2: invalid UTF-8"
# What came before is written, whatever the batches and threads.
{ head -n 1500 "$T/some.jsonl"; echo '{'; tail -n 500 "$T/some.jsonl"; } >"$T/in"
head -n 1500 "$T/some.jsonl" >"$T/want"
for how in "-j 1" "-j 4"; do
    dedup --exact $how "$T/in" >"$T/got" 2>"$T/.err"
    is "a malformed record ends the program ($how)" "$?" 1
    same "all records before it are written ($how)" "$T/want" "$T/got"
done
dedup --exact "$T/some.jsonl" "$T/nothing" >"$T/got" 2>"$T/.err"
same "so are those before a file that is not there" "$T/some.jsonl" "$T/got"
is "an empty file" "$(: | dedup --exact | wc -c)" 0
name=$T/$(printf 'long%.0s' $(seq 60))
cp "$T/some.jsonl" "$name"
printf '{"text":"one"}\n{"text":"one"}\n' >"$name"
dedup --exact --removed "$T/r" "$name" >/dev/null
like "FILE:LINE is whole where the name is long" "$(cat "$T/r")" "\"kept\":\"$name:1\""

# Long work begins when its result has a place: nobody waits for the end of the input.
endless() { { cat "$T/some.jsonl"; sleep 20; } | timeout 10 "$@"; }
fails 1 "/dev/null: Not a directory" "a folder that cannot be made is told at once" endless bpe-train --vocab-size 300 -o /dev/null/v
echo '{' >"$T/in"
fails 1 "in:1: malformed" "a vocabulary that comes to nothing" bpe-train --vocab-size 300 -o "$T/none" "$T/in"
ok "leaves no folder" test ! -e "$T/none"

# ---- compressed input ----
gzip -c "$T/some.jsonl" >"$T/a.gz"
plain() { dedup --exact "$2" >"$T/got" 2>"$T/.err"; same "$1" "$T/some.jsonl" "$T/got"; }
awk '{srand(NR); for (i = 0; i < 40; i++) printf "%c", 97 + rand() * 26; print ""}' "$T/some.jsonl" >"$T/random"
gzip -c "$T/random" | head -c 30000 >"$T/in"
tokenize --tokenizer "$T/v" --text --ids "$T/in" 2>"$T/.err" | tokenize --tokenizer "$T/v" --text --decode >"$T/got"
gzip -dc "$T/in" 2>/dev/null | head -n "$(wc -l <"$T/got")" >"$T/want"
ok "truncated gzip: most lines before the end are through" test "$(wc -l <"$T/got")" -gt 500
same "and are right" "$T/want" "$T/got"
cut() { head -c "$3" "$2" >"$T/in"; fails 1 "in: compressed data ends too early" "$1" dedup --exact -o "$T/out" "$T/in"; }
plain gzip "$T/a.gz"
{ head -c 20 "$T/some.jsonl" | gzip -c; tail -c +21 "$T/some.jsonl" | gzip -c; : | gzip -c; } >"$T/b.gz"
plain "members that begin within a line" "$T/b.gz"
{ cat "$T/a.gz"; head -c 512 /dev/zero; } >"$T/b.gz"
plain "padding of zeros" "$T/b.gz"
size=$(wc -c <"$T/a.gz")
for n in 2 5 100 $((size - 9)) $((size - 8)) $((size - 1)); do cut "gzip cut at $n" "$T/a.gz" "$n"; done
{ head -c $((size - 8)) "$T/a.gz"; printf '\001\002\003\004'; tail -c 4 "$T/a.gz"; } >"$T/in"
fails 1 "in: damaged gzip data .incorrect data check" "a wrong checksum" dedup --exact -o "$T/out" "$T/in"
{ cat "$T/a.gz"; echo x; } >"$T/in"
fails 1 "in: garbage behind the compressed data" "garbage behind gzip" dedup --exact -o "$T/out" "$T/in"
is "nothing appeared" "$(ls "$T" | grep -c '^out')" 0
is "an empty member" "$(: | gzip -c | dedup --exact | wc -c)" 0
printf '\3757zXZ\000\000' >"$T/in"
fails 1 "in: xz is not read" "another compression is named" dedup --exact "$T/in"
fails 1 "xz is not written" "and not written plainly under its suffix" dedup --exact -o "$T/out.xz" "$T/some.jsonl"
if command -v zstd >/dev/null; then
    zstd -qc --check "$T/some.jsonl" >"$T/a.zst"
    plain zstd "$T/a.zst"
    { printf '\120\052\115\030\003\000\000\000abc'; head -c 20 "$T/some.jsonl" | zstd -qc; tail -c +21 "$T/some.jsonl" | zstd -qc; } >"$T/b.zst"
    plain "frames, and one to be skipped" "$T/b.zst"
    zstd -qc --long=31 -1 <"$T/some.jsonl" >"$T/b.zst"
    plain "a window of 2 GiB" "$T/b.zst"
    size=$(wc -c <"$T/a.zst")
    for n in 4 6 100 $((size - 1)); do cut "zstd cut at $n" "$T/a.zst" "$n"; done
    { cat "$T/a.zst"; echo x; } >"$T/in"
    fails 1 "in: garbage behind the compressed data" "garbage behind zstd" dedup --exact "$T/in"
    dedup --exact -o "$T/c.zst" "$T/some.jsonl"
    zstd -qdc "$T/c.zst" >"$T/got"
    same "output named .zst" "$T/some.jsonl" "$T/got"
else
    skip zstd "zstd is not installed"
fi
dedup --exact -o "$T/c.gz" "$T/some.jsonl"
gzip -dc "$T/c.gz" >"$T/got"
same "output named .gz" "$T/some.jsonl" "$T/got"

# ---- the output's name ----
mkdir "$T/o"
(umask 027 && dedup --exact -o "$T/o/new" "$T/some.jsonl")
is "a new file has the mode that umask leaves" "$(mode "$T/o/new")" 640
chmod 604 "$T/o/new"
dedup --exact -o "$T/o/new" "$T/some.jsonl"
is "one that is replaced keeps its own" "$(mode "$T/o/new")" 604
cp "$T/some.jsonl" "$T/o/self"
ok "-o may be an input" dedup --exact -o "$T/o/self" "$T/o/self"
same "and is whole" "$T/some.jsonl" "$T/o/self"
cp "$T/some.jsonl" "$T/o/self"
fails 1 "self: is the output too" ">> FILE of an input is refused" sh -c "dedup --exact $T/o/self >>$T/o/self"
same "and nothing was added" "$T/some.jsonl" "$T/o/self"
ln -s new "$T/o/link"
ln -s later "$T/o/dangling"
ln -s round "$T/o/round"
dedup --exact -o "$T/o/link" "$T/some.jsonl"
dedup --exact -o "$T/o/dangling" "$T/some.jsonl"
is "links stay links" "$(readlink "$T/o/link") $(readlink "$T/o/dangling")" "new later"
same "what they name is written, also where it was not there" "$T/some.jsonl" "$T/o/later"
fails 1 "round: Too many levels" "a link to itself" dedup --exact -o "$T/o/round" "$T/some.jsonl"
fails 1 "o: is a directory" "a folder" dedup --exact -o "$T/o" "$T/some.jsonl"
fails 1 "nowhere/x: No such file" "a folder that is not there" dedup --exact -o "$T/nowhere/x" "$T/some.jsonl"
fails 1 "No such file" "an empty name" dedup --exact --output= "$T/some.jsonl"
fails 1 "is the file of two outputs" "two outputs with one name" dedup --exact -o "$T/o/two" --removed "$T/o/./two" "$T/some.jsonl"
mkfifo "$T/fifo"
cat "$T/fifo" >"$T/got" &
dedup --exact -o "$T/fifo" "$T/some.jsonl"
wait
same "a FIFO" "$T/some.jsonl" "$T/got"
{ echo first; dedup --exact -o /dev/stdout "$T/some.jsonl"; echo last; } >"$T/got"
{ echo first; cat "$T/some.jsonl"; echo last; } >"$T/want"
same "/dev/stdout is what the shell has opened" "$T/want" "$T/got"
ok "/dev/null" dedup --exact -o /dev/null "$T/some.jsonl"
fails 1 "/dev/full: No space left" "/dev/full as -o" dedup --exact -o /dev/full "$T/some.jsonl"
fails 1 "standard output: No space left" "/dev/full as standard output" sh -c "dedup --exact $T/many.jsonl >/dev/full"
fails 1 "standard output: Bad file descriptor" "a closed standard output" sh -c "dedup --exact $T/some.jsonl >&-"
fails 1 "stdin: Bad file descriptor" "a closed standard input" sh -c "dedup --exact <&-"
if [ "$(id -u)" -ne 0 ] || command -v setpriv >/dev/null; then
    as= && [ "$(id -u)" -ne 0 ] || as="setpriv --reuid=65534 --clear-groups"
    chmod 755 "$T" && mkdir "$T/ro" && : >"$T/ro/x" && chmod 444 "$T/ro/x" && chmod 555 "$T/ro"
    fails 1 "ro/y: Permission denied" "a folder that is not ours" $as "$BIN/dedup" --exact -o "$T/ro/y" "$T/some.jsonl"
    chmod 777 "$T/ro"
    fails 1 "ro/x: Permission denied" "a file that its owner protects is not replaced" $as "$BIN/dedup" --exact -o "$T/ro/x" "$T/some.jsonl"
else
    skip "a folder that is not ours" "neither an ordinary user nor setpriv"
fi
is "nothing unfinished is left" "$(left "$T/o")" 0

# ---- a full disk ----
mkdir "$T/small"
if mount -t tmpfs -o size=256k none "$T/small" 2>/dev/null; then
    trap 'umount "$T/small"; rm -rf "$T"' EXIT
    echo old >"$T/small/x"
    for call in "dedup --exact" "$tagged" "dedup --exact --removed $T/small/r --url"; do
        fails 1 "No space left" "$call: a full disk" $call -o "$T/small/x" "$T/many.jsonl"
    done
    is "what was there stays" "$(cat "$T/small/x"; ls "$T/small")" "old
x"
    bpe-train -q --vocab-size 280 -o "$T/v" "$T/some.jsonl"
    fails 1 "No space left" "tokenize: a full disk" tokenize -q --tokenizer "$T/v" -o "$T/small/s" "$T/many.jsonl"
    tokenize -q --tokenizer "$T/v" -o "$T/s" "$T/many.jsonl"
    fails 1 "No space left" "mixshard: a full disk" mixshard -q x=1:"$T/s" --tokens 200000 --seq-len 16 -o "$T/small/m"
    fails 1 "No space left" "bpe-train: a full disk" sh -c "head -c 250000 /dev/zero >$T/small/fill; bpe-train -q --vocab-size 400 -o $T/small/v $T/some.jsonl"
    is "no shard, vocabulary or unfinished file is left" "$(find "$T/small" -name '*.tmp-*' -o -name '*.bin' -o -name '*.idx' -o -name tokenizer.json)" ""
    umount "$T/small"
    trap 'rm -rf "$T"' EXIT
else
    skip "a full disk" "a tmpfs can't be mounted here"
fi

# ---- no memory ----
if nm "$BIN/dedup" 2>/dev/null | grep -q __asan_init; then
    skip "a line that memory does not hold" "the address sanitizer takes addresses"
else
    fails 1 "^dedup: out of memory" "a line that memory does not hold" sh -c "ulimit -v 100000; head -c 200000000 /dev/zero | tr '\\0' ' ' | dedup --exact -j 1"
fi

# ---- ends by signal ----
endless() { while :; do cat "$T/some.jsonl"; done; }
mkdir "$T/k"
for signal in TERM:15 INT:2 HUP:1 USR1:10; do
    number=${signal#*:} signal=${signal%:*}
    mkfifo "$T/feed"
    # A shell starts background programs with SIGINT ignored; env puts it back.
    env --default-signal=INT dedup --url -o "$T/k/out" "$T/feed" &
    pid=$!
    { cat "$T/many.jsonl"; sleep 5; } >"$T/feed" 2>/dev/null &
    feeder=$!
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ "$(left "$T/k")" -gt 0 ] && break; sleep 0.1; done
    is "SIG$signal: an unfinished file" "$(left "$T/k")" 1
    kill -s $signal $pid
    wait $pid
    is "SIG$signal ends it as a signal does" $? $((128 + number))
    is "SIG$signal leaves nothing" "$(ls "$T/k")" ""
    kill $feeder 2>/dev/null
    wait $feeder 2>/dev/null
    rm -f "$T/feed"
done
echo old >"$T/k/out"
bad=0
for wait in 0.01 0.02 0.03 0.05 0.08 0.12; do
    dedup --exact -o "$T/k/out" "$T/many.jsonl" &
    pid=$!
    sleep $wait
    kill -s KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ "$(cat "$T/k/out")" = old ] || cmp -s "$T/k/out" "$T/many.jsonl" || bad=$((bad + 1))
done
is "kill -9: the old file or the whole new one" $bad 0

# ---- closed pipes ----
closed() { # closed NAME COMMAND…: the reader goes away; the program says nothing and ends by SIGPIPE
    name=$1
    shift
    { "$@" 2>"$T/.err"; echo $? >"$T/status"; } | head -n 1 >/dev/null
    is "a closed pipe: $name" "$(cat "$T/status" "$T/.err")" 141
}
closed dedup dedup --exact "$T/many.jsonl"
closed qfilter $tagged "$T/many.jsonl"
closed "dedup, SIGPIPE ignored by its parent" env --ignore-signal=PIPE dedup --exact "$T/many.jsonl"
mkdir "$T/p"
{ dedup --exact --removed "$T/p/removed" "$T/many.jsonl"; } | head -n 1 >/dev/null
is "a closed pipe: the other output's unfinished file goes" "$(left "$T/p")" 0
done_testing
