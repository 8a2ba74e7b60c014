#!/bin/sh
# Writes tests/data/fasttext: small models by fastText's own tool (Debian: fasttext) and its probabilities of some lines: hierarchical
# softmax, one-vs-all, and quantised models with and without pruned n-grams.
set -e
cd "$(dirname "$0")/../.."
out=tests/data/fasttext
mkdir -p $out
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
for tool in dedup generate lmeval mixshard pretrain scalefit tokenize; do
    sed -n '/^\./!{s/[^A-Za-z. ]/ /g; /[a-z].* .*[a-z]/p;}' man/$tool.1 | head -n 60 | sed "s/^/__label__$tool /"
done >"$T/lines"
sed -n 's/^__label__[a-z]* //; 1~16p' "$T/lines" | head -n 20 >"$T/asked"
train() { fasttext supervised -input "$T/lines" -output "$T/$1" -thread 1 -epoch 100 -verbose 0 -dim 4 -loss "$2" $3 >/dev/null; rm "$T/$1.vec"; }
train hs hs '-minCount 2'
train ova ova "-minCount 2 -lr 0.5 -minCountLabel 1"
train quantised softmax '-minn 2 -maxn 3 -wordNgrams 2 -bucket 600'
train pruned hs '-minn 2 -maxn 3 -wordNgrams 2 -bucket 2000'
fasttext quantize -input "$T/lines" -output "$T/quantised" -verbose 0 >/dev/null
fasttext quantize -input "$T/lines" -output "$T/pruned" -qnorm -cutoff 300 -verbose 0 >/dev/null
cp "$T/hs.bin" "$T/ova.bin" "$T/quantised.ftz" "$T/pruned.ftz" $out
cp "$T/asked" $out/lines.txt
for m in hs.bin ova.bin quantised.ftz pruned.ftz; do
    fasttext predict-prob $out/$m $out/lines.txt 1 | sed "s/__label__//; s/^/$m /" | tr ' ' '\t'
done >$out/golden.tsv
