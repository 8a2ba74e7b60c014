# pipelines/rounds on a tiny road: two rounds, a table, a picture, and nothing done twice.
. "$(dirname "$0")/tap.sh"
command -v bash >/dev/null || { echo "1..0 # SKIP no bash"; exit 0; }
perl -MJSON::PP -e 1 2>/dev/null || { echo "1..0 # SKIP no Perl module JSON::PP"; exit 0; }
W=$T/w
mkdir -p "$W/tasks"
for m in base sft; do mkdir -p "$W/$m"; cp -r tests/data/models/road "$W/$m/final"; : >"$W/$m/done"; done
perl -e 'my @w = (["int x;", "C"], ["Das ist ein Satz.", "German"], ["print x", "Python"], ["the cat sat", "English"]);
    for my $k (["prompts-1", 24], ["prompts-2", 16], ["dev", 12], ["test", 12]) { open my $f, ">", "$ARGV[0]/$k->[0].jsonl" or die;
        for my $i (1 .. $k->[1]) { my ($t, $a) = @{$w[$i % 4]}; my $q = "Which language is this?\\n$t $i"; my $h = "{\"id\":\"$k->[0]/$i\",\"task\":\"language\",";
            print $f $k->[0] =~ /prompts/ ? "$h\"prompt\":\"$q\",\"answer\":\"$a\"}\n" : $k->[0] eq "dev" ? "$h\"messages\":[{\"role\":\"user\",\"content\":\"$q\"},{\"role\":\"assistant\",\"content\":\"$a\"}]}\n" : "$h\"context\":\"$q\",\"target\":\"$a\"}\n" } }' "$W/tasks"
cp "$W/tasks/dev.jsonl" "$W/tasks/sft.jsonl"
R="bash pipelines/rounds $W 2"
SAMPLES=4 $R >"$T/out" 2>"$T/err" || cat "$T/out" "$T/err" >&2
is "the table has the first model and two rounds" "$(cut -f 1 "$W/rounds/rounds.tsv" | tr '\n' ' ')" "round 0 1 2 "
is "with every figure" "$(awk -F'\t' 'NR > 1 {for (i = 4; i <= 12; i++) if ($i !~ /^-?[0-9.e-]+$/) bad++} NF != 12 {bad++} END {print bad + 0}' "$W/rounds/rounds.tsv")" 0
is "the first model does not diverge from itself" "$(awk -F'\t' '$1 == 0 {print $10 + 0}' "$W/rounds/rounds.tsv")" 0
is "the second round begins at the best so far" "$(cat "$W/rounds/round-2/from")" "$(for m in sft rounds/round-1/sft rounds/round-1/dpo; do
    f=$W/rounds/scores/$(echo "${m#rounds/}" | tr / -); [ ! -s "$f" ] || echo "$(cut -d' ' -f1 "$f") $W/$m"; done | sort -k1,1gr -s | sed 's/^[^ ]* //;q')"
ok "the best is a model" test -s "$W/rounds/best/model.safetensors"
if command -v gnuplot >/dev/null; then
    like "scores, answers, rewards and divergence are drawn" "$(grep -o '<text.*' "$W/rounds/rounds.svg" | tr '\n' ' ')" 'True check.*Mean reward.*Answers.*Divergence'
else
    skip "scores, answers, rewards and divergence are drawn" "no gnuplot"
fi
before=$(cat "$W/rounds/rounds.tsv" "$W"/rounds/round-*/*/log.jsonl | cksum)
touch "$T/mark"
SAMPLES=4 $R >"$T/out" 2>&1
is "run again it does nothing again" "$(cat "$W/rounds/rounds.tsv" "$W"/rounds/round-*/*/log.jsonl | cksum) $(find "$W/rounds/round-1" "$W/rounds/round-2" -newer "$T/mark" -type f ! -name lock | wc -l | tr -d ' ')" "$before 0"
done_testing
