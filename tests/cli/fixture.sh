# Sourced by the test of the manual's examples: small real inputs under the names that the pages use, made from this project's
# own prose and code.

# documents SOURCE FILE...: a document for each paragraph of some length
documents() {
    perl -MJSON::PP -MEncode -e 'my $json = JSON::PP->new->canonical->utf8; my $source = shift;
        for my $file (@ARGV) { open my $f, "<", $file or die; local $/; my $k = 0; (my $name = $file) =~ s{.*/}{};
            for my $p (split /\n\s*\n/, decode("UTF-8", <$f>)) { $p =~ s/\s+$//; next if length $p < 120;
                print $json->encode({id => "$name/" . ++$k, text => "$p\n", source => $source, url => "https://example.org/$source/$name/$k"}), "\n" } }' "$@"
}
# tasks KIND FIRST LAST: records in which a program is told from prose
tasks() {
    perl -MJSON::PP -e 'my ($kind, $first, $last) = @ARGV; my $json = JSON::PP->new->canonical->utf8; my @texts;
        for my $s (["general.jsonl", "English"], ["code.jsonl", "C"]) { open my $f, "<", $s->[0] or die; my $n = 0;
            while (<$f>) { my $t = decode_json($_)->{text}; $t =~ s/\s+/ /g; $texts[$n++]{$s->[1]} = substr $t, 0, 60 } }
        for my $i ($first .. $last) { for my $right ("English", "C") { my $wrong = $right eq "C" ? "English" : "C"; my $text = $texts[$i % 40]{$right};
            my $q = "Which language is this? $text"; my $id = "$i-$right";
            my %r = (chat => {messages => [{role => "user", content => $q}, {role => "assistant", content => $right}]}, prompt => {prompt => $q},
                pair => {prompt => $q, chosen => $right, rejected => $wrong}, ranking => {prompt => $q, responses => [$right, $wrong, "I do not know"]},
                match => {context => $q, target => $right, task => "language"}, choices => {context => "$text\nThis is", choices => ["English", "C"], answer => $right eq "C" ? 1 : 0});
            print $json->encode({id => $id, %{$r{$kind}}}), "\n" } }' "$@"
}
# sweep TABLE: a training log for each run of a table
sweep() {
    awk 'NR > 1 { d = "sweep/run-" NR; system("mkdir -p " d); printf "{\"step\":1,\"params\":%s,\"loss\":9}\n{\"step\":2,\"params\":%s,\"tokens\":%s,\"flops\":%s,\"loss\":%s,\"final\":true}\n", $1, $1, $2, $3, $4 >(d "/log.jsonl")
        close(d "/log.jsonl") }' "$1"
}

# fixture_make DIR: fills it, from the project's root
fixture_make() (
    project=$(pwd)
    mkdir -p "$1/shards" && cd "$1" || exit 1
    p=$project
    documents general "$p/README.md" "$p/LICENSE" "$p"/man/*.[17] "$p"/tests/reference/README.md >general.jsonl
    documents code "$p"/cmd/*/*.c "$p"/libcommon/base/*.[ch] "$p"/libcommon/io/*.[ch] "$p"/libcommon/train/*.[ch] >code.jsonl
    documents math "$p"/kernels/cpu/*.c "$p"/cmd/scalefit/*.c >math.jsonl
    documents multi "$p"/tests/cli/*.t >multi.jsonl
    { cat general.jsonl code.jsonl; head -n 5 general.jsonl; } >docs.jsonl
    head -n 40 general.jsonl >general-test.jsonl
    # A crawl has pages of several paragraphs, copies of some, menus and addresses.
    perl -MJSON::PP -e 'my $json = JSON::PP->new->canonical->utf8; my @p; for my $file (@ARGV) { open my $f, "<", $file or die; local $/;
        push @p, grep { /[.]$/ && length > 150 } map { s/\s+/ /gr =~ s/^ | $//gr } split /\n\s*\n/, <$f> }
        for my $k (0 .. @p / 3 - 1) { print $json->encode({id => "page-$k", url => "https://example.org/page/$k", text => join("", map { "$_\n" } @p[3 * $k .. 3 * $k + 2])}), "\n" }' \
        "$p/LICENSE" "$p/README.md" "$p/tests/reference/README.md" >pages.jsonl
    { cat pages.jsonl general.jsonl; head -n 3 pages.jsonl
        printf '%s\n' '{"id":"menu","url":"https://ads.example.net/a","text":"Home\nAbout\nHome\nAbout\nHome\nAbout\n"}' \
            '{"id":"mail","url":"https://example.org/contact","text":"Write to someone@example.com or to 203.0.113.9 for the sources of the programs.\n"}'
    } >web.jsonl
    gzip -k web.jsonl docs.jsonl
    perl -ne 'print "$1\n" if /"text":"((?:[^"\\]|\\.)*)"/' docs.jsonl | sed 's/\\[nt]/ /g; s/\\"/"/g' >docs.txt
    head -n 200 docs.txt | awk '{ print "__label__" (NR % 2 ? "good" : "bad"), $0 }' >labelled.txt
    # In the place of the model that tells 176 languages.
    for i in 1 2 3 4 5 6 7 8; do
        echo "__label__en the house and the garden are of the old man with number $i"
        echo "__label__de das Haus und der Garten sind von dem alten Mann mit Nummer $i"
    done >languages.txt
    qfilter train -q --epoch 50 -o lid.176.bin languages.txt || exit 1
    echo ads.example.net >domains.txt
    printf 'casino\n' >words.txt
    bpe-train -q --vocab-size 1024 --chat-template -o vocab general.jsonl code.jsonl || exit 1
    for s in general code math multi; do tokenize -q --tokenizer vocab -o shards/$s $s.jsonl || exit 1; done
    mixshard -q general=0.1:shards/general code=0.9:shards/code --tokens 150k --seq-len 128 --holdout 2000 --max-epochs 2 --seed 1 -o mix || exit 1
    scalefit shape -q --params 1e5 --vocab 1024 --head-dim 16 --seq-len 128 --bos 1019 --eos 1023 >config.json
    pretrain -q --model-config config.json --tokenizer vocab --data mix/train --seq-len 128 --batch-tokens 2048 --tokens 100k --lr 5e-3 --warmup 5 -o run || exit 1
    tasks chat 0 29 >chats.jsonl
    tasks chat 30 39 >chats-dev.jsonl
    tasks pair 0 19 >preferences.jsonl
    tasks pair 30 34 >preferences-dev.jsonl
    tasks ranking 0 19 >rankings.jsonl
    tasks ranking 30 34 >rankings-dev.jsonl
    tasks prompt 0 9 >prompts.jsonl
    tasks match 30 39 >test.jsonl
    tasks choices 30 39 >choices.jsonl
    echo '{"dataset_path": "org/questions", "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{context}}", "doc_to_choice": "choices", "doc_to_target": "answer"}' >questions.yaml
    sft -q --model run --epochs 16 --batch-size 8 --lr 3e-3 -o chat chats.jsonl || exit 1
    rmtrain -q --model chat --epochs 1 --lr 1e-3 -o reward rankings.jsonl || exit 1
    generate -q --model chat --samples 4 --max-tokens 8 --seed 1 prompts.jsonl | rmtrain --score --model reward -q >scored.jsonl || exit 1
    cp "$project/tests/data/isoflop.tsv" runs.tsv
    awk 'BEGIN { print "run\tflops\tparams\ttokens\tquiz_bpb\tquiz_acc"; for (i = 0; i < 16; i++) { c = i < 14 ? 1e18 * 2 ^ i : 1e23 * 5 ^ (i - 14); x = 30 * c ^ -0.07 * (1 + 0.01 * sin(9 * i))
        printf "%s\t%g\t%g\t%g\t%.6f\t%.6f\n", i < 14 ? "small-" i : "large-" i, c, sqrt(c / 120), sqrt(c / 120) * 20, x, 0.25 + 0.6 / (1 + exp(12 * (x - 1))) + 0.004 * cos(7 * i) } }' >tasks.tsv
    awk 'BEGIN { srand(5); print "w_general\tw_math\tw_code\tw_multi\tloss_general\tloss_math\tloss_code"; for (i = 0; i < 24; i++) { s = 0; for (k = 1; k < 5; k++) s += w[k] = rand() ^ 2
        for (k = 1; k < 5; k++) { w[k] /= s; printf "%.4f\t", w[k] } for (k = 1; k < 4; k++) printf "%.5f%s", 2 + k / 5 + exp(-2 * w[k] + 0.2 * w[4]) + 0.01 * rand(), k < 3 ? "\t" : "\n" } }' >mixes.tsv
    sweep runs.tsv
)
