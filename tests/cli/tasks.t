# lmeval: lm-evaluation-harness's tasks: its numbers (tests/data/tasks, by tests/reference/task_check.py), and what is refused.
. "$(dirname "$0")/tap.sh"
D=$PWD/tests/data
M=$D/models/road
if ! make -s features B="${B:-build}" | grep 'YAML: yes' >/dev/null; then
    skip "lm-evaluation-harness's tasks" "this build reads no YAML"
    done_testing
    exit
fi
E="lmeval -q --model $M"
# compare WAY TASK OPTION…: each number of the golden values within 2e-5 of its size, and what came of each document.
compare() {
    way=$1 task=$2
    shift 2
    $E --task "$D/tasks/$task.yaml" --json --bootstrap 2000 --log-samples "$T/log" "$@" >"$T/out"
    perl -MJSON::PP -e '
        my ($golden, $items, $task, $way, $out, $log) = @ARGV;
        my (%got, $bad, $n);
        open my $f, "<", $out or die;
        while (<$f>) { my $o = decode_json($_); $got{"$o->{metric}\t" . ($o->{filter} // "none")} = $o }
        sub near { my ($a, $b, $e) = @_; return defined $a && abs($a - $b) <= $e * (abs($b) > 1 ? abs($b) : 1) }
        open $f, "<", $golden or die;
        while (<$f>) {
            chomp;
            my ($t, $w, $m, $k, $v, $e) = split /\t/;
            next unless $t eq $task && $w eq $way;
            my $o = $got{"$m\t$k"};
            $n++;
            next if $o && near($o->{value}, $v, 2e-5) && ($e eq "-" ? !defined $o->{stderr} : near($o->{stderr}, $e, 2e-4));
            $bad++;
            print "# $m $k: got ", $o ? "$o->{value} ± " . ($o->{stderr} // "-") : "nothing", ", wanted $v ± $e\n";
        }
        open $f, "<", $items or die;
        open my $l, "<", $log or die;
        while (<$f>) {
            chomp;
            my ($t, $w, $at, @want) = split /\t/;
            next unless $t eq $task && $w eq $way;
            my $o = decode_json(scalar <$l>);
            my @got = $o->{loglikelihoods} ? (@{$o->{loglikelihoods}}, @{$o->{unconditional} // []}) : ();
            if ($task eq "rolling") { my $s = 0; $s += $_ for @got; @got = ($s) }
            $n++;
            my $same = @got == @want;
            # The harness adds up the tokens of a text in f32.
            $same &&= abs($got[$_] - $want[$_]) <= 1e-4 + ($task eq "rolling" ? 1e-6 * abs $want[$_] : 0) for 0 .. $#got;
            if (defined $o->{response}) {
                (my $text = $want[0]) =~ s/\\n/\n/g;
                $same = $o->{response} eq $text || $text =~ /\\/;
            }
            next if $same;
            $bad++;
            print "# document $at: got @got, wanted @want\n";
        }
        exit($bad || !$n ? 1 : 0)' "$D/tasks/golden.tsv" "$D/tasks/golden-items.tsv" "$task" "$way" "$T/out" "$T/log"
}
for task in binary choices fill last-word letters numbers rolling several; do
    ok "$task: the harness's numbers and log-likelihoods" compare plain $task
done
for task in choices fill letters numbers several; do
    ok "$task with five examples" compare five $task --num-fewshot 5 --limit 6
    ok "$task as a chat" compare chat $task --chat --system "Be brief."
    ok "$task as a chat of one turn" compare one-turn $task --chat --fewshot-in-one-turn
done
# What a context is computed once for is what it is alone: a single choice shares nothing.
$E --task "$D/tasks/letters.yaml" --json --log-samples "$T/together" >/dev/null
perl -MJSON::PP -ne 'my $o = decode_json($_); for my $i (0 .. 3) { my %p = %$o; $p{choices} = {text => $o->{choices}{text}, label => $o->{choices}{label}}; $p{place} = 0; $p{only} = "ABCD" =~ /.{$i}(.)/ && $1; print encode_json(\%p), "\n" }' \
    "$D/tasks/questions.jsonl" >"$T/alone.jsonl"
sed 's/include: .*/include: base.yaml/' "$D/tasks/letters.yaml" >"$T/alone.yaml"
sed "s|train.jsonl|$D/tasks/train.jsonl|; s|questions.jsonl|alone.jsonl|; s|doc_to_choice: .*|doc_to_choice: \"{{[only]}}\"|" "$D/tasks/_letters_base.yaml" >"$T/base.yaml"
sed -i 's|^fewshot_config: .*|fewshot_config: {sampler: first_n, doc_to_choice: ["A", "B", "C", "D"]}|' "$T/base.yaml"
$E --task "$T/alone.yaml" --log-samples "$T/one-by-one" >/dev/null
ok "choices that share their context score as they do alone" perl -MJSON::PP -e '
    my @x; for my $file (@ARGV) { open my $f, "<", $file or die; push @x, [map { @{decode_json($_)->{loglikelihoods}} } <$f>] }
    exit 1 if @{$x[0]} != 48 || @{$x[1]} != 48;
    abs($x[0][$_] - $x[1][$_]) < 2e-5 or exit 1 for 0 .. 47' "$T/together" "$T/one-by-one"

# A group's numbers are its tasks', weighted by their documents or not.
$E --task "$D/tasks/_group.yaml" --json --bootstrap 0 --data fill:test="$D/tasks/fill.jsonl" >"$T/group"
like "a group's and its groups' numbers" "$(perl -MJSON::PP -e 'my %v; while (<>) { my $o = decode_json($_); $v{$o->{task}}{$o->{metric}} = [@$o{qw(value n)}] }
    my ($c, $l, $f) = map { $v{$_}{acc} } qw(choices letters fill); my $sum = 0; $sum += 2 * $_->[0] * $_->[1] for $c, $l, $f;
    print abs($v{"several_kinds::texts_and_letters"}{acc}[0] - ($l->[0] + $f->[0]) / 2) < 1e-12 ? "even " : "uneven ", abs($v{several_kinds}{acc}[0] - $sum / 76) < 1e-12 && abs($v{"several_kinds::again::inner"}{acc}[0] - ($c->[0] + $l->[0]) / 2) < 1e-12 ? "weighted " : "not ", $v{several_kinds}{acc_norm}[1]' "$T/group")" "^even weighted 48$"
mkdir "$T/g"
printf '%s\n' 'group: g' 'task: [one, nothing]' >"$T/g/g.yaml"
printf '%s\n' 'task: one' 'tag: t' 'doc_to_text: !function utils.text' >"$T/g/one.yaml"
fails 1 "one.yaml:3: 'doc_to_text' has the tag !function" "a group's task in which Python runs" $E --task "$T/g/g.yaml"
printf '%s\n' 'group: g' 'task: [nothing]' >"$T/g/g.yaml"
fails 1 "g.yaml: 'task' names 'nothing', which no definition beside it or below has" "a group of a task that is not there" $E --task "$T/g/g.yaml"
printf '%s\n' 'group: g' 'task: []' >"$T/g/g.yaml"
fails 1 "the group 'g' holds no task" "a group of nothing" $E --task "$T/g/g.yaml"
echo '{"context":"a","target":" "}' >"$T/empty.jsonl"
fails 1 "empty.jsonl:1: no answer" "a record of --match without an answer" $E --match "$T/empty.jsonl"
printf '%s\n' 'group: g' 'task: [g]' >"$T/g/g.yaml"
fails 1 "groups hold each other without end" "a group that holds itself" $E --task "$T/g/g.yaml"
printf '%s\n' 'group: g' 'task: [{task: one, num_fewshot: 3}]' >"$T/g/g.yaml"
fails 1 "'num_fewshot' in a group is not known here" "what a group says otherwise of a task" $E --task "$T/g/g.yaml"

# What is not done here is refused by name and line.
task() { printf '%s\n' 'task: t' "dataset_path: json" "dataset_kwargs: {data_files: {test: $D/tasks/fill.jsonl}}" 'output_type: multiple_choice' 'test_split: test' \
    'doc_to_text: "{{before}}"' 'doc_to_choice: ["a", "b"]' 'doc_to_target: answer' "$@" >"$T/t.yaml"; }
refused() { # refused NAME PATTERN OPTION…
    name=$1 pattern=$2
    shift 2
    fails 1 "$pattern" "$name" $E --task "$T/t.yaml" "$@"
}
task 'process_docs: !function utils.process_docs'
refused "Python functions" "t.yaml:9: 'process_docs' has the tag !function"
task 'process_results: x'
refused "fields that are not known" "t.yaml:9: 'process_results' is a field that is not known here"
task 'metric_list: [{metric: acc}, {metric: bleu}]'
refused "metrics of another kind" "t.yaml:9: the metric 'bleu'"
task 'metric_list: [{metric: acc}, {metric: likelihood}]'
refused "metrics" "t.yaml:9: the metric 'likelihood'"
task 'filter_list: [{name: x, filter: [{function: regex}]}]'
refused "filters of choices" "t.yaml:9: 'filter_list' is known for"
sed -i 's/multiple_choice/generate_until/; /doc_to_choice/d' "$T/t.yaml"
sed -i 's/function: regex/function: format_span/' "$T/t.yaml"
refused "filters" "t.yaml:8: the filter 'format_span' is not known here"
sed -i 's/function: format_span/function: regex, regex_pattern: "("/' "$T/t.yaml"
refused "broken expressions" "t.yaml:8: regular expression '\\('"
sed -i '$d' "$T/t.yaml"
echo 'generation_kwargs: {do_sample: true}' >>"$T/t.yaml"
refused "sampling" "t.yaml:8: 'generation_kwargs' has 'do_sample'"
task 'repeats: 4'
refused "repeats" "t.yaml:9: 'repeats' other than 1"
task
sed -i 's/before}}/missing}}/' "$T/t.yaml"
refused "names that no document has" "fill.jsonl:1: 'doc_to_text': template, line 1: 'missing' is undefined"
sed -i 's/{{missing}}/{% x %}/' "$T/t.yaml"
refused "templates that are none" "t.yaml:6: 'doc_to_text': template, line 1: the statement 'x'"
task
sed -i 's/path: json/path: org\/set/' "$T/t.yaml"
refused "what would have to be fetched" "t.yaml:2: 'dataset_path' is not fetched: name local files by --data test=FILE"
ok "and taken with a local file" $E --task "$T/t.yaml" --data "test=$D/tasks/fill.jsonl"
ok "for one task alone" $E --task "$T/t.yaml" --data "t:test=$D/tasks/fill.jsonl" --data other:test=/nowhere
task 'num_fewshot: 20'
refused "more examples than there are" "fill.jsonl:1: 21 few-shot examples of 14|20 few-shot examples of 14"
# Documents: choices that are equal, answers that are none.
task
sed -i 's/doc_to_choice: .*/doc_to_choice: choices/; s|data_files: .*|data_files: {test: bad.jsonl}}|' "$T/t.yaml"
bad() { printf '%s\n' '{"before":"x","choices":["a","b"],"answer":1}' "$1" '{"before":"y","choices":["a","c"],"answer":0}' >"$T/bad.jsonl"; }
for case in '{"before":"x","choices":["a","b","a"],"answer":1}#choices 0 and 2 are equal' '{"before":"x","choices":["a","b"],"answer":2}#the answer 2 is none of the 2 choices' \
    '{"before":"x","choices":["a","b"],"answer":-1}#the answer -1 is none' '{"before":"x","choices":["a","b"]}#no answer' '{"before":"x","choices":["a",""],"answer":0}#choice 1 is empty' \
    '{"before":"x","choices":"ab","answer":0}#gives no list of choices' '{"before":"x","choices":["a",2],"answer":0}#choices must be strings' '{"before":"x#offset|unclosed|JSON' '[1]#not an object' \
    '{"before":"x","choices":["a","b"],"answer":"c"}#the answer c is none of'; do
    bad "${case%%#*}"
    refused "named by line: ${case#*#}" "bad.jsonl:2: .*(${case#*#})"
done
out=$(lmeval --model "$M" --task "$T/t.yaml" --on-error skip --json 2>&1 | tr '\n' ' ')
like "or skipped and counted" "$out" '1 malformed records skipped, the first: .*bad.jsonl:2: .*the answer c.*"n":2'
printf '%s\n' '{"context":"x","choices":["a","a"],"answer":1}' >"$T/equal.jsonl"
fails 1 "equal.jsonl:1: choices 0 and 1 are equal" "equal choices in a file of our own" $E --choices "$T/equal.jsonl"
printf '%s\n' '{"context":"x","choices":["a","b"]}' >"$T/none.jsonl"
fails 1 "none.jsonl:1: no 'answer'" "and no answer" $E --choices "$T/none.jsonl"
# Several definitions, read alone.
task 'process_docs: !function utils.process_docs'
cp "$T/t.yaml" "$T/python.yaml"
fails 1 "python.yaml:9: 'process_docs' has the tag !function" "what would be refused" lmeval --check --task "$T/python.yaml" --task "$D/tasks/numbers.yaml"
like "and what would not" "$(lmeval --check --task "$T/python.yaml" --task "$D/tasks/numbers.yaml" --task "$D/tasks/_group.yaml" 2>"$T/err")" "^numbers: exact_match,strict exact_match,flexible of test, 1 examples of train"
# Rows as the definition's Python has made them.
ok "rows that Python has made" $E --task "$T/python.yaml" --processed
task
sed -i 's/^doc_to_text.*/doc_to_text: !function utils.text/' "$T/t.yaml"
refused "a column that Python should have made" "t.yaml:6: Python's: the rows need its values as a column 'doc_to_text'" --processed
perl -MJSON::PP -ne 'my $o = decode_json($_); $o->{doc_to_text} = $o->{before}; print encode_json($o), "\n"' "$D/tasks/fill.jsonl" >"$T/made.jsonl"
$E --task "$T/t.yaml" --processed --data test="$T/made.jsonl" --json >"$T/made"
task
$E --task "$T/t.yaml" --json >"$T/written"
ok "a column stands for its function" cmp "$T/made" "$T/written"
task 'process_results: !function utils.results'
refused "Python that rows are not enough for" "t.yaml:9: 'process_results' has the tag !function where rows" --processed

# Answers given: the harness's filters and metrics (tests/data/answers, by tests/reference/answers_check.py).
A=$D/answers
for task in letters translate; do
    lmeval --task "$A/$task.yaml" --responses "$A/$task-responses.jsonl" --json --bootstrap 1000 --log-samples "$T/log" >"$T/out"
    ok "$task: the harness's numbers of given answers" perl -MJSON::PP -e '
        my ($task, $golden, $out) = @ARGV;
        open my $f, "<", $out or die;
        my %got;
        while (<$f>) { my $o = decode_json($_); $got{"$o->{metric}\t" . ($o->{filter} // "none")} = $o }
        sub near { my ($a, $b) = @_; return defined $a && abs($a - $b) <= 1e-9 * (abs($b) > 1 ? abs($b) : 1) }
        my ($n, $bad) = (0, 0);
        open $f, "<", $golden or die;
        while (<$f>) {
            chomp;
            my ($t, $m, $k, $v, $e) = split /\t/;
            next if $t ne $task;
            my $o = $got{"$m\t$k"};
            $n++;
            next if $o && near($o->{value}, $v) && ($e eq "-" ? !defined $o->{stderr} : near($o->{stderr}, $e));
            $bad++;
            print "# $m,$k: got ", $o ? "$o->{value} ± " . ($o->{stderr} // "-") : "nothing", ", wanted $v ± $e\n";
        }
        exit($bad || !$n)' "$task" "$A/golden.tsv" "$T/out"
done
lmeval --task "$A/letters.yaml" --responses "$A/letters-responses.jsonl" --log-samples "$T/log" >/dev/null
ok "what each filter makes of each answer" perl -MJSON::PP -e '
    open my $g, "<", $ARGV[0] or die; open my $l, "<", $ARGV[1] or die;
    my ($n, $bad) = (0, 0);
    while (<$g>) {
        my ($want, $got) = (decode_json($_), decode_json(scalar <$l>));
        for (sort keys %$want) {
            $n++;
            next if $got->{$_}{answer} eq $want->{$_};
            $bad++;
            print "# document $., $_ of \"$got->{response}\": $got->{$_}{answer}, wanted $want->{$_}\n";
        }
    }
    exit($bad || $n != 1200)' "$A/letters-filtered.jsonl" "$T/log"
head -n 5 "$A/letters-responses.jsonl" >"$T/few.jsonl"
fails 1 "few.jsonl: 5 answers for letters, whose last document is number 120" "fewer answers than documents" lmeval --task "$A/letters.yaml" --responses "$T/few.jsonl"
echo '{"response":3}' >"$T/few.jsonl"
fails 1 "few.jsonl:1: needs 'response', a text" "an answer that is no text" lmeval --task "$A/letters.yaml" --responses "$T/few.jsonl"
fails 1 "fill.yaml: --responses is for output_type generate_until" "answers of a task that asks for none" lmeval --task "$D/tasks/fill.yaml" --responses "$T/few.jsonl"
echo '{"question":"q","answer":["a","b"]}' >"$T/translate.jsonl"
fails 1 "translate.jsonl:1: 'doc_to_target' gives a list, and the metric 'bleu' takes one" "a metric that takes one right answer" lmeval --task "$A/translate.yaml" --data test="$T/translate.jsonl" --responses "$T/few.jsonl"
done_testing
