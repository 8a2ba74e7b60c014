# A run goes on with the data that it was started with: shards and records that were replaced under their names are refused, and ranks that
# read other data than the first too.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_chats 24
tokenize --tokenizer "$T/v" -o "$T/a" "$T/d.jsonl"
# As many documents and tokens of the same lengths, in another order of letters.
tr 'a-z' 'b-za' <"$T/d.jsonl" | sed 's/"je":/"id":/; s/"ufyu":/"text":/' >"$T/other.jsonl"
P="pretrain -q --device cpu --model-config $T/two.json --tokenizer $T/v --data $T/s --data b=2:$T/a --seq-len 32 --batch-tokens 128 --lr 3e-4 --save-every 2 --peak-flops 1e12"
# A run that stops in the middle: it is left with its second checkpoint.
half() {
    rm -rf "$T/run"
    "$@" -o "$T/run" || return 1
    rm -rf "$T/run/final" "$T/run/done" "$T/run"/step-00000008
    ln -sfn step-00000006 "$T/run/latest"
}
ok "a run" half $P --steps 8
is "knows the content of both shards" "$(grep -c '"xxh3": "[0-9a-f]\{16\}"' "$T/run/data.json")" 2
cp -a "$T/run" "$T/kept"
tokenize --tokenizer "$T/v" -o "$T/a2" "$T/other.jsonl"
cp "$T/a.bin" "$T/kept.bin"
# One token of the second shard, with the size and the time of the old file.
printf '\001\000' | dd of="$T/a.bin" bs=2 seek=50 conv=notrunc 2>/dev/null
touch -r "$T/kept.bin" "$T/a.bin"
fails 1 "run: the run was started with other data than $T/a has now; give another -o" "one token that has changed" $P --steps 8 -o "$T/run"
fails 1 "other data than $T/a has now" "on a grid too" $P --steps 8 --pp 2 -o "$T/run"
[ "$no_mpi" ] && skip "under mpirun" "$no_mpi" || fails 1 "other data than $T/a has now" "under mpirun" $mpirun -n 2 $P --steps 8 --dp 2 -o "$T/run"
cp "$T/kept.bin" "$T/a.bin"
ok "with the old content it goes on, whatever the file's time" $P --steps 8 -o "$T/run"
rm "$T/kept/data.json"
ok "and so does a run that does not know it" $P --steps 8 -o "$T/kept"
same "to the same bits" "$T/run/final/model.safetensors" "$T/kept/final/model.safetensors"
cp "$T/a2.bin" "$T/a.bin"
cp "$T/a2.idx" "$T/a.idx"
ok "one that has ended asks no more" $P --steps 8 -o "$T/run"
ok "--val may change" sh -c "$P --steps 8 --val $T/s -o $T/val && rm -rf $T/val/final $T/val/done && ln -sfn step-00000006 $T/val/latest && $P --steps 8 --val $T/a -o $T/val"

pretrain -q --device cpu --model-config "$T/two.json" --tokenizer "$T/v" --data "$T/s" --seq-len 32 --batch-tokens 128 --steps 1 --save-every 0 -o "$T/base"
post="-q --device cpu --model $T/base --batch-size 6 --max-length 64 --rows 128 --epochs 2 --save-every 2 --peak-flops 1e12"
for tool in sft dpo rmtrain; do
    file=$T/$([ $tool = sft ] && echo chat || echo pairs).jsonl
    ok "$tool" half $tool $post "$file"
    sed '3s/3 even/5 even/' "$file" >"$T/edited.jsonl"
    fails 1 "other data than $T/edited.jsonl has now" "$tool: a record that was edited" $tool $post -o "$T/run" "$T/edited.jsonl"
    cp "$file" "$T/moved.jsonl"
    ok "$tool goes on with the same records from another file" $tool $post -o "$T/run" "$T/moved.jsonl"
done

# Two machines that have other shards under one name: here two processes in folders of their own.
mkdir "$T/one" "$T/two"
for i in one two; do cp "$T/s.bin" "$T/s.idx" "$T/$i/"; done
printf '\001\000' | dd of="$T/two/s.bin" bs=2 seek=50 conv=notrunc 2>/dev/null
for rank in 0 1; do
    (cd "$T/$([ $rank = 0 ] && echo one || echo two)" && LMPIPE_MEET=$meet LMPIPE_RANK=$rank LMPIPE_RANKS=2 pretrain -q --device cpu --model-config "$T/two.json" --data s \
        --seq-len 32 --batch-tokens 128 --steps 2 --dp 2 --comm-timeout 60 -o "$T/apart" 2>"$T/says.$rank") &
done
wait
is "ranks that have other data say so once" "$(cat "$T/says.0" "$T/says.1" | grep -c '^pretrain: rank 1 (host .*) has other data than rank 0 .* under the same names')" 1
done_testing
