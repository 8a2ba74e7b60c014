# Ids and merges of the reference tokenizers, on the project's shared vectors where they are.
. "$(dirname "$0")/tap.sh"
S=../shared/data/tokenizers
[ -d $S ] || skip_all "../shared is not here"
numbers() { sed 's/.*"ids":\[\([^]]*\)\].*/\1/; s/ //g'; }
for n in gpt2 cl100k o200k qwen3 deepseek_v3 mistral_nemo llama2; do
    for k in ordinary special; do
        p=; [ $k = special ] && p=--parse-special
        tokenize --tokenizer $S/$n.tokenizer.json.gz $p --ids $S/vectors-$n.$k.jsonl.gz | numbers >"$T/got"
        zcat $S/vectors-$n.$k.jsonl.gz | numbers >"$T/want"
        [ -s "$T/want" ] || echo "no vectors" >"$T/want"
        same "$n, $k: $(wc -l <"$T/want") strings" "$T/got" "$T/want"
    done
done
# Hashes that llama.cpp's converter lists for published vocabularies: bpe-train's registration line is of this text.
for known in gpt2:3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454 qwen3:e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea; do
    is "the converter's hash of ${known%%:*}" "$(tokenize --tokenizer $S/${known%%:*}.tokenizer.json.gz --ids tests/data/converter.jsonl |
        sed 's/.*"ids":\(.*\)}/\1/; s/,/, /g' | tr -d '\n' | sha256sum | cut -d' ' -f1)" "${known#*:}"
done
for f in $S/train-*.merges.gz; do
    n=$(basename "$f" .merges.gz) c=${n%.*} p=${n##*.}
    [ "$p" = nosplit ] && p=none
    bpe-train -q --vocab-size 30000 --pattern "$p" --text --keep-newlines --alphabet seen --special none -o "$T/v" "$S/$c.txt.gz"
    sed -n '/"merges": \[/,$ s/^      \["\(.*\)", "\(.*\)"\],*$/\1 \2/p' "$T/v/tokenizer.json" | sed 's/\\"/"/g; s/\\\\/\\/g' >"$T/got"
    zcat "$f" | sed 1d >"$T/want"
    same "merges of $n" "$T/got" "$T/want"
done
done_testing
