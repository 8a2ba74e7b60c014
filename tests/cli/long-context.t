# The recipe that lengthens context: what its needles look like, and when its gates open.
. "$(dirname "$0")/tap.sh"
command -v bash >/dev/null || skip_all "no bash"
for i in $(seq 400); do
    echo "{\"id\":\"$i\",\"text\":\"Line number $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers. The other half of it speaks of rivers, of hills and of the sea.\"}"
done >"$T/d.jsonl"

# Needles.
N="perl pipelines/needles 60 2000"
$N 1 <"$T/d.jsonl" >"$T/needles"
is "needles: the same seed gives the same documents" "$($N 1 <"$T/d.jsonl" | cksum)" "$(cksum <"$T/needles")"
ok "another gives others" test "$($N 2 <"$T/d.jsonl" | cksum)" != "$(cksum <"$T/needles")"
is "as many as asked for, with something to cut off" "$(sed 's/.*"text":"//; s/"}$//' "$T/needles" | awk 'length >= 2500 && length < 2900' | grep -c .)" 60
ok "no name that lmeval asks for" sh -c "! grep -Eq 'number of (London|Paris|Rome|Berlin|Madrid|Vienna|Athens|Dublin) ' $T/needles"
is "a name has one number, said before and after three quarters" "$(perl -ne 's/.*"text":"//; my (%n, %c, %first, %last); while (/number of (\w+) is (\d)/g) {
    $bad++ if exists $n{$1} && $n{$1} != $2; $n{$1} = $2; $c{$1}++; $first{$1} //= pos; $last{$1} = pos }
    $bad++ if !%n || grep { $c{$_} < 2 || $c{$_} > 4 || $last{$_} < 1400 || $last{$_} > 2150 || $first{$_} >= $last{$_} } keys %n; END { print $bad + 0 }' "$T/needles")" 0
is "half and more have one name" "$(perl -ne 'my %n = map { $_ => 1 } /number of (\w+) is/g; $one += keys %n == 1; END { print $one > 27 && $one < 50 ? "so" : $one }' "$T/needles")" so
is "and no other digit" "$(sed 's/.*"text":"//; s/magic number of [A-Za-z]* is [0-9]\.//g' "$T/needles" | grep -c '[0-9]')" 0

# Gates, on a model that learns nothing: what opens them is asked for.
R=$T/road
mkdir -p "$R/split" "$R/mix"
cp "$T/d.jsonl" "$R/split/general.train.jsonl"
head -n 40 "$T/d.jsonl" >"$R/split/general.test.jsonl"
bpe-train -q --vocab-size 400 -o "$R/vocab" "$T/d.jsonl"
tokenize -q --tokenizer "$R/vocab" -o "$R/mix/train" "$T/d.jsonl"
tokenize -q --tokenizer "$R/vocab" -o "$R/mix/heldout-general" "$R/split/general.test.jsonl"
scalefit shape -q --params 2e4 --vocab 400 --head-dim 16 --aspect 24 --seq-len 128 --eos 399 >"$R/config.json"
pretrain -q --device cpu --model-config "$R/config.json" --tokenizer "$R/vocab" --data "$R/mix/train" --seq-len 64 --batch-tokens 512 --steps 4 --save-every 0 -o "$R/pretrain"
export LENGTHS="128 192" TOKENS=2000 FIRST=3000 BATCH=512 PORTIONS=2 RECOVERED=9 JOBS=1 REACH=128
mv "$R/split/general.train.jsonl" "$R/away"
fails 1 "general.train.jsonl: No such file" "text that is not there" bash pipelines/long-context "$R" "$T/open"
mv "$R/away" "$R/split/general.train.jsonl"
ok "gates that are open at once" sh -c "FOUND=0 bash pipelines/long-context '$R' '$T/open' >'$T/log'"
like "are passed with one portion each" "$(cut -c11- "$T/log" | tr '\n' ' ')" \
    "begin .*128 +portion 1, .*needles found [01]\.[0-9]+: the gate opens 192 +portion 1, .*the gate opens done +the model lies in $T/open/192/1/final"
like "the last model has the last length and the base for it" "$(tr -d '\n ' <"$T/open/192/1/final/config.json")" '"max_position_embeddings":192.*"rope_theta":22500000'
is "the first stage has FIRST tokens in half batches, the others TOKENS" "$(tail -qn 1 "$T"/open/128/1/log.jsonl "$T"/open/192/1/log.jsonl | sed 's/{"step":\([0-9]*\),"tokens":\([0-9]*\).*/\1 \2/' | tr '\n' ' ')" "12 3072 6 2304 "
like "the second has the needles of both" "$(tr -d '\n ' <"$T/open/192/1/options.json")" 'needle-192=0\.3333[0-9]*:[^"]*/192/needles.*needle-128=0\.1666[0-9]*:[^"]*/128/needles'
is "documents fill samples" "$(od -An -v -tu2 -w384 "$T/open/192/needles.bin" | awk '{print $NF}' | sort -u | wc -l)" 1
like "the learning rate is 0.4 of the model's own, twice in the first stage" "$(tr -d '\n ' <"$T/open/128/1/options.json")$(tr -d '\n ' <"$T/open/192/1/options.json")" '"lr":0\.00024,.*"lr":0\.00012,'
printf 'then\n' >>"$T/open/128/1/log.jsonl"
ok "run again" sh -c "FOUND=0 bash pipelines/long-context '$R' '$T/open' >'$T/log2'"
is "it trains nothing again" "$(tail -n 1 "$T/open/128/1/log.jsonl")" then
fails 2 "final is no run whose learning rate could be read: give LR" "a model that is no run" env MODEL="$R/pretrain/final" bash pipelines/long-context "$R" "$T/bare"
status=0
FOUND=1.1 bash pipelines/long-context "$R" "$T/shut" >"$T/log" 2>"$T/err" || status=$?
is "a gate that never opens ends the road" "$status $(ls "$T/shut" | tr '\n' ' ')$(ls "$T/shut/128" | tr '\n' ' ')" "1 128 1 2 needles.bin needles.idx "
like "and says so" "$(tail -n 1 "$T/log")" "128 +the gate stayed closed for 2 portions"
ok "its second portion went on from the first, on other samples" grep -q "\"init\": \"$T/shut/128/1\"" "$T/shut/128/2/options.json"
done_testing
