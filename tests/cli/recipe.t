# Recipes of pretrain: ramps of batch and length, phases of data, averaged weights; and what the log becomes for TensorBoard.
. "$(dirname "$0")/tap.sh"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/a.jsonl"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"$((i * 31 % 97)) + $((i * 17 % 89)) = $((i * 31 % 97 + i * 17 % 89)); $i * 2 = $((i * 2))\"}"; done >"$T/b.jsonl"
bpe-train -q --vocab-size 320 -o "$T/v" "$T/a.jsonl" "$T/b.jsonl"
tokenize --tokenizer "$T/v" -o "$T/a" "$T/a.jsonl"
tokenize --tokenizer "$T/v" -o "$T/b" "$T/b.jsonl"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json" 2>/dev/null
P="pretrain -q --device cpu --model-config $T/c.json --lr 3e-3 --min-lr 3e-3 --warmup 5 --schedule constant --seed 3 --seq-len 32 --batch-tokens 128"
column() { sed -n "s/.*\"$2\":\([^,}]*\).*/\1/p" "$1/log.jsonl" | head -n "${3:-1000}" | tr '\n' ' '; }
losses() { column "$1" loss "$2"; }

# Ten steps of 128 tokens, ten of 256, five of 256 in samples of 64, five of 512: 7,680 tokens.
R="--tokens 7680 --batch-ramp 1280:256 --batch-ramp 5120:512 --length-ramp 3840:64"
like "--dry-run prints the stages" "$($P --dry-run $R | tr '\n' ' ')" \
    "steps +30 tokens +7680 .*from step 0 +10 steps of 4 samples of 32 tokens from step 10 +10 steps of 8 samples of 32 tokens from step 20 +5 steps of 4 samples of 64 tokens from step 25 +5 steps of 8 samples of 64 tokens"
ok "a run with ramps" $P $R --data a=1:"$T/a" --data b=1:"$T/b" --save-every 4 -o "$T/ramp"
$P --steps 10 --data a=1:"$T/a" --data b=1:"$T/b" -o "$T/plain"
is "is the plain run up to the first border" "$(losses "$T/ramp" 10)" "$(losses "$T/plain" 10)"
is "and has 30 steps" "$(grep -c . "$T/ramp/log.jsonl") $(column "$T/ramp" tokens | sed 's/.* \([0-9]* \)$/\1/')" "30 7680 "
for after in step-00000008 step-00000020 step-00000024; do
    # As a kill just after that checkpoint leaves it.
    $P $R --data a=1:"$T/a" --data b=1:"$T/b" --save-every 4 --keep 0 -o "$T/cut"
    for s in "$T"/cut/step-*; do [ "${s##*/}" \> "$after" ] && rm -rf "$s"; done
    rm -rf "$T/cut/done" "$T/cut/final"
    $P $R --data a=1:"$T/a" --data b=1:"$T/b" --save-every 4 --keep 0 -o "$T/cut"
    same "resumed from $after it ends in the same bits" "$T/cut/final/model.safetensors" "$T/ramp/final/model.safetensors"
    rm -rf "$T/cut"
done
$P $R --dp 3 --data a=1:"$T/a" --data b=1:"$T/b" -o "$T/ranks"
like "three ranks give its losses" "$(losses "$T/ramp" | awk -v other="$(losses "$T/ranks")" '{ n = split(other, o, " "); for (i = 1; i <= NF; i++) { d = $i / o[i] - 1; d = d < 0 ? -d : d; if (d > most) most = d } print (n == 30 && NF == 30 && most < 1e-5 ? "equal" : "apart " most) }')" "^equal"
fails 2 "batch of 200 tokens is no multiple of samples of 32" "a batch that samples do not fill" $P --steps 9 --batch-ramp 100:200 --data "$T/a" -o "$T/x"
fails 2 "batch-ramp 50:128: comes before" "borders out of order" $P --steps 9 --batch-ramp 100:256 --batch-ramp 50:128 --data "$T/a" -o "$T/x"
is "borders and values are numbers as elsewhere" "$($P --dry-run --tokens 7680 --batch-ramp 1.28k:256 --batch-ramp 0.00512M:512 --length-ramp 3.84k:64)" "$($P --dry-run $R)"
fails 2 "batch-ramp 1k:4.5: no positive whole number" "a batch that is no whole number" $P --steps 9 --batch-ramp 1k:4.5 --data "$T/a" -o "$T/x"
fails 2 "length-ramp 5x64" "a border without a colon" $P --steps 9 --length-ramp 5x64 --data "$T/a" -o "$T/x"

# Samples that are longer and then shorter: a model that learns nothing has a loss for each place, here of 16 tokens.
Z="$P --lr 0 --min-lr 0 --data $T/a --save-every 0"
$Z --seq-len 16 --batch-tokens 16 --steps 8 -o "$T/places"
$Z --batch-tokens 32 --batch-ramp 32:48 --length-ramp 32:48 --batch-ramp 80:16 --length-ramp 80:16 --tokens 112 -o "$T/falling"
is "shorter samples go on behind what longer ones have read" "$(losses "$T/falling" | cut -d ' ' -f 3,4)" "$(losses "$T/places" | cut -d ' ' -f 7,8)"

# A phase of one source is a run of that source; sources go on where an earlier stage left them.
$P --steps 12 --data "$T/b" -o "$T/only"
$P --steps 12 --data a:"$T/a" --data b:"$T/b" --phase 0:b=1 -o "$T/first"
is "a phase of one source is a run of it alone" "$(losses "$T/first")" "$(losses "$T/only")"
$P --steps 24 --data a:"$T/a" --data b:"$T/b" --phase 0:b=1 --phase 768:b=3 -o "$T/goes"
$P --steps 24 --data "$T/b" -o "$T/long"
is "a source goes on where the phase before left it" "$(losses "$T/goes")" "$(losses "$T/long")"
fails 1 "phase 0:c=1: 'c' is the name of no --data" "a phase that names no source" $P --steps 9 --data a:"$T/a" --phase 0:c=1 -o "$T/x"
fails 1 "phase 0:a=1,a=2: 'a' stands twice" "a weight given twice" $P --steps 9 --data a:"$T/a" --phase 0:a=1,a=2 -o "$T/x"
fails 1 "phase 100000:c=1: 'c' is the name of no --data" "a phase that no step reaches" $P --steps 9 --data a:"$T/a" --phase 0:a=1 --phase 100000:c=1 -o "$T/x"
fails 1 "'a=-1' is no NAME=WEIGHT" "a weight that is none" $P --steps 9 --data a:"$T/a" --phase 0:a=-1 -o "$T/y"

# A mix that changes while the run goes on, which a kill interrupts; a run that begins with its record is the same.
echo '{"a":3,"b":1}' >"$T/mix.json"
M="$P --steps 600 --save-every 5 --data a:$T/a --data b:$T/b --mix-file $T/mix.json"
$M -o "$T/mixed" &
pid=$!
for i in $(seq 400); do [ -e "$T/mixed/latest" ] && break; sleep 0.02; done
echo '{"a":1,"b":4}' >"$T/mix.new" && mv "$T/mix.new" "$T/mix.json"
for i in $(seq 400); do [ "$(grep -c . "$T/mixed/mix.jsonl" 2>/dev/null)" = 2 ] && break; sleep 0.02; done
echo '{"a":1,"c":4}' >"$T/mix.new" && mv "$T/mix.new" "$T/mix.json"
sleep 0.05
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
like "a mix file that does not fit is named" "$($M -o "$T/mixed" 2>&1)" "mix.json: 'c' is the name of no --data; the mix stays as it is"
like "each change is recorded" "$(tr '\n' ' ' <"$T/mixed/mix.jsonl")" '^\{"step":0,"mix":\{"a":3,"b":1\}\} \{"step":[0-9]+,"mix":\{"a":1,"b":4\}\} $'
mkdir "$T/again"
cp "$T/mixed/mix.jsonl" "$T/again"
$M --dp 1 -o "$T/again" 2>/dev/null
same "a run that was killed is the run that begins with its record" "$T/mixed/final/model.safetensors" "$T/again/final/model.safetensors"
mkdir "$T/without" && cp "$T/mixed/mix.jsonl" "$T/without"
$(echo "$M" | sed 's/ --mix-file [^ ]*//') -o "$T/without"
same "a record rules a run without --mix-file too" "$T/without/final/model.safetensors" "$T/again/final/model.safetensors"
mkdir "$T/phased" && cp "$T/mixed/mix.jsonl" "$T/phased"
fails 1 "mix.jsonl and --phase both rule" "a record beside phases" $P --steps 9 --data a:"$T/a" --data b:"$T/b" --phase 0:a=1 -o "$T/phased"
mkdir "$T/wrong" && printf '{"step":0,"mix":{"a":1}}\n{"step":5,"mix":{"q":1}}\n' >"$T/wrong/mix.jsonl"
fails 1 "mix.jsonl:2: 'q' is the name of no --data" "a record of other sources" $M -o "$T/wrong"
# A rank that did not follow would train on other text: its losses would differ by percents, not by roundings (which a small rate keeps small).
for ranks in 1 2; do
    mkdir "$T/follow$ranks"
    printf '{"step":0,"mix":{"a":3,"b":1}}\n{"step":20,"mix":{"a":1,"b":4}}\n' >"$T/follow$ranks/mix.jsonl"
    $M --lr 3e-4 --min-lr 3e-4 --steps 60 --dp $ranks -o "$T/follow$ranks" 2>/dev/null
done
is "all ranks follow" "$(losses "$T/follow2" | awk -v other="$(losses "$T/follow1")" '{ n = split(other, o, " "); for (i = 1; i <= 60; i++) { d = $i / o[i] - 1; d = d < 0 ? -d : d; if (d > most) most = d } print (n == 60 && NF == 60 && most < 1e-5 ? "equal" : "apart " most) }')" "equal"
fails 2 "both rule the mix" "a mix file beside phases" $M --phase 0:a=1 -o "$T/x"
echo '{"a":1,"b":' >"$T/mix.json"
fails 1 "mix.json: malformed JSON$" "a mix file that is malformed when the run begins" $M -o "$T/x"
ok "which leaves nothing begun" test ! -e "$T/x"
rm "$T/mix.json"
fails 1 "mix.json: No such file" "a mix file that is not there" $M -o "$T/x"
mkdir "$T/gone" && cp "$T/follow1/mix.jsonl" "$T/gone"
like "one that has gone since the run began ends no run" "$($M --lr 3e-4 --min-lr 3e-4 --steps 60 -o "$T/gone" 2>&1)" "mix.json: No such file.*; the mix stays as it is"
same "which goes on with its record" "$T/gone/final/model.safetensors" "$T/follow1/final/model.safetensors"

# A rule that raises what lags: its steps are those of the evaluations, its shares stay within their bounds.
U="$P --lr 3e-4 --min-lr 3e-4 --steps 24 --save-every 4 --keep 0 --eval-every 3 --eval-tokens 512 --data a=1:$T/a --data b=3:$T/b --val a:$T/a --val b:$T/b"
mixes() { sed 's/.*"step":\([0-9]*\),"mix":{"a":\([0-9.]*\),"b":\([0-9.]*\)},"raised":"\(.\)".*"target":\([0-9.]*\)}/\1 \2 \3 \4 \5/' "$1/mix.jsonl"; }
W="$U --mix-rule a=0.5,b=100 --mix-step 0.2 --mix-limit 1.5"
ok "a run with a rule" $W -o "$T/rule"
is "what lags is raised at each evaluation, up to its bound" "$(mixes "$T/rule" | awk '{ printf "%d %.4f %.4f %s %s, ", $1, $2, $3, $4, $5 }')" "3 0.3000 0.7000 a 0.5, 6 0.3600 0.6400 a 0.5, 9 0.3750 0.6250 a 0.5, "
$U -o "$T/unruled"
is "the steps before it are those of a run without" "$(losses "$T/rule" 3)" "$(losses "$T/unruled" 3)"
ok "and not the later ones" test "$(column "$T/rule" loss 6)" != "$(column "$T/unruled" loss 6)"
for after in 00000004 00000008 00000016; do
    rm -rf "$T/rcut" && cp -r "$T/rule" "$T/rcut"
    for s in "$T"/rcut/step-*; do [ "${s##*/}" \> "step-$after" ] && rm -rf "$s"; done
    rm -rf "$T/rcut/done" "$T/rcut/final"
    # As a kill leaves the record: whole, cut off in a line, or without what was decided later.
    case $after in 00000004) head -c -20 "$T/rule/mix.jsonl" >"$T/rcut/mix.jsonl" ;; 00000008) head -n 2 "$T/rule/mix.jsonl" >"$T/rcut/mix.jsonl" ;; esac
    $W -o "$T/rcut"
    is "resumed from step $((1$after - 100000000)) it decides the same" "$(mixes "$T/rcut")" "$(mixes "$T/rule")"
    same "and ends in the same bits" "$T/rcut/final/model.safetensors" "$T/rule/final/model.safetensors"
done
$U --mix-rule a=0.5,b=0.2 --mix-limit 1.5 --mix-step 0.2 --dp 2 -o "$T/both" 2>/dev/null
ok "the one furthest behind is raised, never out of bounds" sh -c "sed 's/.*\"a\":\([0-9.]*\),.*/\1/' $T/both/mix.jsonl | awk '{ if (\$1 < 1 / 6 - 1e-9 || \$1 > 0.375 + 1e-9) bad = 1 } END { exit bad || NR == 0 }'"
$U --mix-rule a=100,b=100 -o "$T/met"
ok "where targets are met the mix stays" test ! -e "$T/met/mix.jsonl"
rm -rf "$T/rcut/done"
fails 1 "started with --eval-every 3, not 4" "a rule's evaluations are part of the run" $W --eval-every 4 -o "$T/rcut"
fails 1 "mix-rule c=1: 'c' is the name of no --data" "a target of no source" $U --mix-rule c=1 -o "$T/x"
fails 1 "'b' is the name of no --val" "a target that nothing measures" $P --steps 9 --data b:"$T/b" --val a:"$T/a" --eval-every 3 --mix-rule b=1 -o "$T/x"
fails 1 "'a=x' is no NAME=LOSS" "a target that is no number" $U --mix-rule a=x -o "$T/x"
fails 1 "'a' stands twice" "a target given twice" $U --mix-rule a=1,a=2 -o "$T/x"
fails 1 "'' is no NAME=LOSS" "a rule without a target" $U --mix-rule "" -o "$T/x"
fails 2 "eval-every are needed" "a rule without evaluations" $P --steps 9 --data "$T/a" --mix-rule a=1 -o "$T/x"
fails 2 "mix-rule and --phase both rule the mix" "a rule beside phases" $U --mix-rule a=1 --phase 0:a=1 -o "$T/x"

# Options that do not go together are refused before a run begins that would then keep to them.
fails 2 "min-lr 0.003 is more than --lr 0.001" "a rate that would rise" $P --lr 1e-3 --steps 9 --data "$T/a" -o "$T/early"
for tool in sft dpo rmtrain; do fails 2 "min-lr 0.1 is more than --lr 0.01" "of $tool too" $tool --model "$T/plain" --lr 0.01 --min-lr 0.1 -o "$T/early" "$T/a.jsonl"; done
fails 2 "decay-share of the steps, which is 0" "an average of nothing" $P --average-every 2 --decay-share 0 --steps 9 --data "$T/a" -o "$T/early"
ok "and nothing is begun" test ! -e "$T/early"

# Averaged weights.
S="$P --schedule wsd --min-lr 0 --decay-share 0.5 --steps 20 --data $T/a"
$S --average-every 20 -o "$T/one"
same "the average of the last step alone is the final model" "$T/one/average/model.safetensors" "$T/one/final/model.safetensors"
$S --average-every 2 --save-every 3 -o "$T/avg"
ok "the average of five steps is another" sh -c "! cmp -s $T/avg/average/model.safetensors $T/avg/final/model.safetensors"
same "and leaves the final model as it is" "$T/avg/final/model.safetensors" "$T/one/final/model.safetensors"
$S --average-every 2 --save-every 3 --keep 0 -o "$T/acut"
rm -rf "$T/acut/step-00000018" "$T/acut/step-00000020" "$T/acut/done" "$T/acut/final" "$T/acut/average"
$S --average-every 2 --save-every 3 --keep 0 -o "$T/acut"
same "a resumed run has the same average" "$T/acut/average/model.safetensors" "$T/avg/average/model.safetensors"
rm -rf "$T/acut/done" "$T/acut/step-00000020"
printf xxxxxxxx | dd of="$T/acut/step-00000018/trainer/average.safetensors" bs=1 seek=1000 conv=notrunc 2>/dev/null
like "a damaged average is found too" "$($S --average-every 2 --save-every 3 --keep 0 -o "$T/acut" 2>&1)" "average.safetensors: damaged"

# TensorBoard: the records' checksums (bit by bit here), steps and numbers.
events() { perl -e 'sub crc { my $c = 0xffffffff; for (unpack "C*", $_[0]) { $c ^= $_; for (1 .. 8) { $c = $c >> 1 ^ ($c & 1 ? 0x82f63b78 : 0) } } $c ^= 0xffffffff; (($c >> 15 | $c << 17) + 0xa282ead8) & 0xffffffff }
    binmode STDIN; local $/; my $d = <STDIN>; my ($at, $steps, $first) = (0, "", "");
    while ($at < length $d) { my $h = substr $d, $at, 8; my ($n, $c) = unpack "Q<V", substr $d, $at, 12; my $e = substr $d, $at + 12, $n; my $k = unpack "V", substr $d, $at + 12 + $n, 4;
        die "checksum" if $c != crc($h) || $k != crc($e);
        if ($e =~ /brain.Event:2$/) { $first = "version " } else { $steps .= ord(substr $e, 10, 1) . " "; $e =~ /\x0a\x04loss\x15(....)/s or die "no loss"; $last = unpack "f<", $1 } $at += 16 + $n }
    printf "%s%s%.6f\n", $first, $steps, $last' <"$1"; }
$P --steps 6 --save-every 2 --data "$T/a" --tensorboard "$T/tb" -o "$T/tbrun"
E="$T/tb/events.out.tfevents.lmpipe"
want="version 1 2 3 4 5 6 $(printf %.6f "$(column "$T/tbrun" loss | awk '{ print $6 }')")"
is "--tensorboard writes each step's numbers with right checksums" "$(events "$E")" "$want"
rm -rf "$T/tbrun/step-00000006" "$T/tbrun/done" "$T/tbrun/final" "$T/tb"
$P --steps 6 --save-every 2 --data "$T/a" --tensorboard "$T/tb" -o "$T/tbrun"
is "a resumed run has each step once" "$(events "$E")" "$want"

rm -rf "$T/tbrun/step-00000006" "$T/tbrun/done" "$T/tbrun/final"
$P --steps 6 --save-every 2 --data "$T/a" --tensorboard "$T/tb" --log - -o "$T/tbrun" >"$T/lines"
is "so has one whose log goes elsewhere" "$(events "$E") $(wc -l <"$T/lines")" "$want 2"
head -c -5 "$E" >"$T/cut" && cp "$T/cut" "$E"
rm -rf "$T/tbrun/step-00000006" "$T/tbrun/done" "$T/tbrun/final"
mkfifo "$T/fifo"
cat "$T/fifo" >"$T/lines" &
timeout 100 $P --steps 6 --save-every 2 --data "$T/a" --tensorboard "$T/tb" --log "$T/fifo" -o "$T/tbrun"
wait $!
is "or to a pipe, behind a record that a kill cut off" "$(events "$E") $(wc -l <"$T/lines")" "$want 2"
if [ -e /dev/full ]; then
    $P --steps 6 --save-every 0 --data "$T/a" --log /dev/full --tensorboard "$T/tbfull" -o "$T/tbfullrun" 2>/dev/null
    is "a log that finds no room leaves the events as they are" "$(events "$T/tbfull/events.out.tfevents.lmpipe")" "$want"
else
    skip "a log that finds no room leaves the events as they are" "no /dev/full"
fi

# Names of shards in logs and mixes.
for i in 1 2; do mkdir "$T/$i" && cp "$T/a.bin" "$T/$i/x\"y.bin" && cp "$T/a.idx" "$T/$i/x\"y.idx"; done
echo '{"x\"y":1}' >"$T/mix.json"
N="$P --steps 4 --save-every 2 --data $T/1/x\"y --data $T/2/x\"y --val $T/1/x\"y --val $T/2/x\"y --eval-every 4 --mix-file $T/mix.json -o $T/names"
$N && rm -r "$T/names/done" "$T/names/final" "$T/names/step-00000004"
ok "a run over shards of one name in two folders goes on" $N
keys() { tail -n 1 "$1" | perl -MJSON::PP -ne '$j = decode_json($_); print join " ", grep /y$/, sort keys %{$j->{mix} // $j}' | sed "s|$T/||g"; }
is "its record tells them apart" "$(keys "$T/names/mix.jsonl")" '2/x"y x"y'
is "and so does its log" "$(keys "$T/names/log.jsonl")" 'val_loss_2/x"y val_loss_x"y'
fails 1 "the name a is there twice" "a name given twice" $P --steps 1 --data a:"$T/a" --data a:"$T/b" -o "$T/x"

# Looking at a log.
like "--watch draws once where there is no terminal" "$(pretrain --watch "$T/tbrun" | head -n 1)" "^step 6 +tokens 768 +loss [0-9.]+ .*\(ended\)"
is "with as many rows as fit" "$(pretrain --watch "$T/ramp/log.jsonl" | wc -l)" 18
if command -v gnuplot >/dev/null; then
    ok "--plot draws runs" pretrain --plot "$T/curves.svg" "$T/ramp" "$T/tbrun/log.jsonl"
    like "as SVG" "$(head -c 300 "$T/curves.svg")" "<svg"
    awk 'BEGIN { for (i = 1; i <= 40; i++) printf "{\"step\":%d,\"tokens\":%d,\"loss\":%.3f,\"lr\":1,\"grad_norm\":1}\n", i, i * 4e5, 3 - i / 50 }' >"$T/far"
    mkdir -p "$T/a-folder-of-experiments/warm-up-of-a-hundred-steps-seed-7" && cp "$T/far" "$T/a-folder-of-experiments/warm-up-of-a-hundred-steps-seed-7/log.jsonl"
    head -n 1 "$T/far" >"$T/begun"
    pretrain --plot "$T/far.svg" "$T/a-folder-of-experiments/warm-up-of-a-hundred-steps-seed-7/log.jsonl" "$T/far"
    texts() { tr -d '\n' <"$1" | grep -o '<text>[^<]*<' | sed 's/<text> *//; s/<$//' | tr '\n' ' '; }
    like "tokens are written short enough to stand side by side" "$(texts "$T/far.svg")" ' 0 5M 10M 15M .* 0 5M 10M 15M '
    like "runs are told apart by the ends of long names" "$(texts "$T/far.svg")" '…[a-z-]*seed-7 '
    awk 'BEGIN { for (i = 1; i <= 20; i++) printf "{\"step\":%d,\"tokens\":%d,\"loss\":3,\"val_loss\":3,\"lr\":1,\"grad_norm\":1}\n", i, i * 450 }' >"$T/near"
    cp "$T/near" "$T/next" && pretrain --plot "$T/near.svg" "$T/near" "$T/next"
    like "thousands too" "$(texts "$T/near.svg")" ' 2k 4k 6k 8k '
    is "held-out stands in the key once" "$(texts "$T/near.svg" | grep -o held-out | wc -l)" 1
    pretrain --plot "$T/begun.svg" "$T/begun"
    is "a run of one step is a point in each panel, and one in the key" "$(grep -c "use xlink:href='#gpPt6'" "$T/begun.svg")" 4
    awk 'BEGIN { for (i = 1; i <= 60000; i++) printf "{\"step\":%d,\"tokens\":%d,\"loss\":%g,\"lr\":0.0003,\"grad_norm\":1}\n", i, i, i == 31234 ? 77 : 2 + i % 7 / 10 }' >"$T/days"
    pretrain --plot "$T/days.svg" "$T/days"
    ok "a long run's picture stays small" test "$(wc -c <"$T/days.svg")" -lt 300000
    like "and has its one spike" "$(texts "$T/days.svg")" ' 70 80 '
    like "a constant learning rate is read off its axis" "$(texts "$T/days.svg")" ' 0\.0003 0\.00035 '
    fails 1 "nowhere/x.svg: No such file" "a picture in a folder that is not there" pretrain --plot "$T/nowhere/x.svg" "$T/ramp"
    is "which does not come out elsewhere" "$(pretrain --plot "$T/nowhere/x.svg" "$T/ramp" 2>/dev/null | wc -c)" 0
else
    skip "--plot" "no gnuplot"
fi
printf '{"step":1,"tokens":1e12,"loss":1}\n{"step":2,"tokens":-1e12,"loss":2}\n{"step":3,"tokens":10,"loss":3}\n' >"$T/falls"
is "tokens that fall from line to line" "$(pretrain --watch "$T/falls" | tail -n 1 | tr -s ' ')" " 0 1e+12 tokens"
printf '{"step":1,"loss":2}\n{"step":2,"loss":1.5}\n' >"$T/bare"
is "a log without tokens" "$(pretrain --watch "$T/bare")" "step 2  loss 1.5000"
fails 2 "'$T/ramp': --watch shows one run" "--watch of two" pretrain --watch "$T/tbrun" "$T/ramp"
if script -qfec true /dev/null </dev/null >/dev/null 2>&1; then
    rows() { script -qfec "stty cols $1 rows $2; exec pretrain --watch $T/tbrun" /dev/null </dev/null | tr -d '\033\r' | awk -v columns="$1" '{ n += NR == 1 ? int((length($0) - length("[H[2J") - 1) / columns) + 1 : 1 } END { print n }'; }
    is "numbers and curve fit a small terminal" "$(rows 40 12) $(rows 30 9) $(rows 20 4)" "11 8 3"
    timeout 100 script -qfec "exec pretrain --watch $T/late" "$T/seen" </dev/null >/dev/null 2>&1 &
    for i in $(seq 400); do grep -qs 'late: not there yet' "$T/seen" && break; sleep 0.05; done
    $P --steps 2 --save-every 0 --data "$T/a" -o "$T/late"
    wait $!
    like "a terminal waits for a run that has not begun, until it ends" "$(tr -d '\033\r' <"$T/seen" | grep -c 'late: not there yet') $(grep -c '(ended)' "$T/seen")" "^[1-9][0-9]* 1$"
    # A warning while the bar stands in the terminal's line.
    echo '{"a":1}' >"$T/mix.json"
    timeout 100 script -qfec "exec pretrain ${P#pretrain -q} --steps 1000000 --save-every 0 --data a:$T/a --mix-file $T/mix.json -o $T/bar" "$T/seen" </dev/null >/dev/null 2>&1 &
    for i in $(seq 400); do grep -qs ' %, ' "$T/seen" && break; sleep 0.05; done
    rm "$T/mix.json"
    for i in $(seq 400); do grep -qs 'mix stays' "$T/seen" && break; sleep 0.05; done
    kill $! && wait
    like "a message takes the place of the bar" "$(tr '\r\033' '\n#' <"$T/seen" | grep 'mix stays')" '^#\[Kpretrain: warning: '
else
    skip "a terminal that waits for a run" "no script(1)"
fi
fails 1 "none: No such file" "a log that is not there" pretrain --watch "$T/none"
fails 2 "wants runs or logs" "--plot without any" pretrain --plot "$T/x.svg"
done_testing
